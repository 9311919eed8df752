"""One step from t to s: what Gaussian steps miss and cost, and where an estimate of the bound looks.

Reference: Nielsen et al. 2024, sections 3 and 4, appendices.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffenc_ct.encoders import Encoding
from diffenc_ct.process import Errors, NoiseLevel
from diffenc_ct.schedules import expand, snr

# How p(z_s | z_t) is made of what the heads say: of means, or of a distribution of every value.
StepKind = Literal["gaussian", "mixture"]


def check_step(step: StepKind) -> None:
    """Refuse what is no kind of step.

    Args:
        step: "gaussian" or "mixture".

    Raises:
        ValueError: naming what is allowed.
    """
    if step not in get_args(StepKind):
        raise ValueError(f"step={step!r}; choose one of {', '.join(map(repr, get_args(StepKind)))}")


@dataclass(frozen=True)
class Visited:
    """One step of each example, and a latent where it begins.

    Attributes:
        step: its number, 0 next to the data, (batch,).
        z: z_t, (batch, *data).
        noise: its eps.
        x_s: encoded data at s.
        x_t: encoded data at t.
        gamma_s: gamma at s, (batch,).
        gamma_t: gamma at t, (batch,).
    """

    step: Int[Tensor, " batch"]
    z: Float[Tensor, "batch *data"]
    noise: Float[Tensor, "batch *data"]
    x_s: Float[Tensor, "batch *data"]
    x_t: Float[Tensor, "batch *data"]
    gamma_s: Float[Tensor, " batch"]
    gamma_t: Float[Tensor, " batch"]

    @property
    def encoding(self) -> Encoding:
        """x_t with the rate 0, which a step's mean difference does not depend on."""
        return Encoding(self.x_t, torch.zeros_like(self.x_t))


def mean_difference(
    errors: Errors,
    encoding: Encoding,
    x_s: Float[Tensor, "batch *data"],
    gamma_s: Float[Tensor, "..."],
    gamma_t: Float[Tensor, "..."],
    noise_level: NoiseLevel,
) -> Float[Tensor, "batch *data"]:
    """Delta = mu_Q - mu_P = alpha_s (x_s - x_hat_s) - rho (sigma_s/sigma_t) alpha_t (x_t - x_hat), over alpha_s.

    With D = gamma_t - gamma_s and x_hat_s = x_hat + D r_hat, divided by alpha_s,
    Delta = -expm1(-(int eta^2 + D)/2) (x_t - x_hat) + (x_s - x_t - D x_t') + D (x_t' - r_hat).
    The rate cancels: an encoding and errors made with x_t' = 0 give the same. Theorem: elbo.step_kl.

    Args:
        errors: x_t - x_hat and x_t' - r_hat.
        encoding: x_t and x_t'.
        x_s: encoded data at s.
        gamma_s: gamma at s, (batch,) or a scalar.
        gamma_t: gamma at t, likewise.
        noise_level: eta.
    """
    step = gamma_t - gamma_s
    keep = -torch.expm1(-0.5 * (noise_level.integral(gamma_s, gamma_t) + step))
    step = expand(step, x_s)
    return expand(keep, x_s) * errors.x + (x_s - encoding.value - step * (encoding.rate - errors.r))


def step_kl(
    difference: Float[Tensor, "batch *data"],
    gamma_s: Float[Tensor, "..."],
    gamma_t: Float[Tensor, "..."],
    noise_level: NoiseLevel,
    ratio: float | Tensor = 1.0,
) -> Float[Tensor, " batch"]:
    """KL(q(z_s | z_t, x) || p(z_s | z_t)) = d/2 (1/w - 1 + ln w) + ||Delta||^2 / (2 w S^2) in nats.

    The sum of `step_kls`. Theorem: elbo.step_kl.

    Args:
        difference: as in step_kls.
        gamma_s: as in step_kls.
        gamma_t: as in step_kls.
        noise_level: as in step_kls.
        ratio: as in step_kls.
    """
    return step_kls(difference, gamma_s, gamma_t, noise_level, ratio).flatten(1).sum(1)


def step_kls(
    difference: Float[Tensor, "batch *data"],
    gamma_s: Float[Tensor, "..."],
    gamma_t: Float[Tensor, "..."],
    noise_level: NoiseLevel,
    ratio: float | Tensor = 1.0,
) -> Float[Tensor, "batch *data"]:
    """(1/w - 1 + ln w)/2 + Delta_i^2 / (2 w S^2) of every dimension in nats; NaN where w is not positive.

    Args:
        difference: Delta / alpha_s (see mean_difference).
        gamma_s: gamma at s, (batch,) or a scalar.
        gamma_t: gamma at t, likewise.
        noise_level: eta.
        ratio: w, a number or broadcastable to (batch, *data).
    """
    # S^2 / alpha_s^2 = exp(gamma_s) (1 - rho^2)
    variance = -torch.expm1(-noise_level.integral(gamma_s, gamma_t)) / snr(gamma_s)
    # `new_full` and not a tensor made on the CPU, which would wait for the device.
    w = ratio.to(difference) if isinstance(ratio, Tensor) else difference.new_full((), ratio)
    w = torch.where(w > 0, w, math.nan)
    # log1p keeps 1/w - 1 + ln w, which is (w - 1)^2/2 near w = 1, from cancelling.
    mismatch = torch.log1p(w - 1) - (w - 1) / w
    terms = mismatch + difference**2 / (w * expand(variance, difference))
    return 0.5 * terms
