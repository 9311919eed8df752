"""Prove every theorem and run every control: ``python -m theory``, installed ``python -m diffenc_ct.theory``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import SECTIONS, Theorem, Verdict, check, sections, theorem, theorems
from ._page import render


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if every proof holds and every control is caught, else 1."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}", description="Prove every theorem and run every control."
    )
    parser.add_argument("--section", choices=SECTIONS, help="only this section")
    parser.add_argument("--jobs", type=int, default=1, help="processes that prove side by side")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the theory as Markdown")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: at least one process is needed")
    if options.write:
        options.write.write_text(render(sections()), encoding="utf-8")
        print(f"wrote {options.write}")
        return 0
    return 1 if prove(options.section, options.jobs).failed else 0


@dataclass(frozen=True)
class Proofs:
    """What was proved: how many theorems with how many controls, in how many seconds of processor time; what failed."""

    theorems: int
    controls: int
    seconds: float
    failed: list[str]


def prove(only: str | None = None, jobs: int = 1) -> Proofs:
    """Prove every theorem, or those of one section, run its controls, and print a report."""
    chosen = [each for each in theorems() if only in (None, each.section)]
    failed, section, seconds, controls = [], "", 0.0, 0
    for each, verdict in zip(chosen, _verdicts(chosen, jobs), strict=True):
        if each.section != section:
            section = each.section
            print(f"\n== {section} " + "=" * (76 - len(section)))
        print(_report(each, verdict), flush=True)
        seconds, controls = seconds + verdict.seconds, controls + len(verdict.controls)
        if not verdict.holds:
            failed.append(each.name)
    print(f"\n{len(chosen)} theorems, {controls} controls, {seconds:.1f} s of processor time")
    print(f"FAILED: {', '.join(failed)}" if failed else "all proved, every control caught")
    return Proofs(len(chosen), controls, seconds, failed)


def _verdicts(chosen: Sequence[Theorem], jobs: int) -> Iterator[Verdict]:
    if jobs == 1:
        yield from map(check, chosen)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_check_by_name, [each.name for each in chosen])


def _check_by_name(name: str) -> Verdict:
    return check(theorem(name))


def _report(each: Theorem, verdict: Verdict) -> str:
    proof = "proved" if verdict.proved else "NOT PROVED"
    lines = [
        f"\n{each.name}: {proof} ({verdict.seconds:.2f} s)",
        f"  {' '.join(each.statement.split())}",
        f"  assuming: {each.assumptions}",
    ]
    lines += [
        f"  control {'caught' if caught else 'NOT CAUGHT'}: {wrong}"
        for wrong, caught in verdict.controls.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
