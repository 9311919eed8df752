"""Random streams of an example: they depend on its seed and what they are for, never on the batch."""

import torch

_STREAMS = {"z_1": 1, "probes": 2, "dequantisation": 3}


def example_generator(seed: int, stream: str, draw: int = 0) -> torch.Generator:
    """The stream's generator, on the CPU so that a seed gives the same numbers on every device."""
    mixed = (
        seed * 6364136223846793005 + (_STREAMS[stream] + 8 * draw) * 1442695040888963407
    ) % 2**63
    return torch.Generator().manual_seed(mixed)
