"""Tables of steps: against the direct computation and closed forms, smoothed, with single values kept."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.calibration import Measurement, measure_steps
from diffenc_ct.elbo import mean_difference, uniform_grid
from diffenc_ct.process import marginal
from tests.strategies import (
    close,
    generator,
    make_gaussian_world,
    noise_levels,
    normal,
    small_model,
)

F64 = torch.float64
SCHEDULE = dc.LinearSchedule(-5.0, 3.0)


@settings(max_examples=8)
@given(
    st.sampled_from(["identity", "nontrainable", "trainable"]),
    st.sampled_from(["single", "paired"]),
    noise_levels(),
    st.integers(0, 99),
)
def test_tables_hold_every_steps_difference(kind, heads, level, seed) -> None:
    """E||Delta||^2/(d S^2) from inner products is that of mean_difference, for the same noise, at every (s, t)."""
    model, x = small_model(kind, heads), normal(seed, 2, 3)
    how = Measurement(candidates=4, groups=2)
    tables = measure_steps(model, x, how, generator=generator(seed))
    found = tables.excess(level)
    # The same draws: group after group, depth after depth.
    g = generator(seed)
    noise = torch.stack([torch.randn(5, 3, dtype=F64, generator=g) for _ in range(2)], 1)
    for s, t in itertools.combinations(range(5), 2):
        grid = uniform_grid(4, x)
        gamma = model.schedule(grid).gamma
        both = gamma[t].expand(2)
        encoding = model.encoder(x, both)
        errors = model.errors(
            marginal(encoding.value, both).sample(noise=noise[t]), noise[t], encoding, both
        )
        x_s = model.encoder.encode(x, gamma[s].expand(2))
        difference = mean_difference(errors, encoding, x_s, gamma[s], gamma[t], level)
        variance = -torch.expm1(-level.integral(gamma[s], gamma[t])) * torch.exp(gamma[s])
        close(found[s, t], (difference**2).mean() / variance, 1e-8)
    assert (found.tril() == 0).all()


def test_tables_of_the_gaussian_world_match_closed_forms() -> None:
    """Within four standard errors at every step, and L_inf by quadrature."""
    world = make_gaussian_world(2, "matrix", 5)
    model, x = world.model(SCHEDULE), world.sample(3000, generator(1))
    how = Measurement(candidates=8, examples_at_once=200)
    tables = measure_steps(model, x, how, generator=generator(2))
    each = tables.excess(1.0, groups=True)
    mean, error = each.mean(0), each.std(0) / len(each) ** 0.5
    s, t = torch.triu_indices(9, 9, 1)
    exact = world.step_excess(tables.gamma[s], tables.gamma[t]).mean(1)
    assert ((mean[s, t] - exact).abs() < 4.5 * error[s, t] + 1e-12).all()
    assert (error[s, t] < 0.2 * (0.05 + exact)).all()


def test_infinite_depth_loss_from_tables() -> None:
    world = make_gaussian_world(2, "matrix", 5)
    model, x = world.model(SCHEDULE), world.sample(800, generator(1))
    tables = measure_steps(model, x, Measurement(candidates=64), generator=generator(2))
    for eta in (1.0, 1.4):
        each = tables.infinite_depth_loss(eta)
        exact = float(world.infinite_depth_loss(-5.0, 3.0, eta))
        assert abs(float(each.mean()) - exact) < 4.5 * float(each.std()) / 4 + 2e-3 * exact


def test_smoothed_tables_average_errors_over_depth() -> None:
    """Each depth's errors become the mean over its neighbours, the ends repeated; x_s stays."""
    how = Measurement(candidates=32)
    tables = measure_steps(small_model("trainable"), normal(1, 16, 3), how, generator=generator(2))
    smooth, near = tables.smoothed(), lambda t: [max(t - 1, 0), t, min(t + 1, 32)]
    for t in (0, 5, 32):
        for name in ("ee", "er", "rr", "ex", "rx"):
            table = getattr(tables, name)
            close(getattr(smooth, name)[:, t], table[:, near(t)].mean(1))
    assert torch.equal(smooth.xx, tables.xx) and torch.equal(smooth.rate_error, tables.rate_error)


def test_single_values_are_kept_where_they_are_asked_for() -> None:
    """e, r and x_t at every depth, of as many dimensions as asked for; nothing else changes."""
    model, x = small_model("trainable", "paired"), normal(3, 6, 3)

    def measured(keep):
        return measure_steps(
            model, x, Measurement(candidates=4, groups=2, keep=keep), generator=generator(2)
        )

    without, some, whole = (measured(keep) for keep in (0, 6, 18))
    assert without.kept is None and some.kept.e.shape == (5, 6)
    assert torch.equal(without.excess(), whole.excess()) and torch.equal(some.ex, whole.ex)
    kept = whole.kept
    assert kept.e.shape == kept.r.shape == kept.x.shape == (5, 18) and kept.e.dtype == torch.float32
    # All of them: their squares are the tables' sums, x_t is the encoding of the data in some order.
    close((kept.e.double() ** 2).sum(1), whole.ee.mean(0) * 6, 1e-4)
    close((kept.e * kept.r).double().sum(1), whole.er.mean(0) * 6, 1e-4)
    close((kept.r.double() ** 2).sum(1), whole.rr.mean(0) * 6, 1e-4)
    close((kept.x.double() ** 2).sum(1), torch.diagonal(whole.xx.mean(0)) * 6, 1e-4)
    encoded = model.encoder.encode(x, whole.gamma[4].expand(6)).flatten()
    close(kept.x[4].double().sort().values, encoded.detach().sort().values, 1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"candidates": 1}, "candidates=1; at least 2"),
        ({"groups": 1}, "groups=1 must be at least 2"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"examples_at_once": 0}, "examples_at_once=0 must be at least 1"),
        ({"keep": -1}, "keep=-1 must be at least 0"),
    ],
)
def test_a_measurement_refuses(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        Measurement(**options)


def test_a_measurement_needs_an_example_a_group() -> None:
    with pytest.raises(ValueError, match="groups=16 must be at least 2 and at most the 4 examples"):
        measure_steps(small_model("identity"), normal(1, 4, 3))
