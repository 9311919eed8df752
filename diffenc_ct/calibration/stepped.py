"""A noise level that is constant on each step of a grid: what a calibration finds."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.process import NoiseLevel


class SteppedNoiseLevel(NoiseLevel):
    """eta^2 constant on each step; the values of the first and the last go on outside.

    Args:
        gamma: of the grid, increasing, (T + 1,).
        eta_squared: eta^2 of each step, positive, (T,).

    Raises:
        ValueError: for other shapes or values.
    """

    def __init__(
        self, gamma: Float[Tensor, " nodes"], eta_squared: Float[Tensor, " steps"]
    ) -> None:
        if gamma.ndim != 1 or eta_squared.shape != (len(gamma) - 1,):
            raise ValueError(
                f"gamma {tuple(gamma.shape)} must be (T + 1,), eta_squared {tuple(eta_squared.shape)} (T,)"
            )
        if not (gamma.diff() > 0).all() or not (eta_squared > 0).all():
            raise ValueError("gamma must be strictly increasing and eta_squared positive")
        self.gamma, self.eta_squared = gamma.double(), eta_squared.double()
        self.cumulative = F.pad((self.gamma.diff() * self.eta_squared).cumsum(0), (1, 0))

    def _cell(self, gamma: Tensor) -> Tensor:
        inner = self.gamma[1:-1].to(gamma.device)
        return torch.searchsorted(inner, gamma.detach().double().contiguous(), right=True)

    def squared(self, gamma: Tensor) -> Tensor:
        return self.eta_squared.to(gamma.device)[self._cell(gamma)].to(gamma.dtype)

    def _primitive(self, gamma: Tensor) -> Tensor:
        cell = self._cell(gamma)
        start, total, slope = (
            v.to(gamma.device)[cell] for v in (self.gamma, self.cumulative, self.eta_squared)
        )
        return total + slope * (gamma.double() - start)

    def integral(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
        return (self._primitive(gamma_t) - self._primitive(gamma_s)).to(gamma_t.dtype)
