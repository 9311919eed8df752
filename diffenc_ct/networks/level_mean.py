"""The mean over levels of a posterior, in one pass that keeps no probabilities.

A value x on V levels x_k is known through logits and through one observation y = x + eps/g of precision g^2. Relative
to a reference r (near y where the noise is small, so that nothing cancels), with d_k = x_k - r and s = g (y - r),

    p_k = softmax_k( b_k + sum_j c_j phi_j(x_k) - (s - g d_k)^2 / 2 ),        m = sum_k p_k d_k = E[x] - r

and its derivatives are covariances under p:

    dm/dc_j = Cov(d, phi_j)      dm/ds = g Var(d)      dm/dg = s Var(d) - g Cov(d, d^2)

The passes keep those covariances, a few numbers a value, and never the V probabilities, which are made chunk by chunk
in the processor's cache. Only where derivatives are differentiated once more (the gradient of a flow's divergence, say)
are the covariances made anew, by operations that autograd can see into.

Theorem: encoders.posterior_mean, encoders.posterior_variance.
"""

from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

# Probabilities held at a time: a megabyte in float32 on a CPU.
_CHUNK = {"cpu": 2**18}
_CHUNK_ELSEWHERE = 2**26


def level_mean(
    c: Float[Tensor, "batch values functions"],
    s: Float[Tensor, "batch values"],
    g: Float[Tensor, " batch"],
    r: Float[Tensor, "batch values"],
    prior: Float[Tensor, "#values levels"],
    x: Float[Tensor, " levels"],
    phi: Float[Tensor, "functions levels"],
) -> Float[Tensor, "batch values"]:
    """E[x] - r of every value.

    Derivatives are with respect to c, s and g, at a fixed r; all of one dtype, whatever autocast says.

    Args:
        c: coefficients of the functions.
        s: g (y - r).
        g: the observation's inverse deviation.
        r: references; they change the result by rounding and by their subtraction only.
        prior: b, log-probabilities up to a constant, of all values or of each.
        x: the levels' positions.
        phi: the functions at the levels.

    Returns:
        (batch, values).

    Example:
        >>> x, none = torch.tensor([-1.0, 1.0]), torch.zeros(1, 1, 1)
        >>> g, r = torch.ones(1), torch.zeros(1, 1)  # E[x | y] = tanh(y) for x = +-1 beside unit noise
        >>> level_mean(none, torch.full((1, 1), 0.5), g, r, torch.zeros(1, 2), x, torch.zeros(1, 2))
        tensor([[0.4621]])
    """
    device = s.device.type
    known = torch.amp.is_autocast_available(device)  # "meta" has no autocast to switch off
    with torch.autocast(device, enabled=False) if known else nullcontext():
        # The compiler traces no derivatives by hand, and fuses passes itself.
        if torch.compiler.is_compiling():
            p, d = _probabilities(c, s, g, r, prior, x, phi)
            return (p * d).sum(-1)
        mean: Tensor = _LevelMean.apply(c, s, g, r, prior, x, phi)[0]
    return mean


def level_logits(
    c: Float[Tensor, "*values functions"],
    s: Float[Tensor, "*values"],
    g: Float[Tensor, "*#values"],
    r: Float[Tensor, "*values"],
    prior: Float[Tensor, "... levels"],
    x: Float[Tensor, " levels"],
    phi: Float[Tensor, "functions levels"],
) -> tuple[Float[Tensor, "*values levels"], Float[Tensor, "*values levels"]]:
    """ln p_k up to a constant and d_k, all levels at once: for some values at a time.

    Args:
        c: coefficients of the functions.
        s: g (y - r).
        g: the observation's inverse deviation.
        r: references.
        prior: b, broadcastable to the logits.
        x: the levels' positions.
        phi: the functions at the levels.
    """
    d = x - r.detach()[..., None]
    rest = s[..., None] - g[..., None] * d
    return c @ phi + prior - 0.5 * rest.square(), d


