"""Every solver, divergence, dequantisation and fit is called once with its types and shapes checked."""

import jaxtyping
import pytest
import torch

import diffenc_ct as dc
from diffenc_ct.calibration import RunningNoiseLevel
from diffenc_ct.cli.solvers import SOLVERS
from diffenc_ct.likelihood import GaussianProbes, NoDequantisation, UniformNoise, log_density
from diffenc_ct.verification import verify
from tests.strategies import generator, make_model

FLOWS = [
    dc.Adams(atol=0.1),
    dc.Adams(atol=0.1, gradient="solve"),
    dc.TorchDiffEq("bosh3", rtol=0.1, atol=0.1),
    dc.TorchDiffEqFixed("rk4", steps=2),
    dc.SciPy("RK23", rtol=0.1, atol=0.1),
]


def model_of(levels=None):
    encoder = dc.NonTrainableEncoder()
    return make_model(dc.LinearSchedule(-5.0, 3.0), encoder, (3,), 1, heads="single", levels=levels)


def data(levels=None, n=4):
    if levels is not None:
        return torch.randint(0, levels, (n, 3), generator=generator(1))
    return 0.3 * torch.randn(n, 3, dtype=torch.float64, generator=generator(1))


def test_they_are_checked_here():
    assert not jaxtyping.config.jaxtyping_disable
    with pytest.raises(jaxtyping.TypeCheckError):
        model_of().predict(
            data(), torch.zeros(3, dtype=torch.float64)
        )  # three depths for four latents


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver(name):
    default = SOLVERS[name]()
    coarse = {"steps": 3, "rtol": 0.1, "atol": 0.1}
    solver = SOLVERS[name](**{key: v for key, v in coarse.items() if hasattr(default, key)})
    watched = int(solver.depths_are_shared)
    found = dc.sample(model_of(), 2, shape=(3,), solver=solver, trajectory=watched)
    assert found.samples.shape == (2, 3)


@pytest.mark.parametrize("solver", FLOWS, ids=lambda solver: solver.name)
@pytest.mark.parametrize(
    "divergence", [dc.Exact(chunk=2), dc.Rademacher(probes=2), GaussianProbes(probes=2)]
)
def test_every_flow(solver, divergence):
    found = dc.log_likelihood(model_of(), data(), solver=solver, divergence=divergence)
    assert found.nats.shape == (4,)
    assert log_density(model_of(), data(), solver=solver, divergence=divergence).z_1.shape == (4, 3)
    drawn = dc.sample_with_log_prob(model_of(), (2, 3), solver=solver, divergence=divergence)
    assert drawn.log_prob.shape == (2,)


@pytest.mark.parametrize(
    "kind",
    [dc.ModelNoise(samples=2), UniformNoise(samples=2), dc.TruncatedNormal(tau=2, samples=2)],
    ids=lambda kind: type(kind).__name__,
)
def test_every_dequantisation(kind):
    solver = dc.Adams(atol=0.1)
    found = dc.log_likelihood(model_of(5), data(5), solver=solver, dequantisation=kind)
    assert found.nats.shape == (4,)
    real = dc.log_likelihood(model_of(), data(), solver=solver, dequantisation=NoDequantisation())
    assert real.nats.shape == (4,)


@pytest.mark.parametrize("ratio", ["step", "dimension", "value"])
def test_what_is_fitted(ratio):
    model, x = model_of(5), data(5, n=16)
    options = dc.CalibrationOptions(ratio=ratio, candidates=8)
    found = dc.calibrate(model, x, 4, options, generator=generator(2))
    assert dc.elbo(model, x, dc.FiniteDepth(found)).total.shape == (16,)
    assert dc.sample(model, 2, shape=(3,), solver=dc.Ancestral.of(found)).z_0.shape == (2, 3)
    tight = dc.tightness(model, x, depths=3, generator=generator(3))
    assert dc.elbo(model, x, dc.InfiniteDepth(tight.noise_level)).total.shape == (16,)
    running = RunningNoiseLevel(-5.0, 3.0, bins=2)
    residuals = model(x, dc.InfiniteDepth(running)).residuals
    running.update(running.count(residuals.point.gamma, residuals.errors))
    assert running.squared(residuals.point.gamma).shape == (16,)


def test_verification():
    world = dc.worlds.GaussianWorld(torch.zeros(2).double(), torch.tensor([0.5, 0.1]).double())
    x = world.sample(16, generator(1))
    model = world.model(dc.LinearSchedule(-5.0, 3.0))
    assert verify(model, x, depths=(2, 4, 8), draws=2, path_steps=2).checks
