"""Finite against infinite depth: the identities that a model of any depth must satisfy, checked on a model and data.

    L_inf three ways        Monte Carlo over t; Richardson's extrapolation of L_T; the path KL, by torchsde's logqp
    order                   L_T - L_inf falls like 1/T, and so does L_T - L_T(w*)
    ratio                   T times the mean of w* - 1 tends to 2 L_inf / d
    schedule                L_inf depends on gamma through its end points only
    steps                   L_T from the Gaussians q(z_s|z_t, x) and p(z_s|z_t) is L_T from mean differences
    divergence              L_T(w) grows like T d/2 (1/w - 1 + ln w) for w != 1

Each check compares two numbers; it fails where they differ by more than four standard errors plus `allowance`, the
truncation error that is known beforehand. The three ways share no code but the model's predictions: the first uses
model.errors, the last model.predict and dynamics.

Reference: Nielsen et al. 2024, section 3; theory/elbo.py; Li et al. 2020 (torchsde's logqp).
"""

import math
from collections.abc import Sequence

import torch
import torchsde
from torch import Tensor

from diffenc_ct.calibration import Measurement, StepTables, measure_steps
from diffenc_ct.dynamics import ConditionalReverseSDE, ReverseSDE
from diffenc_ct.elbo import Draws, FiniteDepth, elbo, infinite_depth_integrand, uniform_grid
from diffenc_ct.model import DiffEnc
from diffenc_ct.process import ConstantNoiseLevel, kl_divergence, marginal, normal_like, posterior
from diffenc_ct.schedules import PolynomialSchedule, Schedule
from diffenc_ct.verification.checks import Check, Verification

LADDER = (8, 16, 32, 64, 128)


