"""A tensor together with its derivative with respect to one scalar, carried through a network side by side.

A network that is written for tensors and for jets gives, for a jet of its conditioning, its output and the output's
derivative in one pass of plain tensor operations:

    affine      W h + b   ->   W h + b,  W h'                    products   g h   ->   g h,  g' h + g h'
    functions   f(h)      ->   f(h),     f'(h) h'                what does not depend on the scalar stays a tensor

This is forward-mode differentiation as PyTorch has it, with fewer convolutions (PyTorch's are differentiated for
a tangent of their weights too, and for tangents that are zero), and `torch.compile` can digest it.

The functions of this module take tensors and jets alike: of tensors they are PyTorch's own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Jet:
    """A tensor h and its derivative h' with respect to one scalar.

    Args:
        value: h, of any shape.
        rate: h', of the same shape or broadcasting to it.
    Example:
        >>> gamma = Jet(torch.zeros(2), torch.ones(2))
        >>> (gamma * 3).sin()  # sin(3 gamma), 3 cos(3 gamma)
        Jet(value=tensor([0., 0.]), rate=tensor([3., 3.]))
    """

    value: Float[Tensor, "*shape"]
    rate: Float[Tensor, "*#shape"]

    def each(self, function: Callable[[Tensor], Tensor]) -> "Jet":
        """A linear function of both.

        Args:
            function: linear, tensor -> tensor.
        Returns:
            f(h) and f(h').
        """
        return Jet(function(self.value), function(self.rate))

    # Operators take numbers, `@` takes jets: torch.compile breaks its graph at those of a jet and a tensor, which are
    # the functions `add` and `multiply` below.

    def __sub__(self, other: float) -> "Jet":
        return Jet(self.value - other, self.rate)

    def __rsub__(self, other: float) -> "Jet":
        return Jet(other - self.value, -self.rate)

    def __mul__(self, other: float) -> "Jet":
        return Jet(self.value * other, self.rate * other)

    def __truediv__(self, other: float) -> "Jet":
        return Jet(self.value / other, self.rate / other)

    def __getitem__(self, index: tuple[slice | None, ...]) -> "Jet":
        return Jet(self.value[index], self.rate[index])

    def __matmul__(self, other: "Jet") -> "Jet":
        return Jet(self.value @ other.value, self.rate @ other.value + self.value @ other.rate)

    def sin(self) -> "Jet":
        """sin(h), cos(h) h'."""
        return Jet(self.value.sin(), self.value.cos() * self.rate)

    def cos(self) -> "Jet":
        """cos(h), -sin(h) h'."""
        return Jet(self.value.cos(), -self.value.sin() * self.rate)

    def tanh(self) -> "Jet":
        """y = tanh(h), (1 - y^2) h'."""
        y = self.value.tanh()
        return Jet(y, (1 - y * y) * self.rate)

    def silu(self) -> "Jet":
        """h g with g = sigmoid(h), g (1 + h (1 - g)) h'."""
        gate = self.value.sigmoid()
        return Jet(self.value * gate, gate * (1 + self.value * (1 - gate)) * self.rate)

    def softmax(self, dim: int) -> "Jet":
        """y = softmax(h), y h' - y sum(y h').

        Args:
            dim: the dimension over which y sums to one.
        Returns:
            Value and rate of h's shape.
        """
        y = self.value.softmax(dim)
        weighted = y * self.rate
        return Jet(y, weighted - y * weighted.sum(dim, keepdim=True))


TensorOrJet: TypeAlias = Tensor | Jet


def each(function: Callable[[Tensor], Tensor], h: TensorOrJet) -> TensorOrJet:
    """A linear function of a tensor, or of value and rate of a jet.

    Args:
        function: linear, tensor -> tensor.
        h: a tensor or a jet.
    Returns:
        f(h), and f(h') beside it for a jet.
    """
    return h.each(function) if isinstance(h, Jet) else function(h)


def add(a: TensorOrJet, b: TensorOrJet) -> TensorOrJet:
    """a + b, a' + b'.

    Args:
        a: a tensor or a jet.
        b: a tensor or a jet of a shape that broadcasts with a's.
    Returns:
        A jet where either is one.
    """
    if isinstance(a, Jet):
        if isinstance(b, Jet):
            return Jet(a.value + b.value, a.rate + b.rate)
        return Jet(a.value + b, a.rate)
    return add(b, a) if isinstance(b, Jet) else a + b


def multiply(a: TensorOrJet, b: TensorOrJet) -> TensorOrJet:
    """a b, a' b + a b'.

    Args:
        a: a tensor or a jet.
        b: a tensor or a jet of a shape that broadcasts with a's.
    Returns:
        A jet where either is one.
    """
    if isinstance(a, Jet):
        if isinstance(b, Jet):
            return Jet(a.value * b.value, a.rate * b.value + a.value * b.rate)
        return Jet(a.value * b, a.rate * b)
    return multiply(b, a) if isinstance(b, Jet) else a * b


def affine(layer: nn.Module, h: TensorOrJet) -> TensorOrJet:
    """W h + b, W h': the bias does not reach the rate.

    Args:
        layer: nn.Linear, a convolution, a transposed one (dense, undilated) or nn.Identity.
        h: a tensor or a jet, of the shape that the layer takes.
    Returns:
        layer(h), and the linear part of h' beside it for a jet.
    """
    if isinstance(h, Jet):
        return Jet(layer(h.value), _linear_part(layer, h.rate))
    y: Tensor = layer(h)
    return y


def _linear_part(layer: nn.Module, rate: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        convolve = (F.conv1d, F.conv2d, F.conv3d)[rate.ndim - 3]
        return convolve(rate, layer.weight, None, layer.stride, layer.padding)
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        grow = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rate.ndim - 3]
        return grow(rate, layer.weight, None, layer.stride)
    if isinstance(layer, nn.Linear):
        return F.linear(rate, layer.weight)
    assert isinstance(layer, nn.Identity), layer
    return rate


def silu(h: TensorOrJet) -> TensorOrJet:
    """h sigmoid(h).

    Args:
        h: a tensor or a jet.
    Returns:
        Of h's shape and kind.
    """
    return h.silu() if isinstance(h, Jet) else F.silu(h)


def dropout(layer: nn.Dropout, h: TensorOrJet) -> TensorOrJet:
    """m h, m h' with one mask m.

    Args:
        layer: says how many are dropped, and whether it is training.
        h: a tensor or a jet.
    Returns:
        Of h's shape and kind.
    """
    if not isinstance(h, Jet):
        y: Tensor = layer(h)
        return y
    if not layer.training:
        return h
    mask: Tensor = layer(torch.ones_like(h.value))
    return h.each(lambda a: a * mask)


def max_pool(
    h: Float[Tensor, "batch channels height width"] | Jet,
) -> Float[Tensor, "batch channels _ _"] | Jet:
    """The largest value of each 2x2 square, and that one's rate.

    Args:
        h: (batch, channels, height, width), a tensor or a jet; odd sides lose their last row or column.
    Returns:
        (batch, channels, height // 2, width // 2), of h's kind.
    """
    if not isinstance(h, Jet):
        return F.max_pool2d(h, 2)
    value, index = F.max_pool2d(h.value, 2, return_indices=True)
    rate = h.rate.flatten(2).gather(2, index.flatten(2)).view_as(value)
    return Jet(value, rate)


def concatenate(first: TensorOrJet, second: TensorOrJet, dim: int) -> TensorOrJet:
    """torch.cat of two; a tensor beside a jet has rate zero.

    Args:
        first: a tensor or a jet.
        second: a tensor or a jet, of first's shape except in `dim`.
        dim: along which they are joined.
    Returns:
        A jet where either is one.
    """
    if not isinstance(first, Jet) and not isinstance(second, Jet):
        return torch.cat([first, second], dim)
    a, b = _as_jet(first), _as_jet(second)
    return Jet(torch.cat([a.value, b.value], dim), torch.cat([a.rate, b.rate], dim))


def _as_jet(h: TensorOrJet) -> Jet:
    return h if isinstance(h, Jet) else Jet(h, torch.zeros_like(h))
