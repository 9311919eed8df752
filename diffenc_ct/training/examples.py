"""The training examples of a step: functions of (seed, step, row of the batch), as all that is random in it.

Every epoch shows each example once, in an order of its own. Crops of images are drawn
anew at every step, uniformly from all positions: so many are never all seen. Flips are drawn anew, too.
"""

import torch
from jaxtyping import Shaped
from torch import Tensor

from diffenc_ct.data import Dataset
from diffenc_ct.training.randomness import CROP, FLIP, batch_indices, generator_for


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
