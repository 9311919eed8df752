"""The authors' checkpoints and configurations, in and out, without JAX.

    model = load("model.config.json", "checkpoint_100000")     # their EMA weights, in evaluation mode
    save(model, "model.config.json", "checkpoint")             # a training state that their code restores

A checkpoint is a training state {params, ema_params, opt_state, step} in Flax's msgpack (`flax_msgpack`). The model is
built from their configuration (`jax_options` says which options are implemented, `jax_models` builds), its parameters
come under their names and in their layouts (`jax_parameters`).

Reference: Nielsen et al. 2024, the authors' implementation; flax.serialization.
"""

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from diffenc_ct.adapters.jax import flax_msgpack
from diffenc_ct.adapters.jax.models import build, describe, difference
from diffenc_ct.adapters.jax.options import read_options
from diffenc_ct.adapters.jax.parameters import to_ours, to_theirs
from diffenc_ct.model import DiffEnc, Single
from diffenc_ct.networks.bodies import PooledBody, multiresolution_levels
from diffenc_ct.networks.unets import ScoreUNet


def load(
    config_json: str | os.PathLike[str],
    weights_msgpack: str | os.PathLike[str],
    *,
    which: Literal["ema", "params"] = "ema",
    image_shape: tuple[int, int, int] | None = None,
) -> DiffEnc:
    """The model of an authors' configuration and checkpoint, float32, in evaluation mode.

    The number of channels is taken from the weights.

    Args:
        config_json: path of the configuration.
        weights_msgpack: path of the checkpoint.
        which: the averaged weights, or the last ones ("params").
        image_shape: (channels, height, width), checked against the weights; then `sample` need not be told.

    Raises:
        ValueError: for an option that is not implemented, missing or unknown (by name), for a parameter that is
            missing, left over, of another shape or dtype (by path), and for a file that is corrupt or truncated.
        OSError: for a file that cannot be read.
    """
    if which not in ("ema", "params"):
        raise ValueError(f'which={which!r}; choose "ema" or "params"')
    try:
        options = read_options(json.loads(Path(config_json).read_bytes()))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{config_json}: {error}") from error
    try:
        parameters = _read_parameters(Path(weights_msgpack).read_bytes(), which)
        channels, levels = _visible(parameters, options)
        if image_shape is not None:
            _check_shape(image_shape, channels, levels, options)
        with torch.device("meta"):  # shapes only: no random numbers are drawn, no memory is filled
            model = build(options, channels, levels)
        weights = to_ours(model, options, parameters)
    except ValueError as error:
        raise ValueError(f"{weights_msgpack}: {error}") from error
    model.load_state_dict(weights, assign=True)
    model.shape = image_shape
    return model.eval()


def save(
    model: DiffEnc,
    config_json: str | os.PathLike[str],
    weights_msgpack: str | os.PathLike[str],
    *,
    step: int = 0,
) -> None:
    """Write a model as the authors' configuration and training state, which `load` and their code restore.

    Both params and ema_params are the model's weights; the state of the optimiser (AdamW as optax lays it out) is
    that of a fresh start. Each file appears complete or not at all.

    Args:
        model: to be written.
        config_json: path of the configuration.
        weights_msgpack: path of the checkpoint.
        step: that the state says.

    Raises:
        ValueError: naming what their format cannot hold: real data, paired heads, another encoder, network or schedule,
            other group counts than theirs, weights that are not float32.
    """
    options = read_options(describe(model))
    with torch.device("meta"):
        twin = build(options, _channels(model), _levels_of(model))
    twin.shape = model.shape  # which their format does not say
    found = difference(model, twin)
    if found is not None:
        raise ValueError(f"the authors' format cannot hold this model: {found}")
    flat = to_theirs(model, options)
    zeros = {path: np.zeros_like(array) for path, array in flat.items()}
    adam = {
        "count": np.zeros((), np.int32),
        "mu": flax_msgpack.nest(zeros),
        "nu": flax_msgpack.nest(zeros),
    }
    state = {
        "step": step,
        "params": flax_msgpack.nest(flat),
        "ema_params": flax_msgpack.nest(flat),
        "opt_state": {"0": adam, "1": {"inner_state": {}}, "2": {}},
    }
    _write(Path(weights_msgpack), flax_msgpack.pack(state))
    _write(Path(config_json), json.dumps(options, indent=4, allow_nan=False).encode())


def _read_parameters(data: bytes, which: str) -> dict[str, Any]:
    state = flax_msgpack.unpack(data)
    name = "ema_params" if which == "ema" else "params"
    if not isinstance(state, dict) or not isinstance(state.get(name), dict):
        found = ", ".join(state) if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"no {name} in this file (it holds {found}); it is no training state")
    return flax_msgpack.flatten(state[name])


def _visible(
    parameters: dict[str, Any], options: dict[str, Any]
) -> tuple[int, tuple[int, int] | None]:
    """What a configuration leaves open and the weights show: channels; levels and blocks of a multi-resolution body."""
    path = "score_model/conv_out/kernel"
    kernel = parameters.get(path)
    if not isinstance(kernel, flax_msgpack.Array) or len(kernel.shape) != 4 or 0 in kernel.shape:
        raise ValueError(f"{path} is missing or is no convolution's kernel")
    channels = kernel.shape[-1]
    network = options["encoder_config"]["nn_config"]
    if options["ddpm_type"] != "S3VA" or network["m_type"] != "unet_mult_res":
        return channels, None
    block = re.compile(
        r"encdec/inner_encoder/enc_model/down_blocks_(\d+)/down_\d+_resnet_block(\d+)/"
    )
    seen = [match.groups() for match in map(block.match, parameters) if match]
    if not seen:
        raise ValueError(
            "encdec/inner_encoder/enc_model/down_blocks_0/down_0_resnet_block0 is missing"
        )
    levels, blocks = (1 + max(int(pair[n]) for pair in seen) for n in (0, 1))
    layers = network["n_layer"]
    if levels > layers or blocks != (1 if levels == layers else layers // levels):
        raise ValueError(
            f"the encoder has {levels} levels of {blocks} blocks, which n_layer={layers} cannot give"
        )
    return channels, (levels, blocks)


def _check_shape(
    shape: tuple[int, int, int],
    channels: int,
    levels: tuple[int, int] | None,
    options: dict[str, Any],
) -> None:
    if len(shape) != 3 or shape[0] != channels:
        raise ValueError(
            f"image_shape={shape}, but the weights are for {channels} channels (first)"
        )
    if levels is not None:
        wanted = multiresolution_levels(options["encoder_config"]["nn_config"]["n_layer"], shape[1])
        if wanted != levels:
            raise ValueError(
                f"image_shape={shape} gives an encoder of {wanted[0]} levels of {wanted[1]} blocks, "
                f"but the weights have {levels[0]} of {levels[1]}"
            )


def _channels(model: DiffEnc) -> int:
    assert isinstance(model.heads, Single) and isinstance(model.heads.network, ScoreUNet)
    return model.heads.network.channels  # it has been described


def _levels_of(model: DiffEnc) -> tuple[int, int] | None:
    body = getattr(getattr(model.encoder, "network", None), "body", None)
    return (body.levels, body.blocks) if isinstance(body, PooledBody) else None


def _write(path: Path, data: bytes) -> None:
    """All of `data` under `path`, or nothing."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
