"""The flow's density: closed-form worlds, every solver, divergences, gradients, failures."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import diffenc_ct as dc
from diffenc_ct.dynamics import ProbabilityFlow
from diffenc_ct.likelihood import GaussianProbes, log_density, sample_with_log_prob
from diffenc_ct.likelihood.field import FlowField
from diffenc_ct.model import Direct
from diffenc_ct.process import marginal
from diffenc_ct.schedules import alpha, expand, sigma2
from tests.strategies import (
    Case,
    cases,
    close,
    gaussian_worlds,
    generator,
    make_gaussian_world,
    normal,
    schedules,
    seeds,
    worlds,
)

TIGHT = dc.Adams(atol=1e-10)


def start(world, schedule: dc.Schedule, n: int, seed: int) -> Tensor:
    """z_0 ~ q_0."""
    x = world.sample(n, generator(seed))
    gamma = schedule.at(0.0, x).gamma.expand(n)
    return marginal(world.encoder(x, gamma).value, gamma).sample(noise=normal(seed + 1, *x.shape))


def ends(world, schedule: dc.Schedule, z: Tensor):
    """The analytic log q_0 at z, and log q_1 as a prior."""
    gamma_0, gamma_1 = (schedule.at(t, z).gamma for t in (0.0, 1.0))
    return world.log_q(z, gamma_0), lambda end: world.log_q(end, gamma_1)


@given(worlds, schedules(), seeds)
@settings(max_examples=8)
def test_density_of_a_world_is_analytic(world, schedule, seed):
    z = start(world, schedule, 3, seed)
    truth, prior = ends(world, schedule, z)
    found = log_density(world.model(schedule), z, prior=prior, solver=TIGHT)
    assert (found.log_prob - truth).abs().max() < 1e-6
    # the estimate of the error is no lower than the error, to rounding
    assert ((found.log_prob - truth).abs() < found.solution.error + 1e-9).all()


@given(worlds, seeds)
@settings(max_examples=8)
def test_default_accuracy_and_cost(world, seed):
    schedule = dc.LinearSchedule()
    z = start(world, schedule, 6, seed)
    truth, prior = ends(world, schedule, z)
    found = log_density(world.model(schedule), z, prior=prior)
    assert ((found.log_prob - truth).abs() < 2 * found.solution.error).all()
    assert (found.log_prob - truth).abs().mean() < 1e-3 * z[0].numel()
    assert found.solution.evaluations.max() <= 130
    total = found.solution.accepted + found.solution.rejected
    assert torch.equal(found.solution.evaluations, total + 1)


ALONE = {"estimate_error": False}
SOLVERS = [
    (dc.TorchDiffEq("dopri5", **ALONE, rtol=1e-8, atol=1e-8), 1e-6),
    (dc.TorchDiffEq("dopri8", **ALONE, rtol=1e-9, atol=1e-9), 1e-5),
    (dc.TorchDiffEq("bosh3", **ALONE, rtol=1e-7, atol=1e-7), 1e-4),
    (dc.TorchDiffEq("fehlberg2", **ALONE, rtol=1e-6, atol=1e-6), 1e-2),
    (dc.TorchDiffEq("adaptive_heun", **ALONE, rtol=1e-6, atol=1e-6), 1e-2),
    (dc.TorchDiffEqFixed("euler", **ALONE, steps=2000), 0.1),
    (dc.TorchDiffEqFixed("midpoint", **ALONE, steps=300), 1e-2),
    (dc.TorchDiffEqFixed("heun2", **ALONE, steps=300), 1e-2),
    (dc.TorchDiffEqFixed("heun3", **ALONE, steps=200), 1e-3),
    (dc.TorchDiffEqFixed("rk4", **ALONE, steps=150), 1e-5),
    (dc.TorchDiffEqFixed("explicit_adams", **ALONE, steps=600), 1e-2),
    (dc.TorchDiffEqFixed("implicit_adams", **ALONE, steps=200), 1e-2),
    (dc.TorchDiffEqFixed("fixed_adams", **ALONE, steps=200), 1e-2),
    (dc.SciPy("RK45", **ALONE, rtol=1e-8, atol=1e-8), 1e-5),
    (dc.SciPy("LSODA", **ALONE, rtol=1e-8, atol=1e-8), 1e-5),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("solver", "tolerance"), SOLVERS, ids=[s.name for s, _ in SOLVERS])
def test_every_solver(solver, tolerance):
    world, schedule = make_gaussian_world(2, "nontrainable", 3), dc.LinearSchedule(-9.0, 5.0)
    z = start(world, schedule, 3, 1)
    truth, prior = ends(world, schedule, z)
    found = log_density(world.model(schedule), z, prior=prior, solver=solver)
    assert (found.log_prob - truth).abs().max() < tolerance
    assert set(found.solution.status) == {"ok"} and (found.solution.evaluations > 20).all()
    assert found.shared_steps == solver.adaptive


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_fixed_grid_has_its_order(method):
    world, schedule = make_gaussian_world(2, "matrix", 5), dc.LinearSchedule(-6.0, 4.0)
    z = start(world, schedule, 4, 2)
    truth, prior = ends(world, schedule, z)
    model, errors = world.model(schedule), []
    for steps in (64, 128):
        solver = dc.TorchDiffEqFixed(method, steps=steps, estimate_error=False)
        errors.append(
            (log_density(model, z, prior=prior, solver=solver).log_prob - truth).abs().mean()
        )
    assert abs(torch.log2(errors[0] / errors[1]) - solver.convergence_order(False)) < 0.25


@given(worlds, schedules(low=-9.0), seeds)
@settings(max_examples=4)
def test_there_and_back(world, schedule, seed):
    model, z = world.model(schedule), start(world, schedule, 2, seed)
    there = log_density(model, z, solver=TIGHT)
    back = sample_with_log_prob(model, tuple(z.shape), z_1=there.z_1, solver=TIGHT)
    assert (back.z_0 - z).abs().max() < 1e-6
    assert (back.log_prob - there.log_prob).abs().max() < 1e-5


def test_samples_have_the_worlds_law():
    world, schedule = make_gaussian_world(2, "matrix", 7), dc.LinearSchedule(-8.0, 8.0)
    model = world.model(schedule)
    loose = dc.Adams(atol=1e-4)
    drawn = sample_with_log_prob(model, (4000, 2), generator=generator(0), solver=loose)
    gamma = schedule.at(0.0, drawn.z_0).gamma
    law = world.marginal(gamma.reshape(1))
    scale = law.covariance_matrix[0].diagonal().sqrt()
    assert ((drawn.z_0.mean(0) - law.mean[0]) / scale).abs().max() < 4 / math.sqrt(4000) + 0.02
    assert (torch.cov(drawn.z_0.T) - law.covariance_matrix[0]).abs().max() < 0.1
    assert (drawn.log_prob - world.log_q(drawn.z_0, gamma)).abs().mean() < 0.02


@given(gaussian_worlds(kinds=("matrix",)), st.floats(-8, 4), seeds)
def test_tied_flow_is_off_by_what_theory_says(world, gamma, seed):
    """f_tied - f = alpha / (2 (1 + sigma^2)) E[x_t' - sigma^2 x_t | z] per unit of gamma. likelihood.tied_error"""
    schedule, z = dc.LinearSchedule(), normal(seed, 3, world.dimensions)
    g = torch.full((3,), gamma, dtype=torch.float64)
    tied = ProbabilityFlow(world.model(schedule, heads="single")).velocity(z, g)
    right = ProbabilityFlow(world.model(schedule)).velocity(z, g)
    found, s2 = world.estimates(z, g), expand(sigma2(g), z)
    close(
        tied - right,
        expand(alpha(g), z) / (2 * (1 + s2)) * (found.r_hat - s2 * found.x_hat),
        1e-9,
    )


def test_tied_likelihood_right_for_nontrainable_wrong_for_matrix():
    schedule, off = dc.LinearSchedule(), {}
    for kind in ("nontrainable", "identity", "matrix"):
        world = make_gaussian_world(2, kind, 11)
        z = start(world, schedule, 4, 3)
        truth, prior = ends(world, schedule, z)
        model = world.model(schedule, heads="single")
        found = log_density(model, z, prior=prior, solver=dc.Adams(atol=1e-8))
        off[kind] = (found.log_prob - truth).abs().max()
    assert off["nontrainable"] < 1e-4 and off["identity"] < 1e-4 and off["matrix"] > 1e-2


# Divergence ---------------------------------------------------------------------------------------


def jacobian(model: dc.DiffEnc, z: Tensor, gamma: Tensor) -> Tensor:
    """df/dz (n, d, d) by reverse mode."""
    flow = ProbabilityFlow(model)
    rows = [
        torch.autograd.functional.jacobian(
            lambda y, g=gamma[i : i + 1]: flow.velocity(y[None], g)[0], z[i]
        )
        for i in range(len(z))
    ]
    d = z[0].numel()
    return torch.stack(rows).reshape(len(z), d, d)


@given(cases(), st.integers(1, 4))
def test_exact_divergence_and_score(case: Case, chunk):
    z, gamma = case.z_t, case.gamma_t
    value, reverse = FlowField(case.model, chunk=chunk)(z, gamma), FlowField(case.model)
    reverse._forward_mode = False
    close(reverse(z, gamma).divergence, value.divergence, 1e-9)
    trace = jacobian(case.model, z, gamma).diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    close(value.divergence, trace, 1e-9)
    close(value.velocity, ProbabilityFlow(case.model).velocity(z, gamma), 1e-10)
    x_hat = case.model.predict(z, gamma).x_hat
    close(value.score * expand(sigma2(gamma), z), expand(alpha(gamma), z) * x_hat - z, 1e-10)


@given(worlds, st.floats(-9, 5), seeds)
def test_a_network_that_knows_its_traces(world, gamma, seed):
    z = world.sample(3, generator(seed))
    g = torch.full((3,), gamma, dtype=torch.float64)
    model = world.model(dc.LinearSchedule())
    d = z[0].numel()
    eye = torch.eye(d, dtype=z.dtype).reshape(1, d, *z.shape[1:]).expand(3, *[-1] * z.ndim)
    by_directions = FlowField(model, probes=eye)(z, g).divergence.sum(1, keepdim=True)
    close(FlowField(model)(z, g).divergence, by_directions, 1e-8)


@given(cases(heads=("paired",)))
def test_rademacher_mean_and_variance(case: Case):
    """Over all 2^d sign vectors: mean tr J, variance sum_{i != j} (J_ij^2 + J_ij J_ji). likelihood.hutchinson"""
    z, gamma, d = case.z_t, case.gamma_t, case.x[0].numel()
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * d)
    probes = signs.reshape(1, 2**d, *z.shape[1:]).expand(len(z), *[-1] * z.ndim)
    found = FlowField(case.model, probes=probes)(z, gamma).divergence
    J = jacobian(case.model, z, gamma)
    off = J - torch.diag_embed(J.diagonal(dim1=1, dim2=2))
    close(found.mean(1), J.diagonal(dim1=1, dim2=2).sum(1), 1e-9)
    close(found.var(1, correction=0), (off**2 + off * off.mT).sum((1, 2)), 1e-8)


