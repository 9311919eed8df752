"""Independence of the batch, seeds, errors of libraries, gradients, a trained model's total mass."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.likelihood import GaussianProbes, log_density, log_likelihood
from diffenc_ct.likelihood.flow import example_seeds
from diffenc_ct.likelihood.randomness import example_generator
from diffenc_ct.networks import MLP
from diffenc_ct.schedules import alpha
from tests.likelihood.models import model_of
from tests.strategies import (
    close,
    generator,
    make_gaussian_world,
    normal,
)

OPTIONS = [
    {},
    {"divergence": dc.Rademacher(probes=2)},
    {"divergence": GaussianProbes(probes=2)},
    {"solver": dc.TorchDiffEqFixed("rk4", steps=12)},
    {"solver": dc.TorchDiffEqFixed("heun3", steps=20), "divergence": dc.Rademacher()},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_results_do_not_depend_on_batch_mates(options):
    model = model_of(1, levels=17)
    x = torch.randint(0, 17, (3, 3), generator=generator(1))
    options = {"dequantisation": dc.ModelNoise(samples=2), **options}
    whole = log_likelihood(model, x, generator=generator(3), **options)
    parts = log_likelihood(model, x, generator=generator(3), work=dc.Work(2), **options)
    fewer = log_likelihood(model, x[:2], generator=generator(3), **options)
    assert not whole.shared_steps
    close(parts.nats, whole.nats, 1e-9)
    close(fewer.nats, whole.nats[:2], 1e-9)
    assert torch.equal(parts.evaluations, whole.evaluations)
    other = log_likelihood(model, x, generator=generator(4), **options)
    assert (other.nats - whole.nats).abs().max() > 1e-6


def test_adaptive_torchdiffeq_shares_steps_and_says_so():
    found = log_density(model_of(1), normal(2, 3, 3), solver=dc.TorchDiffEq("dopri5"))
    assert found.shared_steps and len(set(found.solution.evaluations.tolist())) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("solver", "most"),
    [
        (dc.TorchDiffEqFixed("rk4", steps=40), 1.25),
        (dc.TorchDiffEqFixed("midpoint", steps=80), 1.25),
        (dc.TorchDiffEqFixed("euler", steps=400), 1.25),
        (dc.TorchDiffEqFixed("explicit_adams", steps=100), 1e4),
        (dc.TorchDiffEq("dopri5"), 1e3),
        (dc.SciPy("RK45"), 1e3),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_coarser_solve_tells_the_error(solver, most):
    """Within a factor of the truth on grids of one order; above it elsewhere."""
    world, schedule = make_gaussian_world(2, "nontrainable", 3), dc.LinearSchedule(-9.0, 5.0)
    model, x = world.model(schedule), world.sample(8, generator(1))
    gamma_0, gamma_1 = (schedule.at(t, x).gamma for t in (0.0, 1.0))

    def prior(z: Tensor) -> Tensor:
        return world.log_q(z, gamma_1)

    found = log_likelihood(model, x, prior=prior, solver=solver)
    alone = replace(solver, estimate_error=False)
    plain = log_likelihood(model, x, prior=prior, solver=alone)
    z_0 = alpha(gamma_0) * x
    truth = world.log_q(z_0, gamma_0) + world.dimensions * alpha(gamma_0).log()
    ratio = found.solver_error.mean() / (found.nats - truth).abs().mean()
    assert (0.8 if most < 3 else 1) < ratio < most
    assert torch.equal(found.nats, plain.nats) and plain.solver_error.isnan().all()
    assert (found.evaluations > plain.evaluations).all()
    assert (found.evaluations <= 2 * plain.evaluations).all()


@pytest.mark.parametrize(("method", "steps"), [("rk4", 80), ("midpoint", 60)])
def test_a_coarser_solve_tells_the_error_of_the_divergence(method, steps):
    """With a prior that does not see z_1, nothing but the integral is off."""
    world, schedule = make_gaussian_world(2, "nontrainable", 3), dc.LinearSchedule(-9.0, 5.0)
    model, x = world.model(schedule), world.sample(3, generator(1))

    def prior(z: Tensor) -> Tensor:
        return torch.zeros(len(z), dtype=z.dtype)

    solver = dc.TorchDiffEqFixed(method, steps=steps)
    found = log_likelihood(model, x, prior=prior, solver=solver)
    finer = replace(solver, steps=16 * steps, estimate_error=False)
    finer = log_likelihood(model, x, prior=prior, solver=finer)
    ratio = found.solver_error / (found.nats - finer.nats).abs()
    assert ((ratio > 0.8) & (ratio < 1.25)).all()


@pytest.mark.filterwarnings("ignore")
def test_one_step_has_no_coarser_one():
    solver = dc.TorchDiffEqFixed("rk4", steps=1)
    found = log_density(model_of(1), normal(2, 2, 3), solver=solver)
    assert found.solution.error.isnan().all() and found.solution.evaluations.tolist() == [4, 4]


@pytest.mark.parametrize("divergence", [dc.Exact(), dc.Rademacher(probes=2)])
def test_gradients_through_the_solve_and_by_the_adjoint(divergence):
    model, z = model_of(5), normal(6, 2, 3)
    grads = {}
    solvers = {
        "adams": dc.Adams(gradient="solve", atol=1e-9),
        "solve": dc.TorchDiffEqFixed("rk4", gradient="solve", steps=40),
        "adjoint": dc.TorchDiffEqFixed("rk4", gradient="adjoint", steps=40),
        "dopri5": dc.TorchDiffEq("dopri5", gradient="adjoint", rtol=1e-7, atol=1e-7),
    }
    for name, solver in solvers.items():
        if name != "adams":
            solver = replace(solver, estimate_error=False)
        start = z.clone().requires_grad_()
        found = log_density(
            model, start, generator=generator(0), solver=solver, divergence=divergence
        )
        parameters = list(model.heads.network.parameters())
        grads[name] = torch.autograd.grad(found.log_prob.sum(), [start, *parameters])
    for name in ("adams", "adjoint", "dopri5"):
        for one, other in zip(grads["solve"], grads[name], strict=True):
            close(one, other, 1e-6)


def test_gradient_is_the_derivative():
    model, z, direction = model_of(7), normal(8, 2, 3), normal(9, 2, 3)
    start = z.clone().requires_grad_()
    found = log_density(model, start, solver=dc.Adams(gradient="solve", atol=1e-10))
    (grad,) = torch.autograd.grad(found.log_prob.sum(), start)
    step = 1e-4
    tight = dc.Adams(atol=1e-10)
    up, down = (
        log_density(model, z + s * direction, solver=tight).log_prob.sum() for s in (step, -step)
    )
    assert abs((up - down) / (2 * step) - (grad * direction).sum()) < 1e-5


def test_no_gradient_unless_asked():
    z = normal(6, 2, 3).requires_grad_()
    assert not log_density(model_of(5), z).log_prob.requires_grad


def trained_model() -> tuple[dc.DiffEnc, Tensor]:
    """A DiffEnc of two-dimensional data on a ring, trained for a few seconds."""
    torch.manual_seed(0)
    angle = 2 * math.pi * torch.rand(2000)
    x = torch.stack([angle.cos(), 0.6 * angle.sin()], 1) + 0.15 * torch.randn(2000, 2)
    encoder = dc.TrainableEncoder(MLP(2, width=32, layers=2, bounded=True))
    heads = dc.Paired(MLP(2, width=64, layers=2, outputs=4))
    model = dc.DiffEnc(dc.LinearSchedule(-5.0, 5.0), encoder, heads, dc.Reals())
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        loss = model(x[torch.randint(len(x), (128,))]).total.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.double(), x.double()


def test_a_trained_models_density_integrates_to_one():
    model, x = trained_model()
    axis = torch.linspace(-4, 4, 72, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    loose = dc.Adams(atol=1e-4)
    found = log_likelihood(model, grid, solver=loose, work=dc.Work(8192))
    mass = found.nats.exp().sum() * (axis[1] - axis[0]) ** 2
    assert abs(mass - 1) < 1e-2
    # and it has learned: better than a Gaussian of the data's moments
    gaussian = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T))
    on_data = log_likelihood(model, x[:500], solver=loose).nats.mean()
    assert on_data > gaussian.log_prob(x[:500]).mean() + 0.05


def test_single_precision():
    model, z = model_of(3), normal(4, 4, 3)
    double = log_density(model, z)
    single = log_density(model.float(), z.float())
    assert single.z_1.dtype == torch.float32 and single.log_prob.dtype == torch.float64
    assert (single.log_prob - double.log_prob).abs().max() < 1e-3


def test_progress_counts_every_solve():
    model, ticks = model_of(1, levels=5), []
    x = torch.randint(0, 5, (7, 3), generator=generator(0))
    work = dc.Work(3, progress=ticks.append)
    log_likelihood(model, x, dequantisation=dc.ModelNoise(samples=2), work=work)
    assert sum(ticks) == 14


@pytest.mark.parametrize("divergence", [dc.Exact(), dc.Rademacher(probes=2)])
@pytest.mark.parametrize("solver", [dc.Adams(), dc.TorchDiffEqFixed("rk4", steps=8)])
def test_a_caller_that_autocasts_changes_nothing(divergence, solver):
    """The solver's state and the network's derivatives stay in the model's precision."""
    model = model_of(1, levels=17).float()
    x = torch.randint(0, 17, (2, 3), generator=generator(1))

    def nats() -> Tensor:
        options = {"divergence": divergence, "solver": solver, "generator": generator(0)}
        return log_likelihood(model, x, **options).nats

    plain, z = nats(), normal(1, 2, 3).float()
    density = log_density(model, z, solver=solver).log_prob
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nats(), plain)
        assert torch.equal(log_density(model, z, solver=solver).log_prob, density)


STREAMS = (("z_1", 0), ("probes", 0), ("dequantisation", 0), ("dequantisation", 1))


@given(st.sets(st.integers(0, 2**32 - 1), min_size=4, max_size=4), st.integers(0, 99))
def test_every_seed_has_noise_of_its_own(seeds, place):
    """In every stream, for every example and draw."""
    found = set()
    for seed in seeds:
        own = example_seeds(generator(seed), place + 2)[place:]
        for example in own:
            for stream, draw in STREAMS:
                own_generator = example_generator(example, stream, draw)
                found.add(float(torch.rand((), generator=own_generator, dtype=torch.float64)))
    assert len(found) == 4 * 2 * 4
