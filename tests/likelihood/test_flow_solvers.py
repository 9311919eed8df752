"""A solver of the flow is one object for likelihoods and samples: both against closed forms; solvers of one's own."""

from dataclasses import dataclass, replace

import pytest
import torch
from scipy.integrate._ivp.ivp import METHODS as SCIPYS_OWN
from torch import Tensor
from torch.distributions import Normal
from torchdiffeq._impl.odeint import SOLVERS as TORCHDIFFEQS_OWN
from torchdiffeq._impl.solvers import FixedGridODESolver

import diffenc_ct as dc
from diffenc_ct.likelihood import FlowProblem, FlowSolver, GaussianProbes, Solution, log_density
from diffenc_ct.likelihood.libraries import ADAMS, ADAPTIVE, FIXED, SCIPY
from diffenc_ct.process import as_noise_level
from diffenc_ct.sampling import Grid, Problem
from diffenc_ct.schedules import alpha, sigma2
from diffenc_ct.worlds import GaussianWorld
from tests.conformance_solvers import check_solver
from tests.solver_worlds import mixture
from tests.strategies import close, generator, normal

F64 = torch.float64
SCHEDULE = dc.LinearSchedule(-8.0, 5.0)
MEAN, VARIANCES = torch.tensor([0.4, -0.3], dtype=F64), torch.tensor([0.5, 0.05], dtype=F64)


@dataclass(frozen=True, eq=False, kw_only=True)
class Midpoint(FlowSolver):
    """A user's solver: the midpoint rule in equal steps of gamma."""

    steps: int = 1000

    @property
    def adaptive(self) -> bool:
        return False

    def convergence_order(self, stochastic: bool) -> float:
        return 2

    def integrate(self, problem: FlowProblem) -> Solution:
        z, field, h = problem.z, problem.field, (problem.end - problem.start) / self.steps
        total = torch.zeros(len(z), field.columns, dtype=F64)
        for i in range(self.steps):
            gamma = (problem.start + i * h).expand(len(z))
            middle = field(z + h / 2 * field(z, gamma).velocity, gamma + h / 2)
            z, total = z + h * middle.velocity, total + h * middle.divergence
        count = torch.full((len(z),), self.steps)
        nan = torch.full((len(z),), torch.nan, dtype=F64)
        return Solution(z, total, nan, 2 * count, count, 0 * count, ["ok"] * len(z))

    def __call__(self, problem: Problem, z: Tensor, grid: Grid) -> Tensor:
        flow, (start, end) = dc.ProbabilityFlow(problem.model), grid.gamma[[0, -1]].to(z)
        h = (end - start) / self.steps
        for i in range(self.steps):
            gamma = (start + i * h).expand(len(z))
            middle = z + h / 2 * flow.velocity(z, gamma)
            z = z + h * flow.velocity(middle, gamma + h / 2)
        return z


SOLVERS = [
    dc.Adams(atol=1e-7),
    dc.TorchDiffEq("dopri5", rtol=1e-8, atol=1e-8),
    dc.TorchDiffEqFixed("rk4", steps=200),
    dc.SciPy("LSODA", rtol=1e-9, atol=1e-9),
    Midpoint(steps=1500),
]


def model_and_scales(encoder: dc.Encoder) -> tuple[dc.DiffEnc, list[tuple[Tensor, Tensor]]]:
    """A world whose variances do not mix, and (mean, deviation) of q(z_t) at both ends.

    Its flow is z -> mean' + deviation'/deviation (z - mean), one dimension at a time.
    """
    model = GaussianWorld(MEAN, VARIANCES, encoder).model(SCHEDULE)
    ends = []
    for t in (0.0, 1.0):
        gamma = SCHEDULE.at(t, MEAN).gamma
        a = alpha(gamma) * encoder.encode(torch.ones(1, 1, dtype=F64), gamma[None]).squeeze()
        ends.append((a * MEAN, (a**2 * VARIANCES + sigma2(gamma)).sqrt()))
    return model, ends


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
@pytest.mark.parametrize("encoder", [dc.IdentityEncoder(), dc.NonTrainableEncoder()])
def test_one_object_gives_samples_and_likelihoods(solver, encoder) -> None:
    """Samples are the closed flow of their z_1; the density is N(0, I)'s, carried along it; so is the samples' own."""
    model, ((mean_0, std_0), (mean_1, std_1)) = model_and_scales(encoder)

    def density(z_0: Tensor) -> Tensor:
        z_1 = mean_1 + std_1 / std_0 * (z_0 - mean_0)
        return (Normal(0.0, 1.0).log_prob(z_1) + (std_1 / std_0).log()).sum(1)

    drawn = dc.sample(model, 4, shape=(2,), solver=solver, generator=generator(1))
    close(drawn.z_0, mean_0 + std_0 / std_1 * (drawn.z_1 - mean_1), 1e-5)
    scale = alpha(SCHEDULE.at(0.0, MEAN).gamma)
    close(drawn.samples, drawn.z_0 / scale)
    found = dc.log_likelihood(model, drawn.samples, solver=solver)
    close(found.nats, density(drawn.z_0) + 2 * scale.log(), 2e-5)
    back = dc.sample_with_log_prob(model, (4, 2), z_1=drawn.z_1, solver=solver)
    close(back.z_0, drawn.z_0, 1e-5)
    close(back.log_prob, density(back.z_0), 2e-5)


