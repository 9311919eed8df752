"""Every formula of DiffEnc in continuous time: stated, proved by sympy, and tied to the code that computes it.

A section is a module with ``THEOREMS``; ``python -m theory`` proves them all and runs every control. Nothing here
imports the code: the tests compare the two. Installed, the package is ``diffenc_ct.theory``, so everything in it is
imported by relative names.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ._core import Formula, Theorem, Verdict, check, nonzero, zero

__all__ = [
    "SECTIONS",
    "Formula",
    "Theorem",
    "Verdict",
    "check",
    "nonzero",
    "sections",
    "theorem",
    "theorems",
    "zero",
]

SECTIONS = (
    "schedules",
    "encoders",
    "process",
    "model",
    "dynamics",
    "elbo",
    "calibration",
    "likelihood",
    "sampling",
    "worlds",
    "adapters",
)


def sections() -> dict[str, ModuleType]:
    """Section name -> module, in reading order."""
    return {name: import_module(f".{name}", __name__) for name in SECTIONS}


def theorems() -> tuple[Theorem, ...]:
    """Every theorem, section by section."""
    return tuple(each for module in sections().values() for each in module.THEOREMS)


def theorem(name: str) -> Theorem:
    """The theorem of that name.

    Raises:
        ValueError: no theorem has that name.
    """
    for each in theorems():
        if each.name == name:
            return each
    known = ", ".join(each.name for each in theorems())
    raise ValueError(f"name: got {name!r}; the theorems are {known}")