class _LevelMean(torch.autograd.Function):
    """(m, covariances); the second output is for the derivatives only."""

    @staticmethod
    def forward(
        c: Tensor, s: Tensor, g: Tensor, r: Tensor, prior: Tensor, x: Tensor, phi: Tensor
    ) -> tuple[Tensor, Tensor]:
        (batch, values), functions = s.shape, len(phi)
        mean = torch.empty_like(s, memory_format=torch.contiguous_format)
        covariance = s.new_empty(batch, values, functions + 2)
        rows = max(1, _CHUNK.get(s.device.type, _CHUNK_ELSEWHERE) // max(1, values * len(x)))
        for start in range(0, batch, rows):
            part = slice(start, start + rows)
            d = x - r[part, :, None]
            rest = torch.addcmul(s[part, :, None], g[part, None, None], d, value=-1)
            p = (c[part] @ phi).add_(prior).addcmul_(rest, rest, value=-0.5).softmax(-1)
            m = (p * d).sum(-1)
            mean[part] = m
            # About the mean, so that no covariance is a difference of larger numbers.
            d -= m[..., None]
            first = p.mul_(d)
            torch.matmul(first, phi.mT, out=covariance[part, :, :functions])
            second = first.mul_(d)
            variance = second.sum(-1)
            covariance[part, :, functions] = variance
            covariance[part, :, functions + 1] = second.mul_(d).sum(-1) + 2 * m * variance
        return mean, covariance

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        _, covariance = output
        ctx.mark_non_differentiable(covariance)
        ctx.save_for_backward(covariance, *inputs)
        ctx.save_for_forward(covariance, *inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        covariance, *inputs = ctx.saved_tensors
        _, s, g, *_ = inputs
        if torch.is_grad_enabled():  # this pass is to be differentiated
            covariance = _covariances(*inputs)
        variance, of_precision = _of_observation(covariance, s, g)
        of_c = gradient[..., None] * covariance[..., :-2]
        return of_c, gradient * variance, (gradient * of_precision).sum(1), None, None, None, None

    @staticmethod
    def jvp(
        ctx: Any, c: Tensor | None, s: Tensor | None, g: Tensor | None, *_: Tensor | None
    ) -> tuple[Tensor, None]:
        covariance, *inputs = ctx.saved_tensors
        _, s_, g_, *_ = inputs
        if torch.is_grad_enabled() and any(map(_requires_grad, inputs[:3])):
            covariance = _covariances(*inputs)
        variance, of_precision = _of_observation(covariance, s_, g_)
        change = torch.zeros_like(s_)
        if c is not None:
            change = change + (c * covariance[..., :-2]).sum(-1)
        if s is not None:
            change = change + s * variance
        if g is not None:
            change = change + g[:, None] * of_precision
        return change, None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        size = info.batch_size
        # Several models at once, each with levels of its own.
        if any(dim is not None for dim in in_dims[4:]):
            columns = [
                [a] * size if dim is None else a.unbind(dim)
                for a, dim in zip(inputs, in_dims, strict=True)
            ]
            found = [_LevelMean.apply(*row) for row in zip(*columns, strict=True)]
            return (torch.stack([m for m, _ in found]), torch.stack([v for _, v in found])), (0, 0)
        each = [
            (a.movedim(dim, 0) if dim is not None else a.expand(size, *a.shape)).flatten(0, 1)
            for a, dim in zip(inputs[:4], in_dims[:4], strict=True)
        ]
        mean, covariance = _LevelMean.apply(*each, *inputs[4:])
        return (mean.unflatten(0, (size, -1)), covariance.unflatten(0, (size, -1))), (0, 0)


def _probabilities(
    c: Tensor, s: Tensor, g: Tensor, r: Tensor, prior: Tensor, x: Tensor, phi: Tensor
) -> tuple[Tensor, Tensor]:
    """p and d, (batch, values, levels)."""
    logits, d = level_logits(c, s, g[:, None], r, prior, x, phi)
    return logits.softmax(-1), d


def _covariances(
    c: Tensor, s: Tensor, g: Tensor, r: Tensor, prior: Tensor, x: Tensor, phi: Tensor
) -> Tensor:
    """The second output in one piece, differentiable."""
    p, d = _probabilities(c, s, g, r, prior, x, phi)
    centred = p * (d - (p * d).sum(-1, keepdim=True))
    of_powers = [(centred * power).sum(-1, keepdim=True) for power in (d, d.square())]
    return torch.cat([centred @ phi.mT, *of_powers], -1)


def _requires_grad(a: Tensor) -> bool:
    """Of the tensor, or of what transforms of torch.func have wrapped, which do not say so."""
    while not a.requires_grad:
        inner = torch.func.debug_unwrap(a, recurse=False)
        if inner is a:
            return False
        a = inner
    return True


def _of_observation(covariance: Tensor, s: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """dm/ds and dm/dg."""
    variance, skew = covariance[..., -2], covariance[..., -1]
    return g[:, None] * variance, s * variance - g[:, None] * skew
