"""Data of one's own: a folder of images, an .npy or .npz file, with the split that `named` describes."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from diffenc_ct.data.dataset import Dataset
from diffenc_ct.data.readers import read_array_file, read_image_folder


def from_folder(path: Path, levels: int | None) -> Dataset:
    """A folder's images.

    Args:
        path: of the folder.
        levels: 256 or None.

    Raises:
        ValueError: naming the file that does not fit, and for other levels.
    """
    images = read_image_folder(path)
    if levels not in (None, 256):
        raise ValueError(f"image files have 256 levels, not {levels}; store other integers as .npy")
    if all(name.split("/", 1)[0] in ("train", "test") for name in images):
        train = [image for name, image in images.items() if name.startswith("train/")]
        test = [image for name, image in images.items() if name.startswith("test/")]
        if not (train and test):
            raise ValueError(
                f"data {str(path)!r} has only one of the sub-folders train and test; add the other"
            )
    else:
        names = sorted(images, key=lambda name: hashlib.sha256(name.encode()).digest())
        held_out = _test_size(len(names), path)
        test = [images[name] for name in names[:held_out]]
        train = [images[name] for name in names[held_out:]]
    stacked = [torch.from_numpy(np.stack(part)) for part in (train, test)]
    return Dataset(str(path), stacked[0], stacked[1], 256)


def from_arrays(path: Path, levels: int | None) -> Dataset:
    """The examples of an .npy or .npz file.

    Args:
        path: of the file.
        levels: of integers; the largest value + 1 where it is None.

    Raises:
        ValueError: for arrays that are no examples, naming the file.
        FileNotFoundError: where there is no file.
    """
    arrays = read_array_file(path)
    if set(arrays) >= {"train", "test"}:
        train, test = _as_tensor(arrays["train"], path), _as_tensor(arrays["test"], path)
    elif len(arrays) == 1:
        values = _as_tensor(next(iter(arrays.values())), path)
        held_out = _test_size(len(values), path)
        order = permutation(len(values), seed=0)
        train, test = values[order[:-held_out]], values[order[-held_out:]]
    else:
        raise ValueError(
            f"{path} holds the arrays {', '.join(sorted(arrays))}; store one array, or two named train and test"
        )
    if train.dtype != test.dtype:
        raise ValueError(f"{path}: train is {train.dtype} and test {test.dtype}; store one type")
    if levels is None and not train.is_floating_point() and len(train) and len(test):
        levels = int(max(train.max(), test.max())) + 1
    return Dataset(str(path), train, test, levels)


def _as_tensor(array: np.ndarray, path: Path) -> Tensor:
    """(N, ...) array -> (N, d) vectors or (N, C, H, W) images; (N, H, W) gains a channel."""
    if array.dtype.kind not in "uif":
        raise ValueError(
            f"{path}: dtype {array.dtype} is neither integer nor real; convert the array"
        )
    if array.ndim not in (2, 3, 4):
        raise ValueError(
            f"{path}: shape {array.shape}; expected (N, d) vectors, (N, H, W) or (N, C, H, W) images"
        )
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    elif array.dtype != np.uint8:
        array = array.astype(np.int64)
    values = torch.from_numpy(np.ascontiguousarray(array))
    return values[:, None] if values.ndim == 3 else values


def _test_size(count: int, path: Path) -> int:
    if count < 2:
        raise ValueError(
            f"data {str(path)!r} has {count} examples; at least 2 are needed (one for the test set)"
        )
    return max(1, round(count / 10))


def permutation(count: int, *, seed: int) -> Int64[Tensor, " count"]:
    """The same order of so many examples on every machine.

    Args:
        count: how many.
        seed: of the order.
    """
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).permutation(count))
