"""Tables of settings: their fields are documented, and checked by pydantic; what does not fit is said in one line."""

import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """A table of settings: frozen, no keys but its own, values of just the types that are declared, numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def setting(default: Any, text: str, *, free: bool = False, **limits: Any) -> Any:
    """A documented field of a Section.

    Args:
        default: its value where none is given.
        text: what `diffenc train --help` says of it.
        free: it may change when a run is resumed.
        limits: pydantic's, such as ge=2 for at least 2.
    """
    return Field(default, description=text, json_schema_extra={"free": free}, **limits)


def is_free(item: FieldInfo) -> bool:
    """Whether a setting may change when a run is resumed."""
    return item.json_schema_extra == {"free": True}


def leaves(kind: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Every setting of a tree of sections, by its dotted name."""
    found: dict[str, FieldInfo] = {}
    for name, item in kind.model_fields.items():
        if isinstance(item.annotation, type) and issubclass(item.annotation, BaseModel):
            found |= leaves(item.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = item
    return found


def of_float32(value: float) -> float:
    """A positive number for which float32 has neither 0 nor infinity.

    Args:
        value: to be checked.

    Raises:
        ValueError: for one that is not.
    """
    if not 1e-38 < value < 1e38:
        raise ValueError("input should be greater than 1e-38 and less than 1e38")
    return value


def suggest(word: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' or the list of what is known."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"


def in_words(error: ValidationError, values: Any, settings: Mapping[str, FieldInfo]) -> str:
    """The first thing that is wrong with values, in one line: its name, what was found, and what is allowed."""
    first = error.errors()[0]
    if first["type"] == "value_error" and not first["loc"]:  # one of our own, which says it all
        return str(first["ctx"]["error"])
    path: list[str] = []
    for part in first["loc"]:  # behind the place of the value stand the alternatives of its type
        if values is first["input"]:
            break
        path.append(str(part))
        values = values[part]
    name, place = ".".join(path), first["loc"][: len(path)]
    if first["type"] == "extra_forbidden":
        beside = [known for known in settings if known.startswith(name[: -len(path[-1])])]
        known = dict.fromkeys(other.split(".")[len(path) - 1] for other in beside)
        return f"unknown key {name!r}{suggest(path[-1], known)}"
    said = [
        item["msg"].removeprefix("Value error, ")
        for item in error.errors()
        if item["loc"][: len(path)] == place
    ]
    if name in settings and type(None) in typing.get_args(settings[name].annotation):
        said.append("none")
    text = " or ".join([said[0], *(more.removeprefix("Input should be ") for more in said[1:])])
    subject = f"{name} = " if name else ""
    return f"{subject}{first['input']!r}; {text[0].lower()}{text[1:]}"
