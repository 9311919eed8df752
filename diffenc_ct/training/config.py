"""The configuration of a run: one tree of tables of settings, from and to JSON or TOML.

Every field has a help text (shown by `diffenc train --help`) and is a flag on the command line. A file may leave
out what it does not change. Unknown keys are refused by name, and so is a file of another VERSION: a
configuration is never half understood.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from diffenc_ct.report.extras import require
from diffenc_ct.training.settings import Section, in_words, leaves, of_float32, setting
from diffenc_ct.training.versions import from_version_1

VERSION = 2

Option = bool | int | float | str | None
Rate = Annotated[float, Field(ge=0, lt=1)]
Part = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Single = Annotated[float, AfterValidator(of_float32)]
Eta = Annotated[float, Field(ge=1e-6, le=1e6)]


class DataConfig(Section):
    """Which examples."""

    name: str = setting("digits", "a named data set, a folder of images, or an .npy or .npz file")
    root: str | None = setting(
        None, "folder of downloaded data sets ($DIFFENC_DATA or ./data)", free=True
    )
    levels: int | None = setting(
        None, "levels of integer data, where the file does not show them all"
    )
    download: bool = setting(False, "fetch MNIST or CIFAR-10 if missing", free=True)
    patch: PositiveInt | None = setting(
        None, "side of crops of a folder's images of any size: random ones, in tests a grid"
    )
    flip: bool = setting(
        False, "flip half of the training images: the model is one of flipped images, too"
    )
    standardise: bool = setting(False, "give the model reals less their mean, over their deviation")
    labels: bool = setting(False, "tell the network each example's class: a conditional model")


class ScheduleConfig(Section):
    """gamma(t)."""

    kind: str = setting(
        "linear", "linear, learned-linear, monotone, polynomial, or package.module:Class"
    )
    options: dict[str, Option] = setting(
        {}, "arguments of the schedule's constructor: name=value ..."
    )


class NetworkConfig(Section):
    """A network net(z, gamma)."""

    kind: str = setting(
        "auto",
        "unet, score-unet, encoder-unet, multi-resolution-unet, vector, mlp, package.module:Class, or auto: unet for "
        "images, mlp for vectors (authors: score-unet or encoder-unet for images)",
    )
    options: dict[str, Option] = setting(
        {}, "arguments of the network's constructor: name=value ..."
    )


class EncoderConfig(Section):
    """x_t."""

    kind: str = setting(
        "trainable", "identity (VDM), non-trainable, trainable, residual, or package.module:Class"
    )
    options: dict[str, Option] = setting(
        {}, "arguments of the encoder's constructor: name=value ..."
    )
    network: NetworkConfig = NetworkConfig()


class ModelConfig(Section):
    """How the network's output is read."""

    prediction: Literal["posterior", "v", "x", "eps"] = setting(
        "posterior",
        "what the network predicts: a distribution over values that Bayes' rule sharpens (over levels; a mixture of "
        "Gaussians for reals and above 1,024 levels), or v, x or eps",
    )
    heads: Literal["single", "paired"] = setting(
        "single",
        "single: r_hat follows from x_hat; paired: two outputs, the first also regressed on E[x_t | z_t]",
    )
    head_options: dict[str, Option] = setting(
        {}, "arguments of posterior heads: functions=24 basis=cosines free=true components=6 ..."
    )
    prior: Literal["auto", "value", "channel", "none"] = setting(
        "auto",
        "what posterior heads begin with: the log histogram of each value, of each channel, none, or auto: of each "
        "channel for patches, else of each value",
    )


class OptimizerConfig(Section):
    """AdamW and its moving averages; the defaults are the paper's."""

    learning_rate: Single = setting(2e-4, "AdamW's learning rate after warm-up", free=True)
    beta1: Rate = setting(0.9, "AdamW's first moment rate")
    beta2: Rate = setting(0.99, "AdamW's second moment rate")
    epsilon: Single = setting(1e-8, "AdamW's epsilon")
    weight_decay: NonNegativeFloat = setting(0.01, "decoupled decay of weights (biases have none)")
    warmup: NonNegativeInt = setting(100, "steps of linear warm-up")
    decay: Literal["constant", "cosine"] = setting(
        "constant", "learning rate after warm-up: constant, or cosine to 0"
    )
    clip: PositiveFloat | None = setting(
        None, "largest norm of the gradient of the loss in bits per dimension", free=True
    )
    ema: tuple[Rate, ...] = setting(
        (0.9999,),
        "rates of the moving averages of the weights, of half-lives ln 2/(1 - rate) steps; the first is evaluated. "
        "Early on min(rate, (1+n)/(10+n))",
        min_length=1,
        strict=False,  # a list is as good
    )


