"""Whatever takes a generator draws from it alone: the same numbers under any global seed, which is left as it was."""

import inspect
import re

import pytest
import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.calibration import (
    Measurement,
    fit_values,
    measure_mixture_steps,
    measure_steps,
    step_excess,
)
from diffenc_ct.elbo import ImportanceDepths, LowDiscrepancyDepths, UniformDepths
from diffenc_ct.likelihood import GaussianProbes, log_density, sample_with_log_prob
from diffenc_ct.likelihood.classification import telling_depths
from diffenc_ct.likelihood.flow import example_seeds
from diffenc_ct.process import ConstantNoiseLevel
from diffenc_ct.process.gaussians import normal_like
from diffenc_ct.training.heads import HeadFitting, fit_head
from diffenc_ct.verification import verify
from diffenc_ct.verification.losses import gaussian_steps, monte_carlo, path_kl
from diffenc_ct.worlds import MixtureWorld
from tests.strategies import generator, make_gaussian_world, normal, posterior_heads
from tests.test_defaults import callables


def importance():
    depths = ImportanceDepths(4)
    depths.update(depths.count(torch.rand(50, generator=generator(3)), torch.ones(50)))
    return depths


OF_CLASSES = re.compile("worlds|model.diffenc")
F64 = torch.float64
SCHEDULE = dc.LinearSchedule(-5.0, 3.0)
WORLD = make_gaussian_world(2, "nontrainable", 1)
MIXTURE = MixtureWorld(normal(1, 3, 2), 0.2, dc.IdentityEncoder())
MODEL = WORLD.model(SCHEDULE)
X = WORLD.sample(24, generator(1))
LEVELS = dc.DiffEnc(
    SCHEDULE, dc.IdentityEncoder(), posterior_heads("levels", (2,), 3), dc.Levels(5), shape=(2,)
)
INTEGERS = torch.arange(24).reshape(12, 2) % 5
TOLD = dc.DiffEnc(
    SCHEDULE, dc.IdentityEncoder(), dc.Single(dc.networks.MLP(2, classes=3)), dc.Levels(5)
)
NET = dc.networks.MLP(2)
for number, weights in enumerate(TOLD.parameters()):  # labels make no difference at first
    weights.data = 0.3 * normal(number, *weights.shape).float()
ZEROS = torch.zeros(6, 2, dtype=F64)
SOLVER = dc.TorchDiffEqFixed("rk4", steps=3, estimate_error=False)
DEPTHS = (UniformDepths(), LowDiscrepancyDepths(), importance())
GRID = torch.linspace(0, 1, 4, dtype=F64)


def values(found) -> list[Tensor]:
    """All tensors in what a call returns, however they are wrapped."""
    if isinstance(found, Tensor):
        return [found]
    if isinstance(found, float):
        return [torch.tensor(found)]
    if isinstance(found, list | tuple):
        return [value for part in found for value in values(part)]
    if isinstance(found, torch.nn.Module):
        return [value for _, value in sorted(found.state_dict().items())]
    return values([v for _, v in sorted(vars(found).items())]) if hasattr(found, "__dict__") else []


def calibrated(ratio):
    options = dc.CalibrationOptions(candidates=8, ratio=ratio)
    return lambda g: dc.calibrate(MODEL, X, 3, options, generator=g)


def fitted_values(g):
    options = dc.CalibrationOptions(candidates=8, ratio="value")
    found = dc.calibrate(MODEL, X, 3, options, generator=generator(0))
    return fit_values(found.ratio_per_value, MODEL, X, found.grid, found.noise_level, generator=g)


