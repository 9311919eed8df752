"""Calibration: the shortest path, plans against closed forms, what bounds take, and what is saved."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.calibration import (
    Calibration,
    CalibrationOptions,
    Measurement,
    SteppedNoiseLevel,
    calibrate,
    measure_steps,
    plan,
    shortest_path,
    step_excess,
)
from diffenc_ct.elbo import elbo
from diffenc_ct.model.fingerprint import fingerprint
from tests.refusals import refused
from tests.strategies import (
    close,
    generator,
    make_gaussian_world,
    normal,
)

F64 = torch.float64
SCHEDULE = dc.LinearSchedule(-5.0, 3.0)


# The shortest path --------------------------------------------------------------------------------


@given(st.integers(1, 7), st.integers(0, 999), st.data())
def test_dynamic_programming_equals_brute_force(n, seed, data) -> None:
    steps = data.draw(st.integers(1, n))
    cost = normal(seed, n + 1, n + 1).abs()
    path = shortest_path(cost, steps)
    assert path[0] == 0 and path[-1] == n and len(path) == steps + 1
    assert all(a < b for a, b in itertools.pairwise(path))

    def price(nodes) -> float:
        return float(sum(cost[a, b] for a, b in itertools.pairwise(nodes)))

    best = min(price((0, *inner, n)) for inner in itertools.combinations(range(1, n), steps - 1))
    assert price(path) == pytest.approx(best)


def test_too_many_steps() -> None:
    for steps in (0, 5):
        with pytest.raises(ValueError, match="1 to 4"):
            shortest_path(torch.ones(5, 5), steps)


# Calibration --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world():
    return make_gaussian_world(2, "identity", 3)


@pytest.fixture(scope="module")
def tables(world):
    x = world.sample(600, generator(1))
    how = Measurement(candidates=32)
    return measure_steps(world.model(SCHEDULE), x, how, generator=generator(2))


# The paper's noise level, so that only the grid is chosen.
BEST, UNIFORM = CalibrationOptions(1.0), CalibrationOptions(1.0, grid="uniform")


def price(found, tables, *, smoothed: bool) -> float:
    """The plan's loss, read from tables at its grid and noise levels one step after another."""
    nodes = torch.searchsorted(tables.t, found.grid - 1e-9).tolist()
    source, total = tables.smoothed() if smoothed else tables, 0.0
    for i, eta_squared in enumerate(found.eta_squared.tolist()):
        excess = source.excess(eta_squared**0.5)[nodes[i], nodes[i + 1]]
        total += float(tables.dimensions / 2 * torch.log1p(excess))
    return total


def test_best_grid_is_no_worse_and_free_noise_levels_no_worse(tables) -> None:
    for T in (4, 8, 16):
        plans = [plan(tables, T, options) for options in (UNIFORM, BEST, None)]
        uniform, best, free = (price(p, tables, smoothed=True) for p in plans)
        assert free <= best + 1e-9 and best <= uniform + 1e-9
        for found in plans:
            assert price(found, tables, smoothed=False) == pytest.approx(found.loss)


def test_a_grid_is_not_fooled_by_rare_errors_that_were_missed() -> None:
    """One depth's errors, missed by the sample, draw the shortest path through it, but not the plan."""
    world = make_gaussian_world(2, "identity", 3)
    x = world.sample(64, generator(1))
    how = Measurement(candidates=64, shared_noise=True)
    tables = measure_steps(world.model(SCHEDULE), x, how, generator=generator(2))
    ee = tables.ee.clone()
    ee[:, 50] *= 0.5
    lucky = replace(tables, ee=ee)
    fooled = shortest_path(torch.log1p(lucky.excess()), 4)
    found = torch.searchsorted(tables.t, plan(lucky, 4, BEST).grid - 1e-9).tolist()
    assert 50 in fooled and 50 not in found