class TrainingConfig(Section):
    """The loop."""

    init_from: str | None = setting(
        None, "begin with the averaged weights of a run or pretrained model, where they fit"
    )
    steps: PositiveInt = setting(10_000, "optimiser steps in all", free=True)
    batch_size: PositiveInt = setting(128, "examples a step")
    accumulate: PositiveInt = setting(
        1, "parts into which a batch is split to save memory", free=True
    )
    seed: Seed = setting(1, "seed of weights, data order, depths, noise and dropout")
    noise_level: Eta | Literal["tight", "optimal"] = setting(
        1.0,
        "eta of the ELBO: a number, tight (eta^2 = 1 + 2 sigma^2), or optimal (eta* from running estimates)",
    )
    condition_dropout: Rate = setting(0.1, "with --labels: the share that is told no class")
    depths: Literal["low-discrepancy", "importance"] = setting(
        "low-discrepancy",
        "how t is drawn: evenly, or denser where the loss was larger so far (its mean does not change)",
    )
    ends_fraction: Part = setting(
        1.0,
        "part of each batch on which reconstruction and latent loss are estimated: below 1 saves encoder evaluations",
    )
    rate_fraction: Part = setting(
        1.0,
        "part of each batch on which the derivative of the encoder's network is computed: below 1 saves time",
    )
    precision: Literal["float32", "bf16"] = setting("float32", "arithmetic inside the networks")
    compile: bool = setting(False, "compile the score network (its dropout draws other masks)")
    channels_last: bool = setting(False, "memory format of images and convolutions")
    cuda_graph: bool = setting(False, "on a GPU: replay a step's recorded launches", free=True)
    check_parts: bool = setting(
        True, "try a schedule, encoder or network of your own before it is believed"
    )
    on_nan: Literal["stop", "skip"] = setting(
        "stop", "at a loss or gradient that is not finite: stop, or skip the step", free=True
    )
    log_every: PositiveInt = setting(50, "steps between rows of metrics.csv", free=True)
    eval_every: PositiveInt = setting(1000, "steps between evaluations on test examples", free=True)
    eval_examples: PositiveInt = setting(
        1000, "test examples of an evaluation during training", free=True
    )
    save_every: PositiveInt = setting(1000, "steps between checkpoints", free=True)
    keep: PositiveInt = setting(2, "newest checkpoints kept, beside the best", free=True)
    tensorboard: bool = setting(
        False,
        "also write scalars, samples, encodings and the loss per depth to RUN/tensorboard (needs tensorboard)",
        free=True,
    )


class Config(Section):
    """Everything that determines a run."""

    data: DataConfig = DataConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    encoder: EncoderConfig = EncoderConfig()
    network: NetworkConfig = NetworkConfig()
    model: ModelConfig = ModelConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _fits(self) -> "Config":
        batch, parts, rates = self.training.batch_size, self.training.accumulate, self.optimizer.ema
        if batch % parts:
            raise ValueError(
                f"training.accumulate = {parts}; it must divide training.batch_size = {batch}"
            )
        if len(set(rates)) < len(rates):
            raise ValueError(f"optimizer.ema = {rates}; the rates must differ")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the version."""
        return {"version": VERSION, **self.model_dump()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "configuration") -> "Config":
        """The inverse of to_dict; absent keys take their defaults.

        Args:
            values: tables of plain values, as in a configuration file.
            where: what to call them in an error.
        Raises:
            ValueError: for an unknown key, a value that is not allowed, or another version; it names them.
        Example:
            >>> Config.from_dict({"training": {"steps": 7}}).training.steps
            7
            >>> Config.from_dict({"training": {"stepps": 7}})
            Traceback (most recent call last):
            ValueError: configuration: unknown key 'training.stepps'; did you mean 'steps'?
        """
        values = dict(values)
        version = values.pop("version", VERSION)
        if version == 1:
            values, version = from_version_1(values), VERSION
        if version != VERSION:
            raise ValueError(
                f"{where} has version {version!r}, this program reads version {VERSION}; "
                "use the diffenc_ct release that wrote it, or write the configuration anew"
            )
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ValueError(f"{where}: {in_words(error, values, leaves(cls))}") from None

    def to_json(self) -> str:
        """The text of a configuration file."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"


def load_config(path: str | Path) -> Config:
    """Read a .json or .toml file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read as a configuration; the message names the file, the cause and a remedy.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration file; give a .json or .toml file")
    text = path.read_text(encoding="utf-8")
    try:
        values = _toml().loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} cannot be parsed ({error}); correct it") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no table of keys; see `diffenc train --help` for the keys")
    return Config.from_dict(values, where=str(path))


def replace(config: Config, settings: Mapping[str, Any]) -> Config:
    """The configuration with some settings changed.

    Args:
        config: stays as it is.
        settings: new values by dotted names.
    Raises:
        ValueError: as Config.from_dict.
    Example:
        >>> replace(Config(), {"training.steps": 100}).training.steps
        100
    """
    values = config.to_dict()
    for name, value in settings.items():
        *sections, last = name.split(".")
        table = values
        for section in sections:
            table = table.setdefault(section, {})
        table[last] = value
    return Config.from_dict(values, where="settings")


def _toml() -> ModuleType:
    return require("tomllib" if sys.version_info >= (3, 11) else "tomli", "cli")
