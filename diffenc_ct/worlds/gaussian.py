"""The Gaussian world: x ~ N(m, S) and any linear encoder x_t = A x, x_t' = A' x (A' = dA/dlambda).

    q_t(z) = N(alpha A m, C),   C = alpha^2 A S A^T + sigma^2 I
    E[x | z] = m + alpha S A^T C^-1 (z - alpha A m),     P = Cov(x | z) = (S^-1 + SNR A^T A)^-1
    a = tr A P A^T,   c = tr A' P A^T,   b = tr A' P A'^T       (covariances of x_t and x_t' given z)
    rate of L_inf,eta per unit of lambda = SNR/2 (kappa^2 a + 2 kappa c + b) / eta^2,   kappa = (1 + eta^2)/2
    I(x; z_t) = 1/2 ln det(I + SNR A S A^T)
    a step's E[Delta Delta^T]/alpha_s^2 = M P M^T + N (S - P + m m^T) N^T,
        M = A_s - A_t + k A_t,  N = A_s - A_t - D A_t',  D = gamma_t - gamma_s,  k = -expm1(-(int eta^2 + D)/2)

Reference: conditioning of Gaussians; theory/worlds.py proves each formula.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.encoders import Encoder, IdentityEncoder
from diffenc_ct.process import AnyNoiseLevel, Estimates, as_noise_level, normal_like
from diffenc_ct.schedules import alpha, sigma2, snr
from diffenc_ct.worlds._world import Data, Gammas, World

Vectors = Float[Tensor, "batch d"]
Depths = Float[Tensor, " n"]
Matrices = Float[Tensor, "n d d"]


def quadrature(
    low: float, high: float, *, panels: int = 64, nodes: int = 16
) -> tuple[Float[Tensor, " {panels}*{nodes}"], Float[Tensor, " {panels}*{nodes}"]]:
    """Composite Gauss-Legendre quadrature, float64.

    Args:
        low: where the interval begins.
        high: where it ends.
        panels: its equal parts.
        nodes: in each of them.
    Returns:
        Where to look, and with which weight.
    Example:
        >>> u, weight = quadrature(0.0, 1.0)
        >>> float((weight * u**2).sum().round(decimals=12))
        0.333333333333
    """
    u, w = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(nodes))
    edges = torch.linspace(low, high, panels + 1, dtype=torch.float64)
    half = edges.diff()[:, None] / 2
    return (edges[:-1, None] + half * (1 + u)).flatten(), (half * w).flatten()


class LinearEncoder(Encoder):
    """x_t = A(gamma) x; the rate by forward mode.

    Args:
        matrix: gamma (batch,) -> A (batch, d, d).
    """

    def __init__(self, matrix: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.matrix = matrix

    def encode(self, x: Vectors, gamma: Float[Tensor, " batch"]) -> Vectors:
        """A(gamma) x."""
        return (self.matrix(gamma) @ x.unsqueeze(-1)).squeeze(-1)


class GaussianWorld(World):
    """x ~ N(mean, covariance) on vectors (batch, d), with a linear encoder.

    Args:
        mean: (d,).
        covariance: (d, d), or variances (d,).
        encoder: any that is linear in x; the identity by default.
    Raises:
        ValueError: for a covariance that is not the mean's.
    Example:
        >>> world = GaussianWorld(torch.zeros(1), torch.ones(1))
        >>> world.estimates(torch.ones(2, 1), torch.zeros(2)).x_hat  # alpha z at unit variance
        tensor([[0.7071],
                [0.7071]])
    """

    def __init__(
        self,
        mean: Float[Tensor, "..."],
        covariance: Float[Tensor, "..."],
        encoder: Encoder | None = None,
    ) -> None:
        super().__init__(IdentityEncoder() if encoder is None else encoder)
        if covariance.ndim == 1:
            covariance = torch.diag(covariance)
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"mean {tuple(mean.shape)} must be (d,) and covariance {tuple(covariance.shape)} (d, d) or (d,)"
            )
        self.register_buffer("mean", mean)
        self.register_buffer("covariance", covariance)
        self.mean: Tensor
        self.covariance: Tensor

    @property
    def dimensions(self) -> int:
        """d."""
        return len(self.mean)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Float[Tensor, "{n} d"]:
        """n draws of x."""
        noise = normal_like(self.mean.expand(n, -1), generator)
        root: Tensor = torch.linalg.cholesky(self.covariance)
        return self.mean + noise @ root.mT

    def maps(self, gamma: Depths) -> tuple[Matrices, Matrices]:
        """A and A' = dA/dlambda, read off the encoder's action on a basis."""
        n, d = len(gamma), self.dimensions
        basis = torch.eye(d, dtype=gamma.dtype, device=gamma.device).repeat(n, 1)
        encoding = self.encoder(basis, gamma.repeat_interleave(d))
        return encoding.value.view(n, d, d).mT, encoding.rate.view(n, d, d).mT

    def _moments(self, gamma: Depths) -> tuple[Matrices, Matrices, Matrices, Matrices]:
        """A, A', C = Cov(z) and the gain alpha S A^T C^-1."""
        A, rate = self.maps(gamma)
        a, S = alpha(gamma)[:, None, None], self.covariance.to(gamma)
        C = a**2 * A @ S @ A.mT + torch.diag_embed(
            sigma2(gamma)[:, None].expand(-1, self.dimensions)
        )
        return A, rate, C, a * torch.linalg.solve(C, A @ S).mT

    def log_prob(self, x: Vectors) -> Float[Tensor, " batch"]:
        """log p(x) of the data in nats."""
        normal = torch.distributions.MultivariateNormal(self.mean, self.covariance)
        found: Tensor = normal.log_prob(x)  # type: ignore[no-untyped-call]
        return found

    def marginal(self, gamma: Depths) -> torch.distributions.MultivariateNormal:
        """q_t(z). Theorem: worlds.gaussian_density."""
        A, _, C, _ = self._moments(gamma)
        mean = alpha(gamma)[:, None] * (A @ self.mean.to(gamma))
        return torch.distributions.MultivariateNormal(mean, C)

    def log_q(self, z: Vectors, gamma: Gammas) -> Float[Tensor, " batch"]:
        """log q_t(z) in nats. Theorem: worlds.gaussian_density."""
        law = self.marginal(gamma.expand(len(z)))
        found: Tensor = law.log_prob(z)  # type: ignore[no-untyped-call]
        return found

    def estimates(self, z: Data, gamma: Gammas) -> Estimates:
        """E[x_t | z] and E[x_t' | z]. Theorem: worlds.gaussian_posterior."""
        gamma = gamma.expand(len(z))
        if gamma.stride() == (0,):
            gamma = gamma[:1]  # one depth for all: its matrices are made once
        A, rate, _, gain = self._moments(gamma)
        mean = self.mean.to(gamma)
        residual = z - alpha(gamma)[:, None] * (A @ mean)
        x = mean + (gain @ residual.unsqueeze(-1)).squeeze(-1)
        return Estimates((A @ x.unsqueeze(-1)).squeeze(-1), (rate @ x.unsqueeze(-1)).squeeze(-1))

    def traces(
        self, z: Vectors, gamma: Gammas
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """tr dx_hat/dz and tr dr_hat/dz: both estimates are linear. Theorem: worlds.gaussian_posterior."""
        A, rate, _, gain = self._moments(gamma.expand(len(z)))
        return _trace(A @ gain), _trace(rate @ gain)

    def posterior_covariance(self, gamma: Depths) -> Matrices:
        """P = Cov(x | z). Theorem: worlds.gaussian_posterior."""
        # (S^-1 + SNR A^T A)^-1 through S = L L^T: where sigma is small, S - alpha^2 S A^T C^-1 A S loses all digits.
        A, _ = self.maps(gamma)
        L: Tensor = torch.linalg.cholesky(self.covariance.to(gamma))
        signal = A @ L
        precision = torch.eye(self.dimensions, dtype=gamma.dtype, device=gamma.device)
        precision = precision + snr(gamma)[:, None, None] * signal.mT @ signal
        inner: Tensor = torch.linalg.solve(precision, L.mT.expand_as(precision))
        return L @ inner

    def covariances(self, gamma: Depths) -> tuple[Depths, Depths, Depths]:
        """a, b, c: traces of Cov(x_t), Cov(x_t') and Cov(x_t, x_t') given z. Theorem: worlds.gaussian_covariances."""
        (A, rate), P = self.maps(gamma), self.posterior_covariance(gamma)
        return _trace(A @ P @ A.mT), _trace(rate @ P @ rate.mT), _trace(rate @ P @ A.mT)

    def optimal_noise_level_squared(self, gamma: Depths) -> Depths:
        """eta*^2 = sqrt(1 + 4 (b + c)/a). Theorem: calibration.optimal_noise_level."""
        a, b, c = self.covariances(gamma)
        return torch.sqrt(1 + 4 * (b + c) / a)

    def infinite_depth_rate(self, gamma: Depths, noise_level: AnyNoiseLevel = 1.0) -> Depths:
        """L_inf,eta per unit of lambda with optimal estimates, nats. Theorem: worlds.gaussian_integrand."""
        a, b, c = self.covariances(gamma)
        eta_squared = as_noise_level(noise_level).squared(gamma)
        kappa = (1 + eta_squared) / 2
        return 0.5 * snr(gamma) * (kappa**2 * a + 2 * kappa * c + b) / eta_squared

    def gap_rate(self, gamma: Depths, noise_level: AnyNoiseLevel = 1.0) -> Depths:
        """The ELBO's excess per unit of lambda: rate of L_inf,eta - SNR (a/2 + c) >= 0. Theorem: calibration.gap."""
        a, _, c = self.covariances(gamma)
        return self.infinite_depth_rate(gamma, noise_level) - snr(gamma) * (a / 2 + c)

    def infinite_depth_loss(
        self, gamma_0: float, gamma_1: float, noise_level: AnyNoiseLevel = 1.0
    ) -> Float[Tensor, ""]:
        """E[L_inf,eta] with optimal estimates in nats, by quadrature over gamma."""
        gamma, weight = quadrature(gamma_0, gamma_1)
        return (weight * self.infinite_depth_rate(gamma, noise_level)).sum()

    def gap(
        self, gamma_0: float, gamma_1: float, noise_level: AnyNoiseLevel = 1.0
    ) -> Float[Tensor, ""]:
        """The ELBO's excess over L_0 + I(x; z_0) - I(x; z_1) + L_1 in nats, by quadrature. Theorem: calibration.gap."""
        gamma, weight = quadrature(gamma_0, gamma_1)
        return (weight * self.gap_rate(gamma, noise_level)).sum()

    def mutual_information(self, gamma: Depths) -> Depths:
        """I(x; z_t) = 1/2 ln det(I + SNR A S A^T) in nats. Theorem: worlds.gaussian_mutual_information."""
        A, _ = self.maps(gamma)
        signal = snr(gamma)[:, None, None] * A @ self.covariance.to(gamma) @ A.mT
        both = torch.eye(self.dimensions, dtype=gamma.dtype) + signal
        log_det: Tensor = torch.linalg.slogdet(both).logabsdet
        return 0.5 * log_det

    def step_excess(
        self, gamma_s: Depths, gamma_t: Depths, noise_level: AnyNoiseLevel = 1.0
    ) -> Float[Tensor, "n d"]:
        """E[Delta_i^2]/S^2 = w_i* - 1 of every dimension with optimal estimates. Theorem: worlds.gaussian_step.

        Args:
            gamma_s: gammas at the ends s of steps t -> s.
            gamma_t: gammas at t.
            noise_level: eta.
        """
        level = as_noise_level(noise_level)
        (A_s, _), (A_t, rate) = self.maps(gamma_s), self.maps(gamma_t)
        P, m = self.posterior_covariance(gamma_t), self.mean.to(gamma_t)
        integral, D = level.integral(gamma_s, gamma_t), gamma_t - gamma_s
        k = -torch.expm1(-0.5 * (integral + D))[:, None, None]
        M = A_s - A_t + k * A_t
        N = A_s - A_t - D[:, None, None] * rate
        second_moment = (
            M @ P @ M.mT + N @ (self.covariance.to(gamma_t) - P + torch.outer(m, m)) @ N.mT
        )
        variance = -torch.expm1(-integral) / snr(gamma_s)
        return second_moment.diagonal(dim1=1, dim2=2) / variance[:, None]

    def finite_depth_loss(
        self,
        gamma: Float[Tensor, " nodes"],
        noise_level: AnyNoiseLevel = 1.0,
        ratio: float | Literal["optimal", "per dimension"] = 1.0,
    ) -> Float[Tensor, ""]:
        """E[L_T] with optimal estimates, in nats. Theorem: worlds.gaussian_step.

        Args:
            gamma: the T + 1 gammas of the grid.
            noise_level: eta.
            ratio: w, or the best one of every step, or of every step and dimension.
        """
        excess, d = self.step_excess(gamma[:-1], gamma[1:], noise_level), self.dimensions
        if ratio == "optimal":
            return (d / 2 * torch.log1p(excess.mean(1))).sum()
        if ratio == "per dimension":
            return 0.5 * torch.log1p(excess).sum()
        assert isinstance(ratio, (int, float))
        mismatch = 1 / ratio - 1 + math.log(ratio)
        return 0.5 * (d * mismatch + excess.sum(1) / ratio).sum()

    def reconstruction_loss(self, gamma_0: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """E[L_0] of the continuous decoder in nats: d/2 (ln 2 pi + gamma_0 + 1) + E||x - x_0||^2 exp(-gamma_0)/2."""
        A, _ = self.maps(gamma_0.reshape(1))
        miss = torch.eye(self.dimensions, dtype=gamma_0.dtype) - A[0]
        moved = _trace(miss @ self._second_moment(gamma_0) @ miss.mT)
        return 0.5 * (
            self.dimensions * (math.log(2 * math.pi) + gamma_0 + 1) + moved * snr(gamma_0)
        )

    def latent_loss(self, gamma_1: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """E[L_1] in nats: 1/2 (alpha_1^2 E||x_1||^2 + d (sigma_1^2 - 1 - ln sigma_1^2))."""
        A, _ = self.maps(gamma_1.reshape(1))
        signal = alpha(gamma_1) ** 2 * _trace(A[0] @ self._second_moment(gamma_1) @ A[0].mT)
        return 0.5 * (signal + self.dimensions * (sigma2(gamma_1) - 1 - F.logsigmoid(gamma_1)))

    def _second_moment(self, like: Float[Tensor, "..."]) -> Float[Tensor, "d d"]:
        mean = self.mean.to(like)
        return self.covariance.to(like) + torch.outer(mean, mean)


def _trace(matrix: Float[Tensor, "*shape d d"]) -> Float[Tensor, "*shape"]:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)
