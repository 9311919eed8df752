"""Solvers: exact Gaussians in linear ones, coefficients, refusals."""

from dataclasses import dataclass
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.process import as_noise_level
from diffenc_ct.sampling.exponential import (
    Known,
    advance,
    data_frame,
    growth,
    lagrange,
    noise_frame,
)
from diffenc_ct.sampling.grids import _MEASURES, Placement, depth_of, make_grid
from diffenc_ct.sampling.linear import kl_per_dimension, produced_gaussian
from diffenc_ct.sampling.problem import Grid, Problem
from diffenc_ct.worlds import GaussianWorld, LinearEncoder
from tests.conformance_solvers import check_solver
from tests.refusals import refused
from tests.solver_worlds import F64, flow
from tests.strategies import close, generator, noise_levels, normal, schedules

SCHEDULE = dc.LinearSchedule(-4.0, 3.0)


# Linear worlds, exactly ---------------------------------------------------------------------------


def matrix(gamma: torch.Tensor) -> torch.Tensor:
    """A trainable encoder's form with a linear y: alpha^2 I + sigma^2 (1/2 + 3/10 sin(lambda/4)) Q, Q a rotation."""
    Q = torch.linalg.qr(normal(0, 16, 16))[0]
    s = torch.sigmoid(gamma)[:, None, None]
    y = (0.5 - 0.3 * torch.sin(gamma / 4))[:, None, None] * Q
    return (1 - s) * torch.eye(16, dtype=F64) + s * y


LINEAR = dc.LinearSchedule(-13.3, 5.0)


def benchmark_world(encoder: dc.Encoder) -> GaussianWorld:
    return GaussianWorld(
        torch.full((16,), 0.3, dtype=F64), torch.logspace(-4, 0, 16, dtype=F64), encoder
    )


def produced_kl(world: GaussianWorld, steps: int, eta: float) -> float:
    """Of the default solver."""
    solver = dc.Exponential(steps=steps, noise_level=eta)
    produced, evaluations = produced_gaussian(world.model(LINEAR), 16, solver)
    assert evaluations == steps
    return kl_per_dimension(produced, world, solver.grid(LINEAR).gamma[-1])


@pytest.mark.parametrize(
    "encoder", [dc.IdentityEncoder(), LinearEncoder(matrix)], ids=["vdm", "diffenc"]
)
def test_default_reaches_the_floor(encoder: dc.Encoder) -> None:
    """KL per dimension to q(z_0): at most 5e-4 at 10 evaluations, the start's mismatch by 14; with noise below 1e-4."""
    world = benchmark_world(encoder)
    assert produced_kl(world, 10, 0.0) < 5e-4
    assert produced_kl(world, 14, 0.0) < 3.15e-4
    assert produced_kl(world, 50, 1.0) < 1e-4


def test_exact_flow_keeps_the_start_mismatch() -> None:
    """A flow preserves KL: with many steps what is left is KL(N(0, I) || q(z_1)); more noise forgets it."""
    world = benchmark_world(dc.IdentityEncoder())
    start = torch.distributions.MultivariateNormal(
        torch.zeros(16, dtype=F64), torch.eye(16, dtype=F64)
    )
    floor = kl_per_dimension(start, world, torch.tensor(5.0, dtype=F64))
    assert abs(produced_kl(world, 160, 0.0) / floor - 1) < 1e-2
    assert floor == pytest.approx(3.12e-4, rel=1e-2)


# Coefficients -------------------------------------------------------------------------------------


@given(noise_levels(), st.floats(-6, 6), st.floats(0.01, 4), st.integers(1, 3), st.integers(0, 9))
def test_constant_estimates_are_integrated_exactly(level, a, h, k, seed) -> None:
    """With x_hat constant and r_hat = 0 both frames give the posterior's mean: u_b = x + e^-K (u - x)."""
    lam = torch.tensor([a, a + h], dtype=F64)
    nodes = lam[0] - 0.7 * torch.arange(k, dtype=F64)
    x, u = normal(seed, 2, 3), normal(seed + 1, 2, 3)
    found = dc.Estimates(x, torch.zeros_like(x))
    keep = torch.exp(-growth(lam[0], lam[1], level))
    # Along the exact path u - x falls like e^-K, so n is constant.
    known = [Known(n, x + torch.exp(-growth(lam[0], n, level)) * (u - x), found) for n in nodes]
    smooth = not isinstance(level, dc.TabulatedNoiseLevel)
    for frame in ("data", "noise"):
        moved = advance(u, lam[0], lam[1], known, level, frame)
        close(moved, x + keep * (u - x), 1e-8 if smooth else 2e-2)


