"""The reverse process, from estimates or from the data themselves: its steps, and the drift of its SDE.

    dz = b_eta dt + eta sqrt(beta) dw_bar,      t: 1 -> 0

Reference: Anderson 1982; Nielsen et al. 2024, section 3.
"""

from jaxtyping import Float
from torch import Tensor

from diffenc_ct.process import Estimates, Gaussian, NoiseLevel, posterior
from diffenc_ct.schedules import SchedulePoint, expand


def reverse_drift(
    z: Float[Tensor, "batch *data"],
    estimates: Estimates,
    point: SchedulePoint,
    eta_squared: Float[Tensor, " batch"] | Float[Tensor, ""],
) -> Float[Tensor, "batch *data"]:
    """b_eta, the drift of the reverse-time SDE; with x_t and x_t' for the estimates it is b_Q.

    b_eta = beta [-z/2 + kappa z/sigma^2 - (alpha/sigma^2) (kappa x_hat + r_hat)],   kappa = (1 + eta^2)/2, computed as
    gamma' [(eta^2 + alpha^2)/2 z - alpha (kappa x_hat + r_hat)], where z/sigma^2 - z leaves nothing to cancel.
    Theorems: model.reverse_limit, model.stable_drift.

    Args:
        z: latents.
        estimates: x_hat and r_hat there.
        point: gamma and gamma', scalars or (batch,).
        eta_squared: eta^2 of gamma's shape: 1 is the paper's process, 0 the probability flow.
    """
    kappa = expand((1 + eta_squared) / 2, z)
    own = expand((eta_squared + point.alpha2) / 2, z)
    pull = expand(point.alpha, z) * (kappa * estimates.x_hat + estimates.r_hat)
    return expand(point.rate, z) * (own * z - pull)


def reverse_step(
    z_t: Float[Tensor, "batch *data"],
    estimates: Estimates,
    gamma_s: Float[Tensor, " batch"],
    gamma_t: Float[Tensor, " batch"],
    noise_level: NoiseLevel,
) -> Gaussian:
    """p(z_s | z_t) at w = 1: q_eta(z_s | z_t, x) with x_hat for x_t and x_hat + (lambda_s - lambda_t) r_hat for x_s.

    Theorem: model.reverse_mean.

    Args:
        z_t: latents at t.
        estimates: x_hat and r_hat there.
        gamma_s: gamma at s.
        gamma_t: gamma at t.
        noise_level: eta.
    """
    # lambda_s - lambda_t = gamma_t - gamma_s
    x_hat_s = estimates.x_hat + expand(gamma_t - gamma_s, z_t) * estimates.r_hat
    return posterior(z_t, x_hat_s, estimates.x_hat, gamma_s, gamma_t, noise_level)
