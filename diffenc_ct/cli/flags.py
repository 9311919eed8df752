"""A flag for every setting of the configuration, made from its class: name, type, default and help."""

import argparse
import typing
from collections.abc import Callable
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from diffenc_ct.training.config import Config
from diffenc_ct.training.settings import in_words, leaves

# Settings with a flag of their own name and section left out; the others are --section-name.
SHORT = {
    "data.name": "--data",
    "data.root": "--data-root",
    "data.levels": "--levels",
    "data.download": "--download",
    "data.patch": "--patch",
    "data.flip": "--flip",
    "data.standardise": "--standardise",
    "data.labels": "--labels",
    "schedule.kind": "--schedule",
    "encoder.kind": "--encoder",
    "encoder.network.kind": "--encoder-network",
    "network.kind": "--network",
    "optimizer.learning_rate": "--learning-rate",
}


def flag_of(name: str) -> str:
    """The flag of a setting: --data for data.name, --steps for training.steps, --schedule-options, ..."""
    section, _, rest = name.partition(".")
    kept = rest if section in ("training", "optimizer", "model") else name
    return SHORT.get(name, "--" + kept.replace(".", "-").replace("_", "-"))


def add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for every setting, grouped by section."""
    groups: dict[str, Any] = {}
    for name, item in leaves(Config).items():
        section, *_, last = name.split(".")
        if section not in groups:
            groups[section] = parser.add_argument_group(f"{section} settings")
        kind = typing.get_origin(item.annotation)
        extra: dict[str, Any] = {"type": _converter(item), "metavar": last.upper()}
        if item.annotation is bool:
            extra = {"action": argparse.BooleanOptionalAction}
        elif kind is typing.Literal:
            extra = {"choices": typing.get_args(item.annotation)}
        elif kind is tuple:
            extra["nargs"] = "+"
        elif kind is dict:
            extra = {"nargs": "*", "metavar": "NAME=VALUE", "type": _pair}
        groups[section].add_argument(
            flag_of(name), dest=f"set:{name}", default=argparse.SUPPRESS, help=_help(item), **extra
        )


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings that stand on the command line, by dotted name."""
    given = {key[4:]: value for key, value in vars(arguments).items() if key.startswith("set:")}
    options = {name for name in given if name.endswith("options")}
    return {name: dict(value) if name in options else value for name, value in given.items()}


def _help(item: FieldInfo) -> str:
    shown = item.get_default(call_default_factory=True)
    if isinstance(shown, tuple):
        shown = " ".join(f"{v:g}" for v in shown)
    default = f" (default {shown})" if shown not in (None, False, {}) else ""
    return f"{item.description}{default}".replace("%", "%%")


def _converter(item: FieldInfo) -> Callable[[str], Any]:
    """From a word to a value of the setting's type: "7" is an integer here, and "none" leaves an optional one out."""
    choices = typing.get_args(item.annotation)
    many = typing.get_origin(item.annotation) is tuple
    adapter = TypeAdapter[Any](typing.cast(Any, choices[0] if many else item.annotation))
    optional = type(None) in choices

    def convert(text: str) -> Any:
        if optional and text.lower() == "none":
            return None
        try:
            return adapter.validate_python(text)
        except ValidationError as error:
            raise argparse.ArgumentTypeError(in_words(error, text, {})) from None

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