@given(st.floats(-3, 3), st.floats(0.05, 2), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 9))
def test_quadratic_estimates_are_integrated_exactly(a, h, eta, seed) -> None:
    """An estimate that is a quadratic in lambda, through three values, is integrated exactly, by fine quadrature."""
    level, b = as_noise_level(eta), torch.tensor(a + h, dtype=F64)
    a = torch.tensor(a, dtype=F64)
    nodes = torch.stack([a, a - 0.6, a - 1.5])
    c = normal(seed, 3)
    fine = torch.linspace(0, 1, 20001, dtype=F64) * (b - a) + a
    kappa = (1 + eta**2) / 2

    def poly(lam: torch.Tensor) -> torch.Tensor:
        return c[0] + c[1] * lam + c[2] * lam**2

    def s2(lam: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(-lam)

    keep = torch.exp(-kappa * (b - fine))
    shrink, for_x, for_r = data_frame(a, b, nodes, level)
    close(shrink, torch.exp(-kappa * (b - a)))
    close(for_x @ poly(nodes), torch.trapezoid(keep * kappa * poly(fine), fine), 1e-7)
    close(
        for_r @ (s2(nodes) * poly(nodes)), torch.trapezoid(keep * s2(fine) * poly(fine), fine), 1e-7
    )
    for_n, for_r = noise_frame(a, b, nodes, level)
    decay = torch.exp(-kappa * (fine - a))
    n = torch.exp(-kappa * (nodes - a)) * poly(nodes)  # u - x_hat where n is the quadratic
    close(for_n @ n, -torch.trapezoid(decay * kappa * poly(fine), fine), 1e-7)
    close(for_r @ (s2(nodes) * poly(nodes)), torch.trapezoid(s2(fine) * poly(fine), fine), 1e-7)


def test_lagrange_basis() -> None:
    nodes = torch.tensor([0.3, -1.0, 2.0], dtype=F64)
    close(lagrange(nodes, nodes), torch.eye(3, dtype=F64))
    close(lagrange(nodes, normal(0, 5)).sum(0), torch.ones(5, dtype=F64))


def test_first_order_without_encoder_is_ddim() -> None:
    """With the identity encoder exponential Euler, in either frame, is the ancestral mean: DDIM."""
    z = normal(3, 6, 2)
    close(flow("exponential-1", "identity", 7, z), flow("ancestral", "identity", 7, z))
    close(flow("exponential-single-1", "identity", 7, z), flow("ancestral", "identity", 7, z))


# Grids --------------------------------------------------------------------------------------------


@given(schedules(), st.integers(1, 20), st.sampled_from(get_args(Placement)))
def test_grids(schedule, steps, placement) -> None:
    t = make_grid(schedule, steps, placement)
    assert t.shape == (steps + 1,) and t[0] == 0 and t[-1] == 1 and (t.diff() > 0).all()
    if placement in _MEASURES:
        steps_of = _MEASURES[placement](-schedule(t).gamma).diff().detach()
        close(steps_of, steps_of.mean().expand(steps), 1e-6)


@given(schedules(), st.floats(0.01, 0.99))
def test_depth_of_inverts_the_schedule(schedule, t) -> None:
    t = torch.tensor([t], dtype=F64)
    gamma = schedule(t).gamma.detach()
    close(schedule(depth_of(schedule, gamma)).gamma.detach(), gamma, 1e-9)


# One's own solver, and refusals -------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class EulerMaruyama(dc.GridSolver):
    """A user's solver: Euler-Maruyama in t."""

    def __call__(self, problem: Problem, z: torch.Tensor, grid: Grid) -> torch.Tensor:
        for t, s in zip(grid.t[:-1], grid.t[1:], strict=True):
            g = problem.diffusion(t, z)
            z = z + problem.drift(z, t) * (s - t) + g * (t - s).sqrt() * problem.noise(z)
        return z


@pytest.mark.parametrize("kind", [EulerMaruyama, dc.Exponential, dc.Ancestral, dc.TorchSDE])
def test_conformance(kind) -> None:
    check_solver(kind(steps=64, noise_level=1.0))
    if kind is not dc.TorchSDE:
        check_solver(kind(steps=64, noise_level=0.0))


def test_conformance_catches_wrong_solvers() -> None:
    class ForgetsHalf(EulerMaruyama):
        def __call__(self, problem, z, grid):
            half = Grid(grid.t[::2], grid.gamma[::2])
            return super().__call__(problem, z, half)[:1].expand_as(z)

    class WrongNoise(EulerMaruyama):
        def __call__(self, problem, z, grid):
            for t, s in zip(grid.t[:-1], grid.t[1:], strict=True):
                g = problem.diffusion(t, z)
                z = z + problem.drift(z, t) * (s - t) + 3 * g * (t - s).sqrt() * problem.noise(z)
            return z

    class StaysPut(EulerMaruyama):
        def __call__(self, problem, z, grid):
            return z

    for wrong in (ForgetsHalf, WrongNoise, StaysPut):
        with pytest.raises(AssertionError):
            check_solver(wrong(steps=64, noise_level=1.0))


def test_ones_own_solver_is_sampled_like_any_other() -> None:
    """Its steps, placement and noise level reach it, and at noise level 0 it is Euler's method on the flow."""
    model = benchmark_world(dc.NonTrainableEncoder()).model(SCHEDULE)
    solver = EulerMaruyama(steps=5, noise_level=0.0, placement="log-snr")
    with torch.no_grad():
        out = dc.sample(model, 3, shape=(16,), solver=solver, generator=generator(0))
        z, t = out.z_1, make_grid(SCHEDULE, 5, "log-snr").flip(0)
        for a, b in zip(t[:-1], t[1:], strict=True):
            z = z + (b - a) * dc.ProbabilityFlow(model)(a, z)
    close(out.z_0, z)
    assert out.log["solver"] == "EulerMaruyama" and out.evaluations == 5


def test_wrong_grids() -> None:
    with pytest.raises(ValueError, match="increasing"):
        make_grid(SCHEDULE, 2, torch.tensor([0.0, 0.7, 0.6, 1.0])[:3])
    with pytest.raises(ValueError, match="at least one step"):
        make_grid(SCHEDULE, 0, "balanced")
    with refused(ValueError, "choose uniform"):
        make_grid(SCHEDULE, 3, "cosine")


def test_more_noise_than_a_vector_a_step_is_refused() -> None:
    """Where a solver draws more, the Gaussian it produces could not be read off."""

    class Twice(EulerMaruyama):
        def __call__(self, problem, z, grid):
            for _ in range(grid.steps + 1):
                problem.noise(z)
            return z

    model = benchmark_world(dc.IdentityEncoder()).model(LINEAR)
    with pytest.raises(ValueError, match="more than one vector a step"):
        produced_gaussian(model, 16, Twice(steps=3))
