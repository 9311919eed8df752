"""q's laws given data: marginals, transitions forward, posteriors backward at any noise level, and the SDE's drift.

See the package for the formulas. x_s and x_t are encoded data at the gammas of s < t.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.encoders import Encoding
from diffenc_ct.process.gaussians import Gaussian
from diffenc_ct.process.noise_levels import AnyNoiseLevel, NoiseLevel, as_noise_level
from diffenc_ct.schedules import SchedulePoint, alpha, expand, sigma, sigma2

Data = Float[Tensor, "batch *data"]
Gammas = Float[Tensor, " batch"] | Float[Tensor, ""]


def marginal(x_t: Data, gamma: Gammas) -> Gaussian:
    """q(z_t | x) = N(alpha_t x_t, sigma_t^2 I).

    Theorem: process.marginal.

    Args:
        x_t: encoded data.
        gamma: gamma at t.
    """
    return Gaussian(expand(alpha(gamma), x_t) * x_t, expand(sigma(gamma), x_t))


def transition(z_s: Data, x_s: Data, x_t: Data, gamma_s: Gammas, gamma_t: Gammas) -> Gaussian:
    """q(z_t | z_s, x) for s < t: N(alpha_ts z_s + alpha_t (x_t - x_s), sigma_ts^2 I).

    sigma_ts^2 = sigma_t^2 - alpha_ts^2 sigma_s^2 = -sigma_t^2 expm1(gamma_s - gamma_t). Theorem: process.transition.

    Args:
        z_s: latents at s.
        x_s: encoded data at s.
        x_t: encoded data at t.
        gamma_s: gamma at s.
        gamma_t: gamma at t.
    """
    alpha_t = expand(alpha(gamma_t), z_s)
    alpha_ts = alpha_t / expand(alpha(gamma_s), z_s)
    variance = -sigma2(gamma_t) * torch.expm1(gamma_s - gamma_t)
    return Gaussian(alpha_ts * z_s + alpha_t * (x_t - x_s), expand(variance.sqrt(), z_s))


def posterior_std(
    gamma_s: Float[Tensor, "*shape"], gamma_t: Float[Tensor, "*shape"], noise_level: NoiseLevel
) -> Float[Tensor, "*shape"]:
    """sigma_s sqrt(1 - rho^2) = sigma_s sqrt(-expm1(-int eta^2 dgamma)).

    Theorem: process.posterior_variance.

    Args:
        gamma_s: gamma at s.
        gamma_t: gamma at t > s.
        noise_level: eta.
    """
    return sigma(gamma_s) * torch.sqrt(-torch.expm1(-noise_level.integral(gamma_s, gamma_t)))


def posterior(
    z_t: Data,
    x_s: Data,
    x_t: Data,
    gamma_s: Gammas,
    gamma_t: Gammas,
    noise_level: AnyNoiseLevel = 1.0,
) -> Gaussian:
    """q_eta(z_s | z_t, x), s < t: N(alpha_s x_s + rho (sigma_s/sigma_t) (z_t - alpha_t x_t), sigma_s^2 (1 - rho^2) I).

    Also the generative step, with predictions in the place of x_s and x_t. Theorem: process.noise_level.

    Args:
        z_t: latents at t.
        x_s: encoded data at s.
        x_t: encoded data at t.
        gamma_s: gamma at s.
        gamma_t: gamma at t.
        noise_level: eta; 1 is Bayes' posterior, 0 deterministic.
    """
    level = as_noise_level(noise_level)
    shrink = level.rho(gamma_s, gamma_t) * sigma(gamma_s) / sigma(gamma_t)
    residual = z_t - expand(alpha(gamma_t), z_t) * x_t
    mean = expand(alpha(gamma_s), z_t) * x_s + expand(shrink, z_t) * residual
    return Gaussian(mean, expand(posterior_std(gamma_s, gamma_t, level), z_t))


def forward_drift(z: Data, encoding: Encoding, point: SchedulePoint) -> Data:
    """-beta/2 z + alpha dx_t/dt with dx_t/dt = -gamma' x_t', the drift of q given x.

    Theorem: process.forward_sde.

    Args:
        z: latents.
        encoding: x_t and x_t'.
        point: gamma and gamma', scalars or (batch,).
    """
    signal = expand(point.alpha * point.rate, z) * encoding.rate
    return -0.5 * expand(point.beta, z) * z - signal