def test_samples_of_adams_converge_with_its_tolerance() -> None:
    """In a nonlinear world with a moving encoder: what is controlled is score . error of z_0, a step."""
    model, z = mixture("scale"), normal(3, 24, 2)
    problem = Problem(model, as_noise_level(0.0), torch.zeros_like)
    grid = Grid.of(model.schedule, torch.tensor([0.0, 1.0], dtype=F64))
    with torch.no_grad():
        truth = dc.SciPy("DOP853", rtol=3e-14, atol=1e-15)(problem, z, grid)
        errors, counts = [], []
        for atol in (1e-3, 1e-5, 1e-7, 1e-9):
            mine = Problem(model, as_noise_level(0.0), torch.zeros_like)
            found = dc.Adams(atol=atol)(mine, z, grid)
            errors.append(float((found - truth).abs().max()))
            counts.append(mine.evaluated_images / len(z))
            assert errors[-1] < 20 * atol, (atol, errors)
    assert all(fine < coarse / 10 for coarse, fine in zip(errors[:-1], errors[1:], strict=True))
    assert counts == sorted(counts) and counts[-1] < 250, counts


@pytest.mark.parametrize(
    "solver",
    [
        dc.Adams(),
        dc.TorchDiffEq("bosh3"),
        dc.TorchDiffEqFixed("rk4"),
        dc.SciPy("RK23"),
        Midpoint(steps=64),
    ],
    ids=lambda solver: solver.name,
)
def test_conformance(solver) -> None:
    check_solver(solver)


class HalfWay(Midpoint):
    """Its samples stop half way."""

    def __call__(self, problem, z, grid):
        half = torch.stack([grid.gamma[0], grid.gamma.mean()])
        return super().__call__(problem, z, Grid(grid.t, half))


class Backwards(Midpoint):
    """Its density grows where it should fall."""

    def integrate(self, problem):
        found = super().integrate(problem)
        return replace(found, integral=-found.integral)


class OneColumn(Midpoint):
    """It averages over the probes."""

    def integrate(self, problem):
        found = super().integrate(problem)
        return replace(found, integral=found.integral.mean(1, keepdim=True))


class Ends(Midpoint):
    """It stays at its start."""

    def integrate(self, problem):
        return replace(super().integrate(problem), z=problem.z)


@pytest.mark.parametrize(
    "wrong,words",
    [
        (HalfWay, "mean|covariance"),
        (Backwards, "log q"),
        (OneColumn, "column"),
        (Ends, "log q|there and back"),
    ],
)
def test_conformance_catches_wrong_flows(wrong, words) -> None:
    with pytest.raises(AssertionError, match=words):
        check_solver(wrong(steps=64))


def test_ones_own_flow_solver_takes_every_divergence() -> None:
    """Its order is what it states, and probes and a prior reach it as they reach the library's."""
    model, z = mixture("identity"), normal(1, 3, 2)

    def run(solver: FlowSolver, divergence) -> Tensor:
        return log_density(
            model, z, solver=solver, divergence=divergence, generator=generator(2),
            prior=lambda end: -end.abs().sum(1),
        ).log_prob  # fmt: skip

    for divergence in (dc.Exact(), GaussianProbes(probes=2)):
        truth = run(dc.Adams(atol=1e-8), divergence)
        coarse, fine = ((run(Midpoint(steps=n), divergence) - truth).norm() for n in (50, 100))
        assert abs(torch.log2(coarse / fine) - 2) < 0.2


def test_paths_have_gradients_by_the_adjoint_where_a_solver_is_called_directly() -> None:
    """dc.sample has none; the solver itself, called with a problem, differentiates as it was told."""
    model, _ = model_and_scales(dc.IdentityEncoder())
    grid = Grid.of(SCHEDULE, torch.tensor([0.0, 1.0], dtype=F64))
    grads = []
    for gradient in ("solve", "adjoint"):
        solver = dc.TorchDiffEq("dopri5", rtol=1e-9, atol=1e-9, gradient=gradient)
        z = normal(5, 3, 2).requires_grad_()
        problem = Problem(model, as_noise_level(0.0), torch.zeros_like)
        grads.append(torch.autograd.grad(solver(problem, z, grid).square().sum(), z)[0])
    close(grads[0], grads[1], 1e-6)


def test_tables_of_methods_are_the_libraries_own() -> None:
    """Names and orders as torchdiffeq and scipy have them; no method of theirs is forgotten."""
    kinds = {name: kind for name, kind in TORCHDIFFEQS_OWN.items() if name != "scipy_solver"}
    fixed = {name for name, kind in kinds.items() if issubclass(kind, FixedGridODESolver)}
    assert set(ADAPTIVE) == kinds.keys() - fixed and FIXED.keys() | ADAMS.keys() == fixed
    for name, order in (ADAPTIVE | FIXED).items():
        assert kinds[name].order == order
    # Adams methods, whose order rises, state that of their start; here stands what it caps them to.
    assert all(name.endswith("_adams") for name in ADAMS)
    assert SCIPY.keys() == SCIPYS_OWN.keys()
    for name in ("RK45", "RK23", "DOP853"):
        assert SCIPYS_OWN[name].error_estimator_order + 1 == SCIPY[name]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: solver.name)
def test_what_a_solver_says_of_itself(solver) -> None:
    model, _ = model_and_scales(dc.IdentityEncoder())
    assert solver.level(model).deterministic
    assert solver.grid(SCHEDULE).gamma[[0, -1]].tolist() == [5.0, -8.0]
    assert not solver.differentiable and solver.on_failure == "raise"
    shared = log_density(model, normal(1, 2, 2), solver=solver).shared_steps
    assert shared == solver.batch_matters == isinstance(solver, dc.TorchDiffEq | dc.SciPy)
