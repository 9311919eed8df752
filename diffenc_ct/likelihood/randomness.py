"""Random streams of an example: they depend on its seed and what they are for, never on the batch."""

import numpy as np
import torch

_STREAMS = {"z_1": 1, "probes": 2, "dequantisation": 3, "classification": 4}


def example_generator(seed: int, stream: str, draw: int = 0) -> torch.Generator:
    """The stream's generator, on the CPU so that a seed gives the same numbers on every device.

    PyTorch's generator of the CPU looks at the last 32 bits of its seed alone: all that is known goes into those.
    """
    word = np.random.SeedSequence((seed, _STREAMS[stream], draw)).generate_state(1, np.uint32)
    return torch.Generator().manual_seed(int(word[0]))
