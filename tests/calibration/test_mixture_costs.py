"""What mixture steps cost, grids and noise levels found by it, and what a calibration of them brings along."""

import itertools
import json

import pytest
import torch

import diffenc_ct as dc
from diffenc_ct.calibration import Calibration, Measurement, MixtureCosts, measure_mixture_steps
from diffenc_ct.process import ConstantNoiseLevel, normal_like
from tests.refusals import refused
from tests.strategies import close, generator, normal, small_model
from tests.worlds.test_untrained_heads import V, model_of_levels

F64 = torch.float64
N = 4
LEVELS = [ConstantNoiseLevel(v) for v in (0.7, 1.0, 1.5)]


@pytest.mark.parametrize("kind", ["identity", "residual", "nontrainable"])
def test_costs_are_those_of_the_bound(kind):
    """Every step, noise level and group, with the same noise at all depths: the bound of a grid that has the step."""
    model, data = small_model(kind, "paired posterior"), normal(0, 6, 3).clamp(-1, 1)
    how = Measurement(N, batch_size=4, groups=2, shared_noise=True)
    found = measure_mixture_steps(model, data, LEVELS, how, nodes=7, generator=generator(1))
    assert found.costs.shape == (3, 2, N + 1, N + 1)
    g = generator(1)
    noise = torch.cat([normal_like(part, g) for part in data.split(4)])
    for i, j in itertools.combinations(range(N + 1), 2):
        nodes = sorted({0, i, j, N})
        T, step = len(nodes) - 1, nodes.index(i)
        draws = dc.Draws(torch.full((6,), (step + 0.5) / T, dtype=F64), noise, noise)
        for k, level in enumerate(LEVELS):
            bound = dc.FiniteDepth(torch.tensor(nodes) / N, 1.0, level, step="mixture", nodes=7)
            with torch.no_grad():
                each = dc.elbo(model, data, bound, draws=draws).diffusion / T
            close(found.costs[k, :, i, j], torch.stack([each[::2].mean(), each[1::2].mean()]), 1e-9)
    assert not found.costs.tril().any()


def test_a_sample_of_values_stands_for_all():
    """Its costs are those of all values in the mean, whichever group an example is in."""
    model = model_of_levels("identity", normal(1, 40, V), -4.0, 2.0, basis="free", free=False)
    data = torch.randint(0, V, (50, 40), generator=generator(0))
    costs = []
    for keep in (0, 1000):
        how = Measurement(2, groups=5, batch_size=20, shared_noise=True, keep=keep)
        found = measure_mixture_steps(model, data, LEVELS[1:2], how, generator=generator(2))
        costs.append(found.costs.mean(1)[0, 0, 2])
    assert abs(costs[1] / costs[0] - 1) < 0.08 and costs[0] != costs[1]
    # Groups are means of their own examples: of exact heads they cost the same in expectation.
    spread = found.costs[0, :, 0, 2]
    assert ((spread / spread.mean() - 1).abs() < 0.35).all()


@pytest.mark.parametrize("kind, best", [("identity", 1.0), ("nontrainable", None)])
def test_the_noise_level_of_the_encoders_scale_costs_least(kind, best):
    """eta^2 = 1 + 2 ln(a_s/a_t)/(gamma_t - gamma_s) on each step, of independent values and exact heads."""
    model = model_of_levels(kind, normal(1, 3, V), -4.0, 2.0, basis="free", free=False)
    x = torch.randint(0, V, (200, 3), generator=generator(0))
    gamma = model.schedule(torch.linspace(0, 1, 4, dtype=F64)).gamma
    a = model.encoder.scale(gamma).log()
    right = 1 - 2 * a.diff() / gamma.diff()
    levels = [ConstantNoiseLevel(float(v) ** 0.5) for v in (*right, *(0.6 * right), *(1.6 * right))]
    how = Measurement(3, groups=4, batch_size=200, shared_noise=True)
    costs = measure_mixture_steps(model, x, levels, how, nodes=24, generator=generator(0))
    found = costs.plan(3, levels, uniform=True)
    close(found.eta_squared, right, 1e-9)
    assert best is None or (found.eta_squared - best).abs().max() < 1e-9


