"""Training steps to be timed, their FLOPs, and what they are measured against (for train_step.py)."""

import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from diffenc_ct.data import Dataset
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.cost import ATTENTION
from diffenc_ct.training.loop import training_step
from diffenc_ct.training.state import State


def random_images(*shape: int) -> Dataset:
    """256 images of 256 levels."""
    images = torch.randint(0, 256, (256, *shape), generator=torch.Generator().manual_seed(0))
    return Dataset("random", images.to(torch.uint8), images[:16].to(torch.uint8), 256)


def stepper(config: Config, data: Dataset, device: torch.device) -> Callable[[], object]:
    """A function that does one training step."""
    state = State.fresh(config, data, device)
    return lambda: training_step(state, config, data, device)


def count_flops(config: Config, data: Dataset) -> int:
    """FLOPs of matrix products, convolutions and attention in a step, counted on the CPU without compiling."""
    step = stepper(replace(config, {"training.compile": False}), data, torch.device("cpu"))
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        step()
    return counter.get_total_flops()


def matmul(n: int, dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    """A function that multiplies two n x n matrices: 2 n^3 FLOPs."""
    a, b = (torch.randn(n, n, dtype=dtype, device=device) for _ in "ab")
    return lambda: a @ b


def seconds(
    runs: dict[str, Callable[[], object]], device: torch.device, rounds: int
) -> dict[str, float]:
    """The median seconds of each function, which take turns."""

    def timed(run: Callable[[], object]) -> float:
        begin = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin

    for run in runs.values():
        timed(run), timed(run)
    times = [{name: timed(run) for name, run in runs.items()} for _ in range(rounds)]
    return {name: statistics.median(row[name] for row in times) for name in runs}
