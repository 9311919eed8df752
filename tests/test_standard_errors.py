"""Errors are numbers, too: every standard error that is reported, against the spread of repeated estimates.

Each case estimates the same numbers again and again, from other examples and other noise. The mean of the squared
errors is the variance of the estimates where the errors are right; over n repetitions the root of their ratio is known
to 1/sqrt(2n).
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.training.evaluation import evaluate
from diffenc_ct.verification import verify
from tests.strategies import normal

MEANS = normal(5, 4, 2)
WORLD = dc.worlds.MixtureWorld(0.7 * MEANS, 0.25, dc.NonTrainableEncoder())
MODEL = WORLD.model(dc.LinearSchedule(-6.0, 4.0))

Reported = tuple[Tensor, Tensor]


def examples(n: int, seed: int) -> tuple[Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    return WORLD.sample(n, generator), generator


def from_tightness(seed: int) -> Reported:
    x, generator = examples(40, seed)
    found = dc.tightness(MODEL, x, depths=5, generator=generator)
    scalars = torch.tensor([[found.gap, found.gain], [found.gap_error, found.gain_error]])
    return (
        torch.cat([found.a, found.b, found.c, scalars[0]]),
        torch.cat([found.a_error, found.b_error, found.c_error, scalars[1]]),
    )


def from_calibration(seed: int) -> Reported:
    x, generator = examples(64, seed)
    options = dc.CalibrationOptions(noise_level=1.0, grid="uniform", candidates=4)
    found = dc.calibrate(MODEL, x, 4, options, generator=generator)
    loss, error = torch.tensor([[found.loss], [found.loss_error]], dtype=torch.float64)
    return torch.cat([found.ratio, loss]), torch.cat([found.ratio_error, error])


def from_evaluation(seed: int) -> Reported:
    x, _ = examples(60, seed)
    found = evaluate(MODEL, x, draws=2, seed=seed)
    rows = found.by_depth(3)
    means = [found.mean("total"), found.mean("latent"), *(row["bpd"] for row in rows)]
    errors = [found.error("total"), found.error("latent"), *(row["error"] for row in rows)]
    return torch.tensor(means), torch.tensor(errors)


def from_verification(seed: int) -> Reported:
    """Losses, and checks whose numbers are means or ratios of means over examples."""
    x, generator = examples(96, seed)
    options = {"depths": (4, 8, 16), "draws": 4, "path_steps": 6}
    found = verify(MODEL, x, generator=generator, **options)
    chosen = [
        c for c in found.checks if "order" in c.name or "growth" in c.name or "w* - 1" in c.name
    ]
    differences = [found.checks[i] for i in (0, 1, 2)]
    assert len(chosen) == 4
    values = [c.value for c in chosen] + [c.value - c.expected for c in differences]
    means = [*found.loss, *found.best_loss, *values]
    errors = [*found.loss_error, *found.best_loss_error, *(c.error for c in chosen + differences)]
    return torch.tensor(means), torch.tensor(errors)


CASES: dict[Callable[[int], Reported], int] = {
    from_tightness: 40, from_calibration: 40, from_evaluation: 40, from_verification: 24,
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_errors_are_the_spread_of_repeated_estimates(case):
    found = [case(seed) for seed in range(CASES[case])]
    values, errors = (torch.stack([each[k] for each in found]).double() for k in (0, 1))
    ratio = (errors.square().mean(0) / values.var(0)).sqrt()
    assert ((ratio > 0.65) & (ratio < 1.5)).all(), ratio
