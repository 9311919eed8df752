"""Terms of small variance, or of great cost, on part of a batch: unbiased means for less work.

A mean over a batch of B examples is estimated from k of them, evenly spread (so that parts of a batch take the
examples that the whole takes, and stratified depths stay stratified). For the rate of an encoder,

    x_t' = alpha^2 (x - x_t) + (rest),      rest = sigma^2 dy/dlambda   where x_t = alpha^2 x + sigma^2 y(x, gamma),

the first part needs no derivative. With errors a = kappa (x_t - x_hat) + alpha^2 (x - x_t) - r_hat of every example

    E ||a + rest||^2 = E ||a||^2 + E [||a + rest||^2 - ||a||^2],

and only the second mean, which varies little where y changes slowly with depth, is taken over the k examples.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffenc_ct.encoders import Encoder, Encoding
from diffenc_ct.schedules import alpha2, expand


def evenly(fraction: float, data: Tensor) -> Tensor:
    """The indices of ceil(fraction batch) evenly spread examples."""
    some = math.ceil(fraction * len(data))
    return torch.arange(some, device=data.device) * len(data) // some


def spread(values: Tensor, index: Tensor, batch: int) -> Tensor:
    """values at `index`, scaled up to the batch's mean, and 0 elsewhere: (batch,)."""
    return values.new_zeros(batch).index_put((index,), values * (batch / len(values)))


def encode(encoder: Encoder, places: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """x_t at every place (x, gamma), gamma (batch,) or a scalar, by one evaluation of the encoder."""
    gamma = torch.cat([gamma.expand(len(x)) for x, gamma in places])
    value = encoder.encode(torch.cat([x for x, _ in places]), gamma)
    return list(value.split([len(x) for x, _ in places]))


def part_rates(
    encoder: Encoder,
    data: Tensor,
    gamma: Tensor,
    index: Tensor,
    places: Sequence[tuple[Tensor, Tensor]],
) -> tuple[Encoding, Tensor, list[Tensor]]:
    """Encodings of all examples with the rate alpha^2 (x - x_t); what that rate lacks for those at `index`; and x_t at
    `places`, evaluated together with the examples that are not at `index`.
    """
    # Sorted, not searched: `nonzero` would wait for the device to know how many there are.
    taken = torch.zeros(len(data), device=data.device).index_fill(0, index, 1.0)
    others = taken.argsort(stable=True)[: len(data) - len(index)]
    exact = encoder(data[index], gamma[index])
    plain, *elsewhere = encode(encoder, [(data[others], gamma[others]), *places])
    value = torch.zeros_like(data).index_put((index,), exact.value).index_put((others,), plain)
    rate = expand(alpha2(gamma), data) * (data - value)
    return Encoding(value, rate), exact.rate - rate[index], elsewhere
