"""Randomness as a function of (seed, step): nothing about a generator needs to be saved to resume bit for bit."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

# Streams of one step that must not share numbers.
DEPTH, NOISE, DROPOUT, ORDER, EVALUATION, CROP, FLIP, CONDITION = range(8)


def derived_seed(seed: int, *path: int) -> int:
    """A 63-bit seed for a place of a run.

    Args:
        seed: of the run.
        path: stream, step, ...
    """
    words = np.random.SeedSequence([seed, *path]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def generator_for(seed: int, *path: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator at the start of a place's stream.

    Args:
        seed: of the run.
        path: stream, step, ...
        device: where it draws.
    """
    return torch.Generator(device).manual_seed(derived_seed(seed, *path))


def batch_indices(seed: int, step: int, batch_size: int, count: int) -> Int[Tensor, " batch_size"]:
    """Examples of a step: the steps cut the endless sequence of epochs' permutations into batches.

    Args:
        seed: of the run.
        step: its number.
        batch_size: how many.
        count: of all examples.
    """
    first, last = step * batch_size, (step + 1) * batch_size
    epochs = range(first // count, (last - 1) // count + 1)
    order = torch.cat([_permutation(seed, epoch, count) for epoch in epochs])
    offset = epochs[0] * count
    return order[first - offset : last - offset]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> Tensor:
    return torch.randperm(count, generator=generator_for(seed, ORDER, epoch))
