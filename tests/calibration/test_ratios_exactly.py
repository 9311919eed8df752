"""Ratios per value in a world whose posterior is known: two levels in one dimension."""

import itertools
import math

import pytest
import torch

import diffenc_ct as dc
from diffenc_ct.calibration import (
    Calibration,
    CalibrationOptions,
    Measurement,
    calibrate,
    measure_steps,
    plan,
)
from diffenc_ct.calibration.ratios import ErrorSample, RatioPerValue, fit_values
from diffenc_ct.elbo import elbo, uniform_grid
from diffenc_ct.worlds import MixtureWorld
from tests.refusals import refused
from tests.strategies import close, generator, make_gaussian_world

F64 = torch.float64
SCHEDULE = dc.LinearSchedule(-5.0, 3.0)


class TwoLevels:
    """x = +-m + deviation eps in one dimension: x_hat and Var[x | z_t] are functions of u = z_t/alpha_t."""

    m, deviation = 0.8, 0.1

    def __init__(self) -> None:
        means = torch.tensor([[self.m], [-self.m]], dtype=F64)
        self.world = MixtureWorld(means, self.deviation)
        self.model = self.world.model(SCHEDULE)

    def posterior(self, gamma: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """On a grid of u: its probabilities, x_hat and Var[x | u]."""
        noise, own = math.exp(gamma), self.deviation**2
        reach = self.m + 6 * math.sqrt(own + noise)
        u = torch.linspace(-reach, reach, 20001, dtype=F64)
        up, down = (torch.exp(-((u - c) ** 2) / (2 * (own + noise))) for c in (self.m, -self.m))
        p, each = up / (up + down), own * noise / (own + noise)
        centres = [(c * noise + u * own) / (own + noise) for c in (self.m, -self.m)]
        x_hat = p * centres[0] + (1 - p) * centres[1]
        variance = each + p * (1 - p) * (centres[0] - centres[1]) ** 2
        return (up + down) / (up + down).sum(), x_hat, variance

    def gain(self, gamma_s: float, gamma_t: float) -> float:
        """E[Delta^2 | z]/S^2 = (e^-gamma_s - e^-gamma_t) Var[x | z]."""
        return math.exp(-gamma_s) - math.exp(-gamma_t)


@pytest.fixture(scope="module")
def levels() -> TwoLevels:
    return TwoLevels()


def test_fitted_values_are_the_posterior_variance(levels) -> None:
    """w*(x_hat) = 1 + (e^-gamma_s - e^-gamma_t) Var[x | x_hat], bin by bin."""
    grid = torch.tensor([0.0, 0.4, 0.7, 1.0], dtype=F64)
    edges = torch.linspace(-0.7, 0.7, 8, dtype=F64).expand(3, 8)
    start, fits = RatioPerValue(edges, torch.ones(3, 9, dtype=F64)), []
    for seed in range(16):
        x = levels.world.sample(4000, generator(seed))
        fit = fit_values(
            start, levels.model, x, grid, generator=generator(50 + seed), batch_size=4000
        )
        fits.append(fit.values - 1)
    mean, error = torch.stack(fits).mean(0), torch.stack(fits).std(0) / 4
    checked = 0
    for i, (s, t) in enumerate(itertools.pairwise(SCHEDULE(grid).gamma.tolist())):
        chance, x_hat, variance = levels.posterior(t)
        for b in range(9):
            inside = torch.bucketize(x_hat, edges[i]) == b
            share = float(chance[inside].sum())
            if share > 0.02:  # elsewhere the few values a fit sees are not believed
                wanted = levels.gain(s, t) * float((chance * variance)[inside].sum()) / share
                assert abs(float(mean[i, b]) - wanted) < 4.5 * float(error[i, b]) + 0.02 * wanted
                assert float(error[i, b]) < 0.1 * wanted
                checked += 1
    assert checked > 10 and mean[0].max() > 3 * mean[0].min()  # a function, not a number


def test_calibrated_per_value_the_loss_is_that_of_the_best_gaussian_steps(levels) -> None:
    """Sum over the steps of E 1/2 ln(1 + gain Var[x | z_t]) on data it has not seen, far below that of w*."""
    x = levels.world.sample(8000, generator(1))
    options = CalibrationOptions(noise_level=1.0, ratio="value", candidates=32)
    found = calibrate(levels.model, x, 4, options, generator=generator(2))
    new, steps = levels.world.sample(40000, generator(3)), list(itertools.pairwise(found.gamma))
    means = {}
    for name, bound in (
        ("value", dc.FiniteDepth(found)),
        ("step", dc.FiniteDepth(found, ratio=found.ratio)),
    ):
        each = elbo(levels.model, new, bound, generator=generator(4)).diffusion
        means[name] = float(each.mean()), float(each.std()) / len(new) ** 0.5
    exact = constant = 0.0
    for s, t in ((float(s), float(t)) for s, t in steps):
        chance, _, variance = levels.posterior(t)
        exact += float((chance * torch.log1p(levels.gain(s, t) * variance)).sum()) / 2
        constant += math.log1p(levels.gain(s, t) * float((chance * variance).sum())) / 2
    mean, error = means["value"]
    assert abs(mean - exact) < 4 * error + 0.01 * exact
    assert abs(means["step"][0] - constant) < 4 * means["step"][1] + 0.01 * constant
    assert exact < 0.9 * constant


def test_the_grid_is_chosen_for_the_ratio(levels) -> None:
    """With ratios per value the exact cost of the plan's grid is lower than that of the grid for w*."""
    x = levels.world.sample(4000, generator(1))
    how = Measurement(candidates=64, shared_noise=True, keep=len(x))
    tables = measure_steps(levels.model, x, how, generator=generator(2))
    sample = ErrorSample(tables.kept, 1, len(x))

    def exact(grid: torch.Tensor) -> float:
        total = 0.0
        for s, t in itertools.pairwise(SCHEDULE(grid).gamma.tolist()):
            chance, _, variance = levels.posterior(t)
            total += float((chance * torch.log1p(levels.gain(s, t) * variance)).sum()) / 2
        return total

    for depth in (3, 6):
        own, other = (
            plan(tables, depth, CalibrationOptions(1.0, ratio)) for ratio in ("value", "step")
        )
        assert exact(own.grid) < exact(other.grid)
        assert own.ratio_per_value is not None and other.ratio_per_value is None
        # The bins are those of x_hat at the noisy end of each step.
        _, edges = sample.costs(tables.gamma, [], tables.gamma.new_zeros(0, 65, 65))
        ends = torch.searchsorted(tables.t, own.grid[1:] - 1e-9)
        assert torch.equal(own.ratio_per_value.edges, edges[ends].double())
        # Before they are fitted, the step's w* on all bins.
        close(own.ratio_per_value.values, own.ratio[:, None].expand(depth, sample.bins))


def test_few_values_are_not_believed() -> None:
    """A bin without a value takes w* of its step, and few examples make few bins."""
    world = make_gaussian_world(2, "identity", 3)
    model, x = world.model(SCHEDULE), world.sample(64, generator(1))
    edges = torch.tensor([[0.0, 1e6]], dtype=F64)
    start = RatioPerValue(edges, torch.ones(1, 3, dtype=F64))
    found = fit_values(start, model, x, uniform_grid(1, x), generator=generator(0))
    low, high, empty = (float(v) - 1 for v in found.values[0])
    assert min(low, high) < empty < max(low, high)
    kept = measure_steps(model, x, Measurement(4, keep=64), generator=generator(0)).kept
    assert ErrorSample(kept, 2, 64).bins == 1 and ErrorSample(kept, 784, 10**4).bins == 128
    options = CalibrationOptions(1.0, "value", candidates=4)
    few = calibrate(model, x, 2, options, generator=generator(0))
    close(few.ratio_per_value.values.flatten(), few.ratio, 0.2)


def test_save_and_load_with_values(tmp_path, levels) -> None:
    x = levels.world.sample(600, generator(1))
    options = CalibrationOptions(ratio="value", candidates=8)
    found = calibrate(levels.model, x, 2, options, generator=generator(2))
    found.save(tmp_path / "c.json")
    again = Calibration.load(tmp_path / "c.json")
    assert torch.equal(again.ratio_per_value.edges, found.ratio_per_value.edges)
    assert torch.equal(again.ratio_per_value.values, found.ratio_per_value.values)
    assert found.finest_ratio is found.ratio_per_value and found.ratio_name == "w*(x_hat)"
    drawn = [
        dc.sample(levels.model, 3, shape=(1,), solver=dc.Ancestral.of(c), generator=generator(3))
        for c in (found, again)
    ]
    assert torch.equal(drawn[0].z_0, drawn[1].z_0)
    losses = [
        elbo(levels.model, x, dc.FiniteDepth(c), generator=generator(4)).diffusion
        for c in (found, again)
    ]
    assert torch.equal(*losses)


def test_a_ratio_of_the_state_belongs_to_steps() -> None:
    """Infinite depth has no ratio to give, nor has a solver of equations without steps of that form."""
    for made in (dc.InfiniteDepth, dc.Exponential, dc.TorchSDE):
        with refused(TypeError, "unexpected keyword argument 'ratio'"):
            made(ratio=lambda step, estimates: estimates.x_hat)
