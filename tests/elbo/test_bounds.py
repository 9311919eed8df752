"""Bounds and draws as objects: what they take and refuse, and where a bound looks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.calibration import RatioPerValue
from diffenc_ct.elbo import LowDiscrepancyDepths, check_grid, ratio_at, uniform_grid
from tests.refusals import refused
from tests.strategies import (
    close,
    dtypes,
    generator,
    make_encoder,
    make_model,
    noise_levels,
    normal,
    seeds,
)

F64 = torch.float64
REAL = make_model(dc.LinearSchedule(-5.0, 5.0), dc.NonTrainableEncoder(), (2,), 1)
X = normal(1, 3, 2)
BOTH = pytest.mark.parametrize(
    "bound", [dc.InfiniteDepth(), dc.FiniteDepth(4)], ids=["infinite", "finite"]
)


# Bounds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"noise_level": 0.0}, ValueError, "noise_level=0 .* use eta > 0"),
        ({"noise_level": -1.0}, ValueError, "noise_level=-1.0 must be a finite number >= 0"),
        ({"noise_level": None}, TypeError, "noise_level=None must be a number, a NoiseLevel"),
        ({"noise_level": "optimal"}, TypeError, "noise_level='optimal' must be a number"),
        ({"ends_fraction": 0.0}, ValueError, r"ends_fraction=0.0 must lie in \(0, 1\]"),
        ({"ends_fraction": 1.1}, ValueError, "ends_fraction"),
        ({"rate_fraction": 0.0}, ValueError, "rate_fraction"),
        ({"rate_fraction": 1.1}, ValueError, "rate_fraction"),
        ({"ratio": 2.0}, TypeError, "ratio"),  # any ratio but 1 is infinitely bad at infinite depth
        ({"grid": torch.linspace(0, 1, 3)}, TypeError, "grid"),
    ],
)
def test_infinite_depth_refuses(options, error, message):
    with refused(error, message):
        dc.InfiniteDepth(**options)


@pytest.mark.parametrize(
    "steps, options, error, message",
    [
        (0, {}, ValueError, "depth=0; a model needs at least one step"),
        (-2, {}, ValueError, "at least one step"),
        (3.5, {}, TypeError, "a number of steps, a grid of depths or a Calibration"),
        (None, {}, TypeError, "a number of steps, a grid of depths or a Calibration"),
        ([0.0, 1.0], {}, TypeError, "a grid of depths"),
        (torch.tensor([0.1, 0.5, 1.0]), {}, ValueError, "= 3 depths, strictly increasing from 0"),
        (torch.tensor([0.0, 0.5, 0.9]), {}, ValueError, "from 0 to 1; got"),
        (torch.tensor([0.0, 0.5, 0.5, 1.0]), {}, ValueError, "strictly increasing"),
        (torch.tensor([0.0, math.nan, 1.0]), {}, ValueError, "strictly increasing"),
        (torch.linspace(0, 1, 4).reshape(2, 2), {}, ValueError, "grid must hold"),
        (torch.tensor([0.0]), {}, ValueError, "grid must hold depth . 1 = 2 depths"),
        (torch.tensor(0.0), {}, ValueError, "grid must hold"),
        (torch.empty(0), {}, ValueError, "grid must hold"),
        (4, {"ratio": -1.0}, ValueError, "ratio multiplies a variance: it must be positive"),
        (4, {"ratio": 0.0}, ValueError, "ratio"),
        (4, {"ratio": math.nan}, ValueError, "ratio"),
        (4, {"ratio": math.inf}, ValueError, "ratio"),
        (4, {"ratio": torch.ones(3)}, ValueError, r"one number or one a step \(4\)"),
        (4, {"ratio": torch.tensor([1.0, 2.0, 0.0, 1.0])}, ValueError, "positive"),
        (torch.linspace(0, 1, 4), {"ratio": torch.ones(4)}, ValueError, r"one a step \(3\)"),
        (
            4,
            {"ratio": "optimal"},
            TypeError,
            "ratio='optimal'; give a number, a tensor of one a step",
        ),
        (2, {"ratio": [1.0, 2.0]}, TypeError, "give a number, a tensor of one a step"),
        (4, {"noise_level": 0.0}, ValueError, "noise_level=0 .* use eta > 0"),
        (4, {"noise_level": -1.0}, ValueError, "noise_level"),
        (4, {"noise_level": "optimal"}, TypeError, "noise_level"),
        (4, {"ends_fraction": 0.5}, TypeError, "ends_fraction"),
    ],
)
def test_finite_depth_refuses(steps, options, error, message):
    with refused(error, message):
        dc.FiniteDepth(steps, **options)


def test_a_ratio_a_dimension_is_of_the_data():
    """What no bound can know before it sees data."""
    with pytest.raises(ValueError, match=r"ratio has shape \(4, 3\); .* is \(4, 2\)"):
        dc.elbo(REAL, X, dc.FiniteDepth(4, ratio=torch.ones(4, 3)))


def calibration(seed, *, per_dimension=False, per_value=False):
    """Three uneven steps with numbers of their own."""
    grid = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=F64)
    values = RatioPerValue(normal(seed, 3, 2).sort(1).values, 0.5 + normal(seed + 1, 3, 3).abs())
    return dc.Calibration(
        grid=grid,
        gamma=REAL.schedule(grid).gamma,
        ratio=0.5 + normal(seed + 2, 3).abs(),
        ratio_error=torch.ones(3, dtype=F64),
        eta_squared=0.5 + normal(seed + 3, 3).abs(),
        ratio_per_dimension=0.5 + normal(seed + 4, 3, 2).abs() if per_dimension else None,
        ratio_per_value=values if per_value else None,
        loss=1.0,
        loss_error=0.1,
        examples=9,
    )


@given(st.booleans(), st.booleans(), noise_levels(), seeds)
def test_a_calibration_brings_grid_ratio_and_noise_level(per_dimension, per_value, level, seed):
    """Its finest ratio and eta* where nothing else is said; each may be given instead."""
    c = calibration(seed, per_dimension=per_dimension, per_value=per_value)
    table = c.ratio_per_dimension if per_dimension else c.ratio
    finest = c.ratio_per_value if per_value else table
    bound = dc.FiniteDepth(c)
    assert bound.depth == 3 and torch.equal(bound.grid(X), c.grid)
    assert bound.variance_ratio is c.finest_ratio is finest
    assert torch.equal(bound.level.squared(c.gamma[:-1]), c.eta_squared)
    draws = dc.Draws(torch.tensor([0.1, 0.5, 0.9], dtype=F64), normal(seed, 3, 2))

    def loss(bound):
        return dc.elbo(REAL, X, bound, draws=draws).diffusion

    assert torch.equal(loss(bound), loss(dc.FiniteDepth(c.grid, finest, c.noise_level)))
    assert torch.equal(
        loss(dc.FiniteDepth(c, ratio=c.ratio)), loss(dc.FiniteDepth(c.grid, c.ratio, c.noise_level))
    )
    assert torch.equal(
        loss(dc.FiniteDepth(c, noise_level=level)), loss(dc.FiniteDepth(c.grid, finest, level))
    )


def test_a_calibration_is_checked_as_anything_else():
    good = calibration(0)
    with pytest.raises(ValueError, match="ratio multiplies a variance"):
        dc.FiniteDepth(good, ratio=torch.ones(4))
    with pytest.raises(ValueError, match="use eta > 0"):
        dc.FiniteDepth(good, noise_level=0.0)


@pytest.mark.parametrize("value", [-1.0, 0.0, -0.0, math.nan, -math.inf])
@pytest.mark.parametrize("whole", [False, True])
def test_a_state_ratio_that_is_not_positive_gives_nan(value, whole):
    """Never a finite number, of any of its dimensions and for that example alone."""

    def ratio(step, estimates):
        w = torch.ones_like(estimates.x_hat)
        w[1, slice(None) if whole else 0] = value
        return w

    found = dc.elbo(REAL, X, dc.FiniteDepth(4, ratio=ratio), generator=generator(0))
    assert found.diffusion.isnan().tolist() == [False, True, False]
    assert found.total.isnan().tolist() == [False, True, False]


def test_tables_of_ratios_are_read_by_step():
    estimates = dc.Estimates(torch.zeros(3, 2), torch.zeros(3, 2))
    step, table = torch.tensor([2, 0, 1]), torch.tensor([1.0, 2.0, 3.0])
    assert ratio_at(1.5, step, estimates) == 1.5
    assert ratio_at(table, step, estimates).flatten().tolist() == [3.0, 1.0, 2.0]
    each = torch.arange(1.0, 7.0).reshape(3, 2)
    assert torch.equal(ratio_at(each, step, estimates), each[step])


# Where a bound looks ------------------------------------------------------------------------------


@given(seeds)
def test_infinite_depth_looks_where_it_is_told(seed):
    t, loss = torch.rand(5, dtype=F64, generator=generator(seed)), normal(seed, 5)
    at, there = dc.InfiniteDepth().along(t, loss)
    assert torch.equal(at, t) and torch.equal(there, loss)


@given(st.integers(1, 6), st.integers(1, 4), seeds)
def test_the_integral_of_located_losses_over_depth(depth, looks, seed):
    """sum loss(depth) d depth = L_T on a grid of uneven steps, each draw t between the ends of its step."""
    inner = torch.rand(depth - 1, dtype=F64, generator=generator(seed)).sort().values
    grid = torch.cat([torch.zeros(1, dtype=F64), inner, torch.ones(1, dtype=F64)])
    bound, n = dc.FiniteDepth(grid), depth * looks
    t = (torch.arange(n, dtype=F64) + 0.5) / n
    x, noise = X[:1].expand(n, 2), normal(seed, 1, 2).expand(n, 2)
    loss = dc.elbo(REAL, x, bound, draws=dc.Draws(t, noise)).diffusion
    at, there = bound.along(t, loss)
    edges, _ = bound.along(torch.arange(n + 1, dtype=F64) / n, torch.zeros(n + 1, dtype=F64))
    close(edges[::looks], grid)
    close((edges[1:] + edges[:-1]) / 2, at)
    close((there * edges.diff()).sum(), loss.mean(), 1e-9)
    uniform = dc.FiniteDepth(depth)
    at, there = uniform.along(t, loss)
    close(at, t)
    close(there, loss)


@given(st.integers(1, 9), dtypes)
def test_grids(depth, dtype):
    like = torch.zeros(1, dtype=dtype)
    grid = uniform_grid(depth, like)
    close(grid, (torch.arange(depth + 1, dtype=F64) / depth).to(dtype))
    close(check_grid(grid.double() ** 2, depth, like), (grid.double() ** 2).to(dtype))
    with pytest.raises(ValueError, match=f"depth . 1 = {depth + 2} depths"):
        check_grid(grid, depth + 1, like)


# Draws and data -----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "name, shape",
    [("t", (2,)), ("t", (3, 1)), ("noise", (3, 1)), ("noise_0", (1, 2)), ("weight", (2,))],
)
def test_draws_of_other_shapes_than_the_data_are_refused(name, shape, bound):
    given_ = {name: torch.zeros(shape, dtype=F64)}
    if name == "weight":
        given_["t"] = torch.zeros(3, dtype=F64)
    with refused(ValueError, f"{name} has shape"):
        dc.elbo(REAL, X, bound, draws=dc.Draws(**given_))


@BOTH
def test_a_weight_without_its_depth_is_refused(bound):
    with pytest.raises(ValueError, match="weight belongs to depths that are given"):
        dc.elbo(REAL, X, bound, draws=dc.Draws(weight=torch.ones(3, dtype=F64)))


def test_what_is_not_given_is_drawn():
    """Given values are used as they are, and the other draws are the same with and without a given t."""
    given_ = dc.Draws(torch.full((3,), 0.3, dtype=F64), normal(5, 3, 2), normal(6, 3, 2))
    drawn = given_.complete(X, LowDiscrepancyDepths(), None)
    for name in ("t", "noise", "noise_0"):
        assert getattr(drawn, name) is getattr(given_, name)
    assert torch.equal(drawn.weight, torch.ones(3, dtype=F64))
    none = dc.Draws().complete(X, LowDiscrepancyDepths(), generator(4))
    assert none.noise.shape == none.noise_0.shape == X.shape
    assert none.t.shape == none.weight.shape == (3,)
    with_t = dc.Draws(t=given_.t).complete(X, LowDiscrepancyDepths(), generator(4))
    assert torch.equal(with_t.noise, none.noise) and torch.equal(with_t.noise_0, none.noise_0)
    assert all(value.dtype == F64 for value in vars(none).values())


@BOTH
def test_data_of_the_wrong_kind_are_refused(bound):
    with pytest.raises(ValueError, match="x has shape"):
        dc.elbo(REAL, X[:, 0], bound)
    with pytest.raises(TypeError, match=r"Reals\(\) means real data"):
        dc.elbo(REAL, torch.zeros(2, 2, dtype=torch.long), bound)


@BOTH
@pytest.mark.parametrize("wrong", [-1, 5])
def test_levels_out_of_range(bound, wrong):
    """`elbo` looks at them and refuses; the terms do not look, and are NaN for that example alone."""
    encoder = make_encoder("trainable", (2,), 3)
    model = make_model(dc.LinearSchedule(-5.0, 5.0), encoder, (2,), 1, levels=5)
    x = torch.tensor([[0, 4], [1, wrong], [2, 3]])
    with pytest.raises(ValueError, match=r"they must lie in 0\.\.4"):
        dc.elbo(model, x, bound)
    assert bound.terms(model, x, None, generator(0)).total.isnan().tolist() == [False, True, False]
    assert model(x, generator=generator(0)).total.isnan().tolist() == [False, True, False]
