"""Verification: holds in closed-form worlds, fails on models whose parts disagree."""

import math

import pytest
import torch

import diffenc_ct as dc
from diffenc_ct.model import Direct
from diffenc_ct.verification import Check, richardson, verify
from diffenc_ct.verification.losses import path_kl
from diffenc_ct.worlds import GaussianWorld, MixtureWorld
from tests.strategies import generator, normal

F64 = torch.float64
SCHEDULE = dc.LinearSchedule(-6.0, 4.0)
OPTIONS = {"depths": (8, 16, 32, 64), "draws": 48, "path_steps": 96}


def gaussian() -> GaussianWorld:
    variances = torch.logspace(-1.5, 0, 4, dtype=F64)
    return GaussianWorld(torch.full_like(variances, 0.3), variances, dc.NonTrainableEncoder())


def test_a_gaussian_world_passes() -> None:
    world = gaussian()
    exact = float(world.infinite_depth_loss(SCHEDULE.gamma_min, SCHEDULE.gamma_max))
    x = world.sample(300, generator(0))
    result = verify(world.model(SCHEDULE), x, exact=exact, generator=generator(1), **OPTIONS)
    assert result.passed, result.table()
    assert len(result.checks) == 9 and "FAILED" not in result.table()


def test_a_mixture_of_images_passes() -> None:
    world = MixtureWorld(normal(0, 3, 1, 2, 2) / 2, 0.3)
    x = world.sample(300, generator(0))
    result = verify(world.model(SCHEDULE), x, generator=generator(1), **OPTIONS)
    assert result.passed, result.table()


def test_path_kl_is_unbiased() -> None:
    """At 48 steps the mean over many paths is the closed-form L_inf within its standard error and O(1/steps^2)."""
    world = gaussian()
    exact = float(world.infinite_depth_loss(SCHEDULE.gamma_min, SCHEDULE.gamma_max))
    with torch.no_grad():
        found = path_kl(world.model(SCHEDULE), world.sample(8000, generator(0)), 48, generator(1))
    assert abs(float(found.mean()) - exact) < 4 * float(found.std()) / 8000**0.5 + 0.005 * exact


class WrongRate(dc.DiffEnc):
    """r_hat three times as large in predictions, and so in drifts and steps, but not in the ELBO's errors."""

    def predict(self, z, gamma):
        heads = super().predict(z, gamma)
        return dc.Estimates(heads.x_hat, 3 * heads.r_hat)


class WrongEstimate(dc.DiffEnc):
    def predict(self, z, gamma):
        heads = super().predict(z, gamma)
        return dc.Estimates(1.3 * heads.x_hat, heads.r_hat)


@pytest.mark.parametrize("wrong,examples", [(WrongRate, 2000), (WrongEstimate, 300)])
def test_a_wrong_drift_fails(wrong, examples) -> None:
    world = gaussian()
    model = wrong(SCHEDULE, world.encoder, Direct(world), dc.Reals())
    x = world.sample(examples, generator(0))
    result = verify(model, x, generator=generator(1), **OPTIONS)
    failed = [check.name for check in result.checks if not check.passed]
    assert not result.passed and "FAILED" in result.table()
    assert "L_inf: path KL (logqp) against Monte Carlo" in failed


def test_a_wrong_schedule_derivative_fails() -> None:
    class Half(dc.LinearSchedule):
        def forward(self, t):
            point = super().forward(t)
            return dc.SchedulePoint(point.gamma, point.rate / 2)

    world = gaussian()
    x = world.sample(300, generator(0))
    result = verify(world.model(Half(-6.0, 4.0)), x, generator=generator(1), **OPTIONS)
    assert not result.passed


def test_richardson_is_exact_to_second_order() -> None:
    losses = [torch.tensor([5.0 + 3 / T - 7 / T**2], dtype=F64) for T in (8, 16, 32)]
    torch.testing.assert_close(richardson(*losses), torch.tensor([5.0], dtype=F64))


def test_check_arithmetic() -> None:
    assert Check("", 1.0, 0.0, 0.25).passed and not Check("", 1.0, 0.0, 0.24).passed
    assert Check("", 1.0, 0.0, 0.2, 0.3).deviations == pytest.approx(3.5)
    assert not Check("", math.nan, 0.0, 1.0).passed


@pytest.mark.parametrize(
    "options", [{"draws": 0}, {"path_steps": 0}, {"ratio": 1.0}, {"ratio": -1.0}]
)
def test_nonsense_is_named(options) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        verify(gaussian().model(SCHEDULE), gaussian().sample(20), **options)


def test_the_ladder_doubles() -> None:
    for depths in ((8, 16), (8, 16, 24)):
        with pytest.raises(ValueError, match="twice the one before"):
            verify(gaussian().model(SCHEDULE), gaussian().sample(20), depths=depths)
