"""The decoder that a configuration's data need: of levels, of reals as they are, or of reals of any scale."""

import torch
from torch import Tensor

from diffenc_ct.data import AT_ONCE, Moments
from diffenc_ct.model import Decoder, Levels, Reals, Standardised
from diffenc_ct.training.config import DataConfig


def make_decoder(config: DataConfig, shape: tuple[int, ...], levels: int | None) -> Decoder:
    """The decoder of a configuration; what it standardises by is still to come, from data or from a checkpoint.

    Args:
        config: of the data.
        shape: of an example.
        levels: of integers, None for reals.

    Raises:
        ValueError: for levels that are to be standardised.
    """
    if not config.standardise:
        return Reals() if levels is None else Levels(levels)
    if levels is not None:
        raise ValueError(
            f"data.standardise: {config.name!r} has {levels} levels, and only reals are standardised; leave it out "
            "(--no-standardise)"
        )
    return Standardised(torch.zeros(shape[0]), torch.ones(shape[0]))


def standardised_by(examples: Tensor) -> Standardised:
    """A decoder that standardises by examples.

    Args:
        examples: for training, of reals.

    Raises:
        ValueError: where one of their dimensions or channels is constant.
    """
    found = Moments.of(torch.split(examples, max(1, AT_ONCE // examples[0].numel())))
    # Of a constant nothing but rounding is left.
    rounding = found.deviation < 1e-12 * found.mean.abs()
    return Standardised(found.mean.float(), found.deviation.masked_fill(rounding, 0.0).float())
