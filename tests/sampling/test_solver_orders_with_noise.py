"""The order that every solver declares is the order that is measured, in nonlinear worlds, with noise."""

import functools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.cli.solvers import SOLVERS, make_solver
from diffenc_ct.process import as_noise_level, posterior_std
from diffenc_ct.sampling import TORCHSDE_METHODS, Grid, Problem
from diffenc_ct.sampling.exponential import growth
from diffenc_ct.sampling.linear import produced_gaussian
from diffenc_ct.schedules import alpha
from diffenc_ct.worlds import GaussianWorld
from tests.solver_worlds import (
    F64,
    ClosedScaleEncoder,
    declared_order,
    log_snr_grid,
    mixture,
    slope,
)
from tests.strategies import normal


class Path:
    """One Brownian path in three resolutions: what a step of a coarse grid draws, made from the fine grid's draws."""

    def __init__(self, seed: int, paths: int, fine: int) -> None:
        self.W = normal(seed, fine, paths, 2) / math.sqrt(fine)
        self.U = self.W / (2 * fine) + normal(seed + 1, fine, paths, 2) / math.sqrt(12) / fine**1.5

    def standardised(self, steps: int) -> list[Tensor]:
        """W and space-time normals of each step of tau, as ImageBrownian asks for them."""
        fine = len(self.W)
        W, U = (v.unflatten(0, (steps, fine // steps)) for v in (self.W, self.U))
        before = W.cumsum(1) - W
        total, area, h = W.sum(1), (U + before / fine).sum(1), 1 / steps
        normals = zip(total / math.sqrt(h), (area / h - total / 2) / math.sqrt(h / 12), strict=True)
        return [e for pair in normals for e in pair]


def replay(draws: list[Tensor]):
    remaining = list(draws)
    return lambda like: remaining.pop(0)


@functools.cache
def strong(method: str, steps: int) -> Tensor:
    """z_0 of 1024 paths of the reverse SDE with noise level 2, a Brownian path each, the same at every resolution."""
    model = mixture("identity", 0.3, -2.0, 1.0)
    noise = replay(Path(0, 1024, 512).standardised(steps))
    problem = Problem(model, as_noise_level(2.0), noise)
    with torch.no_grad():
        solver = make_solver(f"torchsde:{method}")
        return solver(problem, normal(5, 1024, 2), log_snr_grid(steps, model.schedule))


@pytest.mark.parametrize("name", TORCHSDE_METHODS)
def test_strong_order_of_torchsde(name: str) -> None:
    """Mean error over shared Brownian paths, in reverse time on the generative SDE."""
    steps = [32, 128]
    errors = [float((strong(name, n) - strong("srk", 512)).norm()) for n in steps]
    declared = declared_order(f"torchsde:{name}", stochastic=True)
    assert abs(slope(errors, steps) - declared) < 0.2, errors


NOISY = [n for n in SOLVERS if n.startswith("exponential")] + ["ancestral"]
PREDICTOR = dc.Exponential(order=2, corrector=False)


@functools.cache
def weak(kind: str, name: str, steps: int) -> Tensor:
    """z_0 without noise and the noise's leading effect on the mean and second moments of z_0, from 3 starts: (3, 7).

    With noise e eps, E f(z_0) = f(z_0 without noise) + e^2/2 sum_i d^2 f / d eps_i^2 + O(e^4), exactly, eps_i being
    every normal variate of every step. Both terms converge with the weak order of the solver. Noise level 1.
    """
    model, level, e = mixture(kind, 0.5, -1.0, 2.5), as_noise_level(1.0), 1e-3
    each = e * torch.eye(2 * steps, dtype=F64)
    points = torch.cat([each, -each, torch.zeros_like(each[:1])]).unflatten(1, (steps, 2))
    noise = replay([p.repeat_interleave(3, 0) for p in points.unbind(1)])
    with torch.no_grad():
        z_1, grid = normal(8, 3, 2).repeat(len(points), 1), log_snr_grid(steps, model.schedule)
        solver = PREDICTOR if name == "predictor alone" else make_solver(name)
        z_0 = solver(Problem(model, level, noise), z_1, grid).unflatten(0, (-1, 3))
    moments = torch.cat([z_0, z_0**2, z_0.prod(-1, keepdim=True)], -1)
    effect = (moments[:-1] - moments[-1]).sum(0) / (2 * e**2)
    return torch.cat([z_0[-1], effect], -1)


def extrapolated(values: Callable[[str, int], Tensor]) -> Tensor:
    """Their limit, by Richardson's rule from a method of order 2: its own error would distort the slopes of others."""
    fine, finer = (values("exponential-single-2", n) for n in (128, 256))
    return (4 * finer - fine) / 3


@pytest.mark.parametrize("name,kind", [(n, k) for n in NOISY for k in ("identity", "scale")])
def test_weak_order_in_a_mixture(name: str, kind: str) -> None:
    """To second order in the noise there is no sampling error, so 64 and 128 steps can be told apart.

    By then the multistep methods have settled: their leading error is small, the next one rules at 12 and 24 steps.
    """
    truth, steps = extrapolated(functools.partial(weak, kind)), [64, 128]
    errors = [float((weak(kind, name, n) - truth).norm()) for n in steps]
    assert abs(slope(errors, steps) - declared_order(name, stochastic=True)) < 0.2, errors


def test_weak_order_without_a_corrector() -> None:
    """It is 2 as well, with a larger error: each step's drift has the noise of the step before."""
    truth, steps = extrapolated(functools.partial(weak, "scale")), [64, 128]
    alone, corrected = (
        [float((weak("scale", name, n) - truth).norm()) for n in steps]
        for name in ("predictor alone", "exponential-2")
    )
    assert PREDICTOR.convergence_order(stochastic=True) == 2
    assert abs(slope(alone, steps) - 2) < 0.2, alone
    assert corrected[1] < alone[1]


def coupled_noise(draws: Tensor, fine: Grid, coarse: Grid, level: dc.NoiseLevel):
    """Standard normals of the coarse grid's steps whose noise in z/alpha is the sum of the fine grid's."""

    def std(grid: Grid) -> Tensor:
        a, b = grid.gamma[:-1], grid.gamma[1:]
        return posterior_std(b, a, level) / alpha(b)

    ratio, lam, out = fine.steps // coarse.steps, -fine.gamma, []
    scaled = std(fine)[:, None, None] * draws
    for i, s in enumerate(std(coarse)):
        total = torch.zeros_like(draws[0])
        for j in range(i * ratio, (i + 1) * ratio):
            total = torch.exp(-growth(lam[j], lam[j + 1], level)) * total + scaled[j]
        out.append(total / s)
    return replay(out)


WEAK = ["exponential", "exponential-1", "exponential-2", "exponential-single-2", "ancestral"]


@functools.cache
def sampled(name: str, steps: int) -> float:
    """E||z_0||^2 over 20,000 paths with noise level 1 in a mixture world, their noise the same at every resolution."""
    model, level = mixture("scale", 0.5, -2.0, 2.5), as_noise_level(1.0)
    fine, grid = (log_snr_grid(n, model.schedule) for n in (96, steps))
    noise = coupled_noise(normal(7, 96, 20000, 2), fine, grid, level)
    with torch.no_grad():
        z = make_solver(name)(Problem(model, level, noise), normal(8, 20000, 2), grid)
    return float((z**2).sum(1).mean())


@pytest.mark.parametrize("name", WEAK)
def test_weak_order_of_samples(name: str) -> None:
    """With the whole noise the error of E||z_0||^2 falls no slower; the multistep method's has not settled by 24 steps.

    At 48 its error is only twice the sampling error of 20,000 paths.
    """
    truth, steps = sampled("exponential-single-2", 96), [12, 24]
    errors = [abs(sampled(name, n) - truth) for n in steps]
    declared = declared_order(name, stochastic=True)
    above = 0.8 if name in ("exponential", "exponential-2") else 0.2
    assert declared - 0.2 < slope(errors, steps) < declared + above, errors


@functools.cache
def produced(name: str, steps: int) -> Tensor:
    """Mean and covariance that a solver produces in a Gaussian world with noise level 1, (2 + 4,)."""
    world = GaussianWorld(
        torch.tensor([0.3, -0.2], dtype=F64),
        torch.tensor([0.5, 0.1], dtype=F64),
        ClosedScaleEncoder(),
    )
    model = world.model(dc.LinearSchedule(-1.0, 2.5))
    solver = make_solver(name, steps=steps, placement="log-snr", noise_level=1.0)
    made, _ = produced_gaussian(model, 2, solver)
    return torch.cat([made.mean, made.covariance_matrix.flatten()])


@pytest.mark.parametrize("name", NOISY)
def test_weak_order_exactly(name: str) -> None:
    """In a Gaussian world mean and covariance are exact, so the slope has no sampling error."""
    truth, steps = extrapolated(produced), [64, 128]
    errors = [float((produced(name, n) - truth).norm()) for n in steps]
    assert abs(slope(errors, steps) - declared_order(name, stochastic=True)) < 0.2, errors