def _mean_and_error(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def richardson(once: Tensor, twice: Tensor, four_times: Tensor) -> Tensor:
    """The limit of L_T = L_inf + a/T + b/T^2 from L_T, L_2T and L_4T, elementwise."""
    return (8 * four_times - 6 * twice + once) / 3


def _ladder_losses(tables: StepTables, depths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """L_T and L_T(w*) on uniform grids, nats, (groups, depths) each; w* from all groups."""
    each, mean, half = tables.excess(groups=True), tables.excess(), tables.dimensions / 2
    losses, best = [], []
    for T in depths:
        nodes = torch.arange(0, len(tables.t), (len(tables.t) - 1) // T)
        s, t = nodes[:-1], nodes[1:]
        w = 1 + mean[s, t]
        losses.append(half * each[:, s, t].sum(1))
        best.append(half * (1 / w - 1 + w.log() + each[:, s, t] / w).sum(1))
    return torch.stack(losses, 1), torch.stack(best, 1)


def _monte_carlo(
    model: DiffEnc, schedule: Schedule, x: Tensor, draws: int, generator: torch.Generator | None
) -> Tensor:
    """L_inf of each example: `draws` stratified depths each, nats, (batch,)."""
    data, level, total = model.scale(x), ConstantNoiseLevel(1.0), torch.zeros(())
    for k in range(draws):
        u = torch.rand(len(data), generator=generator, dtype=data.dtype)
        point = schedule((k + u) / draws)
        encoding, noise = model.encoder(data, point.gamma), normal_like(data, generator)
        z = marginal(encoding.value, point.gamma).sample(noise=noise)
        errors = model.errors(z, noise, encoding, point.gamma)
        total = total + infinite_depth_integrand(errors, point, level) / draws
    return total


class _PathKL(ConditionalReverseSDE):
    """The reverse SDE given x, with the generative drift as torchsde's prior drift h."""

    def __init__(self, model: DiffEnc, x: Tensor) -> None:
        super().__init__(model.schedule, model.encoder, x, sde_type="stratonovich")
        self.prior = ReverseSDE(model, shape=tuple(x.shape[1:]), sde_type="stratonovich")

    def h(self, tau: Tensor, y: Tensor) -> Tensor:
        return self.prior.f(tau, y)


def _path_kl(model: DiffEnc, x: Tensor, steps: int, generator: torch.Generator | None) -> Tensor:
    """KL of the paths from z_1 ~ q(z_1|x) down to z_0, nats, (batch,)."""
    data = model.scale(x)
    end = model.schedule(torch.ones(len(data), dtype=data.dtype))
    z_1 = marginal(model.encoder.encode(data, end.gamma), end.gamma).sample(generator)
    y, ts = z_1.flatten(1), torch.tensor([0.0, 1.0], dtype=data.dtype)
    entropy = int(torch.randint(2**31 - 1, (), generator=generator))
    # torchsde appends the log ratio to the state, as one more noiseless dimension.
    size = (len(y), y.shape[1] + 1)
    motion = torchsde.BrownianInterval(0.0, 1.0, size=size, dtype=y.dtype, entropy=entropy)
    sde = _PathKL(model, data)
    # Heun, not midpoint: a midpoint sees half of a step's noise, and squares of it are biased by O(1/steps).
    _, log_ratio = torchsde.sdeint(sde, y, ts, bm=motion, method="heun", dt=1 / steps, logqp=True)
    return log_ratio.sum(0)


def _gaussian_steps(model: DiffEnc, x: Tensor, depth: int, generator) -> Tensor:
    """L_T of each example from the Gaussians themselves: KL(q(z_s|z_t, x) || p(z_s|z_t)), nats, (batch,)."""
    data = model.scale(x)
    gamma = model.schedule(uniform_grid(depth, data)).gamma
    total = torch.zeros(len(data), dtype=data.dtype)
    for i in range(depth):
        s, t = gamma[i].expand(len(data)), gamma[i + 1].expand(len(data))
        x_s, x_t = model.encoder.encode(data, s), model.encoder.encode(data, t)
        z = marginal(x_t, t).sample(generator)
        total = total + kl_divergence(posterior(z, x_s, x_t, s, t), model.reverse(z, s, t))
    return total


@torch.no_grad()
def verify(
    model: DiffEnc,
    x: Tensor,
    *,
    depths: Sequence[int] = LADDER,
    draws: int = 64,
    path_steps: int = 192,
    ratio: float = 1.2,
    exact: float | None = None,
    generator: torch.Generator | None = None,
) -> Verification:
    """Check the identities above on data x (examples, *data), levels or reals, at eta = 1.

    depths: a ladder of at least three, each twice the one before; the last is the number of candidate depths, whose
    random numbers all depths share. draws: stratified depths an example of the Monte Carlo. path_steps: of the path KL.
    exact: L_inf in nats where it is known. Cost an example: last depth + 2 draws + 4 path_steps network evaluations.
    Raises ValueError for a ladder of another form, counts below 1, or a ratio with which nothing diverges.
    """
    if draws < 1 or path_steps < 1:
        raise ValueError(f"draws={draws} and path_steps={path_steps} must be at least 1")
    if ratio <= 0 or ratio == 1:
        raise ValueError(f"ratio={ratio}; the divergence is checked at a positive w other than 1")
    if len(depths) < 3 or any(2 * a != b for a, b in zip(depths[:-1], depths[1:], strict=True)):
        raise ValueError(f"depths={tuple(depths)}; give at least three, each twice the one before")
    tables = measure_steps(model, x, Measurement(candidates=depths[-1]), generator=generator)
    losses, best = _ladder_losses(tables, depths)
    nats = tables.dimensions * math.log(2)
    losses, best = losses / nats, best / nats
    # Richardson: the terms 1/T and 1/T^2 removed; the first alone says how large the second is.
    first = 2 * losses[:, -1] - losses[:, -2]
    second = richardson(losses[:, -3], losses[:, -2], losses[:, -1])
    extrapolated, extrapolated_error = _mean_and_error(second)
    truncation = float((first - second).mean().abs()) / 2
    monte_carlo = _monte_carlo(model, model.schedule, x, draws, generator) / nats
    ends = [float(model.schedule.at(t, tables.gamma).gamma) for t in (0.0, 1.0)]
    other = PolynomialSchedule(*ends, degree=3, weight=0.5)
    elsewhere = _monte_carlo(model, other, x, draws, generator) / nats
    path = _path_kl(model, x, path_steps, generator) / nats
    mc, mc_error = _mean_and_error(monte_carlo)

    def against(name: str, values: Tensor, allowance: float = 0.0) -> Check:
        # Example by example: what the examples differ in cancels.
        value = float(values.mean())
        return Check(name, value, mc, _mean_and_error(values - monte_carlo)[1], allowance)

    checks = [
        Check(
            "L_inf: Richardson against Monte Carlo",
            extrapolated,
            mc,
            math.hypot(extrapolated_error, mc_error),
            truncation,
        ),
        # Weak order 2 with this many steps: a relative error of its square.
        against("L_inf: path KL (logqp) against Monte Carlo", path, 40 * abs(mc) / path_steps**2),
        against("L_inf: another schedule, same ends", elsewhere),
    ]
    if exact is not None:
        checks.append(Check("L_inf: Monte Carlo against closed form", mc, exact / nats, mc_error))
    checks.append(_order_check("order of L_T - L_inf", losses[:, -3:]))
    checks.append(_order_check("order of L_T - L_T(w*)", (losses - best)[:, -2:], gap=True))
    T = depths[-1]
    each, s = tables.excess(groups=True), torch.arange(T)
    scaled, scaled_error = _mean_and_error(T * each[:, s, s + 1].mean(1))
    limit = 2 * math.log(2) * extrapolated
    checks.append(
        Check(
            f"T (w* - 1) at T = {T} against 2 L_inf / d",
            scaled,
            limit,
            scaled_error,
            1.5 * 2 * math.log(2) * abs(float(losses[:, -1].mean()) - extrapolated),
        )
    )
    direct = _gaussian_steps(model, x, depths[0], generator) / nats
    value, error = _mean_and_error(direct)
    table_value, table_error = _mean_and_error(losses[:, 0])
    checks.append(
        Check(
            f"L_T at T = {depths[0]}: Gaussians against mean differences",
            value,
            table_value,
            math.hypot(error, table_error),
        )
    )
    checks.append(_divergence_check(model, x, depths, ratio, nats, generator))
    loss, loss_error = losses.mean(0), losses.std(0) / len(losses) ** 0.5
    best_loss, best_error = best.mean(0), best.std(0) / len(best) ** 0.5
    return Verification(
        checks=tuple(checks),
        depths=tuple(depths),
        loss=tuple(loss.tolist()),
        loss_error=tuple(loss_error.tolist()),
        best_loss=tuple(best_loss.tolist()),
        best_loss_error=tuple(best_error.tolist()),
        infinite=extrapolated,
    )


def _order_check(name: str, values: Tensor, *, gap: bool = False) -> Check:
    """log2 of the ratio of differences L_T - L_2T and L_2T - L_4T (or of two gaps), by the jackknife over groups."""
    n = len(values)

    def order(mean: Tensor) -> float:
        a, b = (mean[0], mean[1]) if gap else (mean[0] - mean[1], mean[1] - mean[2])
        return float(torch.log2((a / b).abs()))

    total = values.sum(0)
    left_out = torch.tensor([order((total - v) / (n - 1)) for v in values])
    error = float(((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()).sqrt())
    return Check(name, order(total / n), 1.0, error, 0.2)


def _divergence_check(
    model: DiffEnc, x: Tensor, depths: Sequence[int], ratio: float, nats: float, generator
) -> Check:
    """The growth of L_T(w) per step between the last two depths, against d/2 (1/w - 1 + ln w)."""
    data = model.scale(x)
    noise, t = normal_like(data, generator), (torch.arange(len(data)) + 0.5).to(data) / len(data)
    draws = Draws(t=t, noise=noise)
    low, high = (
        elbo(model, x, FiniteDepth(T, ratio), draws=draws).diffusion / nats for T in depths[-2:]
    )
    growth = (high - low) / (depths[-1] - depths[-2])
    expected = (1 / ratio - 1 + math.log(ratio)) / (2 * math.log(2))
    value, error = _mean_and_error(growth)
    # Beside it the finite part L_T(1)/w changes too, by O(1/T).
    finite = [
        float(elbo(model, x, FiniteDepth(T), draws=draws).diffusion.mean()) for T in depths[-2:]
    ]
    shift = abs(finite[1] - finite[0]) / nats / ratio / (depths[-1] - depths[-2])
    return Check(f"growth of L_T(w = {ratio:g}) per step", value, expected, error, shift)