def test_optimal_ratio_in_closed_form(world, tables) -> None:
    found = plan(tables, 8, UNIFORM)
    exact = 1 + world.step_excess(found.gamma[:-1], found.gamma[1:]).mean(1)
    assert ((found.ratio - exact).abs() < 4.5 * found.ratio_error).all()
    exact_loss = float(world.finite_depth_loss(found.gamma, 1.0, "optimal"))
    assert abs(found.loss - exact_loss) < 4.5 * found.loss_error


@pytest.mark.parametrize("kind", ["identity", "nontrainable", "matrix"])
@pytest.mark.parametrize("eta", [1.0, 1.3])
def test_per_dimension_excess_in_closed_form(kind, eta) -> None:
    world = make_gaussian_world(2, kind, 3)
    x, model = world.sample(4000, generator(4)), world.model(SCHEDULE)
    grid = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=F64)
    found = step_excess(model, x, grid, eta, generator=generator(5), batch_size=1000)
    gamma = SCHEDULE(grid).gamma
    exact = world.step_excess(gamma[:-1], gamma[1:], eta)
    # Each is the mean of 4000 squares of Gaussians, whose variance is at most twice the square of their mean.
    assert ((found / exact - 1).abs() < 4.5 * (2 / 4000) ** 0.5).all()


@pytest.mark.parametrize("ratio", ["step", "dimension"])
def test_a_bound_takes_a_calibration(world, ratio) -> None:
    """FiniteDepth(calibration) is FiniteDepth of its numbers, and its mean the fitted loss."""
    model, x = world.model(SCHEDULE), world.sample(512, generator(1))
    options = CalibrationOptions(ratio="dimension", candidates=16)
    found = calibrate(model, x, 5, options, generator=generator(0))
    assert found.depth == 5 and found.ratio_per_dimension.shape == (5, 2)
    if ratio == "step":
        found = replace(found, ratio_per_dimension=None)
    assert found.ratio_name == ("w*" if ratio == "step" else "w* per dimension")
    draws = dc.Draws((torch.arange(512, dtype=F64) + 0.5) / 512, normal(77, 512, 2))
    numbers = dc.FiniteDepth(
        found.grid,
        ratio=found.ratio if ratio == "step" else found.ratio_per_dimension,
        noise_level=found.noise_level,
    )
    one, two = (
        elbo(model, x, bound, draws=draws).diffusion for bound in (dc.FiniteDepth(found), numbers)
    )
    close(one, two)
    error = float(one.std()) / 512**0.5
    assert abs(float(one.mean()) - found.loss) < 5 * error


def test_what_is_calibrated_is_what_was_asked_for(world) -> None:
    """eta* unless a noise level is given; one ratio a step unless finer ones are asked for."""
    model, x = world.model(SCHEDULE), world.sample(64, generator(1))

    def found(**options):
        return calibrate(
            model, x, 4, CalibrationOptions(candidates=8, **options), generator=generator(0)
        )

    fitted, given_ = found(), found(noise_level=1.3)
    tried = torch.tensor(dc.calibration.ETA_SQUARED, dtype=F64)
    assert torch.isin(fitted.eta_squared, tried).all()
    close(given_.eta_squared, torch.full((4,), 1.69, dtype=F64))
    assert fitted.ratio_per_dimension is None and fitted.ratio_per_value is None
    assert found(ratio="dimension").ratio_per_value is None
    value = found(ratio="value")
    assert value.ratio_per_dimension is None and value.finest_ratio is value.ratio_per_value
    whole = calibrate(model, x, 2, generator=generator(0))  # all by default
    assert torch.equal(whole.grid * 256, (whole.grid * 256).round()) and whole.ratio_name == "w*"
    fits = [fitted, given_, value, whole, found(ratio="dimension")]
    assert {each.fitted_to for each in fits} == {fingerprint(model)}


