"""From the authors' configuration to a model, and back.

`build` makes the untrained model of a checked configuration; `describe` reads a configuration off a model. A model
that their format cannot hold is recognised by building the description and comparing: `difference`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from diffenc_ct.adapters.jax.options import ENC_TYPES
from diffenc_ct.encoders import Encoder, IdentityEncoder, NonTrainableEncoder, TrainableEncoder
from diffenc_ct.model import DiffEnc, Levels, Predicts, Single
from diffenc_ct.networks import EncoderUNet, ScoreUNet
from diffenc_ct.networks.blocks import AttentionBlock
from diffenc_ct.networks.bodies import Body, FlatBody
from diffenc_ct.schedules import (
    LearnedLinearSchedule,
    LinearSchedule,
    PolynomialSchedule,
    Schedule,
)

SCHEDULES: dict[str, Callable[[float, float], Schedule]] = {
    "fixed": LinearSchedule,
    "train_scalar": LearnedLinearSchedule,
    "poly10": PolynomialSchedule,
}
PREDICTIONS: dict[str, Predicts] = {"VDM2": "eps", "VDM2_V": "v", "S3VA": "v", "S4V_NT": "v"}
SCORE_BODIES: dict[str, Body] = {"unet": "flat", "unet_alt": "pooled"}
ENCODER_BODIES: dict[str, Body] = {
    "unet": "pooled",
    "vdm_unet": "flat",
    "unet_mult_res": "multiresolution",
}


def build(
    options: Mapping[str, Any], channels: int, encoder_levels: tuple[int, int] | None = None
) -> DiffEnc:
    """The untrained model of `options` (as read_options returns them) for images of so many channels.

    Args:
        options: checked.
        channels: of the images.
        encoder_levels: levels and blocks a level, which a multi-resolution encoder derives from the images' height and
            a checkpoint shows.

    Raises:
        ValueError: where widths, groups and schedule do not fit together.
    """
    ends = float(options["gamma_min"]), float(options["gamma_max"])
    score, encoder = options["score_model_config"], options["encoder_config"]
    schedule: Schedule = SCHEDULES[options["gamma_type"]](*ends)
    network = ScoreUNet(
        channels,
        gamma_range=ends,
        body=SCORE_BODIES[score["m_type"]],
        layers=score["n_layer"],
        attention=score["m_type"] == "unet" and score["with_attention"],
        fourier=score["with_fourier_features"],
        **_common(score),
    )
    return DiffEnc(
        schedule,
        _encoder(options["ddpm_type"], encoder, channels, ends, encoder_levels),
        Single(network, predicts=PREDICTIONS[options["ddpm_type"]]),
        Levels(options["vocab_size"]),
    )


def _encoder(
    kind: str,
    options: Mapping[str, Any],
    channels: int,
    ends: tuple[float, float],
    levels: tuple[int, int] | None,
) -> Encoder:
    if kind != "S3VA":
        return NonTrainableEncoder() if kind == "S4V_NT" else IdentityEncoder()
    network = options["nn_config"]
    body = ENCODER_BODIES[network["m_type"]]
    layers, blocks = (network["n_layer"], None) if body != "multiresolution" else levels or (0, 0)
    damping: list[Literal["start", "end"]] = ["start"] if options["gamma_reg"] else []
    damping += ["end"] if options["end_reg"] else []
    return TrainableEncoder(
        EncoderUNet(
            channels,
            gamma_range=ends,
            body=body,
            layers=layers,
            blocks=blocks,
            attention=body == "flat" and network["with_attention"],
            bounded=options["m1_to_1"],
            scale=float(options["k"]),
            damping=frozenset(damping),
            **_common(network),
        )
    )


def _common(network: Mapping[str, Any]) -> dict[str, Any]:
    pooling = "convolution" if network["down_conv"] else "max" if network["pooling"] else "none"
    return {
        "width": network["n_embd"],
        "groups": network["num_groups_groupnorm"],
        "dropout": float(network["p_dropout"]),
        "pooling": pooling,
        "doubling": network["channel_scaling"] == "double",
    }


def describe(model: DiffEnc) -> dict[str, Any]:
    """The configuration that `build` turns into this model, if there is one.

    Whatever this overlooks shows when `difference` compares the model with what `build` makes of the description.

    Args:
        model: to be described.

    Raises:
        ValueError: where a part has no counterpart among the authors'.
    """
    gamma_types = {schedule: name for name, schedule in SCHEDULES.items()}
    heads = _one_of(model.heads, {Single: model.heads}, "heads")
    levels = _one_of(model.decoder, {Levels: model.decoder}, "decoder").levels
    identity = "VDM2" if heads.predicts == "eps" else "VDM2_V"
    kinds = {
        IdentityEncoder: identity,
        NonTrainableEncoder: "S4V_NT",
        TrainableEncoder: "S3VA",
    }
    network = _one_of(heads.network, {ScoreUNet: heads.network}, "network")
    kind = _one_of(model.encoder, kinds, "encoder")
    inner, nn_config = None, None
    if kind == "S3VA":
        inner = _one_of(
            model.encoder.network, {EncoderUNet: model.encoder.network}, "encoder network"
        )
    # DiffEnc-nt has no such network, but the authors' code wants a section.
    if kind in ("S3VA", "S4V_NT"):
        nn_config = _describe_network(inner or network, ENCODER_BODIES, fourier=False)
    low, high = network.embed.gamma_range
    return {
        "ddpm_type": kind,
        "vocab_size": levels,
        "sample_softmax": False,
        "n_timesteps": 0,
        "antithetic_time_sampling": True,
        "loss_parameterisation": "eps_hat",
        "no_recon_loss": False,
        "gamma_type": _one_of(model.schedule, gamma_types, "schedule"),
        "gamma_min": low,
        "gamma_max": high,
        "score_model_config": _describe_network(network, SCORE_BODIES, fourier=network.fourier),
        "encoder_config": {
            "enc_type": ENC_TYPES[kind],
            "vocab_size": levels,
            "nn_config": nn_config,
            "id_at_zero": False,
            "m1_to_1": inner is not None and inner.bounded,
            "k": 1.0 if inner is None else inner.scale,
            "gamma_reg": inner is not None and "start" in inner.damping,
            "end_reg": inner is not None and "end" in inner.damping,
            "end_half_reg": False,
        },
    }


def _one_of(part: Any, known: Mapping[Any, Any], name: str) -> Any:
    if type(part) not in known:
        raise ValueError(f"{name} {type(part).__name__} has no form in the authors' format")
    return known[type(part)]


def _describe_network(network: Any, bodies: Mapping[str, str], *, fourier: bool) -> dict[str, Any]:
    body, width, groups = network.body, network.conv_in.out_channels, network.norm_out.num_groups
    if isinstance(body, FlatBody):
        form, layers, last, pooling = "flat", len(body.down), network.body.down[-1], "none"
    else:
        plain = body.blocks == 1 and body.middle.block1.norm1.num_groups == groups
        form, layers = "pooled" if plain else "multiresolution", body.levels * body.blocks
        last, pooling = body.down[-1][-1], body.pooling
    attention = form == "flat" and isinstance(network.body.down_attention[0], AttentionBlock)
    names = {form: name for name, form in bodies.items()}
    if form not in names:
        raise ValueError(
            f"a {form} body in {type(network).__name__} has no form in the authors' format"
        )
    return {
        "m_type": names[form],
        "with_fourier_features": fourier,
        "with_attention": attention,
        "n_embd": width,
        "n_layer": layers,
        "num_groups_groupnorm": groups,
        "p_dropout": last.dropout.p,
        "down_conv": pooling == "convolution",
        "pooling": pooling == "max",
        "channel_scaling": "double" if last.conv2.out_channels > width else "same",
        "non_id_init": False,
        "kernel_init": "",
    }


def difference(ours: DiffEnc, theirs: DiffEnc) -> str | None:
    """Where two models differ in structure or settings (weights apart), in words; None where they do not."""
    modules, others = dict(ours.named_modules()), dict(theirs.named_modules())
    for name in modules | others:
        here, there = modules.get(name), others.get(name)
        if type(here) is not type(there):
            return f"{name or 'model'} is a {type(here).__name__}, in the authors' format a {type(there).__name__}"
        settings, expected = _settings(here), _settings(there)
        for setting, value in settings.items():
            if value != expected.get(setting):
                return f"{name or 'model'}.{setting} is {value!r}, in the authors' format {expected.get(setting)!r}"
    return None


def _settings(module: Any) -> dict[str, Any]:
    plain = {key: value for key, value in vars(module).items() if not key.startswith("_")}
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters(recurse=False)}
    return {key: value for key, value in plain.items() if key != "training"} | shapes
