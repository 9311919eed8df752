"""Generated mutants: wrong versions of a room's code that operators make, and which of them its tests notice.

    python -m tests.mutants generated data training --sample 60 --seed 1

A mutant is one small edit: a number changed (n + 1, 2 x), an index shifted, < for <=, == for !=, + for -, * for /, and
for or, `not` dropped, a condition turned round, True for False, a keyword argument or a statement dropped, a returned
number's sign. Each is tried on a copy of the project with those tests of tests/ROOM that reach its line, the fastest
first; it is caught when one fails, or takes many times as long as without it. A survivor is a hole in the tests (write
the test of the behaviour that its line has) or an equivalent: a version that nobody can tell from the right one. Those
are listed in tests/mutants/_equivalents.py with their reasons, and do not count.
"""

import argparse
import hashlib
import queue
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from tests.mutants._equivalents import EQUIVALENTS, Equivalent
from tests.mutants._operators import Edit, edits
from tests.mutants._reach import MULTIPLE, Map, Project, Worker, choose, measure


@dataclass(frozen=True)
class Generated:
    """An edit of a file below the project's root; `functions`: its lines that calls run."""

    file: str
    source: str
    edit: Edit
    functions: frozenset[int]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.edit.line(self.source)}"

    @property
    def change(self) -> tuple[str, str, str]:
        return (self.file, *self.edit.shown(self.source))

    def __str__(self) -> str:
        _, original, mutated = self.change
        return f"{self.place}  {original}  ->  {mutated}"


def generate(project: Project, files: Iterable[str]) -> list[Generated]:
    """All mutants of these files."""
    found = []
    for file in files:
        source = (project.root / file).read_text(encoding="utf-8")
        changes = edits(source)
        functions = frozenset(n for edit in changes for n in edit.lines or ())
        found += [Generated(file, source, edit, functions) for edit in changes]
    return found


def sample(mutants: Sequence[Generated], count: int | None, seed: int) -> list[Generated]:
    """So many of them, in their order; most stay the same when others come and go."""

    def rank(place: int) -> bytes:
        change = mutants[place].change
        nth = sum(each.change == change for each in mutants[:place])
        return hashlib.sha256(repr((seed, change, nth)).encode()).digest()

    chosen = sorted(range(len(mutants)), key=rank)[:count]
    return [mutants[place] for place in sorted(chosen)]


def stale(listed: Iterable[Equivalent], mutants: Iterable[Generated]) -> list[Equivalent]:
    """Equivalents that are none of the mutants (any more): the code has moved on."""
    known = {mutant.change for mutant in mutants}
    return [each for each in listed if each[:3] not in known]


@dataclass(frozen=True)
class Verdict:
    """How a mutant fared: survived, caught, or late (caught by the time that a test took), and by which test."""

    mutant: Generated
    word: str
    by: str
    seconds: float

    @property
    def survived(self) -> bool:
        return self.word == "survived"


def attempt(mutant: Generated, tests: Map, worker: Worker) -> Verdict:
    """Run the tests that reach a mutant."""
    chosen = choose(tests, mutant.file, mutant.edit, mutant.functions)
    if not chosen:
        return Verdict(mutant, "survived", "no test of the room reaches it", 0.0)
    text = mutant.edit.apply(mutant.source)
    limits = {test: worker.patience + MULTIPLE * seconds for test, seconds in chosen.items()}
    answer = worker.ask(file=mutant.file, text=text, tests=limits)
    if not answer["caught"]:
        return Verdict(mutant, "survived", f"{len(chosen)} tests reach it", answer["seconds"])
    return Verdict(mutant, "late" if answer["late"] else "caught", answer["by"], answer["seconds"])


def try_room(
    project: Project, mutants: Sequence[Generated], room: str, count: int
) -> list[Verdict]:
    """The verdicts on mutants of a room, by so many workers; each is printed."""
    with ExitStack() as stack, ThreadPoolExecutor(count) as pool:
        workers: queue.Queue[Worker] = queue.Queue()
        first = stack.enter_context(Worker(project))
        tests = measure(project, room, first)
        broken = [test for test, measured in tests.items() if not measured["passed"]]
        if broken:
            print(f"left out, for they fail without a mutant: {', '.join(broken)}", flush=True)
        for worker in (first, *(stack.enter_context(Worker(project)) for _ in range(count - 1))):
            workers.put(worker)

        def one(mutant: Generated) -> Verdict:
            worker = workers.get()
            try:
                return attempt(mutant, tests, worker)
            finally:
                workers.put(worker)

        verdicts = []
        for verdict in pool.map(one, mutants):
            verdicts.append(verdict)
            print(
                f"{len(verdicts):4}/{len(mutants)} {verdict.word:8} {verdict.seconds:5.1f} s  {verdict.mutant}  "
                f"({verdict.by})",
                flush=True,
            )
    return verdicts


def main(words: Sequence[str], project: Project | None = None) -> int:
    """Exit code 0; 1 where a room's score is below --at-least, 2 for mistakes in the words."""
    project = Project() if project is None else project
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants generated",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rooms", nargs="+", metavar="ROOM", help=", ".join(project.rooms))
    parser.add_argument("--sample", type=int, metavar="N", help="so many of a room (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="which ones (default 1)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="mutants at a time (1)")
    parser.add_argument(
        "--match", metavar="TEXT", help="only those whose printed line has this text"
    )
    parser.add_argument("--list", action="store_true", help="print the mutants, and try none")
    parser.add_argument(
        "--at-least",
        type=float,
        default=0,
        metavar="PERCENT",
        help="exit code 1 where a room has less",
    )
    arguments = parser.parse_args(words)
    if unknown := set(arguments.rooms) - set(project.rooms):
        parser.error(f"no room {', '.join(sorted(unknown))}; there are {', '.join(project.rooms)}")
    for name in ("sample", "workers"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            parser.error(f"--{name} {getattr(arguments, name)}: give 1 or more")

    equivalent = {each[:3] for each in EQUIVALENTS}
    survivors, scores, start = [], {}, time.monotonic()
    for room in arguments.rooms:
        every = generate(project, project.sources(room))
        listed = [each for each in EQUIVALENTS if each.file in project.sources(room)]
        for each in stale(listed, every):
            print(f"stale in _equivalents.py: {each.file}  {each.original}  ->  {each.mutated}")
        mutants = [mutant for mutant in every if mutant.change not in equivalent]
        chosen = [
            mutant
            for mutant in sample(mutants, arguments.sample, arguments.seed)
            if arguments.match is None or arguments.match in str(mutant)
        ]
        if arguments.list:
            print("\n".join(f"{mutant.edit.operator:10} {mutant}" for mutant in chosen))
            continue
        print(f"{room}: {len(chosen)} of {len(mutants)} mutants", flush=True)
        verdicts = try_room(project, chosen, room, arguments.workers)
        left = [verdict for verdict in verdicts if verdict.survived]
        survivors += left
        scores[room] = (len(verdicts) - len(left), len(verdicts), len(every) - len(mutants))

    for verdict in survivors:
        print(f"survived: {verdict.mutant}  ({verdict.by})")
    for room, (caught, count, excluded) in scores.items():
        share = f"{100 * caught / count:.1f} %" if count else "none"
        print(f"{room:12} {caught} of {count} caught, {share}; {excluded} equivalents left out")
    if scores:
        print(f"{time.monotonic() - start:.0f} s")
    low = [
        r for r, (caught, count, _) in scores.items() if 100 * caught < arguments.at_least * count
    ]
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
