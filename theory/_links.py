"""Where the code computes a theorem, and which tests compare the two: read from the files, as links of the page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from ._core import Theorem

# `diffenc_ct` lies beside this package in the sources and above it where it is installed.
_FOLDERS = Path(__file__).resolve().parents[1:3]
_NAMED = re.compile(r"Theorems?:((?:\s+[a-z_]+\.[a-z_0-9]+[,.;)]?(?:\s+and(?=\s))?)+)")
_PROOFS = "tests/theory/test_theory.py"


def code_links(theorem: Theorem) -> list[str]:
    """What computes a theorem: the functions that it names, then those whose docstrings name it."""
    found = dict.fromkeys(map(_home, theorem.computed_by))
    found |= dict.fromkeys(_docstrings().get(theorem.name, ()))
    return [f"[`{shown}`](../{path})" for path, shown in _told_once(found)]


def test_links(theorem: Theorem) -> list[str]:
    """Its proof's test, then the files of tests that name it: they compare it with the code."""
    tests = next((root for root in _FOLDERS if (root / _PROOFS).is_file()), None)
    if tests is None:
        return []  # an installed package has none
    paths = [_PROOFS, *_tests(tests).get(theorem.name, ())]
    return [f"[`{path}`](../{path})" for path in dict.fromkeys(paths)]


def _told_once(found: dict[tuple[str, str], None]) -> Iterator[tuple[str, str]]:
    """A method of a class that is named itself says nothing new, nor does a function under two spellings."""
    seen: set[tuple[str, str]] = set()
    for path, shown in found:
        own = (path, shown.rpartition(".")[2])
        if own not in seen:
            seen.add(own)
            yield path, shown


def _home(dotted: str) -> tuple[str, str]:
    """File and short name of a dotted name: the longest prefix that is a module, or where that has the name from."""
    parts = dotted.split(".")
    for end in range(len(parts) - 1, 0, -1):
        stem = "/".join(parts[:end])
        for path in (f"{stem}.py", f"{stem}/__init__.py"):
            for folder in _FOLDERS:
                if (folder / path).is_file():
                    home = _imported_from(folder / path, parts[end]) or path
                    return home, ".".join(parts[1:])
    raise ValueError(f"computed_by: no module of this project holds {dotted}")


def _imported_from(path: Path, name: str) -> str | None:
    """The file that a package's front door imports a name from, None where the module defines it itself."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and name in [each.name for each in node.names]:
            return f"{(node.module or '').replace('.', '/')}.py"
    return None


@cache
def _docstrings() -> dict[str, list[tuple[str, str]]]:
    """Theorem -> file and short name of each function, method and class whose docstring says `Theorem: NAME`."""
    root = next(folder for folder in _FOLDERS if (folder / "diffenc_ct").is_dir())
    found: dict[str, list[tuple[str, str]]] = {}
    for file in sorted((root / "diffenc_ct").rglob("*.py")):
        path = file.relative_to(root).as_posix()
        text = file.read_text(encoding="utf-8")
        if "Theorem" not in text or path.startswith("diffenc_ct/theory/"):
            continue
        stem = (
            path.removesuffix(".py").removesuffix("/__init__").partition("/")[2].replace("/", ".")
        )
        for name, docstring in _documented(ast.parse(text), stem):
            for each in _NAMED.finditer(docstring):
                for theorem in re.findall(r"[a-z_]+\.[a-z_0-9]+", each[1]):
                    found.setdefault(theorem, []).append((path, name))
    return found


def _documented(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    """Dotted name and docstring of what is public, and in it."""
    for child in ast.iter_child_nodes(node):
        defined = isinstance(child, ast.FunctionDef | ast.ClassDef)
        if defined and not child.name.startswith("_"):
            name = f"{prefix}.{child.name}"
            yield name, ast.get_docstring(child) or ""
            yield from _documented(child, name)


@cache
def _tests(root: Path) -> dict[str, list[str]]:
    """Theorem -> the files of tests that hold its name as a string: cases, and calls of `theorem`."""
    found: dict[str, list[str]] = {}
    for file in sorted((root / "tests").rglob("*.py")):
        names = re.findall(r"\"([a-z]+\.[a-z_0-9]+)\"", file.read_text(encoding="utf-8"))
        for name in dict.fromkeys(names):
            found.setdefault(name, []).append(file.relative_to(root).as_posix())
    return found
