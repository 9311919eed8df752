"""Parts that are not this library's, by import path."""

import importlib
from collections.abc import Callable
from typing import Any, cast


def import_part(where: str, path: str) -> Callable[..., Any]:
    """A class or function by "package.module:Class"; ValueError names the setting `where` and what is wrong."""
    module, _, name = path.partition(":")
    try:
        part = getattr(importlib.import_module(module), name)
        if callable(part):
            return cast(Callable[..., Any], part)
        raise AttributeError(f"{name} is no class")
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{where} {path!r} cannot be imported ({error}); write package.module:Class of an importable module"
        ) from error
