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
from jaxtyping import Float, Int
from torch import Tensor

from diffenc_ct.encoders import Encoder, Encoding
from diffenc_ct.schedules import alpha2, expand


def evenly(fraction: float, data: Float[Tensor, "batch *data"]) -> Int[Tensor, " some"]:
    """The indices of ceil(fraction batch) evenly spread examples.

    Args:
        fraction: in (0, 1].
        data: the batch.
    """
    some = math.ceil(fraction * len(data))
    return torch.arange(some, device=data.device) * len(data) // some


def spread(
    values: Float[Tensor, "some *data"], index: Int[Tensor, " some"], batch: int
) -> Float[Tensor, "{batch} *data"]:
    """Values of a part of the batch, scaled up so that their mean over the whole is the part's, and 0 elsewhere.

    Args:
        values: of the part.
        index: which examples it has.
        batch: how many there are in all.
    """
    whole = values.new_zeros(batch, *values.shape[1:])
    return whole.index_put((index,), values * (batch / len(values)))


def encode(encoder: Encoder, places: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """x_t at several places, by one evaluation of the encoder.

    Args:
        encoder: x -> x_t.
        places: pairs of x (batch, *data) and gamma, (batch,) or a scalar.
    """
    gamma = torch.cat([gamma.expand(len(x)) for x, gamma in places])
    value = encoder.encode(torch.cat([x for x, _ in places]), gamma)
    return list(torch.split(value, [len(x) for x, _ in places]))


def part_rates(
    encoder: Encoder,
    data: Float[Tensor, "batch *data"],
    gamma: Float[Tensor, " batch"],
    index: Int[Tensor, " some"],
    places: Sequence[tuple[Tensor, Tensor]],
) -> tuple[Encoding, Tensor, list[Tensor]]:
    """Encodings whose rate is exact up to the derivative of the encoder's network, and that derivative for a part.

    Args:
        encoder: x -> x_t.
        data: on the model's scale.
        gamma: of each example.
        index: the part's examples, from `evenly`.
        places: where else x_t is wanted (see `encode`); evaluated together with the examples that are not in the part.

    Returns:
        tuple: encodings of all examples with the rate alpha^2 (x - x_t); what that rate lacks for the part's,
            (some, *data); x_t at `places`.
    """
    # Sorted, not searched: `nonzero` would wait for the device to know how many there are.
    taken = torch.zeros(len(data), device=data.device).index_fill(0, index, 1.0)
    others = taken.argsort(stable=True)[: len(data) - len(index)]
    exact = encoder(data[index], gamma[index])
    plain, *elsewhere = encode(encoder, [(data[others], gamma[others]), *places])
    value = torch.zeros_like(data).index_put((index,), exact.value).index_put((others,), plain)
    rate = expand(alpha2(gamma), data) * (data - value)
    return Encoding(value, rate), exact.rate - rate[index], elsewhere
