"""Trees of dataclasses from and to plain values: names and types are checked all the way down."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

T = TypeVar("T")


def leaves(kind: type, prefix: str = "") -> dict[str, tuple[dataclasses.Field, Any]]:
    """Every setting by its dotted name, with its dataclass field and type."""
    found: dict[str, tuple[dataclasses.Field, Any]] = {}
    hints = typing.get_type_hints(kind)
    for item in dataclasses.fields(kind):
        name, hint = prefix + item.name, hints[item.name]
        if dataclasses.is_dataclass(hint):
            found.update(leaves(typing.cast(type, hint), name + "."))
        else:
            found[name] = (item, hint)
    return found


def suggest(word: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' or the list of what is known."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"


def read(kind: type[T], values: Any, where: str) -> T:
    """Build a dataclass from a mapping, checking names and types all the way down."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected a table of keys, found {values!r}")
    hints = typing.get_type_hints(kind)
    for name in values:
        if name not in hints:
            raise ValueError(f"{where}: unknown key {name!r}{suggest(str(name), hints)}")
    return kind(
        **{name: convert(hints[name], value, f"{where}: {name}") for name, value in values.items()}
    )


def convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return read(typing.cast(type, hint), value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        for choice in arguments:
            try:
                return convert(choice, value, where)
            except ValueError:
                continue
    elif origin is Literal and value in arguments:
        return value
    elif origin is tuple and isinstance(value, list | tuple):
        return tuple(convert(arguments[0], item, where) for item in value)
    elif origin is dict and isinstance(value, Mapping):
        return {
            str(name): convert(arguments[1], item, f"{where}.{name}")
            for name, item in value.items()
        }
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise ValueError(f"{where} = {value!r}; expected {describe(hint)}")


def describe(hint: Any) -> str:
    """A type in words, for messages."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " or ".join(repr(item) for item in arguments)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(describe(item) for item in arguments)
    if origin is tuple:
        return f"a list of {describe(arguments[0])}"
    if hint is type(None):
        return "none"
    names = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    return names.get(hint, "a table")
