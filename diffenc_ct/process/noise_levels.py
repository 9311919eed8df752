"""Noise levels eta(gamma) >= 0 of the reverse process, through eta^2 and its integral over gamma.

    rho = exp(-1/2 int_{gamma_s}^{gamma_t} eta^2 dgamma),    int in closed form, by a table, or by quadrature

Reference: Song et al., "Denoising Diffusion Implicit Models", 2021, with a moving x_t.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.schedules import sigma2

Gammas = Float[Tensor, "*shape"]


class NoiseLevel:
    """eta(gamma) >= 0: a noise level of one's own derives from this and implements `squared` and `integral`.

    Example:
        >>> class Rising(NoiseLevel):  # eta^2 = exp(gamma)
        ...     def squared(self, gamma):
        ...         return gamma.exp()
        ...     def integral(self, gamma_s, gamma_t):
        ...         return gamma_t.exp() - gamma_s.exp()
        >>> Rising().rho(torch.tensor(-20.0), torch.tensor(0.0))  # exp(-1/2)
        tensor(0.6065)
    """

    @property
    def deterministic(self) -> bool:
        """Whether eta is 0 at every depth."""
        return False

    def squared(self, gamma: Gammas) -> Gammas:
        """eta^2 at gamma, of gamma's shape."""
        raise NotImplementedError(
            "a noise level implements squared(gamma) and integral(gamma_s, gamma_t)"
        )

    def integral(self, gamma_s: Gammas, gamma_t: Gammas) -> Gammas:
        """int eta^2 dgamma from gamma_s to gamma_t."""
        raise NotImplementedError(
            "a noise level implements squared(gamma) and integral(gamma_s, gamma_t)"
        )

    def rho(self, gamma_s: Gammas, gamma_t: Gammas) -> Gammas:
        """rho = exp(-1/2 int eta^2 dgamma), the correlation of the noises at s and t. Theorem: process.noise_level."""
        return torch.exp(-0.5 * self.integral(gamma_s, gamma_t))

    def __str__(self) -> str:
        return "a function of gamma"


