"""Generated mutants that no test can notice, each with its reason: they do not count."""

from typing import NamedTuple


class Equivalent(NamedTuple):
    """A line of a file, before and after, as a survivor is printed."""

    file: str
    original: str
    mutated: str
    reason: str


EQUIVALENTS: list[Equivalent] = []