def some_costs(seed, levels=2, groups=3, n=6):
    t = torch.linspace(0, 1, n + 1, dtype=F64)
    return MixtureCosts(t, 8 * t - 5, normal(seed, levels, groups, n + 1, n + 1).abs().triu(1), 40)


@pytest.mark.parametrize("depth", [1, 2, 4, 6])
def test_the_plan_is_the_cheapest_of_all_grids(depth):
    costs = some_costs(2)
    levels, table = LEVELS[:2], costs.costs.mean(1)
    found = costs.plan(depth, levels, uniform=False)
    grids = [(0, *inner, 6) for inner in itertools.combinations(range(1, 6), depth - 1)]
    prices = [sum(float(table[:, a, b].min()) for a, b in itertools.pairwise(g)) for g in grids]
    best = grids[min(range(len(grids)), key=prices.__getitem__)]
    assert abs(found.loss - min(prices)) < 1e-12
    close(found.grid * 6, torch.tensor(best).double())
    which = [int(table[:, a, b].argmin()) for a, b in itertools.pairwise(best)]
    close(found.eta_squared, torch.tensor([levels[k].eta ** 2 for k in which], dtype=F64))
    each = [costs.costs[which, g, best[:-1], best[1:]].sum() for g in range(3)]
    assert abs(found.loss_error - float(torch.stack(each).std()) / 3**0.5) < 1e-12
    assert found.step == "mixture" and (found.ratio == 1).all() and found.examples == 40


def test_a_uniform_plan():
    found = some_costs(3).plan(3, LEVELS[:2], uniform=True)
    close(found.grid, torch.linspace(0, 1, 4, dtype=F64))
    with refused(ValueError, "multiple"):
        some_costs(3).plan(4, LEVELS[:2], uniform=True)


def test_calibrate_save_load_and_use(tmp_path):
    model, data = small_model("residual", "paired posterior"), normal(0, 24, 3).clamp(-1, 1)
    options = dc.CalibrationOptions(step="mixture", candidates=6)
    found = dc.calibrate(model, data, 3, options, generator=generator(0))
    found.save(tmp_path / "c.json")
    again = Calibration.load(tmp_path / "c.json", model=model)
    assert again.step == found.step == "mixture" and again.ratio_name == "w = 1"
    assert again.step_name == "mixture steps" and torch.equal(again.grid, found.grid)
    bound, solver = dc.FiniteDepth(again, nodes=16), dc.Ancestral.of(again)
    assert bound.step_kind == solver.step == "mixture" and bound.depth == solver.steps == 3
    draws = dc.Draws(torch.rand(24, dtype=F64), normal(1, 24, 3), normal(2, 24, 3))
    explicit = dc.FiniteDepth(found.grid, 1.0, found.noise_level, step="mixture", nodes=16)
    close(
        dc.elbo(model, data, bound, draws=draws).total,
        dc.elbo(model, data, explicit, draws=draws).total,
        1e-12,
    )
    assert dc.FiniteDepth(again, step="gaussian").step_kind == "gaussian"
    given = dc.CalibrationOptions(step="mixture", candidates=6, noise_level=0.8)
    level = dc.calibrate(model, data, 3, given, generator=generator(0)).eta_squared
    close(level, torch.full((3,), 0.64, dtype=F64))


def test_old_files_are_of_gaussian_steps(tmp_path):
    model, data = small_model("identity"), normal(0, 20, 3)
    found = dc.calibrate(model, data, 2, dc.CalibrationOptions(candidates=4))
    found.save(tmp_path / "c.json")
    text = (tmp_path / "c.json").read_text()
    plain = json.loads(text)
    assert plain.pop("step") == "gaussian"
    (tmp_path / "old.json").write_text(json.dumps(plain))
    assert Calibration.load(tmp_path / "old.json").step == "gaussian"


def test_what_is_refused():
    with refused(ValueError, "ratio='value' is of Gaussian steps; mixture steps have w = 1"):
        dc.CalibrationOptions(step="mixture", ratio="value")
    with refused(ValueError, "step='level'"):
        dc.CalibrationOptions(step="level")
    with refused(ValueError, "heads estimate means only"):
        dc.calibrate(
            small_model("identity"), normal(0, 20, 3), 2, dc.CalibrationOptions(step="mixture")
        )
    assert (
        dc.CalibrationOptions(step="mixture").nodes == 64 and dc.CalibrationOptions().nodes == 256
    )
