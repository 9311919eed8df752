"""Rates of networks that PyTorch's forward mode does not take as they are.

    fused attention     its kernels have one derivative only: its formula is taken in their place
    softmax             has a forward derivative, but one computed in place, so that it has no gradients itself
    an operation with a backward pass alone

For the last two the rate comes from two reverse passes: v -> v^T (df/dgamma) is linear in v, and its derivative in v,
summed over examples that depend each on its own gamma, is df/dgamma. LayerNorm is taken apart there: the third
derivative of PyTorch's own, which gradients of such a rate are, is wrong.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

Data = Float[Tensor, "batch *data"]


class Softmaxes(TorchFunctionMode):
    """Notices operations whose forward derivative has no gradients.

    Attributes:
        found: whether there was one.
    """

    found = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not torch.compiler.is_compiling():  # tracing needs no second look, and cannot take one
            # A function of functions, such as multi_head_attention_forward, comes here alone.
            name = getattr(func, "__name__", "")
            self.found |= any(part in name for part in ("softmax", "logsumexp", "attention"))
        return func(*args, **(kwargs or {}))


class _LayerNormByFormula(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        chosen = _layer_norm if func in (F.layer_norm, torch.layer_norm) else func
        return chosen(*args, **(kwargs or {}))


def _layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    axes = tuple(range(-len(normalized_shape), 0))
    centred = input - input.mean(axes, keepdim=True)
    scaled = centred * (centred.square().mean(axes, keepdim=True) + eps).rsqrt()
    scaled = scaled if weight is None else scaled * weight
    return scaled if bias is None else scaled + bias


@contextmanager
def attention_by_formula() -> Iterator[None]:
    """Without the fused kernels of attention, and without the fast path of MultiheadAttention in evaluation mode."""
    if torch.compiler.is_compiling():
        yield
        return
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def by_two_reverse_passes(
    function: Callable[[Data, Tensor], Data], x: Data, gamma: Float[Tensor, " batch"]
) -> tuple[Data, Data]:
    """A function's value and its derivative with respect to lambda = -gamma, with gradients where they are enabled.

    Args:
        function: function(x, gamma), of x's shape, where each example depends on its own gamma only.
        x: data.
        gamma: depths.
    """
    outer = torch.is_grad_enabled()
    with torch.enable_grad(), _LayerNormByFormula():
        gamma = gamma if gamma.requires_grad else gamma.requires_grad_()
        value = function(x, gamma)
        v = torch.zeros_like(value, requires_grad=True)
        (slope,) = torch.autograd.grad(value, gamma, v, create_graph=True, materialize_grads=True)
        (rate,) = torch.autograd.grad(slope.sum(), v, create_graph=outer, materialize_grads=True)
    return (value, -rate) if outer else (value.detach(), -rate)
