"""What any schedule, encoder, noise level and heads must satisfy, as functions that a user calls on their own class.

    from tests.conformance import check_encoder, check_heads, check_noise_level, check_schedule
    check_schedule(MySchedule())
    check_encoder(MyEncoder(), x)           # x (batch, *data), float64
    check_noise_level(MyNoiseLevel())
    check_heads(MyHeads(network), MyEncoder(), x)

Each raises AssertionError with what is wrong. Modules are checked in float64: convert them first (`module.double()`).
"""

import torch
from torch import Tensor

from diffenc_ct.encoders import Encoder, Encoding
from diffenc_ct.model import Heads
from diffenc_ct.process import Estimates, NoiseLevel, marginal
from diffenc_ct.schedules import Schedule, SchedulePoint, expand


def check_schedule(schedule: Schedule, *, points: int = 41, tolerance: float = 1e-9) -> None:
    """gamma(t) increases on [0, 1] and `rate` is its derivative; shapes and dtype are t's, scalars included."""
    t = torch.linspace(0, 1, points, dtype=torch.float64, requires_grad=True)
    point = schedule(t)
    assert isinstance(point, SchedulePoint), f"forward returned {type(point).__name__}"
    for name in ("gamma", "rate"):
        value = getattr(point, name)
        assert value.shape == t.shape, f"{name} has shape {tuple(value.shape)}, t {tuple(t.shape)}"
        assert value.dtype == t.dtype, f"{name} is {value.dtype}, t is {t.dtype}"
    assert (point.gamma.diff() > 0).all(), "gamma(t) does not increase"
    assert (point.rate[1:-1] > 0).all(), "the rate gamma'(t) is not positive inside (0, 1)"
    (derivative,) = torch.autograd.grad(point.gamma.sum(), t)
    error = (point.rate - derivative).abs().max() / derivative.abs().max()
    assert error <= tolerance, f"rate is not dgamma/dt: relative error {error:.1e}"
    for i in (0, points // 3, points - 1):
        alone = schedule(t[i].detach())
        assert alone.gamma.shape == (), "a scalar t must give a scalar gamma"
        same = (alone.gamma - point.gamma[i]).abs() + (alone.rate - point.rate[i]).abs()
        assert same <= 1e-12 * point.rate.max(), "gamma(t) depends on the other t of the batch"


def check_noise_level(
    level: NoiseLevel, *, low: float = -12.0, high: float = 5.0, tolerance: float = 1e-6
) -> None:
    """eta^2 >= 0, and `integral` is its integral: zero over no step, additive, with eta^2 for its derivative.

    tolerance: of integrals by quadrature; those in closed form hold to 1e-10.
    """
    gamma = torch.linspace(low, high, 24, dtype=torch.float64)
    squared = level.squared(gamma)
    assert squared.shape == gamma.shape, f"squared has shape {tuple(squared.shape)}"
    assert squared.dtype == gamma.dtype, f"squared is {squared.dtype}, gamma is {gamma.dtype}"
    assert (squared >= 0).all(), "eta^2 is negative"
    assert level.deterministic == (not squared.any()), "deterministic means eta = 0 at every depth"
    start, middle, end = gamma[:-2], gamma[1:-1], gamma[2:].clone().requires_grad_()
    whole = level.integral(start, end)
    assert whole.shape == end.shape, f"integral has shape {tuple(whole.shape)}"
    assert not level.integral(start, start).any(), "the integral over no step is not zero"
    parts = level.integral(start, middle) + level.integral(middle, end)
    apart = (whole - parts).abs().max()
    assert apart <= tolerance * (1 + whole.abs().max()), f"integrals do not add up: {apart:.1e}"
    rate = torch.zeros_like(end)
    if whole.requires_grad:
        (rate,) = torch.autograd.grad(whole.sum(), end)
    error = (rate - level.squared(end)).abs().max() / (1 + rate.abs().max())
    assert error <= tolerance, f"the integral's derivative is not eta^2: {error:.1e}"


def _finite_difference(encoder: Encoder, x: Tensor, gamma: Tensor, step: float) -> Tensor:
    """d encode / d lambda, lambda = -gamma, by central differences of sixth order."""
    rate = torch.zeros_like(x)
    for k, weight in ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60)):
        up, down = encoder.encode(x, gamma - k * step), encoder.encode(x, gamma + k * step)
        rate = rate + weight * (up - down) / step
    return rate


