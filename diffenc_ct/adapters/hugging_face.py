"""Networks of Hugging Face diffusers: what a scheduler says of the process that a network was trained on.

    alphas_cumprod, prediction_type    a table of whole times (DDPM, DDIM, Euler and others)
    sigma_data                         EDM's preconditioning of a network of (c_in z, ln(sigma)/4)
    shift                              flow matching's straight line, time 1000 t, velocity eps - x

What is known by sampling only (thresholds, clipping, guidance, final sigmas, spacings of steps, shifts) is left out: it
is no part of a likelihood.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from diffenc_ct.adapters.adapt import adapt
from diffenc_ct.adapters.heads import Call, NativePredicts
from diffenc_ct.adapters.native import NativeProcess
from diffenc_ct.adapters.packages import BYTES, expanded
from diffenc_ct.adapters.processes import RectifiedFlow, Table, VarianceExploding
from diffenc_ct.model import Decoder, DiffEnc
from diffenc_ct.schedules import expand

_DIFFUSERS: dict[str, NativePredicts] = {
    "epsilon": "eps",
    "sample": "x0",
    "original_sample": "x0",
    "v_prediction": "v",
    "flow_prediction": "velocity",
}


def diffusers(
    network: nn.Module,
    scheduler: Any,
    *,
    decoder: Decoder = BYTES,
    conditions: Mapping[str, Any] | None = None,
    rounded: bool = False,
    shape: tuple[int, ...] | None = None,
) -> DiffEnc:
    """A network of Hugging Face diffusers with the scheduler that it was trained with, as a model.

    Args:
        network: UNet2DModel, UNet2DConditionModel, DiTTransformer2DModel, or another that is called as
            network(z, t, **conditions) and returns its output first.
        scheduler: DDPM's, DDIM's, Euler's and others that have `alphas_cumprod`; EDM's; flow matching's.
        decoder: of the data on the network's scale.
        conditions: keywords for every call, such as class_labels or encoder_hidden_states; tensors of one example are
            those of all. `model.given(labels)` puts an example's own class_labels in their place.
        rounded: whether times are whole numbers, for networks that embed them by a table.
        shape: of one example, where the network's configuration does not say it.
    Raises:
        ValueError: for a scheduler of another kind, and as `adapt`.
    """
    facts = scheduler.config
    call: Call = _first_output(conditions or {})
    predicts = _DIFFUSERS.get(getattr(facts, "prediction_type", "flow_prediction"))
    if predicts is None:
        raise ValueError(
            f"prediction_type {facts.prediction_type!r} is none of {', '.join(_DIFFUSERS)}; call dc.adapt(network, ...)"
        )
    process: NativeProcess
    if hasattr(facts, "sigma_data"):
        process, predicts = VarianceExploding(facts.sigma_min, facts.sigma_max), "denoiser"
        call = _preconditioned(scheduler, call)
    elif hasattr(scheduler, "alphas_cumprod"):
        process = Table.of_alphas_cumprod(scheduler.alphas_cumprod, rounded=rounded)
    elif hasattr(facts, "shift") and not getattr(facts, "invert_sigmas", False):
        steps, predicts = facts.num_train_timesteps, "velocity"
        # Shifts say which times are trained more, not what a time means.
        process = RectifiedFlow(margin=1 / steps, told=lambda t: steps * t)
    else:
        raise ValueError(
            f"scheduler {type(scheduler).__name__} has neither alphas_cumprod, nor EDM's sigma_data, nor flow "
            "matching's shift; describe its process to dc.adapt(network, schedule=..., predicts=...)"
        )
    return adapt(
        network,
        predicts=predicts,
        schedule=process,
        decoder=decoder,
        call=call,
        shape=shape or _shape_of(network),
    )


def _first_output(conditions: Mapping[str, Any]) -> Call:
    given = expanded(conditions)

    def call(network: Any, z: Tensor, t: Tensor, condition: Tensor | None = None) -> Any:
        labels = {} if condition is None else {"class_labels": condition}
        return network(z, t, return_dict=False, **given(z) | labels)[0]

    return call


def _preconditioned(scheduler: Any, inner: Call) -> Call:
    """D(z; sigma) of a network that EDM's scheduler preconditions."""

    def call(network: Any, z: Tensor, sigma: Tensor, *condition: Tensor) -> Tensor:
        noise = expand(sigma.to(z), z)
        out = inner(
            network,
            scheduler.precondition_inputs(z, noise),
            scheduler.precondition_noise(sigma),
            *condition,
        )
        found: Tensor = scheduler.precondition_outputs(z, out, noise)
        return found

    return call


def _shape_of(network: nn.Module) -> tuple[int, ...] | None:
    """(channels, height, width), as a diffusers network's configuration says it."""
    facts: Any = getattr(network, "config", None)
    size = getattr(facts, "sample_size", None)
    if size is None:
        return None
    return (facts.in_channels, *((size, size) if isinstance(size, int) else size))
