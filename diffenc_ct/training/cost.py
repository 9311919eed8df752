"""What a training step costs: parameters, floating-point operations, memory."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop, sdpa_flop

from diffenc_ct.data import Dataset
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.state import State, count_parameters
from diffenc_ct.training.step import training_step

PARTS = ("heads", "encoder", "schedule")
# The CPU's attention, which PyTorch's counter does not know, by the counter's formulas for a GPU's.
_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
ATTENTION = {
    _FUSED: lambda q, k, v, *_, **__: sdpa_flop(q, k, v),
    _FUSED_BACKWARD: lambda grad, q, k, v, *_, **__: sdpa_backward_flop(grad, q, k, v),
}


@dataclass(frozen=True)
class Cost:
    """Of a step on the configured batch.

    Attributes:
        parameters: numbers that are trained, by part.
        flops: of matrix products, convolutions and attention, forward and backward.
        state_bytes: of weights, averages and the optimiser.
        activation_bytes: of what a backward pass keeps.
    """

    parameters: dict[str, int]
    flops: int
    state_bytes: int
    activation_bytes: int


def measure_cost(config: Config, data: Dataset) -> Cost:
    """Run a step of few examples on the CPU, as many as have a part (see ends_fraction), and scale it to the batch.

    Args:
        config: whose step it is.
        data: to train on.
    """
    settings = config.training
    few = math.ceil(1 / min(settings.ends_fraction, settings.rate_fraction))
    few = min(few, settings.batch_size // settings.accumulate)
    small = replace(config, {"training.batch_size": few, "training.accumulate": 1})
    state = State.fresh(small, data, torch.device("cpu"))
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in state.model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        try:
            storage = tensor.untyped_storage().data_ptr()  # the storage's identity: views share it
        except RuntimeError:  # a tangent of zeros, which has no memory
            return tensor
        if storage not in weights:
            kept[storage] = max(kept.get(storage, 0), tensor.numel() * tensor.element_size())
        return tensor

    with (
        FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter,
        torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t),
    ):
        training_step(state, small, data, torch.device("cpu"))
    model = state.model
    numbers = count_parameters(model)
    copies = 4 + len(config.optimizer.ema)  # weights, gradients, two moments, averages
    return Cost(
        {name: count_parameters(getattr(model, name)) for name in PARTS},
        counter.get_total_flops() * settings.batch_size // few,
        4 * numbers * copies,
        sum(kept.values()) * settings.batch_size // settings.accumulate // few,
    )
