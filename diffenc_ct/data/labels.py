"""Class labels of examples: 0 .. classes - 1, in the order of a data set's examples."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from diffenc_ct.data.folders import class_of, split_of_folder
from diffenc_ct.data.readers import read_array_file, read_idx
from diffenc_ct.data.splits import part_of, permutation, split_in_order
from diffenc_ct.report.extras import require

LABELS = "labels"  # the array of an .npz file, or train_labels and test_labels


@dataclass(frozen=True)
class Labels:
    """A label of every example.

    Attributes:
        train: of the training examples.
        test: of the test examples.
        classes: how many there are.
        names: of the classes, in their order; none where the data have only numbers.

    Raises:
        ValueError: for labels outside of 0..classes-1, and for names of other classes.

    Example:
        >>> Labels(torch.tensor([0, 2]), torch.tensor([1]), 3).classes
        3
    """

    train: Int64[Tensor, " examples"]
    test: Int64[Tensor, " others"]
    classes: int
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.names and len(self.names) != self.classes:
            raise ValueError(f"{len(self.names)} names for {self.classes} classes; name each")
        for split, values in (("train", self.train), ("test", self.test)):
            low, high = int(values.min()), int(values.max())
            if low < 0 or high >= self.classes:
                raise ValueError(
                    f"{split} labels {low}..{high} do not fit into {self.classes} classes (0..{self.classes - 1})"
                )

    def of(self, split: str) -> Int64[Tensor, " some"]:
        """Of "train" or "test"."""
        found: Tensor = getattr(self, split)
        return found


def labels_of(name: str, root: Path) -> Labels:
    """The labels of a data set by name or path, in the order of its examples.

    Args:
        name: of the set, or the path of an .npz file or of a folder of images, in which the first folder on the way
            to an image, train/ and test/ aside, is its class; classes are counted in the order of their names.
        root: folder of downloaded sets.

    Raises:
        ValueError: where it has none.
        FileNotFoundError: where their file is missing.
    """
    if name in _NAMED:
        return _labels(*_NAMED[name](root), where=f"data {name!r}")
    if Path(name).suffix.lower() == ".npz":
        return _of_arrays(Path(name))
    if Path(name).is_dir():
        return _of_folder(Path(name))
    raise ValueError(
        f"data {name!r} has no labels; {', '.join(_NAMED)} have, folders with a folder of images a class, and .npz "
        f"files with an array `{LABELS}` beside one of examples, or train_labels and test_labels; leave out --labels"
    )


def _labels(train: np.ndarray, test: np.ndarray, *, where: str) -> Labels:
    for array in (train, test):
        if array.ndim != 1 or array.dtype.kind not in "ui":
            raise ValueError(
                f"{where}: labels are whole numbers, one an example, not {array.dtype} of shape {array.shape}"
            )
    parts = [torch.from_numpy(array.astype(np.int64)) for array in (train, test)]
    return Labels(parts[0], parts[1], int(max(part.max() for part in parts)) + 1)


def _of_arrays(path: Path) -> Labels:
    arrays = read_array_file(path)
    if LABELS in arrays:
        whole = arrays[LABELS]
        train, test = (whole[part.numpy()] for part in split_in_order(len(whole), str(path)))
        return _labels(train, test, where=str(path))
    found = {
        part_of(name.removesuffix(f"_{LABELS}")): name for name in arrays if name.endswith(LABELS)
    }
    if not {"train", "test"} <= found.keys():
        raise ValueError(
            f"{path} has no labels; store an array `{LABELS}`, or train_labels and test_labels, beside the examples"
        )
    return _labels(arrays[found["train"]], arrays[found["test"]], where=str(path))


def _of_folder(path: Path) -> Labels:
    split = split_of_folder(path)
    train, test = ([class_of(path, name) for name in part] for part in (split.train, split.test))
    names = tuple(sorted({*train, *test}))
    numbers = [torch.tensor([names.index(one) for one in part]) for part in (train, test)]
    return Labels(numbers[0], numbers[1], len(names), names)


def _digits(root: Path) -> tuple[np.ndarray, np.ndarray]:
    target = require("sklearn.datasets", "data").load_digits().target
    order = permutation(len(target), seed=0).numpy()
    return target[order[:-360]], target[order[-360:]]


def _mnist(root: Path) -> tuple[np.ndarray, np.ndarray]:
    raw = root / "MNIST" / "raw"
    return read_idx(raw / "train-labels-idx1-ubyte"), read_idx(raw / "t10k-labels-idx1-ubyte")


def _cifar10(root: Path) -> tuple[np.ndarray, np.ndarray]:
    cifar10 = require("torchvision.datasets", "data").CIFAR10
    try:
        train, test = (
            np.asarray(cifar10(str(root), train=train).targets) for train in (True, False)
        )
    except RuntimeError as error:
        raise FileNotFoundError(f"no intact CIFAR-10 in {root}") from error
    return train, test


_NAMED: dict[str, Callable[[Path], tuple[np.ndarray, np.ndarray]]] = {
    "digits": _digits,
    "mnist": _mnist,
    "cifar10": _cifar10,
}
