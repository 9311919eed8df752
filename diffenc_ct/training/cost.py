"""What a training step costs: parameters, floating-point operations, memory."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffenc_ct.data import Dataset
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.loop import training_step
from diffenc_ct.training.state import State, count_parameters

PARTS = ("network", "encoder", "schedule")


@dataclass(frozen=True)
class Cost:
    """Of a step on the configured batch: parameters by part, FLOPs (matrix products and convolutions,
    forward and backward), bytes of state (weights, averages, optimiser) and of what a backward pass keeps."""

    parameters: dict[str, int]
    flops: int
    state_bytes: int
    activation_bytes: int


def measure_cost(config: Config, data: Dataset) -> Cost:
    """Run a step on one example of the data on the CPU, and scale it to the batch."""
    one = replace(config, {"training.batch_size": 1, "training.accumulate": 1})
    state = State.fresh(one, data, torch.device("cpu"))
    kept: dict[int, int] = {}
    weights = {p.untyped_storage()._cdata for p in state.model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata  # the storage's identity: views share it
        if storage not in weights:
            kept[storage] = max(kept.get(storage, 0), tensor.numel() * tensor.element_size())
        return tensor

    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
    ):
        training_step(state, one, data.train, torch.device("cpu"))
    model = state.model
    numbers = count_parameters(model)
    copies = 4 + len(config.optimizer.ema)  # weights, gradients, two moments, averages
    part = config.training.batch_size // config.training.accumulate
    return Cost(
        {name: count_parameters(getattr(model, name)) for name in PARTS},
        counter.get_total_flops() * config.training.batch_size,
        4 * numbers * copies,
        sum(kept.values()) * part,
    )
