"""The training examples of a step: functions of (seed, step, row of the batch), as all that is random in it.

Every epoch shows each example once, in an order of its own. Crops of images are drawn
anew at every step, uniformly from all positions: so many are never all seen. Flips are drawn anew, too.
"""

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from diffenc_ct.data import Dataset
from diffenc_ct.model import DiffEnc
from diffenc_ct.training.randomness import CONDITION, CROP, FLIP, batch_indices, generator_for


def examples_of(
    data: Dataset, seed: int, step: int, size: int, rows: slice
) -> Shaped[Tensor, "rows *data"]:
    """Some rows of a step's batch.

    Args:
        data: whose training examples they are.
        seed: of the run.
        step: its number.
        size: of the whole batch.
        rows: of it that are wanted.
    """
    source = data.train if data.source is None else data.source
    if data.source is None or data.source.epochs:
        numbers = batch_indices(seed, step, size, len(source))
    else:
        generator = generator_for(seed, CROP, step)
        # From a much larger range: what is left of it by the division makes no position likelier by more than 2^-30.
        numbers = torch.randint(2**62, (size,), generator=generator) % len(source)
    x = source[numbers[rows]]
    if data.flip:
        flipped = torch.rand(size, generator=generator_for(seed, FLIP, step))[rows] < 0.5
        x = torch.where(flipped[:, None, None, None], x.flip(-1), x)
    return x


def labels_of(
    data: Dataset, seed: int, step: int, size: int, rows: slice, dropout: float
) -> Int64[Tensor, " rows"] | None:
    """The labels of the same rows, -1 for those that are not told; None where the data have none.

    Args:
        data: as in examples_of.
        seed: as in examples_of.
        step: as in examples_of.
        size: as in examples_of.
        rows: as in examples_of.
        dropout: the part that is not told.
    """
    if data.labels is None:
        return None
    found = data.labels.train[batch_indices(seed, step, size, len(data.labels.train))]
    left_out = torch.rand(size, generator=generator_for(seed, CONDITION, step)) < dropout
    return torch.where(left_out, -1, found)[rows]


def told(model: DiffEnc, data: Dataset, split: str, count: int | None = None) -> DiffEnc:
    """The model given the labels of the first examples of a split; the model itself where the data have none.

    Args:
        model: of the data's kind.
        data: whose labels they are.
        split: "train" or "test".
        count: how many, all by default.
    """
    return model if data.labels is None else model.given(data.labels.of(split)[:count])