class Counting(nn.Module):
    """Counts calls, and remembers the batch of each."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.batches = inner, []

    def forward(self, z: Tensor, gamma: Tensor):
        self.batches.append(len(z))
        return self.inner(z, gamma)


@pytest.mark.parametrize(("kind", "excess"), [(dc.Rademacher, 0.0), (GaussianProbes, 1.0)])
def test_hutchinson_along_the_path(kind, excess):
    """Its standard error is right, its variance theory's, and K probes cost one batched pass a step."""
    world, schedule = make_gaussian_world(2, "identity", 4), dc.LinearSchedule(-6.0, 4.0)
    z, k = start(world, schedule, 2, 5), 1000
    model = dc.DiffEnc(schedule, world.encoder, Direct(Counting(world)), dc.Reals())
    solver = dc.TorchDiffEqFixed("rk4", steps=40, estimate_error=False)
    exact = log_density(model, z, solver=solver)
    model.heads.network.batches.clear()
    found = log_density(model, z, divergence=kind(probes=k), generator=generator(1), solver=solver)
    # Two kinds of derivatives are compared once, at three depths; then the linear part takes all probes at once.
    assert model.heads.network.batches == [3, 3] + [2] * 160
    error = found.per_probe.std(1) / math.sqrt(k)
    assert ((found.log_prob - exact.log_prob).abs() < 4 * error).all()
    # a linear flow: the probe's integral is v^T (int J) v
    eye = torch.eye(2, dtype=torch.float64)
    basis = torch.stack([eye[0], eye[1], eye[0] + eye[1]])[None].expand(2, -1, -1)
    gamma = torch.linspace(-6, 4, 2001, dtype=torch.float64)
    field = FlowField(model, probes=basis[:1].expand(len(gamma), -1, -1))
    slopes = torch.trapezoid(
        field(torch.zeros(len(gamma), 2).double(), gamma).divergence, gamma, dim=0
    )
    cross = slopes[2] - slopes[0] - slopes[1]
    variance = cross**2 + excess * 2 * (slopes[0] ** 2 + slopes[1] ** 2)
    assert (found.per_probe.var(1) / variance - 1).abs().max() < 0.25


