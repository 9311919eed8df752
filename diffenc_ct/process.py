"""The forward process given data x: marginals, transitions, posteriors with any noise level, the SDE.

With encoded data x_t and any schedule gamma(t),

    q(z_t | x)      = N(alpha_t x_t, sigma_t^2 I)
    q(z_t | z_s, x) = N(alpha_ts z_s + alpha_t (x_t - x_s), sigma_ts^2 I),              s < t
                      alpha_ts = alpha_t / alpha_s,  sigma_ts^2 = -sigma_t^2 expm1(gamma_s - gamma_t)
    q(z_s | z_t, x) = N(alpha_s x_s + rho (sigma_s / sigma_t) (z_t - alpha_t x_t), sigma_s^2 (1 - rho^2) I)
                      rho = exp(-1/2 int_{gamma_s}^{gamma_t} eta^2 dgamma)

Every noise level eta(gamma) >= 0 keeps all marginals q(z_t | x): eta = 1 is the Markov process above (Bayes'
posterior), eta = 0 is deterministic (DDIM). The forward process is the SDE

    dz = [-beta/2 z + alpha dx_t/dt] dt + sqrt(beta) dw,      dx_t/dt = -gamma' x_t'

Nothing here asks which schedule or encoder it was given: x_s and x_t are tensors.

Reference: Nielsen et al. 2024, section 3; Kingma et al. 2021; the noise level as in Song et al., "Denoising
Diffusion Implicit Models", 2021, with a moving x_t.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diffenc_ct.encoders import Encoding
from diffenc_ct.schedules import SchedulePoint, alpha, expand, sigma, sigma2


@dataclass(frozen=True)
class Gaussian:
    """N(mean, std^2 I): mean (batch, *data), std broadcastable to it."""

    mean: Tensor
    std: Tensor

    def sample(
        self, generator: torch.Generator | None = None, *, noise: Tensor | None = None
    ) -> Tensor:
        """mean + std eps, with eps ~ N(0, I) drawn from `generator` or given as `noise`."""
        return self.mean + self.std * (
            normal_like(self.mean, generator) if noise is None else noise
        )

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z; mean, std^2 I) in nats, summed over the data's dimensions: (batch,)."""
        standardised = (z - self.mean) / self.std
        log_std = self.std.log().expand_as(z)
        return -(0.5 * standardised**2 + log_std + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


def normal_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise of x's shape, dtype and device, drawn from `generator`."""
    return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)


