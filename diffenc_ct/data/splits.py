"""Which examples are for training and which for tests.

Names decide where they speak: a folder or an array called train, training, trainset, train2017, ... holds training
examples; test, testing, ... those for tests; val, valid, validation, dev, ... is left out, or serves for tests where
nothing else does. What such names leave no place for is refused: it would end up on a side that nobody chose.

Where no name speaks, a tenth (rounded, at least one) is held out.
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

_WORDS = {
    "train": "train(ing)?|trn",
    "test": "test(ing)?|tst",
    "validation": "val(id(ation)?)?|dev(elopment)?|eval(uation)?",
}
_ENDING = r"([-_. ]?(sets?|data|images?|imgs?|split|\d+(x\d+)?))*"


class Split(NamedTuple):
    """Names of what is for training and for tests, and what a report must say of them.

    `test` is empty where a part of the training examples has to be held out.
    """

    train: list[str]
    test: list[str]
    remark: str = ""


def part_of(name: str) -> str | None:
    """The part that a folder or an array is called after: train, test, validation, or None.

    Args:
        name: of it alone, without a path.

    Example:
        >>> [part_of(name) for name in ("Training", "val", "test_images", "train2017", "trains", "cats")]
        ['train', 'validation', 'test', 'train', None, None]
    """
    return next(
        (
            part
            for part, word in _WORDS.items()
            if re.fullmatch(f"({word}){_ENDING}", name, re.IGNORECASE)
        ),
        None,
    )


def split_by_name(
    names: Iterable[str], way: Callable[[str], list[str]], where: str
) -> Split | None:
    """The split that names speak of, None where they speak of none.

    Args:
        names: of examples, or of arrays of them.
        way: from a name to the names on its way, of which the first that is called after a part decides.
        where: what to call the whole in an error.

    Raises:
        ValueError: for a name outside of all parts, two spellings of one part, and no training examples.
    """
    found: dict[str, list[str]] = {}
    called: dict[str, str] = {}
    strays = []
    for name in names:
        step = next((step for step in way(name) if part_of(step)), None)
        if step is None:
            strays.append(name)
            continue
        part = part_of(step)
        assert part is not None
        if called.setdefault(part, step) != step:
            raise ValueError(
                f"{where} has both {called[part]} and {step}, two names for one part; join them or remove one"
            )
        found.setdefault(part, []).append(name)
    if not found:
        return None
    parts = " and ".join(called.values())
    if strays:
        more = f" and {len(strays) - 1} more lie" if len(strays) > 1 else " lies"
        raise ValueError(
            f"{where}: {strays[0]}{more} beside {parts}; move what belongs to a part into it, remove the rest"
        )
    if "train" not in found:
        raise ValueError(f"{where} has {parts}, but no train; add it")
    validation, count = called.get("validation"), len(found.get("validation", ()))
    if "test" in found:
        remark = (
            f"left out: the {count:,} example{'s' * (count > 1)} of {validation}; tests are on {called['test']}"
            if validation
            else ""
        )
        return Split(found["train"], found["test"], remark)
    remark = f"tests: on {validation}, for want of a test set" if validation else ""
    return Split(found["train"], found.get("validation", []), remark)


def held_out(count: int, where: str) -> int:
    """How many of so many examples are for tests: a tenth, rounded, at least one.

    Args:
        count: of all.
        where: what to call them in an error.

    Raises:
        ValueError: for fewer than two.
    """
    if count < 2:
        raise ValueError(
            f"data {where!r} has {count} examples; at least 2 are needed (one for the test set)"
        )
    return max(1, round(count / 10))


def split_in_order(
    count: int, where: str
) -> tuple[Int64[Tensor, " train"], Int64[Tensor, " test"]]:
    """Numbers of the training and test examples: the end of a permutation of seed 0 is held out.

    Args:
        count: of all.
        where: what to call them in an error.

    Raises:
        ValueError: for fewer than two.
    """
    order, last = permutation(count, seed=0), held_out(count, where)
    return order[:-last], order[-last:]


def permutation(count: int, *, seed: int) -> Int64[Tensor, " count"]:
    """The same order of so many examples on every machine.

    Args:
        count: how many.
        seed: of the order.
    """
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).permutation(count))
