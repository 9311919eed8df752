"""A process that tries mutants in a copy of the project, its working directory: one order a line, one answer a line.

    python _worker.py MODULE ...

imports the modules once. For each order it forks a process that has them already, but none of the project's own: a
trial costs little more than its tests. An order is JSON:

    {"files": [...], "lines": [...], "out": file}       run the test files; `out` gets the lines that each test reaches
    {"file": ..., "text": ..., "tests": {id: limit}}    run tests of a mutated file, in this order, until one fails
"""

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

COLLECTING = 300  # seconds until the first test must have begun
PASSED, NONE_LEFT = 0, 5  # pytest's exit codes


class Reach:
    """What each test reaches, and how long it takes. What a fixture reaches counts for every test that uses it."""

    def __init__(self, order):
        import sitecustomize as lines  # the copy's: see _lines

        self.out, self.folder = order["out"], tempfile.mkdtemp(dir=".")
        self.places = lines.create(self.folder, order["lines"])
        os.environ[lines.FOLDER] = os.path.abspath(self.folder)
        self.table = lines.record(self.folder)
        self.found, self.of_fixture = {}, {}

    def take(self):
        """The lines marked since the last time."""
        marked = {place for place, byte in enumerate(self.table[:]) if byte}
        self.table[:] = bytes(len(self.table))
        return marked

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        before = self.take()
        result = yield
        marked = self.take()
        self.of_fixture.setdefault(fixturedef, set()).update(marked)
        self.marked |= before | marked
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        self.take()
        self.marked, self.passed, self.seconds = set(), True, 0.0
        result = yield
        reached = self.marked | self.take()
        for fixtures in item._fixtureinfo.name2fixturedefs.values():
            for fixture in fixtures:
                reached |= self.of_fixture.get(fixture, set())
        self.found[item.nodeid] = {
            "seconds": self.seconds,
            "passed": self.passed,
            "lines": self.by_file(reached),
        }
        return result

    def by_file(self, reached):
        found, ends = {}, [*list(self.places.values())[1:], len(self.table)]
        for (file, place), end in zip(self.places.items(), ends, strict=True):
            lines = sorted(each - place for each in reached if place <= each < end)
            if lines:
                found[os.path.relpath(file)] = lines
        return found

    def pytest_runtest_logreport(self, report):
        self.passed &= not report.failed
        self.seconds += report.duration

    def pytest_sessionfinish(self):
        sys.settrace(None)
        Path(self.out).write_text(json.dumps(self.found))


class Chosen:
    """Only the tests of an order, in its order; it tells the worker when each begins and which one failed."""

    def __init__(self, tests, pipe):
        self.rank, self.pipe = {test: rank for rank, test in enumerate(tests)}, pipe

    def tell(self, *words):
        os.write(self.pipe, (json.dumps(words) + "\n").encode())

    def pytest_collection_modifyitems(self, items):
        chosen = [item for item in items if item.nodeid in self.rank]
        items[:] = sorted(chosen, key=lambda item: self.rank[item.nodeid])

    def pytest_runtest_logstart(self, nodeid):
        self.tell("begin", nodeid)

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.tell("failed", report.nodeid)


def _run_tests(order, pipe):
    """In the forked process: pytest's exit code."""
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    if "out" in order:
        files, plugin = order["files"], Reach(order)
    else:
        # The copy keeps the bytecode of the unmutated project.
        sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
        files = list(dict.fromkeys(test.partition("::")[0] for test in order["tests"]))
        plugin = Chosen(order["tests"], pipe)
    stop = [] if "out" in order else ["-x"]
    code = pytest.main([*stop, "-q", "-p", "no:cacheprovider", *files], plugins=[plugin])
    os.write(pipe, b'["end", ""]\n')
    return int(code)


def _messages(pipe, limits):
    """What a forked process tells until it ends; TimeoutError where a test takes longer than its limit."""
    limit, rest = COLLECTING, b""
    while True:
        if limits and not select.select([pipe], [], [], limit)[0]:
            raise TimeoutError
        read = os.read(pipe, 2**16)
        if not read:
            return
        *lines, rest = (rest + read).split(b"\n")
        for line in lines:
            kind, value = json.loads(line)
            if kind == "end":  # what a test left running may hold the pipe open
                return
            limit = limits.get(value, COLLECTING) if kind == "begin" else COLLECTING
            yield kind, value


def _carry_out(order):
    start, (reading, writing) = time.monotonic(), os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reading)
            code = _run_tests(order, writing)
        finally:
            os._exit(code)
    os.close(writing)
    told, late = {}, False
    try:
        for kind, value in _messages(reading, order.get("tests", {})):
            told[kind] = value
    except TimeoutError:
        late = True
    os.close(reading)
    if late:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # what its tests started and left behind
    by = told.get("begin" if late else "failed", "the import")
    return {
        "caught": late or code not in (PASSED, NONE_LEFT),
        "late": late,
        "by": by,
        "seconds": time.monotonic() - start,
    }


def _try(order):
    path = Path(order["file"])
    kept, times = path.read_bytes(), path.stat()
    try:
        path.write_text(order["text"], encoding="utf-8")
        # Another time than any before, or the bytecode of another version of the same size would be taken.
        _try.age = getattr(_try, "age", 0) + 10
        os.utime(path, (times.st_atime, times.st_mtime - _try.age))
        return _carry_out(order)
    finally:
        path.write_bytes(kept)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def main():
    sys.path[0] = os.getcwd()  # not the folder of this file
    for name in sys.argv[1:]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        answer = _carry_out(order) if "out" in order else _try(order)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
