"""torchsde as a solver of the generative reverse SDE: one drift and one diffusion, `dynamics`, serve it.

It integrates ReverseSDE in tau = 1 - t, one step of its method for each step of the grid, over a Brownian motion that
belongs to each image. Ito and Stratonovich methods both apply: the correction between the two readings is
1/2 g dg/dz, and this g does not depend on z.

Reference: Li et al. 2020 (torchsde).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torchsde
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.dynamics import ReverseSDE, SDEType
from diffenc_ct.sampling.problem import Grid, Problem
from diffenc_ct.sampling.solver import GridSolver

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


class ImageBrownian(torchsde.BaseBrownian):  # type: ignore[misc]
    """Increments W and space-time integrals U of a Brownian motion, each image's from its own generator: (batch, d).

    Over a step of length h, W = sqrt(h) e_1 and U = int (W_s - W_start) ds = h (W/2 + sqrt(h/12) e_2). Steps are asked
    for one after another; the same step again gives the same numbers. The Levy area is given as 0: it multiplies Lie
    brackets of the columns of g, which vanish for a g that does not depend on the state.

    Args:
        noise: standard normal noise of a tensor's shape.
        like: of the motion's shape, dtype and device.
    """

    def __init__(self, noise: Callable[[Tensor], Tensor], like: Float[Tensor, "batch d"]) -> None:
        self._noise, self._like, self._step = noise, like, (0.0, 0.0)
        self._W = self._U = torch.zeros_like(like)

    def __call__(
        self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False
    ) -> Any:
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


@dataclass(frozen=True, eq=False)
class TorchSDE(GridSolver):
    """A method of torchsde on the generative reverse SDE; fixed steps over the grid. eta = 1 unless given.

    Attributes:
        method: euler, milstein, srk, midpoint, heun, euler_heun, log_ode or reversible_heun.

    Raises:
        ValueError: for an unknown method.

    Example:
        >>> import diffenc_ct as dc
        >>> dc.TorchSDE("heun", steps=64).convergence_order(stochastic=False)
        2.0
    """

    method: str = "heun"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in TORCHSDE_METHODS:
            raise ValueError(f"method={self.method!r}; torchsde has {', '.join(TORCHSDE_METHODS)}")

    @property
    def name(self) -> str:
        """torchsde:METHOD."""
        return f"torchsde:{self.method}"

    def convergence_order(self, stochastic: bool) -> float:
        """The strong order, or without noise that of the method as one for an ODE."""
        _, strong, without_noise = TORCHSDE_METHODS[self.method]
        return strong if stochastic else without_noise

    def __call__(
        self, problem: Problem, z: Float[Tensor, "batch *data"], grid: Grid
    ) -> Float[Tensor, "batch *data"]:
        sde = ReverseSDE(
            problem.model,
            noise_level=problem.noise_level,
            shape=tuple(z.shape[1:]),
            sde_type=TORCHSDE_METHODS[self.method][0],
        )
        y: Tensor = z.flatten(1)
        tau = (1 - grid.t).to(z)
        motion = ImageBrownian(problem.noise, y)
        for ends in zip(tau[:-1], tau[1:], strict=True):
            # A step longer than the interval ends at its end: exactly one step.
            y = torchsde.sdeint(sde, y, torch.stack(ends), bm=motion, method=self.method, dt=2.0)[1]
        return y.reshape(z.shape)
