"""The configuration of a run: one tree of frozen dataclasses, from and to JSON or TOML.

Every field has a help text (shown by `diffenc train --help`) and is a flag on the command line. A file may leave
out what it does not change. Unknown keys are refused by name, and so is a file of another VERSION: a
configuration is never half understood.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from diffenc_ct.training.settings import leaves, read

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

VERSION = 1

Option = bool | int | float | str | None


def _field(default: Any, help: str, *, free: bool = False) -> Any:
    """A documented field. free: it may differ when a run is resumed, for it does not change what is computed."""
    metadata = {"help": help, "free": free}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class DataConfig:
    """Which examples."""

    name: str = _field("digits", "a named data set, a folder of images, or an .npy or .npz file")
    root: str | None = _field(
        None, "folder of downloaded data sets ($DIFFENC_DATA or ./data)", free=True
    )
    levels: int | None = _field(
        None, "levels of integer data, where the file does not show them all"
    )
    download: bool = _field(False, "fetch MNIST or CIFAR-10 if missing", free=True)


@dataclass(frozen=True)
class ScheduleConfig:
    """gamma(t)."""

    kind: str = _field(
        "linear", "linear, learned-linear, monotone, polynomial, or package.module:Class"
    )
    options: dict[str, Option] = _field(
        {}, "arguments of the schedule's constructor: name=value ..."
    )


@dataclass(frozen=True)
class NetworkConfig:
    """A network net(z, gamma)."""

    kind: str = _field(
        "auto",
        "score-unet, encoder-unet, multi-resolution-unet, vector, mlp, package.module:Class, or auto",
    )
    options: dict[str, Option] = _field(
        {}, "arguments of the network's constructor: name=value ..."
    )


@dataclass(frozen=True)
class EncoderConfig:
    """x_t."""

    kind: str = _field(
        "trainable", "identity (VDM), non-trainable, trainable, or package.module:Class"
    )
    options: dict[str, Option] = _field(
        {}, "arguments of the encoder's constructor: name=value ..."
    )
    network: NetworkConfig = field(default_factory=NetworkConfig)


@dataclass(frozen=True)
class ModelConfig:
    """How the network's output is read."""

    prediction: Literal["v", "x", "eps"] = _field("v", "what the network predicts")
    heads: Literal["single", "paired"] = _field(
        "single",
        "single: r_hat follows from x_hat; paired: two outputs, the first also regressed on E[x_t | z_t]",
    )


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and its moving averages; the defaults are the paper's."""

    learning_rate: float = _field(2e-4, "AdamW's learning rate after warm-up")
    beta1: float = _field(0.9, "AdamW's first moment rate")
    beta2: float = _field(0.99, "AdamW's second moment rate")
    epsilon: float = _field(1e-8, "AdamW's epsilon")
    weight_decay: float = _field(0.01, "decoupled decay of weights (biases have none)")
    warmup: int = _field(100, "steps of linear warm-up")
    decay: Literal["constant", "cosine"] = _field(
        "constant", "learning rate after warm-up: constant, or cosine to 0"
    )
    clip: float | None = _field(
        None, "largest norm of the gradient of the loss in bits per dimension"
    )
    ema: tuple[float, ...] = _field(
        (0.9999,),
        "rates of the moving averages of the weights, of half-lives ln 2/(1 - rate) steps; the first is evaluated. "
        "Early on min(rate, (1+n)/(10+n))",
    )


@dataclass(frozen=True)
class TrainingConfig:
    """The loop."""

    steps: int = _field(10_000, "optimiser steps in all", free=True)
    batch_size: int = _field(128, "examples a step")
    accumulate: int = _field(1, "parts into which a batch is split to save memory")
    seed: int = _field(1, "seed of weights, data order, depths, noise and dropout")
    noise_level: float | Literal["tight", "optimal"] = _field(
        1.0,
        "eta of the ELBO: a number, tight (eta^2 = 1 + 2 sigma^2), or optimal (eta* from running estimates)",
    )
    ends_fraction: float = _field(
        1.0,
        "part of each batch on which reconstruction and latent loss are estimated: below 1 saves encoder evaluations",
    )
    rate_fraction: float = _field(
        1.0,
        "part of each batch on which the derivative of the encoder's network is computed: below 1 saves time",
    )
    precision: Literal["float32", "bf16"] = _field("float32", "arithmetic inside the networks")
    compile: bool = _field(
        False, "compile the score network with torch.compile (its dropout draws other masks)"
    )
    channels_last: bool = _field(False, "memory format of images and convolutions")
    on_nan: Literal["stop", "skip"] = _field(
        "stop", "at a loss or gradient that is not finite: stop, or skip the step"
    )
    log_every: int = _field(50, "steps between rows of metrics.csv", free=True)
    eval_every: int = _field(1000, "steps between evaluations on test examples", free=True)
    eval_examples: int = _field(1000, "test examples of an evaluation during training", free=True)
    save_every: int = _field(1000, "steps between checkpoints", free=True)
    keep: int = _field(2, "newest checkpoints kept, beside the best", free=True)
    tensorboard: bool = _field(
        False,
        "also write scalars, samples, encodings and the loss per depth to RUN/tensorboard (needs tensorboard)",
        free=True,
    )


