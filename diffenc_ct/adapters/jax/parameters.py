"""The names and layouts of the authors' parameters.

Their parameters and ours are the same numbers under other names and in other layouts:

    convolution              kernel (height, width, in, out)       weight (out, in, height, width)
    transposed convolution   the same, turned by 180 degrees       weight (in, out, height, width)
    dense                    kernel (in, out)                      weight (out, in)
    1x1 shortcut             a dense layer on the channels         a convolution
    normalisation            scale, bias                           weight, bias
    learned schedule         w, b of shape (1,)                    slope, start of shape ()

Reference: flax.linen for the layouts, the authors' modules for the names.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diffenc_ct.adapters.jax import flax_msgpack
from diffenc_ct.model import DiffEnc


@dataclass(frozen=True)
class Layout:
    """Where a parameter is theirs.

    Attributes:
        name: of the parameter within its layer.
        to_ours: from their layout to ours.
        to_theirs: the inverse.
    """

    name: str
    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


SCALAR = Layout("", lambda w: w.reshape(()), lambda w: w.reshape(1))
BIAS = Layout("bias", lambda w: w, lambda w: w)
SCALE = Layout("scale", lambda w: w, lambda w: w)
DENSE = Layout("kernel", lambda w: w.T, lambda w: w.T)
SHORTCUT = Layout("kernel", lambda w: w.T[:, :, None, None], lambda w: w[:, :, 0, 0].T)
CONVOLUTION = Layout("kernel", lambda w: w.permute(3, 2, 0, 1), lambda w: w.permute(2, 3, 1, 0))
TRANSPOSED = Layout(
    "kernel",
    lambda w: w.flip(0, 1).permute(2, 3, 0, 1),
    lambda w: w.permute(2, 3, 0, 1).flip(0, 1),
)


# Our module's path -> theirs, part by part. {i}, {k} stand for numbers; {j} for the level of the i-th block upwards.
_BLOCK = {
    "norm1": "GroupNorm_0",
    "conv1": "conv1",
    "project": "cond_proj",
    "norm2": "GroupNorm_1",
    "conv2": "conv2",
    "shortcut": "nin_shortcut",
}
_ATTENTION = {
    "norm": "GroupNorm_0",
    "query": "q",
    "key": "k",
    "value": "v",
    "project": "proj_out",
}
_ENDS = {"conv_in": "conv_in", "norm_out": "GroupNorm_0", "conv_out": "conv_out"}


def _joined(outer: dict[str, str], inner: dict[str, str]) -> dict[str, str]:
    return {f"{a}.{c}": f"{b}/{d}" for a, b in outer.items() for c, d in inner.items()}


_FLAT = {
    **_joined({"down.{i}": "down.block_{i}", "up.{i}": "up.block_{i}"}, _BLOCK),
    **_joined({"middle.block1": "mid.block_1", "middle.block2": "mid.block_2"}, _BLOCK),
    **_joined(
        {"down_attention.{i}": "down.attn_{i}", "up_attention.{i}": "up.attn_{i}"}, _ATTENTION
    ),
    **_joined({"middle.attention": "mid.attn_1"}, _ATTENTION),
}
_RESOLUTIONS = {
    **_joined({"middle.block1": "mid_resnet_1", "middle.block2": "mid_resnet_2"}, _BLOCK),
    **_joined({"middle.attention": "mid_attn_1"}, _ATTENTION),
    "shrink.{i}": "down_blocks_{i}/down_conv",
    "grow.{i}": "up_blocks_{i}/conv_trans",
}
_POOLED = _RESOLUTIONS | _joined(
    {
        "down.{i}.{k}": "down_blocks_{i}/down_{i}_resnet_block",
        "up.{i}.{k}": "up_blocks_{i}/up_{j}_resnet_block",
    },
    _BLOCK,
)
_MULTIRESOLUTION = _RESOLUTIONS | _joined(
    {
        "down.{i}.{k}": "down_blocks_{i}/down_{i}_resnet_block{k}",
        "up.{i}.{k}": "up_blocks_{i}/up_{j}_resnet_block{k}",
    },
    _BLOCK,
)
_EMBEDDING = {"dense0": "dense0", "dense1": "dense1"}


def _score(body: dict[str, str], name: str) -> dict[str, str]:
    parts = (
        _ENDS | _joined({"embed": "TimeEmbedding_0"}, _EMBEDDING) | _joined({"body": name}, body)
    )
    return _joined({"heads.network": "score_model"}, parts)


def _encoder(body: dict[str, str]) -> dict[str, str]:
    parts = _ENDS | _joined({"embed": "time_embedding"}, _EMBEDDING)
    parts |= _joined({"body": "enc_model"}, body)
    return _joined({"encoder.network": "encdec/inner_encoder"}, parts)


# By m_type of score_model_config and of encoder_config.nn_config.
SCORE_PATHS = {"unet": _score(_FLAT, "VDMUNet_0"), "unet_alt": _score(_POOLED, "UNet_0")}
ENCODER_PATHS = {
    "unet": _encoder(_POOLED),
    "vdm_unet": _encoder(_FLAT),
    "unet_mult_res": _encoder(_MULTIRESOLUTION),
}
_SCHEDULE = {"schedule.start": "gamma/b", "schedule.slope": "gamma/w"}


@dataclass(frozen=True)
class Pair:
    """A parameter of ours and its counterpart.

    Attributes:
        name: ours.
        parameter: ours.
        path: of theirs.
        layout: of theirs.
    """

    name: str
    parameter: Tensor
    path: str
    layout: Layout


def pairs(model: DiffEnc, options: Mapping[str, Any]) -> Iterator[Pair]:
    """Every parameter of a model with its counterpart.

    Args:
        model: ours.
        options: that describe it.
    """
    table = SCORE_PATHS[options["score_model_config"]["m_type"]]
    if options["ddpm_type"] == "S3VA":
        table = table | ENCODER_PATHS[options["encoder_config"]["nn_config"]["m_type"]]
    rules = [(_pattern(ours), theirs) for ours, theirs in table.items()]
    for name, parameter in model.named_parameters():
        if name in _SCHEDULE:
            yield Pair(name, parameter, _SCHEDULE[name], SCALAR)
            continue
        owner, _, kind = name.rpartition(".")
        layout = _layout(model.get_submodule(owner), owner, kind)
        yield Pair(name, parameter, f"{_translate(model, owner, rules)}/{layout.name}", layout)


def _pattern(ours: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{(\w)\\\}", r"(?P<\1>\\d+)", re.escape(ours)))


def _translate(model: DiffEnc, owner: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    for pattern, theirs in rules:
        match = pattern.fullmatch(owner)
        if match:
            numbers = match.groupdict()
            if "{j}" in theirs:
                stack = model.get_submodule(owner[: match.start("i") - 1])
                numbers["j"] = str(len(list(stack.children())) - 1 - int(numbers["i"]))
            return theirs.format(**numbers)
    raise AssertionError(f"no path in the table for {owner}")


def _layout(module: nn.Module, owner: str, kind: str) -> Layout:
    if kind == "bias":
        return BIAS
    if owner.endswith(".shortcut"):
        return SHORTCUT
    layouts: dict[type[nn.Module], Layout] = {
        nn.GroupNorm: SCALE,
        nn.Linear: DENSE,
        nn.Conv2d: CONVOLUTION,
        nn.ConvTranspose2d: TRANSPOSED,
    }
    return layouts[type(module)]


def to_ours(
    model: DiffEnc, options: Mapping[str, Any], theirs: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Their parameters as a state dict of `model`, each checked, all of them used.

    Args:
        model: ours.
        options: that describe it.
        theirs: by path.

    Raises:
        ValueError: for a parameter that is missing, left over, no array, or of another shape or dtype.
    """
    left, weights = dict(theirs), {}
    for pair in pairs(model, options):
        if pair.path not in left:
            raise ValueError(f"parameter {pair.path} is missing")
        weights[pair.name] = pair.layout.to_ours(_tensor(left.pop(pair.path), pair)).clone(
            memory_format=torch.contiguous_format
        )
    if left:
        raise ValueError(f"parameter {next(iter(left))} is left over ({len(left)} in all)")
    return weights


def _tensor(array: Any, pair: Pair) -> Tensor:
    wanted = tuple(pair.layout.to_theirs(pair.parameter).shape)
    if not isinstance(array, flax_msgpack.Array):
        raise ValueError(f"parameter {pair.path} is a {type(array).__name__}, not an array")
    if array.shape != wanted:
        raise ValueError(
            f"parameter {pair.path} has shape {array.shape}, the configuration wants {wanted}"
        )
    if array.dtype != "float32":
        raise ValueError(
            f"parameter {pair.path} has dtype {array.dtype}; only float32 is supported"
        )
    try:
        return torch.from_numpy(array.numpy())
    except ValueError as error:
        raise ValueError(f"parameter {pair.path}: {error}") from error


def to_theirs(model: DiffEnc, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The model's parameters by their path.

    Args:
        model: ours.
        options: that describe it.

    Raises:
        ValueError: where one is not float32.
    """
    flat = {}
    for pair in pairs(model, options):
        if pair.parameter.dtype != torch.float32:
            raise ValueError(
                f"{pair.name} is {pair.parameter.dtype}; the authors' format is float32 (model.float())"
            )
        flat[pair.path] = pair.layout.to_theirs(pair.parameter.detach().cpu()).contiguous().numpy()
    return flat
