"""torchsde, torchdiffeq and scipy as solvers: one drift and one diffusion, `dynamics`, serve them all.

torchsde integrates ReverseSDE in tau = 1 - t, one step of its method for each step of the grid, over a Brownian motion
that belongs to each image. Ito and Stratonovich methods both apply: the correction between the two readings is
1/2 g dg/dz, and this g does not depend on z. torchdiffeq and scipy integrate the probability flow dz/dgamma, fixed
methods step by step over the grid, adaptive ones between its ends.

Reference: Li et al. 2020 (torchsde); Chen et al. 2018 (torchdiffeq).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torchdiffeq
import torchsde
from torch import Tensor
from torchdiffeq._impl.odeint import SOLVERS as TORCHDIFFEQ_METHODS
from torchdiffeq._impl.solvers import FixedGridODESolver

from diffenc_ct.dynamics import ProbabilityFlow, ReverseSDE, SDEType
from diffenc_ct.sampling.problem import Grid, Problem

# Method: type of SDE it solves; strong order for a diffusion that does not depend on the state; order without noise.
TORCHSDE_METHODS: dict[str, tuple[SDEType, float, float]] = {
    "euler": ("ito", 1.0, 1.0),
    "milstein": ("ito", 1.0, 1.0),
    "srk": ("ito", 1.5, 3.0),
    "midpoint": ("stratonovich", 1.0, 2.0),
    "heun": ("stratonovich", 1.0, 2.0),
    "euler_heun": ("stratonovich", 1.0, 1.0),
    "log_ode": ("stratonovich", 1.0, 2.0),
    "reversible_heun": ("stratonovich", 1.0, 2.0),
}
ADAMS_CAPS = {"explicit_adams": 4, "implicit_adams": 5, "fixed_adams": 5}
SCIPY_METHODS = {"RK45": 5, "RK23": 3, "DOP853": 8, "Radau": 5, "BDF": 5, "LSODA": 12}


class ImageBrownian(torchsde.BaseBrownian):
    """Increments W and space-time integrals U of a Brownian motion, each image's from its own generator: (batch, d).

    Over a step of length h, W = sqrt(h) e_1 and U = int (W_s - W_start) ds = h (W/2 + sqrt(h/12) e_2). Steps are asked
    for one after another; the same step again gives the same numbers. The Levy area is given as 0: it multiplies Lie
    brackets of the columns of g, which vanish for a g that does not depend on the state.
    """

    def __init__(self, noise: Callable[[Tensor], Tensor], like: Tensor) -> None:
        self._noise, self._like, self._step = noise, like, (0.0, 0.0)
        self._W = self._U = torch.zeros_like(like)

    def __call__(self, ta, tb=None, return_U=False, return_A=False) -> Any:
        step = (float(ta), float(tb))
        if step != self._step:
            self._step, h = step, step[1] - step[0]
            self._W = math.sqrt(h) * self._noise(self._like)
            self._U = h * (self._W / 2 + math.sqrt(h / 12) * self._noise(self._like))
        values = [self._W] + [self._U] * return_U
        if return_A:
            n, d = self.shape
            values.append(self._like.new_zeros(1, 1, 1).expand(n, d, d))
        return values[0] if len(values) == 1 else tuple(values)

    def __repr__(self) -> str:
        return f"ImageBrownian(shape={self.shape})"

    @property
    def dtype(self) -> torch.dtype:
        return self._like.dtype

    @property
    def device(self) -> torch.device:
        return self._like.device

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._like.shape)

    @property
    def levy_area_approximation(self) -> str:
        return "foster"


class TorchSDE:
    """A method of torchsde on the generative reverse SDE; fixed steps over the grid."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.sde_type, self.strong_order, self.ode_order = TORCHSDE_METHODS[method]

    def order(self, stochastic: bool) -> float:
        """The strong order, or without noise that of the method as one for an ODE."""
        return self.strong_order if stochastic else self.ode_order

    def __call__(self, problem: Problem, z: Tensor, grid: Grid) -> Tensor:
        sde = ReverseSDE(
            problem.model,
            noise_level=problem.noise_level,
            shape=tuple(z.shape[1:]),
            sde_type=self.sde_type,
        )
        y, tau = z.flatten(1), (1 - grid.t).to(z)
        motion = ImageBrownian(problem.noise, y)
        for ends in zip(tau[:-1], tau[1:], strict=True):
            # A step longer than the interval ends at its end: exactly one step.
            y = torchsde.sdeint(sde, y, torch.stack(ends), bm=motion, method=self.method, dt=2.0)[1]
        return y.unflatten(1, z.shape[1:])


class TorchDiffEq:
    """A method of torchdiffeq, or scipy's through it, on the probability flow in gamma.

    options: further ones of that library, e.g. max_step, in units of gamma.
    """

    def __init__(
        self,
        method: str,
        *,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.method, self.rtol, self.atol = method, rtol, atol
        self.options = dict(options or {})
        self.scipy = method if method in SCIPY_METHODS else None
        self.adaptive = self.scipy is not None or not issubclass(
            TORCHDIFFEQ_METHODS[method], FixedGridODESolver
        )

    def order(self, stochastic: bool) -> float:
        """The order of the method; of BDF and LSODA, which vary it along the path, the highest that they may take.

        Adams methods rise to max_order, 12. Their first steps, rk4 and one through the fewest values, keep a local
        error of the fourth (explicit) or fifth power of the step, which caps their order.
        """
        if self.scipy is not None:
            return SCIPY_METHODS[self.scipy]
        max_order = self.options.get("max_order", 12)
        if self.method not in ADAMS_CAPS or max_order < 4:  # Below 4 it is rk4.
            return TORCHDIFFEQ_METHODS[self.method].order
        # An explicit step goes through max_order - 1 values, an implicit one through its own end as well.
        return min(max_order - (self.method == "explicit_adams"), ADAMS_CAPS[self.method])

    def __call__(self, problem: Problem, z: Tensor, grid: Grid) -> Tensor:
        flow = ProbabilityFlow(problem.model)
        gamma = grid.gamma[[0, -1]] if self.adaptive else grid.gamma
        method, options = self.method, self.options
        if self.scipy is not None:
            method, options = "scipy_solver", {"solver": self.scipy, **options}
        path = torchdiffeq.odeint(
            lambda gamma, z: flow.velocity(z, gamma.to(z).expand(len(z))),
            z,
            gamma.to(z),
            rtol=self.rtol,
            atol=self.atol,
            method=method,
            options=options or None,
        )
        return path[-1]
