"""The generator of mutants on a package of one room with holes in its tests: it tells what they notice."""

import pytest

from tests.mutants import _generated
from tests.mutants._equivalents import EQUIVALENTS, Equivalent
from tests.mutants._generated import generate, main, sample, stale
from tests.mutants._reach import Project, Worker, choose, measure

CODE = '''
"""Prices."""

LIMIT = 5


def price(count: int, each: int = 2) -> float:
    """Ten percent off beyond the limit."""
    if count > LIMIT:
        return 0.9 * count * each
    return count * each


def countdown(count: int) -> str:
    while count > 0:
        count -= 1
    return str(count)


def made(count: int) -> list[int]:
    return [count] * 3


def apart() -> int:
    return 7


def idle() -> int:
    return 8
'''

TESTS = """
import subprocess, sys

import pytest

from diffenc_ct.money import countdown, made, price


@pytest.fixture(scope="module")
def three():
    return made(4)


def test_first(three):
    assert three


def test_three(three):
    assert three == [4, 4, 4]


def test_price():
    assert price(2) == 4 and price(10, 3) == 27


def test_countdown():
    assert countdown(3) == "0"


def test_in_another_process():
    code = "from diffenc_ct.money import apart; print(apart())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "7\\n"


def test_that_fails_anyway():
    assert price(1) == 3
"""

