"""Wrong versions of the code, one line each, that the suite must catch.

A file of this package is a module's list `MUTANTS`: the module's own faults, those that people make. `python -m
tests.mutants` applies them one at a time to a copy of the package and runs the tests named; a mutant that survives is a
hole in the tests.
"""

import importlib
import pkgutil
import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("diffenc_ct", "theory", "tests", "docs", "benchmarks", "README.md", "pyproject.toml")


def copy_project(root: Path, to: Path) -> None:
    """What the tests need of the project below `root`, as far as it is there: mutants never touch the project."""
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(
                source, to / name, ignore=shutil.ignore_patterns("__pycache__", "_build")
            )
        elif source.exists():
            shutil.copy(source, to)


@dataclass(frozen=True)
class Mutant:
    """`original`, found exactly once in `file` (below the repository's root), becomes `mutated`.

    why: how somebody comes to write it. tests: test files or single tests (file::name), of which one must fail.
    """

    file: str
    original: str
    mutated: str
    why: str
    tests: tuple[str, ...]

    def apply(self, root: Path) -> None:
        """Rewrite the file below `root`; ValueError where the original text is not there exactly once."""
        path = root / self.file
        text = path.read_text()
        if text.count(self.original) != 1 or self.original == self.mutated:
            raise ValueError(
                f"{self.file}: {self.original!r} is found {text.count(self.original)} times, not once; "
                "the code has moved on, bring its mutant up to date"
            )
        path.write_text(text.replace(self.original, self.mutated))


def modules() -> list[str]:
    """The names that have mutants."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load(name: str) -> list[Mutant]:
    """The mutants of one module."""
    return importlib.import_module(f"{__name__}.{name}").MUTANTS
