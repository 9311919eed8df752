"""A folder of images as a data set: whole images, or crops of them, with the split that `named` describes."""

from pathlib import Path

import numpy as np
import torch

from diffenc_ct.data.dataset import Dataset
from diffenc_ct.data.folders import split_of_folder
from diffenc_ct.data.images import read_images
from diffenc_ct.data.patches import Patches
from diffenc_ct.data.source import MOST
from diffenc_ct.data.splits import permutation


def from_folder(path: Path, levels: int | None, patch: int | None = None) -> Dataset:
    """A folder's images, or crops of them.

    Args:
        path: of the folder.
        levels: 256 or None.
        patch: side of the crops, None for whole images.

    Raises:
        ValueError: naming the file that does not fit, and for other levels.
    """
    if levels not in (None, 256):
        raise ValueError(f"image files have 256 levels, not {levels}; store other integers as .npy")
    split = split_of_folder(path)
    images = read_images(path, sorted([*split.train, *split.test]), patch)
    train, test = ([images[name] for name in part] for part in (split.train, split.test))
    remarks = (split.remark,) if split.remark else ()
    if patch is not None:
        return _cut(str(path), train, test, patch, remarks)
    stacked = [torch.from_numpy(np.stack(part)) for part in (train, test)]
    return Dataset(str(path), stacked[0], stacked[1], 256, notes=remarks)


def _cut(
    name: str,
    train: list[np.ndarray],
    test: list[np.ndarray],
    size: int,
    remarks: tuple[str, ...],
) -> Dataset:
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
    some = crops[grids[0][:MOST]]
    return Dataset(name, some, others[grids[1]], 256, crops, notes=(*remarks, remark))
