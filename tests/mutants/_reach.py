"""Which tests reach a mutant: those of its room that run its line, the fastest first.

The map from tests to lines is measured once, a test file at a time (see _lines and _worker), and kept in .mutants/,
which git ignores; it is measured again where a test file or the room's code has changed.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mutants import ROOT, copy_project
from tests.mutants._operators import Edit

HERE = Path(__file__).parent
# What most trials import; whoever has it is forked.
IMPORTED = tuple(
    (
        "beartype hypothesis.strategies jaxtyping matplotlib.pyplot numpy PIL.Image pydantic safetensors.torch "
        "scipy.integrate sklearn.datasets sympy torch torch._dynamo torch.utils.tensorboard torchdiffeq torchsde "
        "torchvision tqdm"
    ).split()
)
DEFAULTS = "tests/test_defaults.py"  # sees what importing a file runs
EVERYWHERE = (DEFAULTS, "tests/test_generators.py")
MULTIPLE = 5.0  # of its unmutated time, which a test may take besides


@dataclass(frozen=True)
class Project:
    """The package's code and tests: for each room, a folder or a file of the package, a group of tests, tests/ROOM.

    Attributes:
        root: the folder of both.
        imported: modules that a process which tries mutants has before it begins.
        patience: seconds that any test may take.
    """

    root: Path = ROOT
    imported: tuple[str, ...] = IMPORTED
    patience: float = 30.0

    @property
    def rooms(self) -> list[str]:
        code = (path.stem for path in (self.root / "diffenc_ct").iterdir())
        return sorted(room for room in code if (self.root / "tests" / room).is_dir())

    def sources(self, room: str) -> list[str]:
        """The room's files, below the root."""
        place = self.root / "diffenc_ct" / room
        found = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        return [path.relative_to(self.root).as_posix() for path in found]

    def tests(self, room: str) -> list[str]:
        """The room's test files, and those that try a kind of fault in all rooms."""
        found = sorted((self.root / "tests" / room).rglob("test_*.py"))
        found += [path for path in map(self.root.joinpath, EVERYWHERE) if path.exists()]
        return [path.relative_to(self.root).as_posix() for path in found]

    def digest(self, files: Iterable[str]) -> str:
        texts = (f"{file}\0".encode() + (self.root / file).read_bytes() for file in files)
        return hashlib.sha256(b"\0".join(texts)).hexdigest()


class Worker:
    """A process that tries mutants in a copy of the project; see _worker."""

    def __init__(self, project: Project) -> None:
        self.patience = project.patience
        self.copy = Path(tempfile.mkdtemp(prefix="mutants-")).resolve()
        copy_project(project.root, self.copy)
        shutil.copy(HERE / "_lines.py", self.copy / "sitecustomize.py")
        data = Path(os.environ.get("DIFFENC_DATA", project.root / "../shared/data")).resolve()
        environment = {
            **os.environ,
            **{"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HYPOTHESIS_PROFILE": "mutants"},
            **{"PYTHONPATH": str(self.copy), "DIFFENC_DATA": str(data)},
        }
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "_worker.py"), *project.imported],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.copy,
            env=environment,
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.copy, ignore_errors=True)

    def ask(self, **order: Any) -> dict[str, Any]:
        """The answer to an order."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("the process that tries mutants has died; its words are above")
        return json.loads(answer)  # type: ignore[no-any-return]


Map = dict[str, dict[str, Any]]  # of a test: seconds, passed, lines by file


def measure(project: Project, room: str, worker: Worker) -> Map:
    """The lines that each of the room's tests reaches, measured where it is not known."""
    kept_in = project.root / ".mutants" / f"{room}.json"
    code = project.digest(project.sources(room))
    kept = json.loads(kept_in.read_text()) if kept_in.exists() else {}
    found: Map = {}
    for file in project.tests(room):
        digest = code + project.digest([file])
        if kept.get(file, {}).get("digest") != digest:
            print(f"measuring what the tests of {file} reach", flush=True)
            out = worker.copy / "reached.json"
            out.unlink(missing_ok=True)
            lines = [str(worker.copy / source) for source in project.sources(room)]
            worker.ask(files=[file], lines=lines, out=str(out))
            if not out.exists():
                raise RuntimeError(f"the tests of {file} cannot be collected; run pytest {file}")
            kept[file] = {"digest": digest, "tests": json.loads(out.read_text())}
            kept_in.parent.mkdir(exist_ok=True)
            kept_in.write_text(json.dumps(kept))
        found |= kept[file]["tests"]
    return found


def choose(tests: Map, file: str, edit: Edit, functions: Iterable[int]) -> dict[str, float]:
    """The tests that may notice an edit of a file, in the order in which to run them, and their times in seconds
    without it, or that of the slowest test of their file: any of them may be the one that makes what they share.

    Where importing the file runs the edit, they are those that reach one of its functions, and failing that all; and
    those of defaults.

    Args:
        functions: the numbers of the file's lines that calls run.
    """

    def reaching(lines: Iterable[int]) -> list[str]:
        wanted = set(lines)
        return [
            t for t, m in tests.items() if m["passed"] and wanted & set(m["lines"].get(file, ()))
        ]

    chosen = reaching(functions if edit.lines is None else edit.lines)
    if edit.lines is None and not chosen:
        chosen = [test for test, measured in tests.items() if measured["passed"]]
    if edit.lines is None:
        chosen += [t for t in tests if _file_of(t) == DEFAULTS and t not in chosen]
    seconds = {test: tests[test]["seconds"] for test in chosen}
    total: dict[str, float] = {}
    for test in chosen:
        total[_file_of(test)] = total.get(_file_of(test), 0.0) + seconds[test]
    # Files stay together: what their tests share is made once.
    chosen.sort(key=lambda test: (total[_file_of(test)], _file_of(test), seconds[test]))
    slowest = {
        file: max(each["seconds"] for test, each in tests.items() if _file_of(test) == file)
        for file in total
    }
    return {test: slowest[_file_of(test)] for test in chosen}


def _file_of(test: str) -> str:
    return test.partition("::")[0]
