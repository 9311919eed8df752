"""silu(group_norm(x)) whose forward-mode derivative is fast and has a backward pass.

PyTorch differentiates group normalisation forwards by a dozen elementwise passes, and those backwards by three
dozen more; half of an encoder's evaluation with its rate went there. The Jacobian of the normalisation is
symmetric, J = (I - 11^T/M - p p^T/M)/s on the M values of a group (p the normalised values, s their deviation), so
its tangent J dx is what the fused backward kernel computes, and the chain of

    p = (x - mean)/s,    q = J dx,    u = w p + b,    du = w q,    y = silu(u),    dy = silu'(u) du

is short both ways. Results equal PyTorch's own to rounding; half-precision x is normalised in the weights' type.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from diffenc_ct.networks.jets import Jet


def norm(layer: nn.GroupNorm, x: Any) -> Any:
    """layer(x), x (batch, channels, *): tensors and jets."""
    if not isinstance(x, Jet):
        return layer(x)
    by_group = x.each(lambda a: a.expand_as(x.value).reshape(len(a), layer.num_groups, -1))
    centred = by_group.each(lambda a: a - a.mean(-1, keepdim=True))
    scale = (centred.value.square().mean(-1, keepdim=True) + layer.eps).rsqrt()
    p = centred.value * scale
    q = (centred.rate - p * (p * centred.rate).mean(-1, keepdim=True)) * scale
    shape = (1, -1, *[1] * (x.value.ndim - 2))
    weight, bias = layer.weight.view(shape), layer.bias.view(shape)
    return Jet(p.view_as(x.value) * weight + bias, q.view_as(x.value) * weight)


def norm_silu(norm: nn.GroupNorm, x: Any) -> Any:
    """silu(norm(x)), x (batch, channels, *): plain tensors, jets and forward-mode dual tensors."""
    if isinstance(x, Jet):
        rate = x.rate.expand_as(x.value)
        return Jet(
            *_NormSilu.apply(x.value, rate, norm.weight, norm.bias, norm.num_groups, norm.eps)
        )
    if forward_ad._current_level < 0 or torch._C._functorch.is_functorch_wrapped_tensor(x):
        return F.silu(norm(x))
    primal, tangent = forward_ad.unpack_dual(x)
    if tangent is None:
        return F.silu(norm(primal))
    y, dy = _NormSilu.apply(primal, tangent, norm.weight, norm.bias, norm.num_groups, norm.eps)
    return forward_ad.make_dual(y, dy)


class _NormSilu(torch.autograd.Function):
    """(x, dx) -> (y, dy) as above, with the backward pass of both outputs."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dx: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
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
    def backward(ctx: Any, grad_y: Tensor, grad_dy: Tensor) -> tuple[Tensor | None, ...]:
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


def _jacobian(ctx: Any, vector: Tensor, x: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """J vector, by the fused kernel of the normalisation's backward pass (J is symmetric)."""
    return torch.ops.aten.native_group_norm_backward(
        vector.contiguous(), x, mean, rstd, None, *ctx.sizes, ctx.groups, [True, False, False]
    )[0]


def _by_group(ctx: Any, values: Tensor) -> Tensor:
    return values.reshape(ctx.sizes[0], ctx.groups, -1)


def _gate(p: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """w (broadcastable), u = w p + b, sigmoid(u), silu'(u)."""
    shape = (1, -1, *[1] * (p.ndim - 2))
    w = weight.view(shape)
    u = torch.addcmul(bias.view(shape), w, p)
    gate = torch.sigmoid(u)
    return w, u, gate, gate * (1 + u * (1 - gate))
