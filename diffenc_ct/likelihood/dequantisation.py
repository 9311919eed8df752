"""From the density of a flow to the probability of levels: noise on the latent z_0, and K-sample bounds.

    log P(x) >= E[ log 1/K sum_k exp(w_k) ],      w = log p(x | z_0) + log p_0(z_0) - log q(z_0 | x)

a lower bound for every K that rises with K and is exact in the limit. With d dimensions and V levels:

    "model"              z_0 ~ q(z_0 | x) = N(alpha_0 x_0, sigma_0^2) and p(x | z_0): the model's own noise and decoder
    "uniform"            y = x + u, u ~ U(-1/V, 1/V):     w = log p_y(y) + d ln(2/V)
    "truncated_normal"   y = x + eps/(V tau), eps a standard normal cut at +-tau, Z = erf(tau / sqrt 2):
                         w = log p_y(y) - sum_i ln[phi(eps_i) V tau / Z]

For the last two P(x) is the mass of the bin of width 2/V about x under p_y(y) = alpha_0^d p_0(alpha_0 y), the density
of z_0/alpha_0. The sum of P(x) over all levels is 1 for the decoder, and the mass within (-1, 1) for the bins.

Real data: "none" is p_y itself; "model" bounds the decoder's density.

Reference: Theis et al. 2016 (uniform); Zheng et al. 2023 (truncated normal); Kingma et al. 2021 (the decoder); Burda
et al. 2016 (K samples).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffenc_ct.model import DiffEnc
from diffenc_ct.process import marginal
from diffenc_ct.schedules import alpha

Dequantisation = Literal["model", "uniform", "truncated_normal", "none"]
DEQUANTISATIONS = ("model", "uniform", "truncated_normal", "none")


@dataclass(frozen=True)
class Dequantised:
    """A latent z_0, and log_weight(log p_0(z_0)) - log p_0(z_0), (batch,): what turns the density into w."""

    z_0: Tensor
    log_weight: Tensor


def truncated_normal_constant(tau: float) -> float:
    """Z = erf(tau / sqrt 2), the normal's mass within tau standard deviations. Theorem: likelihood.truncated_normal."""
    return math.erf(tau / math.sqrt(2))


def dequantise(
    model: DiffEnc,
    x: Tensor,
    gamma_0: Tensor,
    kind: Dequantisation,
    draws: Callable[[str], Tensor],
    *,
    tau: float = 3.0,
) -> Dequantised:
    """z_0 and log weight for data x. draws("normal" or "uniform") gives noise of the data's shape, U on (0, 1).

    Theorem: likelihood.dequantisation.
    """
    data = model.scale(x)
    if kind == "model":
        q = marginal(model.encoder.encode(data, gamma_0.expand(len(data))), gamma_0)
        z_0 = q.sample(noise=draws("normal"))
        return Dequantised(z_0, (model.decode_log_prob(x, z_0, gamma_0) - q.log_prob(z_0)).double())
    dimensions, scale = data[0].numel(), alpha(gamma_0)
    jacobian = dimensions * scale.double().log()
    if kind == "none":
        return Dequantised(scale * data, jacobian.expand(len(data)))
    assert model.levels is not None
    width = 2 / model.levels
    if kind == "uniform":
        y = data + width * (draws("uniform") - 0.5)
        return Dequantised(scale * y, (jacobian + dimensions * math.log(width)).expand(len(data)))
    mass = truncated_normal_constant(tau)
    # the inverse of the cut normal's distribution function
    noise = math.sqrt(2) * torch.erfinv(mass * (2 * draws("uniform") - 1))
    noise = noise.clamp(-tau, tau)
    log_normal = -0.5 * noise.double() ** 2 - 0.5 * math.log(2 * math.pi)
    log_q = (log_normal - math.log(mass * width / (2 * tau))).flatten(1).sum(1)
    return Dequantised(scale * (data + width / (2 * tau) * noise), jacobian - log_q)
