"""What the options of numbers take at least, and that their help says the default that they have."""

import argparse
import math
import re

import pytest

from diffenc_ct.cli import COMMANDS, make_parser
from diffenc_ct.cli.numbers import whole

# The least whole number that each option takes; train's are fields of its configuration, which has its own tests.
LEAST = {
    "evaluate": {
        "--draws": 1, "--depth": 1, "--ratio": 1, "--noise-level": 0, "--probes": 1, "--atol": 1, "--rtol": 1,
        "--solver-steps": 1, "--max-steps": 1, "--examples": 1, "--batch-size": 1, "--seed": 0, "--threads": 1,
        "--process-timeout": 1,
    },
    "classify": {"--examples": 1, "--draws": 1, "--batch-size": 1, "--seed": 0, "--threads": 1, "--process-timeout": 1},
    "sample": {
        "--count": 1, "--steps": 1, "--noise-level": 0, "--labels": -1, "--guidance": None, "--trajectory": 1,
        "--batch-size": 1, "--seed": 0, "--max-steps": 1, "--threads": 1, "--process-timeout": 1,
    },
    "calibrate": {"--depth": 1, "--candidates": 2, "--examples": 16, "--seed": 0, "--threads": 1},
    "fit-head": {"--steps": 1, "--batch-size": 1, "--learning-rate": 1, "--seed": 0, "--threads": 1},
    "verify": {
        "--examples": 16, "--deepest": 16, "--draws": 1, "--path-steps": 1, "--ratio": 1, "--seed": 0, "--threads": 1,
    },
    "report": {"--examples": 1, "--draws": 1, "--batch-size": 1, "--seed": 0, "--threads": 1},
    "compress": {"--examples": 1, "--depth": 1, "--bits": 0, "--batch-size": 1, "--seed": 0, "--threads": 1},
    "decompress": {"--threads": 1},
    "export": {},
}  # fmt: skip


def options(command):
    parser = make_parser([command])
    choices = next(a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return [a for a in choices[command]._actions if a.option_strings and a.dest != "help"]


def takes(option, number):
    try:
        return option.type(str(number)) is not None
    except argparse.ArgumentTypeError:
        return False


def test_every_command_is_in_the_table():
    assert LEAST.keys() | {"train"} == set(COMMANDS)


@pytest.mark.parametrize("command", LEAST)
def test_numbers_begin_where_they_have_a_meaning(command):
    found = {o.option_strings[-1]: o for o in options(command) if o.type is not None}
    assert found.keys() == LEAST[command].keys()
    for name, least in LEAST[command].items():
        if least is None:
            assert takes(found[name], -1000)
            continue
        assert takes(found[name], least), name
        assert not takes(found[name], least - 1) and not takes(found[name], "nan"), name


@pytest.mark.parametrize("command", LEAST)
def test_help_says_the_default(command):
    for option in options(command):
        if option.type is None or option.default in (None, 0) and option.dest != "seed":
            continue
        said = re.search(r"\(default (\S+?)\)$", option.help)
        assert said, f"{option.option_strings[-1]}: {option.help}"
        assert math.isclose(float(said[1]), float(option.default)), option.help


@pytest.mark.parametrize(("least", "most"), [(0, 2**32 - 1), (1, 1), (-3, 7)])
def test_both_ends_of_a_range_belong_to_it(least, most):
    convert = whole(least, most)
    assert [convert(str(end)) for end in (least, most)] == [least, most]
    for beyond, word in ((least - 1, "at least"), (most + 1, "at most")):
        with pytest.raises(argparse.ArgumentTypeError, match=word):
            convert(str(beyond))
