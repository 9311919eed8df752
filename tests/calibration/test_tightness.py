"""Tightness from residuals against the closed forms of Gaussian worlds."""

import math

import pytest
import torch
from hypothesis import given, settings

import diffenc_ct as dc
from diffenc_ct.calibration import (
    Tightness,
    optimal_eta_squared,
    tightness,
)
from diffenc_ct.process import FunctionNoiseLevel
from tests.strategies import (
    close,
    gaussian_worlds,
    generator,
    make_gaussian_world,
    seeds,
)

SCHEDULE = dc.LinearSchedule(-6.0, 4.0)


@given(gaussian_worlds(), seeds)
@settings(max_examples=10)
def test_covariances_of_a_world(world, seed):
    model, data = world.model(SCHEDULE), world.sample(3000, generator(seed))
    found = tightness(model, data, depths=5, generator=generator(seed + 1))
    truth = world.covariances(found.gamma)
    for name, value in zip("abc", truth, strict=True):
        error = getattr(found, f"{name}_error")
        assert ((getattr(found, name) - value).abs() <= 5 * error + 1e-12).all(), name
    assert found.examples == 3000 and found.dimensions == world.dimensions


@pytest.mark.parametrize("kind", ["matrix", "nontrainable"])
def test_gap_and_gain_of_a_world(kind):
    world = make_gaussian_world(2, kind, 3)
    found = tightness(
        world.model(SCHEDULE), world.sample(4000, generator(0)), depths=65, generator=generator(1)
    )
    gap = world.gap(-6.0, 4.0).item()
    level = FunctionNoiseLevel(lambda g: world.optimal_noise_level_squared(g).sqrt())
    remaining = world.gap(-6.0, 4.0, level).item()
    assert abs(found.gap - gap) < 5 * found.gap_error + 1e-3
    assert abs(found.gain - (gap - remaining)) < 5 * found.gain_error + 1e-3
    assert found.gap_error < 0.05 * gap and 0 < found.gain
    if kind == "nontrainable":  # tight at eta*
        assert abs(found.remaining_gap) < 1e-3 + 5 * found.gap_error


def test_noise_level_is_tabulated_and_lowest():
    world = make_gaussian_world(2, "matrix", 5)
    found = tightness(world.model(SCHEDULE), world.sample(500, generator(0)), depths=17)
    level = found.noise_level
    close(level.squared(found.gamma), optimal_eta_squared(found.a, found.b, found.c))
    best = found.rate(level)
    for eta in (0.6, 0.9, 1.0, 1.1, 1.4, 2.0):
        assert (best <= found.rate(eta) + 1e-12).all()
    scaled = dc.TabulatedNoiseLevel(found.gamma, 1.01 * found.eta_squared)
    assert (best < found.rate(scaled)).all()


def test_elbo_at_the_optimal_noise_level_gains_what_is_promised():
    """The same depths and noise at eta = 1 and eta*: the mean difference is the gain."""
    world = make_gaussian_world(2, "matrix", 6)
    model, n = world.model(SCHEDULE), 20000
    found = tightness(model, world.sample(4000, generator(0)), depths=65, generator=generator(1))
    x = world.sample(n, generator(2))
    losses = [
        dc.elbo(model, x, dc.InfiniteDepth(level), generator=generator(3)).total
        for level in (1.0, found.noise_level)
    ]
    difference = losses[0] - losses[1]
    error = math.hypot((difference.std() / math.sqrt(n)).item(), found.gain_error)
    assert abs(difference.mean() - found.gain) < 4 * error + 1e-3
    assert found.gain > 10 * found.gain_error


def test_single_head_residuals():
    """With one head the residuals are x_t - x_hat and x_t' - sigma^2 x_hat: larger a, the same sum at eta = 1."""
    world = make_gaussian_world(2, "matrix", 7)
    data = world.sample(2000, generator(0))
    single, paired = (
        tightness(world.model(SCHEDULE, heads=kind), data, depths=9, generator=generator(1))
        for kind in ("single", "paired")
    )
    close(single.rate(1.0), paired.rate(1.0), 1e-8)
    assert (single.a > paired.a).all()


def test_saved_and_loaded(tmp_path):
    world = make_gaussian_world(1, "matrix", 1)
    found = tightness(world.model(SCHEDULE), world.sample(50, generator(0)), depths=5)
    found.save(tmp_path / "tightness.json")
    again = Tightness.load(tmp_path / "tightness.json")
    for name, value in vars(found).items():
        other = getattr(again, name)
        assert torch.equal(other, value) if isinstance(value, torch.Tensor) else other == value
    (tmp_path / "wrong.json").write_text('{"gamma": [0, 1]}')
    with pytest.raises(ValueError, match="no saved tightness"):
        Tightness.load(tmp_path / "wrong.json")


def test_same_seed_same_numbers_and_refusals():
    world = make_gaussian_world(1, "matrix", 1)
    model, data = world.model(SCHEDULE), world.sample(20, generator(0))
    one, two = (tightness(model, data, depths=3, generator=generator(4)) for _ in range(2))
    assert torch.equal(one.a, two.a) and one.gap == two.gap
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        dc.Work(batch_size=0)
    fewest = tightness(model, data[:2], depths=2, generator=generator(4))
    assert fewest.examples == 2 and torch.isfinite(fewest.a_error).all()
    for bad in ({"depths": 1}, {"data": data[:1]}):
        with pytest.raises(ValueError, match="at least 2"):
            tightness(model, **{"data": data, **bad})
