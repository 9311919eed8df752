"""Finite against infinite depth: the identities that a model of any depth must satisfy, checked on a model and data.

    L_inf three ways        Monte Carlo over t; Richardson's extrapolation of L_T; the path KL, by torchsde's logqp
    order                   L_T - L_inf falls like 1/T, and so does L_T - L_T(w*)
    ratio                   T times the mean of w* - 1 tends to 2 L_inf / d
    schedule                L_inf depends on gamma through its end points only
    steps                   L_T from the Gaussians q(z_s|z_t, x) and p(z_s|z_t) is L_T from mean differences
    divergence              L_T(w) grows like T d/2 (1/w - 1 + ln w) for w != 1

Each check compares two numbers; it fails where they differ by more than four standard errors plus `allowance`, the
truncation error that is known beforehand. How the numbers are computed: `losses`.

Reference: Nielsen et al. 2024, section 3; theory/elbo.py.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diffenc_ct.calibration import Measurement, StepTables, measure_steps
from diffenc_ct.elbo import Draws, FiniteDepth, elbo
from diffenc_ct.model import DiffEnc, evaluating
from diffenc_ct.process import normal_like
from diffenc_ct.schedules import PolynomialSchedule
from diffenc_ct.verification.checks import Check, Verification
from diffenc_ct.verification.losses import (
    gaussian_steps,
    ladder_losses,
    monte_carlo,
    path_kl,
    richardson,
)

LADDER = (8, 16, 32, 64, 128)
Ladder = Float[Tensor, "groups depths"]


@torch.no_grad()
def verify(
    model: DiffEnc,
    x: Shaped[Tensor, "examples *data"],
    *,
    depths: Sequence[int] = LADDER,
    draws: int = 64,
    path_steps: int = 192,
    ratio: float = 1.2,
    exact: float | None = None,
    generator: torch.Generator | None = None,
) -> Verification:
    """Check the identities above at eta = 1.

    Cost an example: last depth + 2 draws + 4 path_steps network evaluations.

    Args:
        model: DiffEnc.
        x: data, levels or reals.
        depths: a ladder of at least three, each twice the one before; the last is the number of candidate depths, whose
            random numbers all depths share.
        draws: stratified depths an example of the Monte Carlo.
        path_steps: of the path KL.
        ratio: w, with which L_T is to diverge.
        exact: L_inf in nats where it is known.
        generator: of all randomness.
    Returns:
        The checks, and both losses at every depth, in bits per dimension.
    Raises:
        ValueError: for a ladder of another form, counts below 1, or a ratio with which nothing diverges.
    Example:
        >>> import diffenc_ct as dc
        >>> world = dc.worlds.GaussianWorld(torch.zeros(2), torch.ones(2))
        >>> x = world.sample(100, torch.Generator().manual_seed(0))
        >>> options = {"depths": (4, 8, 16), "draws": 4, "path_steps": 8}
        >>> model = world.model(dc.LinearSchedule(-4.0, 4.0))
        >>> len(verify(model, x, generator=torch.Generator().manual_seed(1), **options).checks)
        8
    """
    _refuse_nonsense(depths, draws, path_steps, ratio)
    with evaluating(model):
        tables = measure_steps(model, x, Measurement(candidates=depths[-1]), generator=generator)
        nats = tables.dimensions * math.log(2)
        losses, best = (each / nats for each in ladder_losses(tables, depths))
        sampled = monte_carlo(model, model.schedule, x, draws, generator) / nats
        mean, mean_error = _mean_and_error(sampled)
        ends = [float(model.schedule.at(t, model.scale(x[:1])).gamma) for t in (0.0, 1.0)]
        other = PolynomialSchedule(*ends, degree=3, weight=0.5).to(x.device)
        elsewhere = monte_carlo(model, other, x, draws, generator) / nats
        path = path_kl(model, x, path_steps, generator) / nats

        def against(name: str, values: Tensor, allowance: float = 0.0) -> Check:
            # Example by example: what the examples differ in cancels.
            value = float(values.mean())
            return Check(name, value, mean, _mean_and_error(values - sampled)[1], allowance)

        extrapolation = _extrapolation_check(losses, mean, mean_error)
        checks = [
            extrapolation,
            # Weak order 2 with this many steps: a relative error of its square.
            against(
                "L_inf: path KL (logqp) against Monte Carlo", path, 40 * abs(mean) / path_steps**2
            ),
            against("L_inf: another schedule, same ends", elsewhere),
        ]
        if exact is not None:
            name = "L_inf: Monte Carlo against closed form"
            checks.append(Check(name, mean, exact / nats, mean_error))
        checks += [
            _order_check("order of L_T - L_inf", losses[:, -3:]),
            _order_check("order of L_T - L_T(w*)", (losses - best)[:, -2:], gap=True),
            _ratio_check(tables, depths[-1], float(losses[:, -1].mean()), extrapolation.value),
            _steps_check(model, x, depths[0], losses[:, 0], nats, generator),
            _divergence_check(model, x, depths, ratio, nats, generator),
        ]
    return Verification(
        checks=tuple(checks),
        depths=tuple(depths),
        loss=tuple(losses.mean(0).tolist()),
        loss_error=tuple((losses.std(0) / len(losses) ** 0.5).tolist()),
        best_loss=tuple(best.mean(0).tolist()),
        best_loss_error=tuple((best.std(0) / len(best) ** 0.5).tolist()),
        infinite=extrapolation.value,
    )


def _refuse_nonsense(depths: Sequence[int], draws: int, path_steps: int, ratio: float) -> None:
    if draws < 1 or path_steps < 1:
        raise ValueError(f"draws={draws} and path_steps={path_steps} must be at least 1")
    if ratio <= 0 or ratio == 1:
        raise ValueError(f"ratio={ratio}; the divergence is checked at a positive w other than 1")
    if len(depths) < 3 or any(2 * a != b for a, b in zip(depths[:-1], depths[1:], strict=True)):
        raise ValueError(f"depths={tuple(depths)}; give at least three, each twice the one before")


def _mean_and_error(values: Float[Tensor, " n"]) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


def _extrapolation_check(losses: Ladder, mean: float, mean_error: float) -> Check:
    """L_inf from three depths: the terms 1/T and 1/T^2 removed; the first alone says how large the second is."""
    first = 2 * losses[:, -1] - losses[:, -2]
    second = richardson(losses[:, -3], losses[:, -2], losses[:, -1])
    value, error = _mean_and_error(second)
    truncation = float((first - second).mean().abs()) / 2
    name = "L_inf: Richardson against Monte Carlo"
    return Check(name, value, mean, math.hypot(error, mean_error), truncation)


def _order_check(name: str, values: Ladder, *, gap: bool = False) -> Check:
    """log2 of the ratio of differences L_T - L_2T and L_2T - L_4T (or of two gaps), by the jackknife over groups."""
    n = len(values)

    def order(mean: Tensor) -> float:
        a, b = (mean[0], mean[1]) if gap else (mean[0] - mean[1], mean[1] - mean[2])
        return float(torch.log2((a / b).abs()))

    total = values.sum(0)
    left_out = torch.tensor([order((total - v) / (n - 1)) for v in values])
    error = float(((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()).sqrt())
    return Check(name, order(total / n), 1.0, error, 0.2)


def _ratio_check(tables: StepTables, depth: int, loss: float, infinite: float) -> Check:
    """T times the mean of w* - 1 at the finest depth."""
    each, s = tables.excess(groups=True), torch.arange(depth)
    value, error = _mean_and_error(depth * each[:, s, s + 1].mean(1))
    limit = 2 * math.log(2) * infinite
    allowance = 1.5 * 2 * math.log(2) * abs(loss - infinite)
    return Check(f"T (w* - 1) at T = {depth} against 2 L_inf / d", value, limit, error, allowance)


def _steps_check(
    model: DiffEnc,
    x: Tensor,
    depth: int,
    losses: Float[Tensor, " groups"],
    nats: float,
    generator: torch.Generator | None,
) -> Check:
    """L_T at one depth, from the Gaussians and from the tables."""
    value, error = _mean_and_error(gaussian_steps(model, x, depth, generator) / nats)
    table_value, table_error = _mean_and_error(losses)
    name = f"L_T at T = {depth}: Gaussians against mean differences"
    return Check(name, value, table_value, math.hypot(error, table_error))


def _divergence_check(
    model: DiffEnc,
    x: Tensor,
    depths: Sequence[int],
    ratio: float,
    nats: float,
    generator: torch.Generator | None,
) -> Check:
    """The growth of L_T(w) per step between the last two depths, against d/2 (1/w - 1 + ln w)."""
    data = model.scale(x)
    noise, t = normal_like(data, generator), (torch.arange(len(data)) + 0.5).to(data) / len(data)
    # z_0's noise is in no term of these; what is not given would be drawn.
    draws = Draws(t=t, noise=noise, noise_0=noise)
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