CALLS = {
    "calibration._tightness.tightness": lambda g: dc.tightness(MODEL, X, depths=3, generator=g),
    "calibration.fit.calibrate": lambda g: [
        call(g).ratio for call in map(calibrated, ("step", "dimension", "value"))
    ],
    "calibration.mixtures.measure_mixture_steps": lambda g: measure_mixture_steps(
        LEVELS, INTEGERS, [ConstantNoiseLevel(1.0)], Measurement(4, groups=4, keep=8), generator=g
    ),
    "calibration.ratios.step_excess": lambda g: step_excess(
        MODEL, X, GRID, generator=g
    ),
    "calibration.ratios.fit_values": fitted_values,
    "calibration.tables.measure_steps": lambda g: measure_steps(
        MODEL, X, Measurement(4, keep=8), generator=g
    ),
    "elbo.bound.elbo": lambda g: [
        dc.elbo(MODEL, X, bound, generator=g).total
        for bound in (*(dc.InfiniteDepth(depths=each) for each in DEPTHS), dc.FiniteDepth(3))
    ],
    "likelihood.classification.classify": lambda g: dc.classify(
        TOLD, INTEGERS, torch.arange(3), draws=2, generator=g
    ),
    "likelihood.classification.telling_depths": lambda g: telling_depths(
        TOLD, INTEGERS, torch.arange(3), draws=2, generator=g
    ),
    "likelihood.estimate.log_likelihood": lambda g: dc.log_likelihood(
        LEVELS, INTEGERS, solver=SOLVER, divergence=dc.Rademacher(2), generator=g
    ).nats,
    "likelihood.flow.log_density": lambda g: log_density(
        MODEL, X, solver=SOLVER, divergence=GaussianProbes(2), generator=g
    ).log_prob,
    "likelihood.flow.sample_with_log_prob": lambda g: sample_with_log_prob(
        MODEL, (4, 2), solver=SOLVER, divergence=dc.Rademacher(2), generator=g
    ).log_prob,
    "likelihood.flow.example_seeds": lambda g: torch.tensor(example_seeds(g, 3)),
    "model.diffenc.DiffEnc.forward": lambda g: MODEL(X, generator=g).total,
    "model.diffenc.DiffEnc.decode": lambda g: LEVELS.decode(
        normal(2, 40, 2), torch.tensor(1.0, dtype=F64), sample=True, generator=g
    ),
    "process.gaussians.normal_like": lambda g: normal_like(ZEROS, g),
    "sampling.samples.sample": lambda g: [
        dc.sample(LEVELS, 5, solver=solver, generator=g).samples.double()
        for solver in (dc.Exponential(steps=3), dc.Ancestral(steps=3), dc.TorchSDE("euler", steps=4))
    ],
    "training.heads.fit_head": lambda g: fit_head(
        dc.DiffEnc(SCHEDULE, WORLD.encoder, dc.Single(NET), dc.Reals()),
        X.float(), HeadFitting(steps=2), generator=g,
    ).losses,
    "verification.identities.verify": lambda g: verify(
        MODEL, X, depths=(1, 2, 4, 8, 16), draws=2, path_steps=4, generator=g
    ).loss,
    "verification.losses.monte_carlo": lambda g: monte_carlo(MODEL, SCHEDULE, X, 2, g),
    "verification.losses.path_kl": lambda g: path_kl(MODEL, X, 4, g),
    "verification.losses.gaussian_steps": lambda g: gaussian_steps(MODEL, X, 3, g),
    "worlds.gaussian.GaussianWorld.sample": lambda g: WORLD.sample(5, g),
    "worlds.mixture.MixtureWorld.sample": lambda g: MIXTURE.sample(5, g),
}  # fmt: skip


def takes_a_generator() -> set[str]:
    """Public functions, and methods of models and worlds, by name."""
    return {
        path
        for path, value in callables()
        if "generator" in inspect.signature(value).parameters
        and (inspect.isfunction(value) and "." not in value.__qualname__ or OF_CLASSES.match(path))
    }


def test_all_of_them_are_tried():
    assert takes_a_generator() == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_all_that_is_random_is_the_generators(name):
    found = []
    for global_seed, seed in ((1, 7), (2, 7), (1, 8)):
        torch.manual_seed(global_seed)
        before = torch.random.get_rng_state()
        found.append(values(CALLS[name](generator(seed))))
        assert torch.equal(torch.random.get_rng_state(), before)
    same, again, other = found
    assert same and len(same) == len(again)
    assert all(torch.equal(one, two) for one, two in zip(same, again, strict=True))
    assert not all(torch.equal(one, two) for one, two in zip(same, other, strict=True))