def check_encoder(
    encoder: Encoder,
    x: Tensor,
    *,
    gammas: tuple[float, ...] = (-12.0, -3.0, -0.5, 0.7, 4.0),
    step: float = 0.02,
    tolerance: float = 1e-8,
    becomes_data: bool = True,
) -> None:
    """The encoder returns x_t and dx_t/dlambda, one example at a time, and tends to x at small depth.

    step: of the finite differences, for networks that vary fast in gamma take a smaller one. becomes_data: x_t -> x
    as gamma -> -inf, which decoding without an encoder relies on.
    """
    assert x.dtype == torch.float64, "finite differences need float64"
    for value in gammas:
        gamma = torch.full((len(x),), value, dtype=x.dtype)
        gamma = gamma + 0.1 * torch.arange(len(x), dtype=x.dtype)
        encoding = encoder(x, gamma)
        assert isinstance(encoding, Encoding), f"forward returned {type(encoding).__name__}"
        for name in ("value", "rate"):
            part = getattr(encoding, name)
            assert part.shape == x.shape, (
                f"{name} has shape {tuple(part.shape)}, x {tuple(x.shape)}"
            )
            assert part.dtype == x.dtype, f"{name} is {part.dtype}, x is {x.dtype}"
        same = (encoding.value - encoder.encode(x, gamma)).abs().max()
        assert same <= 1e-12, f"forward and encode disagree by {same:.1e} at gamma = {value}"
        expected = _finite_difference(encoder, x, gamma, step)
        error = (encoding.rate - expected).abs().max() / (1 + expected.abs().max())
        assert error <= tolerance, f"rate is not dx_t/dlambda at gamma = {value}: error {error:.1e}"
        for i in range(len(x)):
            alone = encoder(x[i : i + 1], gamma[i : i + 1])
            apart = (alone.value[0] - encoding.value[i]).abs().max()
            apart = apart + (alone.rate[0] - encoding.rate[i]).abs().max()
            assert apart <= 1e-10, f"example {i} depends on the others of its batch"
        factor = encoder.rate_factor(gamma)
        assert factor.shape == gamma.shape, "rate_factor must have gamma's shape"
        if encoder.flow_is_exact_with_one_head:
            tied = (encoding.rate - expand(factor, x) * encoding.value).abs().max()
            assert tied <= 1e-10, f"flow_is_exact_with_one_head, but x_t' - c x_t = {tied:.1e}"
    if becomes_data:
        moved = (encoder.encode(x, torch.full((len(x),), -25.0, dtype=x.dtype)) - x).abs().max()
        assert moved <= 1e-8 * (1 + x.abs().max()), (
            f"x_t does not tend to x at small depth: {moved:.1e}"
        )


def check_heads(
    heads: Heads,
    encoder: Encoder,
    x: Tensor,
    *,
    noise: Tensor | None = None,
    gammas: tuple[float, ...] = (-8.0, -0.5, 3.0),
    tolerance: float = 1e-9,
) -> None:
    """Estimates one example at a time; errors are what they leave; traces, where they are known, are the Jacobian's.

    noise: eps of the latents that are tried, x rolled along the batch by default.
    """
    noise = x.roll(1, 0) if noise is None else noise
    for value in gammas:
        gamma = value + 0.1 * torch.arange(len(x), dtype=x.dtype)
        encoding = encoder(x, gamma)
        z = marginal(encoding.value, gamma).sample(noise=noise)
        found = heads(z, gamma, encoder)
        assert isinstance(found, Estimates), f"forward returned {type(found).__name__}"
        for name in ("x_hat", "r_hat"):
            part = getattr(found, name)
            assert part.shape == z.shape, f"{name} has shape {tuple(part.shape)}"
            assert part.dtype == z.dtype, f"{name} is {part.dtype}, z is {z.dtype}"
        for i in range(len(x)):
            alone = heads(z[i : i + 1], gamma[i : i + 1], encoder)
            apart = (alone.x_hat[0] - found.x_hat[i]).abs().max()
            apart = apart + (alone.r_hat[0] - found.r_hat[i]).abs().max()
            assert apart <= 1e-9, f"example {i} depends on the others of its batch"
        if not heads.tells_apart:
            tied = found.r_hat - expand(encoder.rate_factor(gamma), z) * found.x_hat
            assert tied.abs().max() <= tolerance, (
                "heads that are not told apart have r_hat = c x_hat"
            )
        errors = heads.errors(z, noise, encoding, gamma, encoder)
        for own, left in (
            (errors.x, encoding.value - found.x_hat),
            (errors.r, encoding.rate - found.r_hat),
        ):
            error = (own - left).abs().max() / (1 + left.abs().max())
            assert error <= tolerance, f"errors are not what the estimates leave: {error:.1e}"
        _check_traces(heads, encoder, z, gamma, tolerance)


def _check_traces(
    heads: Heads, encoder: Encoder, z: Tensor, gamma: Tensor, tolerance: float
) -> None:
    known = heads.traces(z, gamma)
    if known is None:
        return
    z = z.detach().requires_grad_()
    found = heads(z, gamma, encoder)
    for trace, estimate in zip(known, (found.x_hat, found.r_hat), strict=True):
        columns = estimate.flatten(1).unbind(1)
        rows = [torch.autograd.grad(c.sum(), z, retain_graph=True)[0] for c in columns]
        exact = sum(row.flatten(1)[:, i] for i, row in enumerate(rows))
        error = (trace - exact).abs().max() / (1 + exact.abs().max())
        assert error <= tolerance, f"traces are not those of the Jacobian: {error:.1e}"
