"""A data set: examples with a fixed split, whose values are checked once."""

from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor

from diffenc_ct.data.labels import Labels
from diffenc_ct.data.source import Source


@dataclass(frozen=True)
class Dataset:
    """Examples, looked at once, when it is made.

    Attributes:
        name: of the set.
        train: integers in 0..levels-1, or reals where levels is None.
        test: the same of examples that no training sees.
        levels: of integers, None for reals.
        source: what training takes its examples from where they are not all in `train`, which is then a fixed part of
            them.
        flip: whether training flips images horizontally, half of them at random.
        notes: what a report must say of them, a line each.
        standardise: whether a model takes these reals less their mean, over their deviation.
        labels: of a model that is given them, None for others.

    Raises:
        ValueError: for an empty part, parts of different shapes, values that the decoder has no probability for,
            flips of other data than images, levels that are to be standardised, and labels of other examples.
    """

    name: str
    train: Shaped[Tensor, "examples *data"]
    test: Shaped[Tensor, "others *data_"]
    levels: int | None
    source: Source | None = None
    flip: bool = False
    notes: tuple[str, ...] = ()
    standardise: bool = False
    labels: Labels | None = None

    def __post_init__(self) -> None:
        for split, values in (("train", self.train), ("test", self.test)):
            if not len(values):
                raise ValueError(f"data {self.name!r}: the {split} set is empty; add examples")
            check_values(values, self.levels, f"data {self.name!r}, {split} set")
        if self.train.shape[1:] != self.test.shape[1:]:
            raise ValueError(
                f"data {self.name!r}: training examples have shape {tuple(self.train.shape[1:])} and test "
                f"examples {tuple(self.test.shape[1:])}; they must agree"
            )
        if self.flip and len(self.shape) != 3:
            raise ValueError(
                f"data {self.name!r}: flip=True, but examples of shape {self.shape} are no images; leave out --flip"
            )

        if self.standardise and self.levels is not None:
            raise ValueError(
                f"data {self.name!r} has {self.levels} levels, and only reals are standardised; leave out --standardise"
            )

        if self.labels is not None and self.source is not None:
            raise ValueError(
                f"data {self.name!r} are read when needed or cut into patches, which have no labels; leave out --labels"
            )
        for split in ("train", "test"):
            examples = len(getattr(self, split))
            labelled = examples if self.labels is None else len(self.labels.of(split))
            if labelled != examples:
                raise ValueError(
                    f"data {self.name!r}: {labelled} {split} labels for {examples} examples; give one an example"
                )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.train.shape[1:])

    @property
    def dimensions(self) -> int:
        """Number of data dimensions d of one example."""
        return self.train[0].numel()

    @property
    def remarks(self) -> list[str]:
        """What every report says of the data, a line each: the meaning of its numbers depends on it."""
        flips = (
            "flips: half of the training images, at random; the model is one of flipped images, too"
        )
        scaled = (
            "standardised: the model sees reals less the training examples' mean, over their deviation; bits per "
            "dimension are of the data as they are"
        )
        notes = list(self.notes)
        if self.labels is not None:
            named = ", ".join(f"{label} {name}" for label, name in enumerate(self.labels.names))
            notes.append(
                f"labels: {self.labels.classes} classes{f' ({named})' if named else ''}; numbers are of examples given "
                "their labels"
            )
        if self.source is not None and self.source.epochs and len(self.train) < len(self.source):
            notes.append(
                f"read when needed: {len(self.source):,} training examples; the first {len(self.train):,} serve for "
                "histograms and fits"
            )
        return notes + [flips] * self.flip + [scaled] * self.standardise


def check_values(values: Shaped[Tensor, "*shape"], levels: int | None, where: str) -> None:
    """Refuse values that the decoder has no probability for.

    Args:
        values: to be looked at.
        levels: of integers, None for reals.
        where: what to call them in the error.

    Raises:
        ValueError: for integers out of range, NaN or infinite reals, and one where the other is meant.
    """
    if levels is None:
        if not values.is_floating_point():
            raise ValueError(f"{where}: {values.dtype} values need a number of levels; give levels")
        if not bool(torch.isfinite(values).all()):
            raise ValueError(
                f"{where}: values that are NaN or, in {values.dtype}, infinite; remove or rescale them"
            )
        return
    if values.is_floating_point():
        raise ValueError(
            f"{where}: levels={levels} given but values are {values.dtype}; store integers"
        )
    check_range(int(values.min()), int(values.max()), levels, where)


def check_range(low: int, high: int, levels: int, where: str) -> None:
    """Refuse integers out of range.

    Args:
        low: the smallest.
        high: the largest.
        levels: of which they must be.
        where: what to call them in the error.

    Raises:
        ValueError: where they are not in 0..levels - 1.
    """
    if low < 0 or high >= levels:
        raise ValueError(
            f"{where}: values {low}..{high} do not fit into {levels} levels (0..{levels - 1})"
        )
