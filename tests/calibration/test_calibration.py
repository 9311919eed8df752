"""Calibration: tables against the direct computation and closed forms, the shortest path, and what is saved."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.calibration import (
    Calibration,
    SteppedNoiseLevel,
    calibrate,
    measure_steps,
    plan,
    shortest_path,
    step_excess,
)
from diffenc_ct.elbo import elbo, mean_difference, uniform_grid
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
    tables = measure_steps(model, x, candidates=4, groups=2, generator=generator(seed))
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
    tables = measure_steps(model, x, candidates=8, generator=generator(2), examples_at_once=200)
    each = tables.excess(1.0, groups=True)
    mean, error = each.mean(0), each.std(0) / len(each) ** 0.5
    s, t = torch.triu_indices(9, 9, 1)
    exact = world.step_excess(tables.gamma[s], tables.gamma[t]).mean(1)
    assert ((mean[s, t] - exact).abs() < 4.5 * error[s, t] + 1e-12).all()
    assert (error[s, t] < 0.2 * (0.05 + exact)).all()


def test_infinite_depth_loss_from_tables() -> None:
    world = make_gaussian_world(2, "matrix", 5)
    model, x = world.model(SCHEDULE), world.sample(800, generator(1))
    tables = measure_steps(model, x, candidates=64, generator=generator(2))
    for eta in (1.0, 1.4):
        each = tables.infinite_depth_loss(eta)
        exact = float(world.infinite_depth_loss(-5.0, 3.0, eta))
        assert abs(float(each.mean()) - exact) < 4.5 * float(each.std()) / 4 + 2e-3 * exact


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
    return measure_steps(world.model(SCHEDULE), x, candidates=32, generator=generator(2))


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
        plans = [
            plan(tables, T, grid="uniform"),
            plan(tables, T),
            plan(tables, T, noise_level="optimal"),
        ]
        uniform, best, free = (price(p, tables, smoothed=True) for p in plans)
        assert free <= best + 1e-9 and best <= uniform + 1e-9
        for found in plans:
            assert price(found, tables, smoothed=False) == pytest.approx(found.loss)


def test_smoothed_tables_average_errors_over_depth(tables) -> None:
    """Each depth's errors become the mean over its neighbours, the ends repeated; x_s stays."""
    smooth, near = tables.smoothed(), lambda t: [max(t - 1, 0), t, min(t + 1, 32)]
    for t in (0, 5, 32):
        for name in ("ee", "er", "rr", "ex", "rx"):
            table = getattr(tables, name)
            close(getattr(smooth, name)[:, t], table[:, near(t)].mean(1))
    assert torch.equal(smooth.xx, tables.xx) and torch.equal(smooth.rate_error, tables.rate_error)


def test_a_grid_is_not_fooled_by_rare_errors_that_were_missed() -> None:
    """One depth's errors, missed by the sample, draw the shortest path through it, but not the plan."""
    world = make_gaussian_world(2, "identity", 3)
    x = world.sample(64, generator(1))
    tables = measure_steps(
        world.model(SCHEDULE), x, candidates=64, shared_noise=True, generator=generator(2)
    )
    ee = tables.ee.clone()
    ee[:, 50] *= 0.5
    lucky = replace(tables, ee=ee)
    fooled = shortest_path(torch.log1p(lucky.excess()), 4)
    found = torch.searchsorted(tables.t, plan(lucky, 4).grid - 1e-9).tolist()
    assert 50 in fooled and 50 not in found


def test_optimal_ratio_in_closed_form(world, tables) -> None:
    found = plan(tables, 8, grid="uniform")
    exact = 1 + world.step_excess(found.gamma[:-1], found.gamma[1:]).mean(1)
    assert ((found.ratio - exact).abs() < 4.5 * found.ratio_error).all()
    exact_loss = float(world.finite_depth_loss(found.gamma, 1.0, "optimal"))
    assert abs(found.loss - exact_loss) < 4.5 * found.loss_error


def test_per_dimension_excess_in_closed_form(world) -> None:
    x, model = world.sample(4000, generator(4)), world.model(SCHEDULE)
    grid = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=F64)
    found = step_excess(model, x, grid, generator=generator(5), batch_size=1000)
    gamma = SCHEDULE(grid).gamma
    exact = world.step_excess(gamma[:-1], gamma[1:])
    # Each is the mean of 4000 squares of a Gaussian.
    assert ((found / exact - 1).abs() < 4.5 * (2 / 4000) ** 0.5).all()


@pytest.mark.parametrize("ratio", ["optimal", "per dimension"])
def test_elbo_takes_a_calibration(world, ratio) -> None:
    """elbo with words agrees with elbo given the same numbers, and its mean with the fitted loss."""
    model, x = world.model(SCHEDULE), world.sample(512, generator(1))
    found = calibrate(model, x, depth=5, candidates=16, per_dimension=True, generator=generator(0))
    assert found.depth == 5 and found.ratio_per_dimension.shape == (5, 2)
    options = {"noise": normal(77, 512, 2), "t": (torch.arange(512, dtype=F64) + 0.5) / 512}
    words = elbo(
        model, x, depth=5, ratio=ratio, noise_level="optimal", calibration=found, **options
    )
    numbers = elbo(
        model,
        x,
        grid=found.grid,
        ratio=found.ratio if ratio == "optimal" else found.ratio_per_dimension,
        noise_level=found.noise_level,
        **options,
    )
    close(words.diffusion, numbers.diffusion)
    error = float(words.diffusion.std()) / 512**0.5
    assert abs(float(words.diffusion.mean()) - found.loss) < 5 * error


def test_words_need_a_calibration(world, tables) -> None:
    model, x, found = world.model(SCHEDULE), world.sample(4), plan(tables, 4)
    with pytest.raises(ValueError, match="need a calibration"):
        elbo(model, x, depth=4, ratio="optimal")
    with pytest.raises(ValueError, match="brings its grid of 4"):
        elbo(model, x, depth=5, ratio="optimal", calibration=found)
    with pytest.raises(ValueError, match="per_dimension=True"):
        elbo(model, x, ratio="per dimension", calibration=found)
    with pytest.raises(ValueError, match="multiple"):
        plan(tables, 5, grid="uniform")
    with pytest.raises(ValueError, match="groups"):
        measure_steps(model, x)
    with pytest.raises(ValueError, match="candidates"):
        measure_steps(model, x, candidates=1)


def test_save_and_load(tmp_path, tables) -> None:
    found = plan(tables, 6, noise_level="optimal")
    found.save(tmp_path / "calibration.json")
    again = Calibration.load(tmp_path / "calibration.json")
    for name, value in vars(found).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, getattr(again, name)), name
        else:
            assert value == getattr(again, name)
    (tmp_path / "other.json").write_text("{}")
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
