"""Every example in a docstring runs and says what it shows."""

import doctest
import importlib

import pytest

from tests.test_house import MODULES

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert found.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    counted = sum(
        bool(example.examples)
        for name in MODULES
        for example in finder.find(importlib.import_module(name))
    )
    assert counted >= 20, counted
