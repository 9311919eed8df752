"""How a network's output u is read, and what it misses, without cancellation.

    "v":    x_hat = alpha z - sigma u         x_t - x_hat = sigma (u - v),            v = alpha eps - sigma x_t
    "eps":  x_hat = (z - sigma u) / alpha     x_t - x_hat = (sigma/alpha) (u - eps)
    "x":    x_hat = u

Reference: Salimans and Ho 2022 (v-prediction).
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from diffenc_ct.schedules import alpha, alpha2, expand, sigma, sigma2

Predicts = Literal["v", "x", "eps"]
Data = Float[Tensor, "batch *data"]
Gammas = Float[Tensor, " batch"]


def read_output(predicts: Predicts, u: Data, z: Data, gamma: Gammas) -> Data:
    """x_hat from a network's output u at latents z.

    Theorem: encoders.v_identity.

    Args:
        predicts: what u estimates, "v", "x" or "eps".
        u: the output.
        z: the latents.
        gamma: their depths.
    Example:
        >>> import torch
        >>> z = torch.ones(1, 1)  # at gamma = 0 alpha^2 = sigma^2 = 1/2
        >>> read_output("eps", torch.ones(1, 1), z, torch.zeros(1)).round(decimals=4)
        tensor([[0.4142]])
    """
    if predicts == "x":
        return u
    alpha_, sigma_ = expand(alpha(gamma), z), expand(sigma(gamma), z)
    return alpha_ * z - sigma_ * u if predicts == "v" else (z - sigma_ * u) / alpha_


def read_error(predicts: Predicts, u: Data, noise: Data, x_t: Data, gamma: Gammas) -> Data:
    """x_t - x_hat for a network's output u at z = alpha x_t + sigma noise, without cancellation.

    Theorem: elbo.prediction_errors.

    Args:
        predicts: what u estimates, "v", "x" or "eps".
        u: the output.
        noise: eps of z.
        x_t: encoded data of z.
        gamma: depths.
    """
    if predicts == "x":
        return x_t - u
    alpha_, sigma_ = expand(alpha(gamma), x_t), expand(sigma(gamma), x_t)
    if predicts == "v":
        return sigma_ * (u - (alpha_ * noise - sigma_ * x_t))
    return (sigma_ / alpha_) * (u - noise)


def regression_loss(error: Data, gamma: Gammas, predicts: Predicts) -> Float[Tensor, " batch"]:
    """weight ||x_t - x_hat||^2 / d, minimised by x_hat = E[x_t | z_t].

    The weight makes it the network's own loss: ||u - v||^2 / d, ||u - eps||^2 / d, or ||x_t - x_hat||^2 / (sigma^2 d).
    Theorem: calibration.optimal_head.

    Args:
        error: x_t - x_hat.
        gamma: depths.
        predicts: what the network estimates.
    """
    weight = (alpha2(gamma) if predicts == "eps" else 1) / sigma2(gamma)
    return weight * error.square().flatten(1).mean(1)