class EachAlone(nn.Module):
    """A network whose outputs know their own dimension alone."""

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        return torch.tanh(3 * z + 0.2 * gamma[:, None])


@given(d=st.integers(2, 12), n=st.integers(1, 3), seed=seeds)
@settings(max_examples=8)
def test_equal_dimensions_take_the_steps_of_one(d, n, seed):
    """The tolerance is nats a dimension: log p and its error are d times those of one."""
    heads = dc.Single(EachAlone())
    model = dc.DiffEnc(dc.LinearSchedule(-5.0, 4.0), dc.IdentityEncoder(), heads, dc.Reals())
    z = normal(seed, n, 1)
    one, many = (log_density(model, z.expand(-1, k).contiguous()) for k in (1, d))
    assert torch.equal(many.solution.evaluations, one.solution.evaluations)
    close(many.log_prob, d * one.log_prob, 1e-9)
    close(many.solution.error, d * one.solution.error, 1e-6)


@given(worlds, st.floats(-5, -1), seeds)
@settings(max_examples=12)
def test_the_solver_owns_up_to_its_error_at_any_tolerance(world, exponent, seed):
    """Where steps are few, most of the error is the extrapolations', not the quadrature's."""
    schedule = dc.LinearSchedule(-8.0, 5.0)
    z = start(world, schedule, 8, seed)
    truth, prior = ends(world, schedule, z)
    found = log_density(world.model(schedule), z, prior=prior, solver=dc.Adams(atol=10.0**exponent))
    assert (found.log_prob - truth).abs().mean() < found.solution.error.mean() + 1e-9
