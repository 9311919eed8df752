"""eta* from running estimates: what it tends to, by hand, and where its numbers are."""

import copy

import pytest
import torch
from hypothesis import given, settings

import diffenc_ct as dc
from diffenc_ct.calibration import RunningNoiseLevel
from diffenc_ct.process import Errors, marginal
from tests.strategies import close, generator, make_gaussian_world, normal, seeds

F64 = torch.float64
SCHEDULE = dc.LinearSchedule(-6.0, 4.0)


def errors_of(world, model, gamma, seed):
    """Data of the world at depths gamma, and the errors of the model's heads there."""
    x, noise = (
        world.sample(len(gamma), generator(seed)),
        normal(seed + 1, len(gamma), world.dimensions),
    )
    encoding = model.encoder(x, gamma)
    z = marginal(encoding.value, gamma).sample(noise=noise)
    return model.errors(z, noise, encoding, gamma)


@given(seeds)
@settings(max_examples=5)
def test_running_estimates_tend_to_the_optimal_noise_level(seed):
    world = make_gaussian_world(2, "matrix", seed % 50)
    model = world.model(SCHEDULE)
    level = RunningNoiseLevel(-6.0, 4.0, bins=40, decay=0.95)
    close(level.squared(torch.tensor([-7.0, 0.0, 5.0])), torch.ones(3))
    for step in range(60):
        gamma = -6 + 10 * torch.rand(2000, generator=generator(seed + 3 * step), dtype=torch.double)
        level.update(level.count(gamma, errors_of(world, model, gamma, seed + 3 * step + 1)))
    gamma = torch.linspace(-5.5, 3.5, 19, dtype=torch.float64)
    truth = world.optimal_noise_level_squared(gamma).clamp(0.25, 16)
    assert ((level.squared(gamma) / truth).log().abs() < 0.15).all()
    scaled = level.moments.clone()
    level.moments = 7 * scaled  # only ratios matter
    close(level.squared(gamma), with_moments(level, scaled).squared(gamma))


def with_moments(level, moments):
    other = copy.copy(level)
    other.moments = moments
    return other


def test_counts_of_parts_add_up_to_those_of_the_batch():
    world = make_gaussian_world(2, "matrix", 3)
    model, level = world.model(SCHEDULE), RunningNoiseLevel(-6.0, 4.0, bins=5)
    gamma = torch.linspace(-6, 4, 64, dtype=torch.float64)
    errors = errors_of(world, model, gamma, 0)
    whole = level.count(gamma, errors)
    parts = [
        level.count(g, Errors(a, b))
        for g, a, b in zip(gamma.chunk(4), errors.x.chunk(4), errors.r.chunk(4), strict=True)
    ]
    close(sum(parts), whole)
    close(whole.sum(0)[0], errors.x.square().sum())
    close(whole.sum(0)[1], errors.r.square().sum())
    close(whole.sum(0)[2], (errors.x * errors.r).sum())
    level.update(whole)
    before = level.moments.clone()
    level.update(whole)
    close(level.moments, 0.99 * before + whole)


@given(seeds)
@settings(max_examples=5)
def test_running_estimates_by_hand(seed):
    """sqrt(1 + 4 (b + c)/a) of decayed sums, clamped, bin by bin; linear between the bins' middles."""
    level, sums = RunningNoiseLevel(-6.0, 4.0, bins=4, decay=0.9), torch.zeros(4, 3, dtype=F64)
    for step in range(3):
        gamma = -6 + 10 * torch.rand(40, dtype=F64, generator=generator(seed + step))
        errors = Errors(normal(seed + step + 9, 40, 2), normal(seed + step + 99, 40, 2))
        level.update(level.count(gamma, errors))
        sums = 0.9 * sums
        for g, e, r in zip(gamma.tolist(), errors.x, errors.r, strict=True):
            sums[int((g + 6) / 2.5)] += torch.stack([e @ e, r @ r, e @ r])
    a, b, c = sums.unbind(1)
    eta_squared = (1 + 4 * (b + c) / a).clamp(min=0).sqrt().clamp(0.25, 16)
    middles = torch.tensor([-4.75, -2.25, 0.25, 2.75], dtype=F64)
    close(level.squared(middles), eta_squared)
    close(level.squared((middles[1:] + middles[:-1]) / 2), (eta_squared[1:] + eta_squared[:-1]) / 2)
    table = dc.TabulatedNoiseLevel(middles, eta_squared)
    close(level.integral(middles - 2, middles + 1), table.integral(middles - 2, middles + 1))


def test_eta_is_one_until_every_bin_was_seen():
    level = RunningNoiseLevel(-6.0, 4.0, bins=2)
    errors = Errors(torch.ones(1, 2), torch.ones(1, 2))
    ends = torch.tensor([-5.0, 3.0])
    level.update(level.count(torch.tensor([-5.0]), errors))
    assert torch.equal(level.squared(ends), torch.ones(2))
    level.update(level.count(torch.tensor([3.0]), errors))
    close(level.squared(ends), torch.full((2,), 3.0))


@pytest.mark.parametrize("factor, eta_squared", [(-0.5, 0.25), (100.0, 16.0)])
def test_eta_stays_within_bounds(factor, eta_squared):
    """r = factor e has eta*^2 = sqrt(1 + 4 factor (factor + 1)) = |1 + 2 factor|: 0 and 201, of a young model."""
    level, gamma = RunningNoiseLevel(-6.0, 4.0, bins=2), torch.tensor([-5.0, 3.0])
    errors = torch.ones(2, 3)
    level.update(level.count(gamma, Errors(errors, factor * errors)))
    close(level.squared(gamma), torch.full((2,), eta_squared))


def test_its_numbers_stay_on_the_device_of_what_is_counted():
    """On "meta", which has no values, whatever left it would fail."""
    level = RunningNoiseLevel(-6.0, 4.0, bins=3)
    assert level.to("meta") is level
    gamma = torch.zeros(5, device="meta")
    counted = level.count(gamma, Errors(*torch.zeros(2, 5, 2, device="meta")))
    level.update(counted)
    found = (
        counted,
        level.moments,
        level.edges,
        level.squared(gamma),
        level.integral(gamma, gamma),
    )
    assert all(value.device.type == "meta" for value in found)
    assert level.squared(gamma).dtype == gamma.dtype


@pytest.mark.parametrize("options", [{"bins": 1}, {"decay": 0.0}, {"decay": 1.0}])
def test_a_running_noise_level_refuses(options):
    with pytest.raises(ValueError, match="bins=.* >= 2 and decay=.* in .0, 1. are required"):
        RunningNoiseLevel(-6.0, 4.0, **options)
