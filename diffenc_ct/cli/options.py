"""Arguments that commands share, and how words on the command line become values."""

import argparse
import sys
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from diffenc_ct.calibration import Calibration
from diffenc_ct.data import Dataset, load_dataset
from diffenc_ct.distributed import TIMEOUT, launched_rank, own_device
from diffenc_ct.training.config import Config, DataConfig
from diffenc_ct.training.runs import OpenedRun
from diffenc_ct.training.settings import leaves

# Settings with a flag of their own name and section left out; the others are --section-name.
SHORT = {
    "data.name": "--data",
    "data.root": "--data-root",
    "data.levels": "--levels",
    "data.download": "--download",
    "schedule.kind": "--schedule",
    "encoder.kind": "--encoder",
    "encoder.network.kind": "--encoder-network",
    "network.kind": "--network",
    "optimizer.learning_rate": "--learning-rate",
}


def flag_of(name: str) -> str:
    """The flag of a setting: --data for data.name, --steps for training.steps, --schedule-options, ..."""
    if name in SHORT:
        return SHORT[name]
    section, _, rest = name.partition(".")
    kept = rest if section in ("training", "optimizer", "model") else name
    return "--" + kept.replace(".", "-").replace("_", "-")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for every setting of the configuration, grouped by section."""
    groups: dict[str, Any] = {}
    for name, (item, hint) in leaves(Config).items():
        section = name.split(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(f"{section} settings")
        default = item.default if item.default is not item.default_factory else None
        text = item.metadata["help"]
        shown = (
            default
            if isinstance(default, str | int | float | tuple) and default is not True
            else None
        )
        if shown is not None and shown is not False:
            shown = " ".join(f"{v:g}" for v in shown) if isinstance(shown, tuple) else shown
            text += f" (default {shown})"
        kind = typing.get_origin(hint)
        extra: dict[str, Any] = {
            "type": _converter(hint),
            "metavar": name.rsplit(".", 1)[-1].upper(),
        }
        if hint is bool:
            extra = {"action": argparse.BooleanOptionalAction}
        elif kind is typing.Literal:
            extra = {"choices": typing.get_args(hint)}
        elif kind is tuple:
            extra |= {"nargs": "+"}
        elif kind is dict:
            extra = {"nargs": "*", "metavar": "NAME=VALUE", "type": _pair}
        groups[section].add_argument(
            flag_of(name),
            dest=f"set:{name}",
            default=argparse.SUPPRESS,
            help=text.replace("%", "%%"),
            **extra,
        )


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings that stand on the command line, by dotted name."""
    found = {}
    for key, value in vars(arguments).items():
        if key.startswith("set:"):
            pairs = isinstance(value, list) and all(isinstance(item, tuple) for item in value)
            found[key[4:]] = dict(value) if pairs else value
    return found


def _converter(hint: Any) -> Callable[[str], Any]:
    choices = typing.get_args(hint)
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    number = (
        int
        if hint is int or int in choices
        else float
        if hint is float or float in choices
        else str
    )

    def convert(text: str) -> Any:
        if union and type(None) in choices and text.lower() == "none":
            return None
        try:
            return number(text)
        except ValueError:
            if any(typing.get_origin(choice) is typing.Literal for choice in choices):
                return text  # a word like "tight", which the configuration checks
            raise

    convert.__name__ = {int: "integer", float: "number", str: "text"}[number]
    return convert


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    return name, _scalar(value)


def _scalar(text: str) -> bool | int | float | str | None:
    words: dict[str, bool | None] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device and --threads."""
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, or auto: a GPU where there is one"
    )
    parser.add_argument(
        "--threads", type=int, default=None, help="CPU threads (default: all cores)"
    )


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """--process-timeout."""
    parser.add_argument(
        "--process-timeout",
        type=float,
        default=TIMEOUT,
        metavar="SECONDS",
        help=f"under torchrun: how long to wait for another process (default {TIMEOUT:g})",
    )


def use_device(arguments: argparse.Namespace) -> torch.device:
    """The torch device of --device; raises ValueError where it is not there."""
    if arguments.threads is not None:
        if arguments.threads < 1:
            raise ValueError(f"--threads {arguments.threads}; give at least 1")
        torch.set_num_threads(arguments.threads)
    name = arguments.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = own_device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used ({reason}); use --device cpu") from None
    return device


def load_data(config: DataConfig, *, root: str | None = None) -> Dataset:
    """The data set of a configuration, from another root where one is given."""
    return load_dataset(
        config.name, root=root or config.root, levels=config.levels, download=config.download
    )


def load_calibration(file: str, opened: OpenedRun, run: str) -> Calibration:
    """What `diffenc calibrate` wrote to a file, by default to calibration.json of the run's folder.

    Raises FileNotFoundError that names the command; ValueError for a calibration of data of another shape.
    """
    path = Path(file or opened.folder / "calibration.json")
    if not path.exists():
        raise FileNotFoundError(f"no calibration at {path}; make one with: diffenc calibrate {run}")
    found = Calibration.load(path)
    each = found.ratio_per_dimension
    if each is not None and each.shape[1:] != opened.shape:
        raise ValueError(
            f"{path} has ratios of shape {tuple(each.shape[1:])}, the run's data {opened.shape}: it is another model's"
        )
    return found


def progress(description: str, unit: str) -> Callable[[Iterable[Any]], Iterable[Any]]:
    """A progress bar on standard error for a loop, on the first process."""
    return lambda items: tqdm(
        items,
        desc=description,
        unit=unit,
        dynamic_ncols=True,
        file=sys.stderr,
        leave=False,
        disable=None if launched_rank() == 0 else True,
    )


def output_path(given: str | None, run: Path, name: str) -> Path:
    """Where a result goes: --out, or NAME in the run's folder."""
    path = Path(given) if given else run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
