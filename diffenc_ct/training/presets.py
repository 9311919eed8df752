"""Configurations by name.

    digits, digits-vdm          the demonstration: 8x8 digits, two minutes on two cores
    mnist-small-{vdm,nt,diffenc}  small models of equal score network, for two cores
    photographs-{vdm,diffenc}   16x16 patches of a folder of photographs (--data FOLDER)
    mnist-{vdm,nt,diffenc}, cifar10-{vdm,nt,diffenc}, imagenet32-{vdm,diffenc}   the paper's, for GPUs

Those for two cores have posterior heads, a U-Net that halves the resolution, and, where they are DiffEnc, a residual
encoder. The paper's configurations: Nielsen et al. 2024, appendix, and the configuration files of the authors' code.
"""

from collections.abc import Mapping
from typing import Any

from diffenc_ct.training.config import (
    Config,
    DataConfig,
    EncoderConfig,
    ModelConfig,
    NetworkConfig,
    OptimizerConfig,
    TrainingConfig,
)
from diffenc_ct.training.settings import suggest

# The terms of small variance on an eighth of a batch.
_FRACTIONS = {"ends_fraction": 0.125, "rate_fraction": 0.125}


def _encoder(kind: str, diffenc: str, network: str, **options: Any) -> EncoderConfig:
    kinds = {"vdm": "identity", "nt": "non-trainable", "diffenc": diffenc}
    if kind != "diffenc":
        return EncoderConfig(kind=kinds[kind])
    return EncoderConfig(kind=kinds[kind], network=NetworkConfig(kind=network, options=options))


def _small(kind: str, data: DataConfig, network: dict[str, Any], **training: Any) -> Config:
    """For two cores: a U-Net with posterior heads; if it is DiffEnc, one of half the width for its residual encoder,
    and paired heads, which its probability flow needs."""
    half = network | {"width": network["width"] // 2}
    rate = training.pop("ema")
    return Config(
        data=data,
        encoder=_encoder(kind, "residual", "unet", **half),
        network=NetworkConfig(kind="unet", options=network),
        model=ModelConfig(heads="paired" if kind == "diffenc" else "single"),
        optimizer=OptimizerConfig(learning_rate=2e-3, decay="cosine", ema=(rate,), clip=1.0),
        training=TrainingConfig(**training),
    )


def _digits(kind: str) -> Config:
    return _small(
        kind,
        DataConfig(name="digits"),
        {"width": 32, "halvings": 1},
        ema=0.999,
        steps=1500,
        batch_size=64,
        **_FRACTIONS,
        log_every=25,
        eval_every=500,
        eval_examples=360,
        save_every=500,
    )


# Of images that take longer: evaluated and saved less often.
_LONGER: dict[str, Any] = {
    "ema": 0.998,
    "steps": 6000,
    "batch_size": 32,
    **_FRACTIONS,
    "log_every": 50,
    "eval_every": 2000,
    "eval_examples": 1000,
    "save_every": 500,
}


def _mnist_small(kind: str) -> Config:
    return _small(kind, DataConfig(name="mnist"), {"width": 32, "halvings": 2}, **_LONGER)


def _photographs(kind: str) -> Config:
    data = DataConfig(name="photographs", patch=16)
    return _small(kind, data, {"width": 48, "halvings": 2}, depths="importance", **_LONGER)


def _paper(data: str, kind: str) -> Config:
    layers, width, batch = {
        "mnist": (8, 128, 128),
        "cifar10": (32, 128, 128),
        "imagenet32": (32, 256, 256),
    }[data]
    encoder_layers, network = {
        "mnist": (2, "encoder-unet"),
        "cifar10": (4, "multi-resolution-unet"),
        "imagenet32": (8, "multi-resolution-unet"),
    }[data]
    return Config(
        data=DataConfig(name=data),
        encoder=_encoder(kind, "trainable", network, width=64, layers=encoder_layers, groups=16),
        network=NetworkConfig(kind="score-unet", options={"width": width, "layers": layers}),
        model=ModelConfig(prediction="v"),
        optimizer=OptimizerConfig(),
        training=TrainingConfig(
            steps=800_000 if data == "mnist" else 1_000_000,
            batch_size=batch,
            log_every=500,
            eval_every=2000,
            eval_examples=10_000,
            save_every=2000,
        ),
    )


PRESETS: Mapping[str, Config] = {
    "digits": _digits("diffenc"),
    "digits-vdm": _digits("vdm"),
    **{f"mnist-small-{kind}": _mnist_small(kind) for kind in ("vdm", "nt", "diffenc")},
    **{f"photographs-{kind}": _photographs(kind) for kind in ("vdm", "diffenc")},
    **{
        f"{data}-{kind}": _paper(data, kind)
        for data, kinds in {
            "mnist": ("vdm", "nt", "diffenc"),
            "cifar10": ("vdm", "nt", "diffenc"),
            "imagenet32": ("vdm", "diffenc"),
        }.items()
        for kind in kinds
    },
}


def preset(name: str) -> Config:
    """The configuration of that name; raises ValueError with the nearest name otherwise."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}{suggest(name, PRESETS)}")
    return PRESETS[name]