@pytest.mark.parametrize("ratio", ["step", "dimension", "value"])
def test_all_that_is_random_is_the_generators(world, ratio) -> None:
    """The same numbers whatever the global seed is, which is left as it was."""
    model, x = world.model(SCHEDULE), world.sample(64, generator(1))
    options, found = CalibrationOptions(candidates=8, ratio=ratio), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.random.get_rng_state()
        found.append(calibrate(model, x, 3, options, generator=generator(0)))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(found[0].ratio, found[1].ratio)
    if ratio == "dimension":
        assert torch.equal(found[0].ratio_per_dimension, found[1].ratio_per_dimension)
    if ratio == "value":
        one, other = (each.ratio_per_value for each in found)
        tensors = {name: value for name, value in vars(one).items() if torch.is_tensor(value)}
        assert tensors
        for name, value in tensors.items():
            assert torch.equal(value, vars(other)[name]), name


@pytest.mark.parametrize(("keep", "kept"), [(1, 4), (32, 32), (33, 33), (10**6, 64)])
def test_so_many_values_are_kept_as_were_asked_for(world, keep, kept) -> None:
    """Of 32 examples of two dimensions in four groups: of each its share, at least one, and no more than there are."""
    how = Measurement(candidates=4, groups=4, keep=keep)
    tables = measure_steps(world.model(SCHEDULE), world.sample(32, generator(1)), how)
    assert tables.kept is not None and abs(tables.kept.e.shape[1] - kept) <= (keep == 33)


def test_a_given_noise_level_is_that_of_all_steps(tables) -> None:
    found = plan(tables, 4, CalibrationOptions(1.3))
    nodes = torch.searchsorted(tables.t, found.grid - 1e-9)
    close(found.ratio, 1 + tables.excess(1.3)[nodes[:-1], nodes[1:]])
    close(found.eta_squared, torch.full((4,), 1.69, dtype=F64))


def test_refusals_of_calibrations(tables) -> None:
    with refused(ValueError, 'ratio=.*choose "step", "dimension" or "value"'):
        CalibrationOptions(ratio="per value")
    with refused(ValueError, 'grid=.*choose "best" or "uniform"'):
        CalibrationOptions(grid="balanced")
    with pytest.raises(ValueError, match="use eta > 0"):
        CalibrationOptions(noise_level=0.0)
    with pytest.raises(ValueError, match="multiple"):
        plan(tables, 5, UNIFORM)
    with pytest.raises(ValueError, match="33 steps through 32 intervals; give 1 to 32"):
        plan(tables, 33)
    with pytest.raises(ValueError, match="Measurement.keep=...."):
        plan(tables, 4, CalibrationOptions(ratio="value"))


def test_save_and_load(tmp_path, tables) -> None:
    found = plan(tables, 6)
    found.save(tmp_path / "calibration.json")
    again = Calibration.load(tmp_path / "calibration.json")
    for name, value in vars(found).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(again, name)), name
        else:
            assert value == getattr(again, name)
    for text in ("{}", "[1]", "no JSON"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match="no calibration"):
            Calibration.load(tmp_path / "other.json")


@given(st.integers(1, 5), st.integers(0, 99), st.floats(-7, 5), st.floats(-7, 5))
def test_stepped_noise_level(n, seed, a, b) -> None:
    """Its integral is the sum of eta^2 over what each step covers; squared is the step's value."""
    gamma = torch.linspace(-5, 3, n + 1, dtype=F64)
    eta_squared = 0.2 + normal(seed, n).abs()
    level = SteppedNoiseLevel(gamma, eta_squared)
    low, high = sorted((a, b))
    fine = torch.linspace(low, high, 40001, dtype=F64)
    middle = (fine[1:] + fine[:-1]) / 2
    numeric = (level.squared(middle) * fine.diff()).sum()
    close(
        level.integral(torch.tensor(low, dtype=F64), torch.tensor(high, dtype=F64)), numeric, 1e-2
    )
    close(level.integral(gamma[:-1], gamma[1:]), eta_squared * gamma.diff())
    close(level.squared((gamma[1:] + gamma[:-1]) / 2), eta_squared)
    with pytest.raises(ValueError, match="strictly increasing"):
        SteppedNoiseLevel(gamma.flip(0), eta_squared)
