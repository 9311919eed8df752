"""silu(group_norm(x)) whose forward-mode derivative is fast and has a backward pass.

PyTorch differentiates group normalisation forwards by a dozen elementwise passes, and those backwards by three
dozen more; half of an encoder's evaluation with its rate went there. The Jacobian of the normalisation is
symmetric, J = (I - 11^T/M - p p^T/M)/s on the M values of a group (p the normalised values, s their deviation), so
its tangent J dx is what the fused backward kernel computes, and the chain of

    p = (x - mean)/s,    q = J dx,    u = w p + b,    du = w q,    y = silu(u),    dy = silu'(u) du

is short both ways. Results equal PyTorch's own to rounding; half-precision x is normalised in the weights' type.
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import FunctionCtx, once_differentiable

from diffenc_ct.networks.forward_mode import tangent, transformed
from diffenc_ct.networks.jets import Jet


def norm(
    layer: nn.GroupNorm, x: Float[Tensor, "batch channels *sides"] | Jet
) -> Float[Tensor, "batch channels *sides"] | Jet:
    """w p + b, w q: the normalisation alone.

    Args:
        layer: the normalisation, with weight w and bias b.
        x: (batch, channels, *sides), a tensor or a jet.
    Returns:
        Of x's shape and kind.
    """
    if not isinstance(x, Jet):
        y: Tensor = layer(x)
        return y
    by_group = x.each(lambda a: a.expand_as(x.value).reshape(len(a), layer.num_groups, -1))
    centred = by_group.each(lambda a: a - a.mean(-1, keepdim=True))
    scale = (centred.value.square().mean(-1, keepdim=True) + layer.eps).rsqrt()
    p = centred.value * scale
    q = (centred.rate - p * (p * centred.rate).mean(-1, keepdim=True)) * scale
    shape = (1, -1, *[1] * (x.value.ndim - 2))
    weight, bias = layer.weight.view(shape), layer.bias.view(shape)
    return Jet(p.view_as(x.value) * weight + bias, q.view_as(x.value) * weight)


def norm_silu(
    norm: nn.GroupNorm, x: Float[Tensor, "batch channels *sides"] | Jet
) -> Float[Tensor, "batch channels *sides"] | Jet:
    """silu(norm(x)), and its derivative beside it for jets and for forward-mode dual tensors.

    Args:
        norm: the normalisation, with weight and bias.
        x: (batch, channels, *sides), a tensor, a dual tensor or a jet.
    Returns:
        Of x's shape and kind.
    Example:
        >>> layer, x = nn.GroupNorm(2, 4), torch.randn(3, 4, 5)
        >>> torch.equal(norm_silu(layer, x), F.silu(layer(x)))
        True
        >>> norm_silu(layer, Jet(x, torch.ones(3, 4, 5))).rate.shape
        torch.Size([3, 4, 5])
    """
    if isinstance(x, Jet):
        return Jet(*_with_tangent(norm, x.value, x.rate.expand_as(x.value)))
    # torch.compile and the transforms of torch.func differentiate PyTorch's own functions only.
    if torch.compiler.is_compiling() or transformed(x) or (dx := tangent(x)) is None:
        return F.silu(norm(x))
    primal: Tensor = forward_ad.unpack_dual(x).primal  # type: ignore[no-untyped-call]
    y, dy = _with_tangent(norm, primal, dx)
    dual: Tensor = forward_ad.make_dual(y, dy)  # type: ignore[no-untyped-call]
    return dual


def _with_tangent(norm: nn.GroupNorm, x: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    y: tuple[Tensor, Tensor] = _NormSilu.apply(
        x, dx, norm.weight, norm.bias, norm.num_groups, norm.eps
    )
    return y


if TYPE_CHECKING:

    class _Context(FunctionCtx):
        """PyTorch's context with what the forward pass leaves on it for the backward pass."""

        types: tuple[torch.dtype, torch.dtype]
        groups: int
        sizes: tuple[int, int, int]
        saved_tensors: tuple[Tensor, ...]
else:
    _Context = FunctionCtx


class _NormSilu(torch.autograd.Function):
    """(x, dx) -> (y, dy) as above, with the backward pass of both outputs."""

    @staticmethod
    def forward(
        ctx: _Context, x: Tensor, dx: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> tuple[Tensor, Tensor]:
        ctx.types, kept = (x.dtype, dx.dtype), weight.dtype
        x, dx = x.to(kept).contiguous(), dx.to(kept).contiguous()
        batch, channels, size = x.shape[0], x.shape[1], x[0, 0].numel()
        p, mean, rstd = torch.native_group_norm(x, None, None, batch, channels, size, groups, eps)
        ctx.groups, ctx.sizes = groups, (batch, channels, size)
        q = _jacobian(ctx, dx, x, mean, rstd)
        ctx.save_for_backward(x, dx, weight, bias, p, q, mean, rstd)
        w, u, gate, slope = _gate(p, weight, bias)
        return (u * gate).to(ctx.types[0]), (slope * (w * q)).to(ctx.types[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad_y: Tensor, grad_dy: Tensor) -> tuple[Tensor | None, ...]:
        x, dx, weight, bias, p, q, mean, rstd = ctx.saved_tensors
        grad_y, grad_dy = grad_y.to(p.dtype), grad_dy.to(p.dtype)
        w, u, gate, slope = _gate(p, weight, bias)
        curvature = gate * (1 - gate) * (2 + u * (1 - 2 * gate))
        grad_u = grad_y * slope + grad_dy * (curvature * (w * q))
        grad_du = grad_dy * slope
        sums = (0, *range(2, x.ndim))
        grad_weight, grad_bias = (grad_u * p + grad_du * q).sum(sums), grad_u.sum(sums)
        grad_p, grad_q = w * grad_u, w * grad_du
        grad_dx = _jacobian(ctx, grad_q, x, mean, rstd)
        # q = (dx - mean(dx) - p mean(p dx))/s depends on x through p and through s.
        scale = rstd.view(*rstd.shape, 1)
        by_group = [_by_group(ctx, values) for values in (grad_p, grad_q, p, q, dx)]
        total, inner, p_, q_, dx_ = by_group
        total = total - scale * (
            (p_ * dx_).mean(-1, keepdim=True) * inner + (inner * p_).mean(-1, keepdim=True) * dx_
        )
        grad_x = _jacobian(ctx, total.reshape(x.shape), x, mean, rstd)
        through_scale = scale * (inner * q_).mean(-1, keepdim=True) * p_
        grad_x = grad_x - through_scale.reshape(x.shape)
        types = zip((grad_x, grad_dx), ctx.types, strict=True)
        return *(grad.to(kind) for grad, kind in types), grad_weight, grad_bias, None, None


def _jacobian(ctx: _Context, vector: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """J vector, by the fused kernel of the normalisation's backward pass (J is symmetric)."""
    product: Tensor = torch.ops.aten.native_group_norm_backward(
        vector.contiguous(), x, mean, rstd, None, *ctx.sizes, ctx.groups, [True, False, False]
    )[0]
    return product


def _by_group(ctx: _Context, values: Tensor) -> Tensor:
    return values.reshape(ctx.sizes[0], ctx.groups, -1)


def _gate(p: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """w (broadcastable), u = w p + b, sigmoid(u), silu'(u)."""
    shape = (1, -1, *[1] * (p.ndim - 2))
    w = weight.view(shape)
    u = torch.addcmul(bias.view(shape), w, p)
    gate = torch.sigmoid(u)
    return w, u, gate, gate * (1 + u * (1 - gate))
