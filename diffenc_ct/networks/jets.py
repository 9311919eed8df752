"""A tensor together with its derivative with respect to one scalar, carried through a network side by side.

A network that is written for tensors and for jets gives, for a jet of its conditioning, its output and the output's
derivative in one pass of plain tensor operations:

    affine      W h + b   ->   W h + b,  W h'                    products   g h   ->   g h,  g' h + g h'
    functions   f(h)      ->   f(h),     f'(h) h'                what does not depend on the scalar stays a tensor

This is forward-mode differentiation as PyTorch has it, with fewer convolutions (PyTorch's are differentiated for
a tangent of their weights too, and for tangents that are zero), and `torch.compile` can digest it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Jet:
    """`value` and its derivative `rate`, of one shape (or broadcasting to one)."""

    value: Tensor
    rate: Tensor

    def each(self, function: Callable[[Tensor], Tensor]) -> "Jet":
        """A linear function of both."""
        return Jet(function(self.value), function(self.rate))

    # Operators take jets and numbers: torch.compile breaks its graph at those of a jet and a tensor.

    def __sub__(self, other: float) -> "Jet":
        return Jet(self.value - other, self.rate)

    def __rsub__(self, other: float) -> "Jet":
        return Jet(other - self.value, -self.rate)

    def __mul__(self, other: "Jet | float") -> "Jet":
        if isinstance(other, Jet):
            return Jet(self.value * other.value, self.rate * other.value + self.value * other.rate)
        return Jet(self.value * other, self.rate * other)

    def __truediv__(self, other: float) -> "Jet":
        return Jet(self.value / other, self.rate / other)

    def __getitem__(self, index: Any) -> "Jet":
        return Jet(self.value[index], self.rate[index])

    def __matmul__(self, other: "Jet") -> "Jet":
        return Jet(self.value @ other.value, self.rate @ other.value + self.value @ other.rate)

    def sin(self) -> "Jet":
        return Jet(self.value.sin(), self.value.cos() * self.rate)

    def cos(self) -> "Jet":
        return Jet(self.value.cos(), -self.value.sin() * self.rate)

    def tanh(self) -> "Jet":
        y = self.value.tanh()
        return Jet(y, (1 - y * y) * self.rate)

    def silu(self) -> "Jet":
        gate = self.value.sigmoid()
        return Jet(self.value * gate, gate * (1 + self.value * (1 - gate)) * self.rate)

    def softmax(self, dim: int) -> "Jet":
        y = self.value.softmax(dim)
        weighted = y * self.rate
        return Jet(y, weighted - y * weighted.sum(dim, keepdim=True))


def each(function: Callable[[Tensor], Tensor], h: Any) -> Any:
    """A linear function of a tensor, or of value and rate of a jet."""
    return h.each(function) if isinstance(h, Jet) else function(h)


def add(a: Any, b: Any) -> Any:
    """a + b: a jet where either is one."""
    if isinstance(a, Jet):
        return (
            Jet(a.value + b.value, a.rate + b.rate)
            if isinstance(b, Jet)
            else Jet(a.value + b, a.rate)
        )
    return add(b, a) if isinstance(b, Jet) else a + b


def affine(layer: nn.Module, h: Any) -> Any:
    """layer(h) for an affine layer: its bias does not reach the rate."""
    if not isinstance(h, Jet):
        return layer(h)
    return Jet(layer(h.value), _linear_part(layer, h.rate))


def _linear_part(layer: nn.Module, rate: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(rate, layer.weight, None, layer.stride, layer.padding)
    if isinstance(layer, nn.ConvTranspose2d):
        return F.conv_transpose2d(rate, layer.weight, None, layer.stride)
    if isinstance(layer, nn.Linear):
        return F.linear(rate, layer.weight)
    assert isinstance(layer, nn.Identity), layer
    return rate


def silu(h: Any) -> Any:
    """h sigmoid(h)."""
    return h.silu() if isinstance(h, Jet) else F.silu(h)


def dropout(layer: nn.Dropout, h: Any) -> Any:
    """layer(h), value and rate by the same mask."""
    if not isinstance(h, Jet):
        return layer(h)
    if not layer.training:
        return h
    mask = layer(torch.ones_like(h.value))
    return h.each(lambda a: a * mask)


def max_pool(h: Any) -> Any:
    """The largest of each 2x2 square; the rate is that of the largest value."""
    if not isinstance(h, Jet):
        return F.max_pool2d(h, 2)
    value, index = F.max_pool2d(h.value, 2, return_indices=True)
    rate = h.rate.flatten(2).gather(2, index.flatten(2)).view_as(value)
    return Jet(value, rate)


def concatenate(first: Any, second: Any, dim: int) -> Any:
    """torch.cat of tensors or jets; a tensor beside a jet has rate zero."""
    if not isinstance(first, Jet) and not isinstance(second, Jet):
        return torch.cat([first, second], dim)
    parts = [h if isinstance(h, Jet) else Jet(h, torch.zeros_like(h)) for h in (first, second)]
    return Jet(
        *(torch.cat(both, dim) for both in zip(*((h.value, h.rate) for h in parts), strict=True))
    )
