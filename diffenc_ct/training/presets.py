"""Configurations by name.

    digits                      the demonstration: DiffEnc on 8x8 digits, five minutes on two cores
    mnist-small-{vdm,nt,diffenc}  small models of equal score network, hours on two cores
    mnist-{vdm,nt,diffenc}, cifar10-{vdm,nt,diffenc}, imagenet32-{vdm,diffenc}   the paper's, for GPUs

The paper's configurations: Nielsen et al. 2024, appendix, and the configuration files of the authors' code.
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


def _encoder(kind: str, network: str = "encoder-unet", **options: Any) -> EncoderConfig:
    kinds = {"vdm": "identity", "nt": "non-trainable", "diffenc": "trainable"}
    if kind != "diffenc":
        return EncoderConfig(kind=kinds[kind])
    return EncoderConfig(kind=kinds[kind], network=NetworkConfig(kind=network, options=options))


def _digits() -> Config:
    return Config(
        data=DataConfig(name="digits"),
        encoder=_encoder("diffenc", width=16, layers=1, groups=8, block_groups=8),
        network=NetworkConfig(
            kind="score-unet", options={"width": 32, "layers": 2, "dropout": 0.05}
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, decay="cosine", ema=(0.999,), clip=1.0),
        training=TrainingConfig(
            steps=1500,
            batch_size=64,
            log_every=25,
            eval_every=500,
            eval_examples=360,
            save_every=500,
        ),
    )


def _mnist_small(kind: str) -> Config:
    return Config(
        data=DataConfig(name="mnist"),
        encoder=_encoder(kind, width=32, layers=2, groups=16, dropout=0.0),
        network=NetworkConfig(
            kind="score-unet", options={"width": 32, "layers": 2, "dropout": 0.0}
        ),
        optimizer=OptimizerConfig(learning_rate=1e-3, decay="cosine", ema=(0.99,), clip=1.0),
        training=TrainingConfig(
            steps=1500,
            batch_size=64,
            accumulate=4,
            ends_fraction=0.125,
            rate_fraction=0.125,
            log_every=20,
            eval_every=500,
            eval_examples=512,
            save_every=250,
        ),
    )


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
        encoder=_encoder(kind, network, width=64, layers=encoder_layers, groups=16),
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
    "digits": _digits(),
    **{f"mnist-small-{kind}": _mnist_small(kind) for kind in ("vdm", "nt", "diffenc")},
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
