"""{result}`encoders-digits-plain.json:vdm.one.0:.4f`: a number of benchmarks/results, read when the site is built.

A page that names a number cannot keep an old one: the file, the path and the format stand in the text, the number does
not. `a, b` after the colon are a mean with its standard error, shown as "1.7414 ± 0.0031".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst.states import Inliner
from sphinx.application import Sphinx

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


@cache
def _read(file: str, changed: int) -> Any:
    return json.loads((FOLDER / file).read_text(encoding="utf-8"))


def value(reference: str) -> str:
    """The text of `FILE:path.to.value` or `FILE:path.to.value:FORMAT`, the format one of Python's (.4f unless given).

    A value that is a pair is a mean with its standard error, which is null where there is one seed.

    Raises:
        ValueError: no such file, path or number; the message names what there is.
    Example:
        >>> value("encoders-digits-plain.json:seeds:d")
        '5'
    """
    file, _, rest = reference.partition(":")
    path, _, form = rest.partition(":")
    if not (FOLDER / file).is_file():
        there = ", ".join(sorted(p.name for p in FOLDER.glob("*.json")))
        raise ValueError(f"{reference!r}: benchmarks/results has no {file!r}; it has {there}")
    found = _read(file, (FOLDER / file).stat().st_mtime_ns)
    for part in path.split("."):
        try:
            found = found[int(part)] if isinstance(found, list) else found[part]
        except (KeyError, IndexError, ValueError, TypeError):
            there = ", ".join(found) if isinstance(found, dict) else str(found)
            raise ValueError(
                f"{reference!r}: {file} has no {part!r} there; it has {there}"
            ) from None
    pair = isinstance(found, list) and len(found) == 2
    numbers = [each for each in found if each is not None] if pair else [found]
    if not all(isinstance(each, int | float) for each in numbers):
        raise ValueError(f"{reference!r} is {found!r}; a number or a pair of them can be quoted")
    return " ± ".join(format(each, form or ".4f") for each in numbers)


def role(
    name: str,
    raw: str,
    text: str,
    line: int,
    inliner: Inliner,
    options: Any = None,
    content: Sequence[str] = (),
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    try:
        return [nodes.inline("", value(text), classes=["result"])], []
    except ValueError as error:
        message = inliner.reporter.error(str(error), line=line)
        return [nodes.problematic(raw, raw)], [message]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_role("result", role)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