MONEY = "diffenc_ct/money.py"
SURVIVORS = ["LIMIT = 6", "if count >= LIMIT:", "return -(8)", "return 9"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    plain = pytest.MonkeyPatch()
    plain.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # or each mutant would import hypothesis
    for folder in ("diffenc_ct", "tests/money"):
        (root / folder).mkdir(parents=True)
    for file in ("diffenc_ct/__init__.py", "tests/__init__.py", "tests/money/__init__.py"):
        (root / file).write_text("")
    (root / MONEY).write_text(CODE)
    (root / "tests/money/test_money.py").write_text(TESTS)
    yield Project(root, imported=(), patience=2.0)
    plain.undo()


@pytest.fixture(scope="module")
def tests(toy):
    with Worker(toy) as worker:
        return measure(toy, "money", worker)


def line(text):
    return CODE.splitlines().index(text) + 1


def name(test):
    return test.partition("::test_")[2]


def reaching(tests, number):
    lines = {name(test): measured["lines"] for test, measured in tests.items()}
    return {test for test, found in lines.items() if number in found.get(MONEY, [])}


def test_which_tests_reach_a_line(toy, tests):
    assert reaching(tests, line("        return 0.9 * count * each")) == {"price"}
    assert reaching(tests, line("    return count * each")) == {"price", "that_fails_anyway"}
    assert reaching(tests, line("        count -= 1")) == {"countdown"}
    # What a fixture runs counts for all that use it; another process is looked into.
    assert reaching(tests, line("    return [count] * 3")) == {"first", "three"}
    assert reaching(tests, line("    return 7")) == {"in_another_process"}
    assert reaching(tests, line("    return 8")) == set()
    failed = {name(test) for test, measured in tests.items() if not measured["passed"]}
    assert failed == {"that_fails_anyway"}


def test_the_tests_of_a_mutant_begin_with_the_fastest(toy, tests):
    mutants = {mutant.change[2]: mutant for mutant in generate(toy, [MONEY])}

    def chosen(mutated, tests):
        mutant = mutants[mutated]
        return [name(t) for t in choose(tests, mutant.file, mutant.edit, mutant.functions)]

    seconds = {name(test): measured["seconds"] for test, measured in tests.items()}
    everything = chosen("LIMIT = 6", tests)
    assert set(everything) == seconds.keys() - {"that_fails_anyway"}
    assert everything == sorted(everything, key=seconds.__getitem__)
    assert chosen("return [count] * 4", tests) == sorted(
        ["first", "three"], key=seconds.__getitem__
    )
    assert chosen("return 9", tests) == []
    # Where no test reaches any function, what the import runs is looked for by all.
    unreached = {test: {**measured, "lines": {}} for test, measured in tests.items()}
    assert set(chosen("LIMIT = 6", unreached)) == set(everything)


def test_the_map_is_measured_again_where_something_changed(toy, tests):
    class Asked(Exception):
        pass

    class Nobody:
        copy = toy.root

        def ask(self, **order):
            raise Asked(order["files"])

    assert measure(toy, "money", Nobody()) == tests
    for file in ("tests/money/test_money.py", MONEY):
        text = (toy.root / file).read_text()
        (toy.root / file).write_text(text + "\n")
        with pytest.raises(Asked, match="test_money.py"):
            measure(toy, "money", Nobody())
        (toy.root / file).write_text(text)


def test_survivors_are_told_from_what_is_caught(toy, tests, capsys, monkeypatch):
    code = toy.root / MONEY
    before = code.read_text(), code.stat().st_mtime_ns
    assert main(["money", "--at-least", "90"], toy) == 1
    out = capsys.readouterr().out
    survived = [each for each in out.splitlines() if each.startswith("survived: ")]
    assert [each.partition("  ->  ")[2].partition("  (")[0] for each in survived] == SURVIVORS
    place = f"{MONEY}:{line('    return 8')}"
    assert (
        f"survived: {place}  return 8  ->  return 9  (no test of the room reaches it)" in survived
    )
    left_out = "tests/money/test_money.py::test_that_fails_anyway"
    assert f"left out, for they fail without a mutant: {left_out}" in out
    # A loop without end is caught by its time, and what only another process runs is caught there.
    assert " late " in next(each for each in out.splitlines() if "count += 1" in each)
    assert "test_in_another_process" in next(each for each in out.splitlines() if "-(7)" in each)
    count = len(generate(toy, [MONEY]))
    share = f"{100 * (count - 4) / count:.1f} %"
    assert f"{count - 4} of {count} caught, {share}; 0 equivalents left out" in out
    assert (code.read_text(), code.stat().st_mtime_ns) == before

    listed = [
        Equivalent(MONEY, "return 8", "return 9", "nobody calls it"),
        Equivalent(MONEY, "return 10", "return 11", "the code has moved on"),
    ]
    monkeypatch.setattr(_generated, "EQUIVALENTS", listed)
    assert main(["money", "--match", "  return 8  ->"], toy) == 0
    out = capsys.readouterr().out
    assert "return 9" not in out and "0 of 1 caught, 0.0 %; 1 equivalents left out" in out
    assert "stale in _equivalents.py: diffenc_ct/money.py  return 10  ->  return 11" in out
    assert main(["money", "--match", "return 7", "--at-least", "100"], toy) == 0


def test_a_sample_is_that_of_its_seed(toy):
    mutants = generate(toy, [MONEY])
    one = sample(mutants, 10, 1)
    assert len(set(one)) == 10 and one == sample(mutants, 10, 1) != sample(mutants, 10, 2)
    assert sample(mutants, None, 1) == mutants
    # One that is left out makes room for one other.
    kept = [mutant for mutant in mutants if mutant != one[3]]
    assert len(set(sample(kept, 10, 1)) - set(one)) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["silver"], "no room silver; there are money"),
        (["money", "--sample", "0"], "--sample 0: give 1 or more"),
        (["money", "--workers", "-1"], "--workers -1: give 1 or more"),
    ],
)
def test_mistakes_are_refused(toy, words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(words, toy)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_mutants_are_listed(toy, capsys):
    assert main(["money", "--list", "--match", "LIMIT = 5"], toy) == 0
    assert capsys.readouterr().out == "number     diffenc_ct/money.py:4  LIMIT = 5  ->  LIMIT = 6\n"


def test_equivalents_are_mutants_and_say_why():
    files = sorted({each.file for each in EQUIVALENTS})
    assert stale(EQUIVALENTS, generate(Project(), files)) == []
    assert all(len(each.reason) > 10 for each in EQUIVALENTS)
    assert len({each[:3] for each in EQUIVALENTS}) == len(EQUIVALENTS)
