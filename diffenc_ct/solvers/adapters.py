"""torchsde, torchdiffeq and scipy as solvers: one drift and one diffusion, `dynamics`, serve them all.

torchsde integrates ReverseSDE in tau = 1 - t, one step of its method for each step of the grid, over a Brownian motion
that belongs to each image. Ito and Stratonovich methods both apply: the correction between the two readings is
1/2 g dg/dz, and this g does not depend on z. torchdiffeq and scipy integrate the probability flow dz/dgamma, fixed
methods step by step over the grid, adaptive ones between its ends.

Reference: Li et al. 2020 (torchsde); Chen et al. 2018 (torchdiffeq).
"""

from collections.abc import Sequence
from typing import Any

import torch
import torchdiffeq
import torchsde
from torch import Tensor
from torchdiffeq._impl.odeint import SOLVERS as TORCHDIFFEQ_METHODS
from torchdiffeq._impl.solvers import FixedGridODESolver

from diffenc_ct.dynamics import ProbabilityFlow, ReverseSDE
from diffenc_ct.solvers.problem import Grid, Problem

# Method: (type of SDE it solves, strong order for a diffusion that does not depend on the state, Levy area it needs).
TORCHSDE_METHODS = {
    "euler": ("ito", 1.0, "none"),
    "milstein": ("ito", 1.0, "none"),
    "srk": ("ito", 1.5, "space-time"),
    "midpoint": ("stratonovich", 1.0, "none"),
    "heun": ("stratonovich", 1.0, "none"),
    "euler_heun": ("stratonovich", 1.0, "none"),
    "log_ode": ("stratonovich", 1.0, "foster"),
    "reversible_heun": ("stratonovich", 1.0, "none"),
}
SCIPY_METHODS = {"RK45": 5, "RK23": 3, "DOP853": 8, "Radau": 5, "BDF": 5, "LSODA": 12}


class ImageBrownian(torchsde.BaseBrownian):
    """A Brownian motion over tau in [0, 1] for each image, from its own seed: (batch, d)."""

    def __init__(self, entropies: Sequence[int], like: Tensor, levy_area: str) -> None:
        self._like, self._levy_area = like[:0], levy_area
        self._shape = tuple(like.shape)
        self.motions = [
            torchsde.BrownianInterval(
                0.0,
                1.0,
                size=(1, like.shape[1]),
                dtype=like.dtype,
                device=like.device,
                entropy=entropy,
                levy_area_approximation=levy_area,
            )
            for entropy in entropies
        ]

    def __call__(self, ta, tb=None, return_U=False, return_A=False) -> Any:
        values = [m(ta, tb, return_U=return_U, return_A=return_A) for m in self.motions]
        if isinstance(values[0], tuple):
            return tuple(torch.cat(parts) for parts in zip(*values, strict=True))
        return torch.cat(values)

    def __repr__(self) -> str:
        return f"ImageBrownian(shape={self._shape})"

    @property
    def dtype(self) -> torch.dtype:
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        return self._like.device

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def levy_area_approximation(self) -> str:
        return self._levy_area


class TorchSDE:
    """A method of torchsde on the generative reverse SDE; fixed steps over the grid."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.sde_type, self.strong_order, self.levy_area = TORCHSDE_METHODS[method]

    def order(self, stochastic: bool) -> float:
        """The strong order; without noise these are ordinary methods for an ODE."""
        return self.strong_order

    def __call__(self, problem: Problem, z: Tensor, grid: Grid) -> Tensor:
        sde = ReverseSDE(
            problem.model,
            noise_level=problem.noise_level,
            shape=tuple(z.shape[1:]),
            sde_type=self.sde_type,
        )
        y, tau = z.flatten(1), (1 - grid.t).to(z)
        motion = ImageBrownian(problem.entropies, y, self.levy_area)
        for ends in zip(tau[:-1], tau[1:], strict=True):
            # A step longer than the interval ends at its end: exactly one step.
            y = torchsde.sdeint(sde, y, torch.stack(ends), bm=motion, method=self.method, dt=2.0)[1]
        return y.unflatten(1, z.shape[1:])


class TorchDiffEq:
    """A method of torchdiffeq, or scipy's through it, on the probability flow in gamma."""

    def __init__(self, method: str, *, rtol: float = 1e-5, atol: float = 1e-5) -> None:
        self.method, self.rtol, self.atol = method, rtol, atol
        self.scipy = method if method in SCIPY_METHODS else None
        self.adaptive = self.scipy is not None or not issubclass(
            TORCHDIFFEQ_METHODS[method], FixedGridODESolver
        )

    def order(self, stochastic: bool) -> float:
        """The order of the method."""
        if self.scipy is not None:
            return SCIPY_METHODS[self.scipy]
        return TORCHDIFFEQ_METHODS[self.method].order

    def __call__(self, problem: Problem, z: Tensor, grid: Grid) -> Tensor:
        flow = ProbabilityFlow(problem.model)
        gamma = grid.gamma[[0, -1]] if self.adaptive else grid.gamma
        keywords: dict[str, Any] = {"method": self.method}
        if self.scipy is not None:
            keywords = {"method": "scipy_solver", "options": {"solver": self.scipy}}
        path = torchdiffeq.odeint(
            lambda gamma, z: flow.velocity(z, gamma.to(z).expand(len(z))),
            z,
            gamma.to(z),
            rtol=self.rtol,
            atol=self.atol,
            **keywords,
        )
        return path[-1]
