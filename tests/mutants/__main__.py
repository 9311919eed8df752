"""python -m tests.mutants [MODULE ...] [-j N]: is every mutant caught? Exit code 1 if one survives.

python -m tests.mutants generated ROOM ... [--sample N]: the same of mutants that operators make; --help says more.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants import ROOT, Mutant, copy_project, load, modules


def run_tests(tests: tuple[str, ...], mutant: Mutant | None = None) -> tuple[int, str]:
    """pytest's exit code and last lines on a copy of the package, `mutant` applied."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        copy_project(ROOT, root)
        if mutant is not None:
            mutant.apply(root)
        # The working directory comes first on the path: the copy is what is imported, installed or not.
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        environment = {**os.environ, "HYPOTHESIS_PROFILE": "mutants", "PYTHONPATH": folder}
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, check=False
        )
    return done.returncode, (done.stdout + done.stderr)[-2000:]


def verdict(mutant: Mutant) -> str:
    """caught (a test failed), survived (none did) or broken (the tests could not run)."""
    code, _ = run_tests(mutant.tests, mutant)
    return {0: "survived", 1: "caught"}.get(code, f"broken (pytest exit code {code})")


def main() -> int:
    if sys.argv[1:2] == ["generated"]:
        from tests.mutants._generated import main as generated

        return generated(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=", ".join(modules()))
    parser.add_argument("-j", type=int, default=2, metavar="N", help="mutants at a time (2)")
    arguments = parser.parse_args()
    if unknown := set(arguments.modules) - set(modules()):
        parser.error(
            f"no mutants of {', '.join(sorted(unknown))}; there are {', '.join(modules())}"
        )
    mutants = [(name, m) for name in arguments.modules or modules() for m in load(name)]

    # Tests that fail anyway would catch everything.
    tests = tuple(sorted({t for _, m in mutants for t in m.tests}))
    code, output = run_tests(tests)
    if code:
        print(output, file=sys.stderr)
        print("these tests fail without any mutant: mend them first", file=sys.stderr)
        return 2

    start, bad = time.monotonic(), 0
    with ThreadPoolExecutor(arguments.j) as pool:
        for (name, m), result in zip(
            mutants, pool.map(lambda p: verdict(p[1]), mutants), strict=True
        ):
            bad += result != "caught"
            print(f"{result:9} {name:12} {m.original.strip()}  ->  {m.mutated.strip()}", flush=True)
    caught = len(mutants) - bad
    print(f"{caught} of {len(mutants)} mutants caught in {time.monotonic() - start:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
