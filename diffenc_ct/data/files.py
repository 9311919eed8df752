"""Data of one's own: a folder of images, an .npy or .npz file, with the split that `named` describes."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from diffenc_ct.data.dataset import Dataset
from diffenc_ct.data.patches import Patches
from diffenc_ct.data.readers import read_array_file, read_image_folder

MOST_CROPS = 2**15  # in Dataset.train


def from_folder(path: Path, levels: int | None, patch: int | None = None) -> Dataset:
    """A folder's images, or crops of them.

    Args:
        path: of the folder.
        levels: 256 or None.
        patch: side of the crops, None for whole images.

    Raises:
        ValueError: naming the file that does not fit, and for other levels.
    """
    images = read_image_folder(path, patch)
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
    if patch is not None:
        return _cut(str(path), train, test, patch)
    stacked = [torch.from_numpy(np.stack(part)) for part in (train, test)]
    return Dataset(str(path), stacked[0], stacked[1], 256)


def _cut(name: str, train: list[np.ndarray], test: list[np.ndarray], size: int) -> Dataset:
    """Crops at any place of the training images; for testing the whole patches of a grid on each test image."""
    crops, others = (
        Patches(tuple(map(torch.from_numpy, images)), size) for images in (train, test)
    )
    grids = []
    for patches in (crops, others):
        numbers = patches.grid()
        # In an order of their own, so that the first examples are not all of one image.
        grids.append(numbers[permutation(len(numbers), seed=0)])
    pixels = sum(image[0].numel() for image in others.images)
    left_out = 1 - len(grids[1]) * size**2 / pixels
    remark = (
        f"patches of {size}x{size}: in training at random, of {len(crops):,} positions in {len(train):,} images; in "
        f"tests a grid on {len(test):,} images, whose incomplete patches, {100 * left_out:.1f} % of the pixels, are "
        "left out"
    )
    some = crops[grids[0][:MOST_CROPS]]
    return Dataset(name, some, others[grids[1]], 256, crops, remark=remark)


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
