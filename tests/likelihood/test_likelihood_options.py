"""Independence of the batch, seeds, gradients, a trained model's total mass, failures and refusals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import diffenc_ct as dc
from diffenc_ct.likelihood import SolverError, log_density, log_likelihood, sample_with_log_prob
from diffenc_ct.networks import MLP
from diffenc_ct.schedules import alpha
from tests.strategies import (
    close,
    generator,
    make_encoder,
    make_gaussian_world,
    make_model,
    normal,
    seeds,
)


def model_of(seed: int, *, levels: int | None = None, low: float = -5.0) -> dc.DiffEnc:
    schedule = dc.LinearSchedule(low, 4.0)
    encoder = make_encoder("trainable", (3,), seed)
    return make_model(schedule, encoder, (3,), seed, heads="paired", levels=levels)


OPTIONS = [
    {},
    {"divergence": "rademacher", "probes": 2},
    {"divergence": "gaussian", "probes": 2},
    {"solver": "rk4", "steps": 12},
    {"solver": "heun3", "steps": 20, "divergence": "rademacher"},
]


@given(seeds, st.sampled_from(OPTIONS), st.integers(1, 4))
@settings(max_examples=5)
def test_results_do_not_depend_on_batch_mates(seed, options, batch_size):
    model = model_of(seed, levels=17)
    x = torch.randint(0, 17, (5, 3), generator=generator(seed))
    whole = log_likelihood(model, x, generator=generator(3), importance_samples=2, **options)
    parts = log_likelihood(
        model, x, generator=generator(3), importance_samples=2, batch_size=batch_size, **options
    )
    fewer = log_likelihood(model, x[:2], generator=generator(3), importance_samples=2, **options)
    assert not whole.shared_steps
    close(parts.nats, whole.nats, 1e-9)
    close(fewer.nats, whole.nats[:2], 1e-9)
    assert torch.equal(parts.evaluations, whole.evaluations)
    other = log_likelihood(model, x, generator=generator(4), importance_samples=2, **options)
    assert (other.nats - whole.nats).abs().max() > 1e-6


def test_adaptive_torchdiffeq_shares_steps_and_says_so():
    found = log_density(model_of(1), normal(2, 3, 3), solver="dopri5")
    assert found.shared_steps and len(set(found.solution.evaluations.tolist())) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("solver", "options", "most"),
    [
        ("rk4", {"steps": 40}, 1.25),
        ("midpoint", {"steps": 80}, 1.25),
        ("euler", {"steps": 400}, 1.25),
        ("explicit_adams", {"steps": 100}, 1e4),
        ("dopri5", {"rtol": 1e-5, "atol": 1e-5}, 1e3),
        ("scipy_solver:RK45", {"rtol": 1e-5, "atol": 1e-5}, 1e3),
    ],
)
def test_a_coarser_solve_tells_the_error(solver, options, most):
    """Within a factor of the truth on grids of one order; above it elsewhere."""
    world, schedule = make_gaussian_world(2, "nontrainable", 3), dc.LinearSchedule(-9.0, 5.0)
    model, x = world.model(schedule), world.sample(8, generator(1))
    gamma_0, gamma_1 = (schedule.at(t, x).gamma for t in (0.0, 1.0))
    keywords = {"solver": solver, "prior": lambda z: world.log_q(z, gamma_1), **options}
    found = log_likelihood(model, x, **keywords)
    plain = log_likelihood(model, x, estimate_error=False, **keywords)
    z_0 = alpha(gamma_0) * x
    truth = world.log_q(z_0, gamma_0) + world.dimensions * alpha(gamma_0).log()
    ratio = found.solver_error.mean() / (found.nats - truth).abs().mean()
    assert (0.8 if most < 3 else 1) < ratio < most
    assert torch.equal(found.nats, plain.nats) and plain.solver_error.isnan().all()
    assert (found.evaluations > plain.evaluations).all()
    assert (found.evaluations <= 2 * plain.evaluations).all()


@pytest.mark.parametrize(("solver", "steps"), [("rk4", 80), ("midpoint", 60)])
def test_a_coarser_solve_tells_the_error_of_the_divergence(solver, steps):
    """With a prior that does not see z_1, nothing but the integral is off."""
    world, schedule = make_gaussian_world(2, "nontrainable", 3), dc.LinearSchedule(-9.0, 5.0)
    model, x = world.model(schedule), world.sample(3, generator(1))
    options = {"solver": solver, "prior": lambda z: torch.zeros(len(z), dtype=z.dtype)}
    found = log_likelihood(model, x, steps=steps, **options)
    finer = log_likelihood(model, x, steps=16 * steps, estimate_error=False, **options)
    ratio = found.solver_error / (found.nats - finer.nats).abs()
    assert ((ratio > 0.8) & (ratio < 1.25)).all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("divergence", ["exact", "rademacher"])
def test_gradients_through_the_solve_and_by_the_adjoint(divergence):
    model, z = model_of(5), normal(6, 2, 3)
    grads = {}
    options = {"divergence": divergence, "probes": 2}
    for name, kw in {
        "adams": {"gradient": "solve", "atol": 1e-10},
        "solve": {"gradient": "solve", "solver": "rk4", "steps": 160},
        "adjoint": {"gradient": "adjoint", "solver": "rk4", "steps": 160},
        "dopri5": {"gradient": "adjoint", "solver": "dopri5", "rtol": 1e-9, "atol": 1e-9},
    }.items():
        start = z.clone().requires_grad_()
        found = log_density(model, start, generator=generator(0), **kw, **options)
        parameters = [p for p in model.network.parameters()]
        grads[name] = torch.autograd.grad(found.log_prob.sum(), [start, *parameters])
    for name in ("adams", "adjoint", "dopri5"):
        for one, other in zip(grads["solve"], grads[name], strict=True):
            close(one, other, 1e-6)


def test_gradient_is_the_derivative():
    model, z, direction = model_of(7), normal(8, 2, 3), normal(9, 2, 3)
    start = z.clone().requires_grad_()
    found = log_density(model, start, gradient="solve", atol=1e-10)
    (grad,) = torch.autograd.grad(found.log_prob.sum(), start)
    step = 1e-4
    up, down = (
        log_density(model, z + s * direction, atol=1e-10).log_prob.sum() for s in (step, -step)
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
    network = MLP(2, width=64, layers=2, outputs=4)
    model = dc.DiffEnc(dc.LinearSchedule(-5.0, 5.0), encoder, network, levels=None, heads="paired")
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        loss = dc.elbo(model, x[torch.randint(len(x), (128,))]).total.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.double(), x.double()


def test_a_trained_models_density_integrates_to_one():
    model, x = trained_model()
    axis = torch.linspace(-4, 4, 72, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    found = log_likelihood(model, grid, atol=1e-4, batch_size=8192)
    mass = found.nats.exp().sum() * (axis[1] - axis[0]) ** 2
    assert abs(mass - 1) < 1e-2
    # and it has learned: better than a Gaussian of the data's moments
    gaussian = torch.distributions.MultivariateNormal(x.mean(0), torch.cov(x.T))
    on_data = log_likelihood(model, x[:500], atol=1e-4).nats.mean()
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
    log_likelihood(model, x, importance_samples=2, batch_size=3, progress=ticks.append)
    assert sum(ticks) == 14


# Failures and refusals ----------------------------------------------------------------------------


class Poisoned(nn.Module):
    """A network whose output is not finite beyond a depth, for examples that start large."""

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        bad = (gamma > 0) & (z[:, 0] > 1)
        return torch.where(bad[:, None], torch.full_like(z, torch.nan), torch.tanh(z))


def poisoned() -> tuple[dc.DiffEnc, Tensor]:
    model = dc.DiffEnc(dc.LinearSchedule(-5.0, 4.0), dc.IdentityEncoder(), Poisoned(), levels=None)
    return model, torch.tensor([[0.1, 0.2], [40.0, 0.0], [-0.3, 0.1]], dtype=torch.float64)


def test_a_nan_has_a_status_and_spares_the_others():
    model, x = poisoned()
    with pytest.raises(SolverError, match=r"1 of 3 examples.*1: non-finite"):
        log_likelihood(model, x)
    found = log_likelihood(model, x, on_failure="nan")
    assert found.status == ["ok", "non-finite", "ok"]
    assert found.nats.isnan().tolist() == [False, True, False]
    close(found.nats[:1], log_likelihood(model, x[:1]).nats, 1e-9)


@pytest.mark.parametrize("solver", ["rk4", "dopri5", "scipy_solver:LSODA", "scipy_solver:BDF"])
def test_torchdiffeq_failures_have_a_status(solver):
    model, x = poisoned()
    found = log_likelihood(model, x, solver=solver, on_failure="nan")
    assert found.status[1] != "ok" and found.nats[1].isnan()
    with pytest.raises(SolverError):
        log_likelihood(model, x, solver=solver)


@pytest.mark.parametrize("solver", ["adams", "dopri5"])
def test_step_limit(solver):
    with pytest.raises(SolverError, match="step limit"):
        log_likelihood(model_of(1), normal(2, 2, 3), solver=solver, max_steps=1, atol=1e-12)


X = torch.zeros(2, 3, dtype=torch.long)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "euler_maruyama"}, "stochastic"),
        ({"solver": "ancestral"}, "stochastic"),
        ({"solver": "rk5"}, "choose adams"),
        ({"solver": "scipy_solver:XX"}, "LSODA"),
        ({"divergence": "hutchinson"}, "rademacher"),
        ({"dequantisation": "none"}, "undequantised"),
        ({"dequantisation": "triangle"}, "uniform"),
        ({"importance_samples": 0}, "at least 1"),
        ({"probes": 0}, "probes=0"),
        ({"steps": 5}, "fixed grid"),
        ({"solver": "rk4", "atol": 1e-3}, "fixed"),
        ({"rtol": 1e-3}, "atol alone"),
        ({"atol": -1.0}, "positive"),
        ({"gradient": "adjoint"}, "torchdiffeq"),
        ({"solver": "scipy_solver", "gradient": "solve"}, "no gradients"),
        ({"tau": 0.0}, "tau"),
        ({"on_failure": "ignore"}, "on_failure"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        log_likelihood(model_of(1, levels=5), X, **options)


def test_kinds_of_data_are_refused_at_the_door():
    with pytest.raises(TypeError, match="integers"):
        log_density(model_of(1), X)
    with pytest.raises(TypeError, match="real data"):
        log_likelihood(model_of(1), X)
    with pytest.raises(TypeError, match="integer data"):
        log_likelihood(model_of(1, levels=5), X.double())
    with pytest.raises(ValueError, match="real data"):
        log_likelihood(model_of(1), X.double(), dequantisation="uniform")
    with pytest.raises(ValueError, match="no examples"):
        log_likelihood(model_of(1, levels=5), X[:0])
    with pytest.raises(ValueError, match="stochastic"):
        sample_with_log_prob(model_of(1), (2, 3), solver="milstein")
