"""Nonlinear worlds and grids in which orders of solvers are measured."""

import functools
import math
from typing import Any

import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.cli.solvers import SOLVERS, make_solver
from diffenc_ct.encoders import Encoding
from diffenc_ct.process import as_noise_level
from diffenc_ct.sampling import Grid, Problem, make_grid
from diffenc_ct.schedules import alpha2, expand, sigma2
from diffenc_ct.worlds import MixtureWorld
from tests.strategies import ScaleEncoder

F64 = torch.float64


def log_snr_grid(steps: int, schedule: dc.Schedule, placement: str = "log-snr") -> Grid:
    return Grid.of(schedule, make_grid(schedule, steps, placement))


class ClosedScaleEncoder(ScaleEncoder):
    """Its rate in closed form, which takes a tenth of the time that forward-mode differentiation takes."""

    def forward(self, x: Tensor, gamma: Tensor) -> Encoding:
        weight = 0.6 + 0.3 * torch.sin(gamma / 2)
        rate = sigma2(gamma) * (alpha2(gamma) * weight + 0.15 * torch.cos(gamma / 2))
        return Encoding(self.encode(x, gamma), x * expand(rate, x))


@functools.cache
def mixture(kind: str, deviation: float = 0.3, low: float = -4.0, high: float = 3.0) -> dc.DiffEnc:
    """Three components in the plane, gamma from `low` to `high`."""
    means = torch.tensor([[-0.9, 0.2], [0.1, 0.8], [0.7, -0.6]], dtype=F64)
    encoder = ClosedScaleEncoder() if kind == "scale" else dc.IdentityEncoder()
    return MixtureWorld(means, deviation, encoder).model(dc.LinearSchedule(low, high))


def declared_order(name: str, *, stochastic: bool) -> float:
    return SOLVERS[name]().convergence_order(stochastic)


def slope(errors: list[float], steps: list[int]) -> float:
    """The order by which errors fall between the last two numbers of steps."""
    return math.log(errors[-2] / errors[-1]) / math.log(steps[-1] / steps[-2])


def follow(solver: Any, model: dc.DiffEnc, steps: int, z: Tensor) -> Tensor:
    """z_0 of the probability flow."""
    problem = Problem(model, as_noise_level(0.0), torch.zeros_like)
    with torch.no_grad():
        return solver(problem, z, log_snr_grid(steps, model.schedule))


def flow(name: str, kind: str, steps: int, z: Tensor) -> Tensor:
    return follow(make_solver(name), mixture(kind), steps, z)
