"""Estimators of t: stratification, densities, unbiasedness."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffenc_ct.elbo import ImportanceDepths, LowDiscrepancyDepths, UniformDepths
from tests.strategies import close, dtypes, generator, seeds

F64 = torch.float64
LIKE = torch.zeros(1, dtype=F64)


def one_in_each_cell(t):
    """Sorted and shifted by their first, n depths lie one in each of n cells: equally spaced on the circle."""
    spaces = torch.cat([t.sort().values, t.min()[None] + 1]).diff()
    return (spaces * len(t) - 1).abs().max() < 1e-9


@given(st.integers(1, 65), seeds)
def test_low_discrepancy(batch, seed):
    t, weight = LowDiscrepancyDepths().draw(batch, like=LIKE, generator=generator(seed))
    assert t.shape == weight.shape == (batch,) and (weight == 1).all()
    assert ((t >= 0) & (t < 1)).all() and one_in_each_cell(t)
    u = torch.rand(1, dtype=F64, generator=generator(seed))
    close(t, (u + torch.arange(batch, dtype=F64) / batch) % 1)


@given(st.integers(1, 9), st.integers(1, 5), seeds)
def test_stratified_over_processes(batch, processes, seed):
    """Processes that share a generator cover [0, 1] together."""
    parts = [
        LowDiscrepancyDepths(rank, processes).draw(batch, like=LIKE, generator=generator(seed))[0]
        for rank in range(processes)
    ]
    assert one_in_each_cell(torch.cat(parts))


def test_each_low_discrepancy_depth_is_uniform():
    """Over 4,000 draws the first and the last depth have the mean and variance of U(0, 1), within 5 errors."""
    g = generator(0)
    t = torch.stack(
        [LowDiscrepancyDepths().draw(3, like=LIKE, generator=g)[0] for _ in range(4000)]
    )
    assert ((t.mean(0) - 0.5).abs() < 5 * math.sqrt(1 / 12 / 4000)).all()
    assert ((t.var(0) - 1 / 12).abs() < 5 * math.sqrt(1 / 180 / 4000)).all()


def test_uniform():
    t, weight = UniformDepths().draw(40_000, like=LIKE, generator=generator(1))
    assert (weight == 1).all() and ((t >= 0) & (t < 1)).all()
    for power in range(1, 4):
        exact, error = 1 / (power + 1), math.sqrt((1 / (2 * power + 1)) / 40_000)
        assert abs(float((t**power).mean()) - exact) < 5 * error
    lag = torch.corrcoef(torch.stack([t[1:], t[:-1]]))[0, 1]
    assert abs(float(lag)) < 5 / math.sqrt(40_000)


def learned(bins, floor, seed, decay=0.99):
    """Importance depths that saw an integrand f on a fine grid, f constant in each cell."""
    sampler = ImportanceDepths(bins, floor=floor, decay=decay)
    f = 0.2 + 3 * torch.rand(bins, dtype=F64, generator=generator(seed))
    t = (torch.arange(4 * bins, dtype=F64) + 0.5) / (4 * bins)
    sampler.update(sampler.count(t, f.repeat_interleave(4)))
    return sampler, f


@given(st.integers(1, 20), st.floats(0.01, 1), seeds)
def test_importance_density(bins, floor, seed):
    """floor + (1 - floor) sqrt(E f^2) / mean; mean 1, at least floor."""
    sampler, f = learned(bins, floor, seed)
    close(sampler.density(), floor + (1 - floor) * f / f.mean())
    close(sampler.density().mean(), torch.tensor(1.0, dtype=F64))


@given(st.integers(1, 12), st.floats(0.05, 1), seeds)
def test_importance_draws_follow_the_density(bins, floor, seed):
    """Each cell gets its share of 1,000 stratified draws to within one or two; weights are 1/density; within a cell t
    is uniform."""
    sampler, f = learned(bins, floor, seed)
    density, n = sampler.density(), 1000
    t, weight = sampler.draw(n, like=LIKE, generator=generator(seed))
    cell = (t * bins).long()
    close(weight, 1 / density[cell])
    counts = torch.bincount(cell, minlength=bins)
    assert ((counts - n * density / bins).abs() <= 2).all()
    # The mean of weight f is the integral of f, the stratification's error being O(1/n).
    assert abs(float((weight * f[cell]).mean() - f.mean())) < 4 * bins / n * float(
        (f / density).max()
    )
    linear = abs(float((weight * t).mean()) - 0.5)
    assert linear < 4 * bins / n / floor


@given(seeds)
def test_importance_lowers_the_spread(seed):
    """Without a floor the weighted integrand is constant: no variance is left."""
    sampler, f = learned(6, 1e-6, seed)
    t, weight = sampler.draw(64, like=LIKE, generator=generator(seed))
    values = weight * f[(t * 6).long()]
    close(values, f.mean().expand(64), 1e-4)


def test_importance_average_forgets():
    """Second moment and count decay together: E f^2 is a weighted mean of what was seen."""
    sampler = ImportanceDepths(2, decay=0.5, floor=0.5)
    sampler.update(sampler.count(torch.tensor([0.25, 0.75]), torch.tensor([1.0, 2.0])))
    sampler.update(sampler.count(torch.tensor([0.25]), torch.tensor([3.0])))
    root = torch.tensor([math.sqrt((0.5 * 1 + 9) / 1.5), 2.0], dtype=F64)
    close(sampler.density(), 0.5 + 0.5 * root / root.mean())


def test_importance_is_uniform_until_every_cell_was_seen():
    sampler = ImportanceDepths(4)
    for seen in ([0.1], [0.1, 0.3, 0.6]):
        sampler.update(sampler.count(torch.tensor(seen), torch.ones(len(seen))))
        assert (sampler.density() == 1).all()
    sampler.update(
        sampler.count(torch.tensor([1.0]), torch.tensor([5.0]))
    )  # t = 1 belongs to the last cell
    assert sampler.density()[3] > sampler.density()[0]


def test_importance_keeps_no_graph():
    """What a training step feeds it carries gradients, which it must let go."""
    sampler = ImportanceDepths(1)
    seen = torch.ones(3, requires_grad=True)
    sampler.update(sampler.count(seen / 2, 2 * seen))
    assert not sampler.density().requires_grad and not sampler.moments.requires_grad


def test_importance_of_a_zero_integrand_is_uniform():
    sampler = ImportanceDepths(2)
    sampler.update(sampler.count(torch.tensor([0.2, 0.8]), torch.zeros(2)))
    assert (sampler.density() == 1).all()


@given(st.integers(1, 20), st.integers(1, 4), seeds)
def test_importance_counts_add_up(bins, parts, seed):
    """What is counted of a batch in parts, or on several processes, is what is counted of the whole."""
    sampler, g = ImportanceDepths(bins), generator(seed)
    t, seen = torch.rand(12, dtype=F64, generator=g), torch.rand(12, dtype=F64, generator=g)
    counted = [sampler.count(*part) for part in zip(t.chunk(parts), seen.chunk(parts), strict=True)]
    close(sum(counted), sampler.count(t, seen))
    assert counted[0].shape == (bins, 2) and counted[0].dtype == F64
    exact = [[float((seen[(t * bins).long() == i] ** 2).sum()), 0] for i in range(bins)]
    close(sampler.count(t, seen)[:, 0], torch.tensor(exact, dtype=F64)[:, 0])
    assert sampler.count(t, seen)[:, 1].sum() == 12 and not sampler.moments.any()


@given(dtypes, seeds)
def test_dtype(dtype, seed):
    like = torch.zeros(1, dtype=dtype)
    importance, _ = learned(5, 0.1, seed)
    for sampler in (UniformDepths(), LowDiscrepancyDepths(), importance):
        t, weight = sampler.draw(7, like=like, generator=generator(seed))
        assert t.dtype == weight.dtype == dtype and ((t >= 0) & (t <= 1)).all()


def test_importance_moves_to_a_device():
    sampler = ImportanceDepths(3)
    assert sampler.to("meta") is sampler and sampler.moments.device.type == "meta"
    assert sampler.count(torch.ones(2, device="meta"), torch.ones(2, device="meta")).shape == (3, 2)


@pytest.mark.parametrize("rank, processes", [(-1, 2), (2, 2), (0, 0)])
def test_a_bad_rank_is_refused(rank, processes):
    with pytest.raises(ValueError, match="rank"):
        LowDiscrepancyDepths(rank, processes)


@pytest.mark.parametrize(
    "options", [{"bins": 0}, {"decay": 0.0}, {"decay": 1.0}, {"floor": 0.0}, {"floor": 1.5}]
)
def test_bad_importance_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ImportanceDepths(**options)
