"""`.. public-names:: MODULE ...`: what modules promise, each name from its docstring, with an anchor for each spelling.

A name that the root exports is shown as the root's (`diffenc_ct.elbo`), and found under its module's, too.
"""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

from docstrings import documented, to_rst
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import diffenc_ct as dc

# Modules without `__all__`, whose public names are those that they define.
ROOMS = (
    "adapters", "adapters.jax", "calibration", "coding", "data", "distributed", "dynamics", "elbo", "encoders",
    "likelihood", "likelihood.classification", "model", "networks", "process", "report.extras", "report.maps",
    "sampling", "schedules", "training.config", "training.heads", "training.loop", "training.presets",
    "training.runs", "verification", "worlds",
)  # fmt: skip


def module(room: str) -> ModuleType:
    """A room, and not a function of the same name in the root."""
    return importlib.import_module(f"diffenc_ct.{room}")


def names_of(room: str) -> list[str]:
    """The public names of a room, in the order of the file that defines each."""
    found = module(room)
    if hasattr(found, "__all__"):
        return list(found.__all__)
    return [
        name for name, item in vars(found).items() if not name.startswith("_") and _own(item, found)
    ]


def _own(item: Any, home: ModuleType) -> bool:
    callable_ = inspect.isclass(item) or inspect.isfunction(item)
    return callable_ and item.__module__ == home.__name__


def shown_as(room: str, name: str) -> str:
    """The spelling under which a room's name is documented."""
    return (
        f"diffenc_ct.{name}"
        if name in dc.__all__ and _same(room, name)
        else f"diffenc_ct.{room}.{name}"
    )


def _same(room: str, name: str) -> bool:
    return getattr(dc, name) is getattr(module(room), name)


def anchors() -> dict[str, str]:
    """Every public name, by all its spellings -> the spelling that has the entry."""
    found = {}
    for room in ROOMS:
        for name in names_of(room):
            found[f"diffenc_ct.{room}.{name}"] = shown_as(room, name)
            if name in dc.__all__ and _same(room, name):
                found[f"diffenc_ct.{name}"] = f"diffenc_ct.{name}"
    return found


class PublicNames(SphinxDirective):
    """The chapter of each room, and its names."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        made: list[nodes.Node] = []
        seen: set[str] = set()
        for room in self.arguments[0].split():
            home = module(room)
            chapter = to_rst(inspect.cleandoc(home.__doc__ or ""))
            spellings = [f"module-diffenc_ct.{room}"]
            if "." in room:  # that of a room itself may be a function of the root
                spellings.append(f"diffenc_ct.{room}")
            made.append(nodes.target("", "", ids=spellings))
            made.append(nodes.rubric("", "", nodes.literal("", f"diffenc_ct.{room}")))
            made += self._parsed(chapter)
            for name in names_of(room):
                spelt = shown_as(room, name)
                if spelt not in seen and not inspect.ismodule(getattr(home, name)):
                    seen.add(spelt)
                    if spelt != f"diffenc_ct.{room}.{name}":
                        made.append(nodes.target("", "", ids=[f"diffenc_ct.{room}.{name}"]))
                    made += self._parsed(_entry(spelt, getattr(home, name)))
        return made

    def _parsed(self, lines: list[str]) -> list[nodes.Node]:
        holder = nodes.Element()
        self.state.nested_parse(StringList(lines, self.env.docname), 0, holder)
        return holder.children


def _entry(spelt: str, item: object) -> list[str]:
    path, _, name = spelt.rpartition(".")
    if inspect.isclass(item):
        options = ["   :members:", "   :special-members: __call__"]
        if any(documented(base) for base in item.__bases__):
            options.append("   :show-inheritance:")
        return [f".. autoclass:: {path}::{name}", *options, ""]
    if inspect.isroutine(item):
        return [f".. autofunction:: {path}::{name}", ""]
    return [f".. autodata:: {path}::{name}", "   :no-value:", ""]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
