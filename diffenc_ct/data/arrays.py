"""Arrays as a data set: the examples of an .npy or .npz file, with the split that `named` describes.

Integers are kept in the smallest type that holds them, reals in float32. A large .npy file stays on the disk: training
reads the examples of a step from there, and sees the same ones as if they were in memory.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from diffenc_ct.data.dataset import Dataset, check_range, check_values
from diffenc_ct.data.labels import LABELS
from diffenc_ct.data.moments import Moments, warn_of_reals
from diffenc_ct.data.readers import read_array_file
from diffenc_ct.data.source import AT_ONCE, Rows, copy_of, fixed_part
from diffenc_ct.data.splits import part_of, split_by_name, split_in_order

LARGE = 2**30  # bytes of an .npy file beyond which it stays on the disk
_INTEGERS = (np.uint8, np.int16, np.int32, np.int64)
_FEW = 4  # channels at most, by which images are known that have them last


class _Part(NamedTuple):
    """Examples of an array, by their numbers."""

    array: np.ndarray
    numbers: Int64[Tensor, " examples"]

    def rows(self, kind: type) -> Rows:
        """These examples as tensors of a type."""
        return Rows(lambda numbers: _as_tensor(self.array[numbers.numpy()], kind), self.numbers)


def from_arrays(
    path: Path, levels: int | None, standardise: bool = False, *, labels: bool = False
) -> Dataset:
    """The examples of an .npy or .npz file.

    Args:
        path: of the file.
        levels: of integers; the largest value + 1 where it is None.
        standardise: whether a model takes reals standardised, so that their scale is no matter.
        labels: whether arrays of labels are wanted, too: then they are not among those that are left out.

    Raises:
        ValueError: for arrays that are no examples, naming the file.
        FileNotFoundError: where there is no file.
    """
    train, test, notes = _split(path, labels)
    reals = [part.array.dtype.kind == "f" for part in (train, test)]
    if reals[0] != reals[1]:
        raise ValueError(
            f"{path}: train is {train.array.dtype} and test {test.array.dtype}; store one type"
        )
    if reals[0]:
        kind: type = np.float32
        for values in _pieces(train.array):
            check_values(values, levels, str(path))
        moments = Moments.of(_pieces(train.array))
        warn_of_reals(moments, str(path), standardise=standardise)
    else:
        low = min(int(part.array.min()) for part in (train, test))
        high = max(int(part.array.max()) for part in (train, test))
        levels = high + 1 if levels is None else levels
        check_range(low, high, levels, f"data {str(path)!r}")
        # What fits into no type has too many levels for any model.
        kind = next((held for held in _INTEGERS if high <= np.iinfo(held).max), np.int64)
    seen, others = train.rows(kind), test.rows(kind)
    if isinstance(train.array, np.memmap) and train.array.nbytes > LARGE:
        return Dataset(str(path), fixed_part(seen), copy_of(others), levels, seen, notes=notes)
    return Dataset(str(path), copy_of(seen), copy_of(others), levels, notes=notes)


def _split(path: Path, labels: bool) -> tuple[_Part, _Part, tuple[str, ...]]:
    """Training examples, test examples, and what a report must say of them."""
    whole = read_array_file(path)
    beside = {name for name in whole if len(whole) > 1 and name.endswith(LABELS)}  # no examples
    arrays = {name: array for name, array in whole.items() if name not in beside}
    named = [name for name in arrays if part_of(name)]
    split = split_by_name(named, lambda name: [name], str(path))
    if split is None and len(arrays) != 1:
        there = f"the arrays {', '.join(sorted(arrays))}" if arrays else "no arrays"
        raise ValueError(f"{path} holds {there}; store one array, or two named train and test")
    first, *second = list(arrays) if split is None else split.train + split.test
    for name in (first, *second):
        _check_layout(arrays[name], path)
    if second:
        parts = [_Part(arrays[name], torch.arange(len(arrays[name]))) for name in (first, *second)]
    else:
        one = arrays[first]
        parts = [_Part(one, numbers) for numbers in split_in_order(len(one), str(path))]
    others = sorted((arrays if labels else whole).keys() - {first, *second} - set(named))
    notes = [split.remark] if split is not None and split.remark else []
    notes += [f"left out: the array{'s' * (len(others) > 1)} {', '.join(others)}"] * bool(others)
    return parts[0], parts[1], tuple(notes)


def _check_layout(array: np.ndarray, path: Path) -> None:
    """Refuse what holds no examples: another type or shape, nothing, and images with their channels last."""
    if array.dtype.kind not in "uif":
        remedy = "array.astype(np.uint8)" if array.dtype.kind == "b" else "convert the array"
        raise ValueError(f"{path}: dtype {array.dtype} is neither integer nor real; {remedy}")
    if array.ndim not in (2, 3, 4):
        raise ValueError(
            f"{path}: shape {array.shape}; expected (N, d) vectors, (N, H, W) or (N, C, H, W) images"
        )
    if not array.size:
        raise ValueError(f"{path}: an array of shape {array.shape} is empty; add examples")
    if array.ndim == 4 and array.shape[3] <= min(_FEW, *(side - 1 for side in array.shape[1:3])):
        raise ValueError(
            f"{path}: shape {array.shape} is that of images with their channels last; the order must be (N, channels, "
            "height, width): array.transpose(0, 3, 1, 2)"
        )


def _as_tensor(array: np.ndarray, kind: type) -> Tensor:
    """(N, ...) examples of an array in another type -> (N, d) vectors or (N, C, H, W); (N, H, W) gains a channel."""
    with np.errstate(over="ignore"):  # which makes an infinity, and that is refused
        values = torch.from_numpy(np.ascontiguousarray(array, dtype=kind))
    return values[:, None] if values.ndim == 3 else values


def _pieces(array: np.ndarray) -> Iterator[Tensor]:
    """All examples of an array of reals, some at a time."""
    size = max(1, AT_ONCE // array[0].size)
    for start in range(0, len(array), size):
        yield _as_tensor(array[start : start + size], np.float32)
