"""Generated mutants that no test can notice, each with its reason: they do not count."""

from typing import NamedTuple


class Equivalent(NamedTuple):
    """A line of a file, before and after, as a survivor is printed."""

    file: str
    original: str
    mutated: str
    reason: str


EQUIVALENTS = [
    Equivalent(
        "diffenc_ct/data/points.py",
        "return (corner + random.random((size, 2))) / 2 - 1",
        "return -((corner + random.random((size, 2))) / 2 - 1)",
        "the board is its own mirror image through the origin",
    ),
]
