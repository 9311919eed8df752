"""Theorems on what a network need not find out, and what the code gives for each."""

import math

import torch
from torch import Tensor

from diffenc_ct import encoders
from diffenc_ct.model import MixturePosterior, Posterior
from diffenc_ct.networks.features import noise_aware_features
from tests.theory_cases.registry import Fixed, Points, Result, case


def four_encoders() -> list[encoders.Encoder]:
    """In the order of the theorem's formula; heads ask them for scale and rate factor only."""
    network = torch.nn.Identity()
    return [
        encoders.IdentityEncoder(),
        encoders.NonTrainableEncoder(),
        encoders.TrainableEncoder(network),
        encoders.ResidualEncoder(network),
    ]


def three_levels(*outputs: Tensor) -> Posterior:
    """A head of three levels whose network always says logits of each, u and w."""
    return Posterior(Fixed(torch.cat(outputs, 1)), 3, free=True, paired=True)


def two_gaussians(*outputs: Tensor) -> MixturePosterior:
    """A head of two Gaussians whose network always says logits, means and log deviations of both."""
    return MixturePosterior(Fixed(torch.cat(outputs, 1)), components=2, free=False)


@case("encoders.noise_aware_features")
def _(p: Points) -> Result:
    z, octave = p.data(1), p.seed % 9 - 1
    found = noise_aware_features(z, p.gamma_t, (octave, octave + 1), scale=1.5)
    w = 2 * math.pi * 1.5 * 2.0**octave
    return tuple(found.chunk(2, 1)), (z, w, p.gamma_t)


@case("encoders.posterior_head")
def _(p: Points) -> Result:
    z, *outputs = (p.data(number) for number in range(1, 7))
    heads, found = three_levels(*outputs), []
    for encoder in four_encoders():
        estimates = heads(z, p.gamma_t, encoder)
        found += [estimates.x_hat, estimates.r_hat]
    return tuple(found), (z, *outputs, p.gamma_t)


@case("encoders.mixture_head")
def _(p: Points) -> Result:
    z, *outputs = (p.data(number) for number in range(1, 8))
    heads = two_gaussians(*outputs)
    found = tuple(heads(z, p.gamma_t, each).x_hat for each in four_encoders()[:2])
    return found, (z, *outputs, p.gamma_t)
