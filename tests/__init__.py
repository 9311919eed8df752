"""The tests, in groups of the names of the code's rooms.

Types and shapes of the package's signatures are checked while tests run, with integers where floats are asked for (PEP
484's tower): of each test the first calls, since in thousands of small evaluations the checks take most of the time.
"""

import functools
from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

CALLS = 300  # that are checked in a test

_checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
_left = [CALLS]


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The type checker that jaxtyping's import hook applies to every function of the package."""
    checked = _checked(function)

    @functools.wraps(checked)
    def counted(*arguments: Any, **options: Any) -> Any:
        _left[0] -= 1
        if _left[0] <= 0:
            jaxtyping.config.update("jaxtyping_disable", True)
        return checked(*arguments, **options)

    return counted


def check_anew() -> None:
    """From now on so many calls are checked."""
    _left[0] = CALLS
    jaxtyping.config.update("jaxtyping_disable", False)