def kl_divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) in nats, (batch,): 1/2 sum (u - 1 - ln u + (mu_q - mu_p)^2 / std_p^2), u = (std_q/std_p)^2.

    Theorem: elbo.gaussian_kl.
    """
    log_u = 2 * (q.std.log() - p.std.log())
    # expm1(log u) - log u keeps its digits when the two variances are close.
    variances = torch.expm1(log_u) - log_u
    return 0.5 * (variances + ((q.mean - p.mean) / p.std) ** 2).flatten(1).sum(1)


@dataclass(frozen=True)
class Estimates:
    """x_hat ~ E[x_t | z_t] and r_hat ~ E[x_t' | z_t], each of z's shape (batch, *data).

    Attributes:
        x_hat: the estimate of encoded data.
        r_hat: the estimate of their rate in log-SNR.
    """

    x_hat: Tensor
    r_hat: Tensor


@dataclass(frozen=True)
class Errors:
    """x_t - x_hat and x_t' - r_hat, each of z's shape (batch, *data).

    Attributes:
        x: the error of x_hat.
        r: the error of r_hat.
    """

    x: Tensor
    r: Tensor


class NoiseLevel:
    """eta(gamma) >= 0, the noise level of the reverse process, through eta^2 and its integral over gamma.

    A noise level of one's own derives from this and implements `squared` and `integral`.

    Attributes:
        deterministic: whether eta is 0 at every depth.
    """

    deterministic: bool = False

    def squared(self, gamma: Tensor) -> Tensor:
        """eta^2 at gamma, of gamma's shape."""
        raise NotImplementedError(
            "a noise level implements squared(gamma) and integral(gamma_s, gamma_t)"
        )

    def integral(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
        """int eta^2 dgamma from gamma_s to gamma_t."""
        raise NotImplementedError(
            "a noise level implements squared(gamma) and integral(gamma_s, gamma_t)"
        )

    def rho(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
        """rho = exp(-1/2 int eta^2 dgamma), the correlation of the noises at s and t. Theorem: process.noise_level."""
        return torch.exp(-0.5 * self.integral(gamma_s, gamma_t))

    def __str__(self) -> str:
        return "a function of gamma"


@dataclass(frozen=True)
class ConstantNoiseLevel(NoiseLevel):
    """The same eta at every depth: 1 is the paper's process, 0 the deterministic one."""

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not (self.eta >= 0 and math.isfinite(self.eta)):
            raise ValueError(f"noise_level={self.eta} must be a finite number >= 0")

    @property
    def deterministic(self) -> bool:  # type: ignore[override]
        """Whether eta is 0."""
        return self.eta == 0

    def __str__(self) -> str:
        return f"{self.eta:g}"

    def squared(self, gamma: Tensor) -> Tensor:
        return torch.full_like(gamma, self.eta**2)

    def integral(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
        return self.eta**2 * (gamma_t - gamma_s)


@dataclass(frozen=True)
class NonTrainableNoiseLevel(NoiseLevel):
    """eta^2 = 1 + 2 sigma^2, which makes the ELBO of DiffEnc-nt tight. Theorem: calibration.nontrainable_tight."""

    def squared(self, gamma: Tensor) -> Tensor:
        return 1 + 2 * sigma2(gamma)

    def integral(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
        # int sigma^2 dgamma = softplus(gamma_t) - softplus(gamma_s), in a form that keeps a small step's digits
        step = gamma_t - gamma_s
        return step + 2 * torch.log1p(sigma2(gamma_s) * torch.expm1(step))


class TabulatedNoiseLevel(NoiseLevel):
    """eta^2 given on a grid of gammas, linear in between and constant outside.

    gamma and eta_squared are 1-D of equal length >= 2, gamma strictly increasing, eta_squared >= 0.
    """

    def __init__(self, gamma: Tensor, eta_squared: Tensor) -> None:
        if gamma.ndim != 1 or gamma.shape != eta_squared.shape or len(gamma) < 2:
            raise ValueError(
                f"gamma {tuple(gamma.shape)} and eta_squared {tuple(eta_squared.shape)} must be 1-D, "
                "of equal length >= 2"
            )
        if not (gamma.diff() > 0).all() or not (eta_squared >= 0).all():
            raise ValueError("gamma must be strictly increasing and eta_squared >= 0")
        self._fill(gamma, eta_squared)

    @classmethod
    def unchecked(cls, gamma: Tensor, eta_squared: Tensor) -> "TabulatedNoiseLevel":
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

    def squared(self, gamma: Tensor) -> Tensor:
        cell, offset, slope = self._locate(gamma)
        return (self.eta_squared.to(gamma.device)[cell] + slope * offset).to(gamma.dtype)

    def _primitive(self, gamma: Tensor) -> Tensor:
        cell, offset, slope = self._locate(gamma)
        table, total = self.eta_squared.to(gamma.device), self.cumulative.to(gamma.device)
        inside = total[cell] + table[cell] * offset + slope * offset**2 / 2
        below = (gamma.double() - self.gamma[0]).clamp(max=0) * table[0]
        above = (gamma.double() - self.gamma[-1]).clamp(min=0) * table[-1]
        return inside + below + above

    def integral(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
        return (self._primitive(gamma_t) - self._primitive(gamma_s)).to(gamma_t.dtype)


@dataclass(frozen=True)
class FunctionNoiseLevel(NoiseLevel):
    """eta given by a function of gamma; its integral by Gauss-Legendre quadrature with 16 nodes."""

    eta: Callable[[Tensor], Tensor]

    def squared(self, gamma: Tensor) -> Tensor:
        return self.eta(gamma) ** 2

    def integral(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
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
    """A noise level from a number eta, a NoiseLevel or a function eta(gamma)."""
    if isinstance(noise_level, NoiseLevel):
        return noise_level
    if isinstance(noise_level, (int, float)):
        return ConstantNoiseLevel(float(noise_level))
    if callable(noise_level):
        return FunctionNoiseLevel(noise_level)
    raise TypeError(
        f"noise_level={noise_level!r} must be a number, a NoiseLevel or a function of gamma"
    )


def marginal(x_t: Tensor, gamma: Tensor) -> Gaussian:
    """q(z_t | x) = N(alpha_t x_t, sigma_t^2 I). Theorem: process.marginal."""
    return Gaussian(expand(alpha(gamma), x_t) * x_t, expand(sigma(gamma), x_t))


def transition(z_s: Tensor, x_s: Tensor, x_t: Tensor, gamma_s: Tensor, gamma_t: Tensor) -> Gaussian:
    """q(z_t | z_s, x) for s < t: N(alpha_ts z_s + alpha_t (x_t - x_s), sigma_ts^2 I).

    sigma_ts^2 = sigma_t^2 - alpha_ts^2 sigma_s^2 = -sigma_t^2 expm1(gamma_s - gamma_t). Theorem: process.transition.
    """
    alpha_t = expand(alpha(gamma_t), z_s)
    alpha_ts = alpha_t / expand(alpha(gamma_s), z_s)
    variance = -sigma2(gamma_t) * torch.expm1(gamma_s - gamma_t)
    return Gaussian(alpha_ts * z_s + alpha_t * (x_t - x_s), expand(variance.sqrt(), z_s))


def posterior_std(gamma_s: Tensor, gamma_t: Tensor, noise_level: NoiseLevel) -> Tensor:
    """sigma_s sqrt(1 - rho^2) = sigma_s sqrt(-expm1(-int eta^2 dgamma)). Theorem: process.posterior_variance."""
    return sigma(gamma_s) * torch.sqrt(-torch.expm1(-noise_level.integral(gamma_s, gamma_t)))


def posterior(
    z_t: Tensor,
    x_s: Tensor,
    x_t: Tensor,
    gamma_s: Tensor,
    gamma_t: Tensor,
    noise_level: float | NoiseLevel = 1.0,
) -> Gaussian:
    """q_eta(z_s | z_t, x), s < t: N(alpha_s x_s + rho (sigma_s/sigma_t) (z_t - alpha_t x_t), sigma_s^2 (1 - rho^2)).

    Also the generative step, with predictions in the place of x_s and x_t. Theorem: process.noise_level.
    """
    level = as_noise_level(noise_level)
    shrink = level.rho(gamma_s, gamma_t) * sigma(gamma_s) / sigma(gamma_t)
    residual = z_t - expand(alpha(gamma_t), z_t) * x_t
    mean = expand(alpha(gamma_s), z_t) * x_s + expand(shrink, z_t) * residual
    return Gaussian(mean, expand(posterior_std(gamma_s, gamma_t, level), z_t))


def forward_drift(z: Tensor, encoding: Encoding, point: SchedulePoint) -> Tensor:
    """-beta/2 z + alpha dx_t/dt with dx_t/dt = -gamma' x_t', the drift of q given x. Theorem: process.forward_sde."""
    signal = expand(point.alpha * point.rate, z) * encoding.rate
    return -0.5 * expand(point.beta, z) * z - signal