@dataclass(frozen=True)
class ConstantNoiseLevel(NoiseLevel):
    """The same eta at every depth: 1 is the paper's process, 0 the deterministic one.

    Attributes:
        eta: finite and >= 0.
    Raises:
        ValueError: for another number.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not (self.eta >= 0 and math.isfinite(self.eta)):
            raise ValueError(f"noise_level={self.eta} must be a finite number >= 0")

    @property
    def deterministic(self) -> bool:
        """Whether eta is 0."""
        return self.eta == 0

    def __str__(self) -> str:
        return f"{self.eta:g}"

    def squared(self, gamma: Gammas) -> Gammas:
        """eta^2."""
        return torch.full_like(gamma, self.eta**2)

    def integral(self, gamma_s: Gammas, gamma_t: Gammas) -> Gammas:
        """eta^2 (gamma_t - gamma_s)."""
        return self.eta**2 * (gamma_t - gamma_s)


@dataclass(frozen=True)
class NonTrainableNoiseLevel(NoiseLevel):
    """eta^2 = 1 + 2 sigma^2, which makes the ELBO of DiffEnc-nt tight. Theorem: calibration.nontrainable_tight."""

    def squared(self, gamma: Gammas) -> Gammas:
        """1 + 2 sigma^2."""
        return 1 + 2 * sigma2(gamma)

    def integral(self, gamma_s: Gammas, gamma_t: Gammas) -> Gammas:
        """D + 2 ln(1 + sigma_s^2 (e^D - 1)), D = gamma_t - gamma_s."""
        # int sigma^2 dgamma = softplus(gamma_t) - softplus(gamma_s), in a form that keeps a small step's digits
        step = gamma_t - gamma_s
        return step + 2 * torch.log1p(sigma2(gamma_s) * torch.expm1(step))


class TabulatedNoiseLevel(NoiseLevel):
    """eta^2 given on a grid of gammas, linear in between and constant outside.

    Args:
        gamma: (n,), n >= 2, strictly increasing.
        eta_squared: (n,), >= 0.
    Raises:
        ValueError: for anything else.
    Example:
        >>> level = TabulatedNoiseLevel(torch.tensor([-1.0, 1.0]), torch.tensor([1.0, 3.0]))
        >>> level.squared(torch.tensor([-5.0, 0.0])), level.integral(torch.tensor(-2.0), torch.tensor(1.0))
        (tensor([1., 2.]), tensor(5.))
    """

    def __init__(self, gamma: Float[Tensor, "..."], eta_squared: Float[Tensor, "..."]) -> None:
        if gamma.ndim != 1 or gamma.shape != eta_squared.shape or len(gamma) < 2:
            raise ValueError(
                f"gamma {tuple(gamma.shape)} and eta_squared {tuple(eta_squared.shape)} must be 1-D, "
                "of equal length >= 2"
            )
        if not (gamma.diff() > 0).all() or not (eta_squared >= 0).all():
            raise ValueError("gamma must be strictly increasing and eta_squared >= 0")
        self._fill(gamma, eta_squared)

    @classmethod
    def unchecked(
        cls, gamma: Float[Tensor, " n"], eta_squared: Float[Tensor, " n"]
    ) -> "TabulatedNoiseLevel":
        """From tensors known to be right, without a look at their values (which would wait for their device)."""
        level = cls.__new__(cls)
        level._fill(gamma, eta_squared)
        return level

    def _fill(self, gamma: Tensor, eta_squared: Tensor) -> None:
        self.gamma, self.eta_squared = gamma.double(), eta_squared.double()
        steps = self.gamma.diff() * (self.eta_squared[1:] + self.eta_squared[:-1]) / 2
        self.cumulative = F.pad(steps.cumsum(0), (1, 0))

    def _locate(self, gamma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grid = self.gamma.to(gamma.device)
        inside = gamma.double().clamp(grid[0], grid[-1])
        cell = (torch.searchsorted(grid, inside.detach().contiguous(), right=True) - 1).clamp(
            0, len(grid) - 2
        )
        slope = (self.eta_squared.diff() / self.gamma.diff()).to(gamma.device)[cell]
        return cell, inside - grid[cell], slope

    def squared(self, gamma: Gammas) -> Gammas:
        """The table's straight line at gamma."""
        cell, offset, slope = self._locate(gamma)
        return (self.eta_squared.to(gamma.device)[cell] + slope * offset).to(gamma.dtype)

    def _primitive(self, gamma: Gammas) -> Gammas:
        cell, offset, slope = self._locate(gamma)
        table, total = self.eta_squared.to(gamma.device), self.cumulative.to(gamma.device)
        inside = total[cell] + table[cell] * offset + slope * offset**2 / 2
        below = (gamma.double() - self.gamma[0]).clamp(max=0) * table[0]
        above = (gamma.double() - self.gamma[-1]).clamp(min=0) * table[-1]
        return inside + below + above

    def integral(self, gamma_s: Gammas, gamma_t: Gammas) -> Gammas:
        """The area below the table's straight lines."""
        return (self._primitive(gamma_t) - self._primitive(gamma_s)).to(gamma_t.dtype)


@dataclass(frozen=True)
class FunctionNoiseLevel(NoiseLevel):
    """eta given by a function of gamma; its integral by Gauss-Legendre quadrature with 16 nodes.

    Attributes:
        eta: gammas of any shape -> eta of the same shape.
    """

    eta: Callable[[Tensor], Tensor]

    def squared(self, gamma: Gammas) -> Gammas:
        """eta(gamma)^2."""
        return self.eta(gamma) ** 2

    def integral(self, gamma_s: Gammas, gamma_t: Gammas) -> Gammas:
        """By quadrature, exact for polynomials eta^2 of degree 31 on the step."""
        nodes, weights = _gauss_legendre(16)
        half = (gamma_t - gamma_s) / 2
        return half * sum(
            w * self.squared(gamma_s + half * (1 + u)) for u, w in zip(nodes, weights, strict=True)
        )


def _gauss_legendre(n: int) -> tuple[list[float], list[float]]:
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(n)
    return nodes.tolist(), weights.tolist()


AnyNoiseLevel = float | NoiseLevel | Callable[[Tensor], Tensor]


def as_noise_level(noise_level: AnyNoiseLevel) -> NoiseLevel:
    """A noise level from whatever a call may be given.

    Args:
        noise_level: a number eta, a NoiseLevel, or a function gamma -> eta.
    Raises:
        TypeError: for anything else.
        ValueError: for a number that is negative or not finite.
    Example:
        >>> as_noise_level(0.5).squared(torch.zeros(2))
        tensor([0.2500, 0.2500])
    """
    if isinstance(noise_level, NoiseLevel):
        return noise_level
    if isinstance(noise_level, (int, float)):
        return ConstantNoiseLevel(float(noise_level))
    if callable(noise_level):
        return FunctionNoiseLevel(noise_level)
    raise TypeError(
        f"noise_level={noise_level!r} must be a number, a NoiseLevel or a function of gamma"
    )