@dataclass(frozen=True)
class Config:
    """Everything that determines a run."""

    data: DataConfig = field(default_factory=DataConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        positive = (
            "steps",
            "batch_size",
            "accumulate",
            "log_every",
            "eval_every",
            "eval_examples",
            "save_every",
        )
        for name in (*positive, "keep"):
            _require(
                getattr(self.training, name) >= 1,
                f"training.{name}",
                getattr(self.training, name),
                "at least 1",
            )
        split = self.training.batch_size % self.training.accumulate == 0
        _require(
            split,
            "training.accumulate",
            self.training.accumulate,
            "a divisor of training.batch_size",
        )
        _require(
            self.optimizer.learning_rate > 0,
            "optimizer.learning_rate",
            self.optimizer.learning_rate,
            "positive",
        )
        _require(
            self.optimizer.warmup >= 0, "optimizer.warmup", self.optimizer.warmup, "at least 0"
        )
        clip = self.optimizer.clip
        _require(
            clip is None or clip > 0, "optimizer.clip", clip, "positive, or none for no clipping"
        )
        rates = self.optimizer.ema
        _require(
            bool(rates) and all(0 <= rate < 1 for rate in rates),
            "optimizer.ema",
            rates,
            "rates in [0, 1)",
        )
        _require(len(set(rates)) == len(rates), "optimizer.ema", rates, "rates that differ")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with the version."""
        return {"version": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "configuration") -> "Config":
        """The inverse of to_dict; absent keys take their defaults. Raises ValueError naming the key."""
        values = dict(values)
        version = values.pop("version", VERSION)
        if version != VERSION:
            raise ValueError(
                f"{where} has version {version!r}, this program reads version {VERSION}; "
                "use the diffenc_ct release that wrote it, or write the configuration anew"
            )
        return read(cls, values, where)

    def to_json(self) -> str:
        """The text of a configuration file."""
        return json.dumps(self.to_dict(), indent=1) + "\n"


def load_config(path: str | Path) -> Config:
    """Read a .json or .toml file; raises ValueError or FileNotFoundError naming cause and remedy."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such configuration file; give a .json or .toml file")
    text = path.read_text(encoding="utf-8")
    try:
        values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} cannot be parsed ({error}); correct it") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no table of keys; see `diffenc train --help` for the keys")
    return Config.from_dict(values, where=str(path))


def replace(config: Config, settings: Mapping[str, Any]) -> Config:
    """The configuration with settings changed, keyed by dotted names: {"training.steps": 100}."""
    values = config.to_dict()
    for name, value in settings.items():
        *sections, last = name.split(".")
        table = values
        for section in sections:
            table = table.setdefault(section, {})
        table[last] = value
    return Config.from_dict(values, where="settings")


def differences(old: Config, new: Config) -> list[str]:
    """What keeps a run of `old` from going on as `new`: "name: old -> new" for settings that matter."""

    def value(config: Config, name: str) -> Any:
        item: Any = config
        for part in name.split("."):
            item = getattr(item, part)
        return item

    free = {name for name, (item, _) in leaves(Config).items() if item.metadata.get("free")}
    if new.optimizer.decay != "constant":
        free.discard("training.steps")  # a decaying rate depends on where it ends
    return [
        f"{name}: {value(old, name)!r} -> {value(new, name)!r}"
        for name in leaves(Config)
        if name not in free and value(old, name) != value(new, name)
    ]


def _require(holds: bool, name: str, value: Any, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name} = {value!r}; it must be {allowed}")
