"""||Delta||^2 of a step from inner products of what it is made of.

A step from t to s has, divided by alpha_s and with D = gamma_t - gamma_s, k = -expm1(-(int eta^2 + D)/2),

    Delta = k e + m - D r,      e = x_t - x_hat,  r = r_hat,  m = x_s - x_t

so that six inner products, over any dimensions and examples, give ||Delta||^2 for every noise level.

Reference: theory/calibration.py (finite depth).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.process import NoiseLevel
from diffenc_ct.schedules import snr


@dataclass(frozen=True)
class Products:
    """Inner products of e, r and m = x_s - x_t over any dimensions and examples, of one shape up to broadcasting.

    Attributes:
        ee: <e, e>.
        er: <e, r>.
        rr: <r, r>.
        mm: <m, m>.
        em: <e, m>.
        rm: <r, m>.
    """

    ee: Float[Tensor, "..."]
    er: Float[Tensor, "..."]
    rr: Float[Tensor, "..."]
    mm: Float[Tensor, "..."]
    em: Float[Tensor, "..."]
    rm: Float[Tensor, "..."]


def squared_difference(
    gamma_s: Float[Tensor, "..."],
    gamma_t: Float[Tensor, "..."],
    level: NoiseLevel,
    products: Products,
) -> Float[Tensor, "..."]:
    """||Delta||^2 / S^2 from inner products. Theorems: elbo.step_kl, process.posterior_variance.

    Args:
        gamma_s: gamma at s, broadcastable to the products.
        gamma_t: gamma at t, likewise.
        level: eta.
        products: of the step's errors and moves.
    """
    p, D, integral = products, gamma_t - gamma_s, level.integral(gamma_s, gamma_t)
    k = -torch.expm1(-0.5 * (integral + D))
    square = k**2 * p.ee + p.mm + D**2 * p.rr + 2 * k * p.em - 2 * k * D * p.er - 2 * D * p.rm
    variance = -torch.expm1(-integral) / snr(gamma_s)
    return square.clamp(min=0) / variance
