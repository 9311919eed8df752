"""Data sets by name or by path: integers or reals in memory, with fixed splits.

| name | data | levels | split |
|---|---|---|---|
| digits | scikit-learn's 1,797 images of 8x8 (embedded) | 17 | permutation of seed 0; its last 360 are the test set |
| mnist | 70,000 of 28x28, torchvision's folder layout | 256 | the published one: 60,000 and 10,000 |
| cifar10 | 60,000 of 3x32x32, torchvision's class | 256 | the published one: 50,000 and 10,000 |
| imagenet32 | 1,331,167 of 3x32x32, the published npz batches | 256 | the published one, in file order |
| swirl | VDM's and the authors' 2-D swirl in 8 bits | 256 | 1,024 points of seed 1; test: seed 2 |
| swirl-real | the same before rounding, centred and scaled to about (-1, 1) | none | as swirl |
| checkerboard | 2-D, uniform on the dark squares of a 4x4 board on (-1, 1)^2 | none | 4,096 and 1,024 points |
| a folder | its images, of one size and mode | 256 | sub-folders train and test where there are such, else below |
| a folder, in patches | crops of its images, of any size and one mode | 256 | the same, of whole images |
| a .npy or .npz file | integers or reals, (N, ...) | largest value + 1, or given | arrays train and test, else below |

Names that hold examples for training and for tests are those of `splits`; docs/data.md says what else is accepted and
what is refused.

Where no split is published, a tenth (rounded, at least one) is the test set: of an array, the end of a
permutation of seed 0; of a folder, the files with the smallest SHA-256 of their name, so that the order
in which a file system lists them does not matter.

Patches: training draws crops at random, each position of each training image alike. Tests are on a grid, which tiles
each test image from its top left; what does not fill a patch is left out. `Dataset.train` is the same grid on the
training images (at most 32,768 crops of it), for what needs fixed examples. Both are in the order of a permutation of
seed 0.

Images are (N, channels, height, width) unsigned 8-bit integers, vectors (N, d). Integers take the discrete
decoder and are scaled to (-1, 1) by the model. Reals take the continuous decoder **as they are** and should be of
about unit scale, or are standardised: the likelihood is that of the numbers in the file in both cases.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from diffenc_ct.data.arrays import from_arrays
from diffenc_ct.data.dataset import Dataset
from diffenc_ct.data.files import from_folder
from diffenc_ct.data.labels import labels_of
from diffenc_ct.data.points import checkerboard_points, swirl_points
from diffenc_ct.data.readers import read_idx, read_imagenet_batches
from diffenc_ct.data.splits import permutation
from diffenc_ct.report.extras import require

__all__ = ["NAMES", "load_dataset"]


def default_root() -> Path:
    """Folder of downloaded data sets: the environment variable DIFFENC_DATA, or ./data."""
    return _from_home(os.environ.get("DIFFENC_DATA", "data"))


def load_dataset(
    name: str,
    *,
    root: str | Path | None = None,
    levels: int | None = None,
    download: bool = False,
    patch: int | None = None,
    flip: bool = False,
    standardise: bool = False,
    labels: bool = False,
) -> Dataset:
    """A data set by name or path.

    Args:
        name: one of NAMES, or the path of a folder, .npy or .npz file.
        root: folder of the downloaded sets ($DIFFENC_DATA or ./data by default).
        levels: of integers, taken from the data where not given.
        download: fetch MNIST or CIFAR-10 if missing.
        patch: side of square crops, in place of whole images of a folder.
        flip: half of the training images horizontally, at random.
        standardise: reals for the model: less their mean, over their deviation.
        labels: with the class of every example, for a model that is given it.

    Raises:
        ValueError: for an unknown name, bad values, patches of other data than folders, flips of other than images and
            standardised levels, naming cause and remedy.
        FileNotFoundError: for data that are not there.
        MissingExtra: where a package that reads them is not installed.

    Example:
        >>> load_dataset("swirl").shape
        (2,)
    """
    folder = default_root() if root is None else _from_home(root)
    data = _load(name, folder, levels, download, patch, standardise, labels)
    if not (flip or standardise or labels):
        return data
    known = labels_of(str(_from_home(name)), folder) if labels else None
    return dataclasses.replace(data, flip=flip, standardise=standardise, labels=known)


def _from_home(path: str | Path) -> Path:
    """The path, ~ written out; as it is where there is no such home."""
    return Path(os.path.expanduser(path))


def _load(
    name: str,
    root: Path,
    levels: int | None,
    download: bool,
    patch: int | None,
    standardise: bool,
    labels: bool,
) -> Dataset:
    path = _from_home(name)
    if patch is not None and (name in _LOADERS or not path.is_dir()):
        raise ValueError(
            f"data {name!r} is no folder of images, from which patches are cut: name one (--data FOLDER), "
            f"or leave out --patch {patch}"
        )
    if name in _LOADERS:
        data = _LOADERS[name](root, download)
        if levels not in (None, data.levels):
            raise ValueError(
                f"data {name!r} has {data.levels} levels, not {levels}; leave levels out"
            )
        return data
    if path.is_dir():
        return from_folder(path, levels, patch)
    if path.suffix.lower() in (".npy", ".npz"):
        return from_arrays(path, levels, standardise, labels=labels)
    raise ValueError(
        f"unknown data {name!r}; choose one of {', '.join(NAMES)}, a folder of images, or an .npy or .npz file"
    )


def _digits(root: Path, download: bool) -> Dataset:
    digits = require("sklearn.datasets", "data").load_digits()
    images = torch.from_numpy(digits.images.astype(np.uint8))[:, None]
    order = permutation(len(images), seed=0)
    return Dataset("digits", images[order[:-360]], images[order[-360:]], 17)


def _mnist(root: Path, download: bool) -> Dataset:
    if download:
        require("torchvision.datasets", "data").MNIST(str(root), download=True)
    raw = root / "MNIST" / "raw"
    names = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
    parts = [read_idx(raw / name) for name in names]
    for name, part in zip(names, parts, strict=True):
        if part.ndim != 3:
            raise ValueError(f"{raw / name} has shape {part.shape}, no images; fetch it again")
    train, test = (torch.from_numpy(part)[:, None] for part in parts)
    return Dataset("mnist", train, test, 256)


def _cifar10(root: Path, download: bool) -> Dataset:
    # torchvision checks the files' digests before it unpickles them.
    cifar10 = require("torchvision.datasets", "data").CIFAR10
    try:
        parts = [cifar10(str(root), train=train, download=download).data for train in (True, False)]
    except RuntimeError as error:
        raise FileNotFoundError(
            f"no intact CIFAR-10 in {root}; put cifar-10-batches-py there, name another root, or allow download"
        ) from error
    train, test = (torch.from_numpy(part).permute(0, 3, 1, 2).contiguous() for part in parts)
    return Dataset("cifar10", train, test, 256)


def _imagenet32(root: Path, download: bool) -> Dataset:
    folder = root / "imagenet32" if (root / "imagenet32").is_dir() else root
    train, test = (torch.from_numpy(part) for part in read_imagenet_batches(folder))
    return Dataset("imagenet32", train, test, 256)


def _swirl(root: Path, download: bool) -> Dataset:
    train, test = (torch.from_numpy(swirl_points(1024, seed).astype(np.uint8)) for seed in (1, 2))
    return Dataset("swirl", train, test, 256)


def _swirl_real(root: Path, download: bool) -> Dataset:
    train, test = (
        torch.from_numpy(((swirl_points(1024, seed) - 120) / 100).astype(np.float32))
        for seed in (1, 2)
    )
    return Dataset("swirl-real", train, test, None)


def _checkerboard(root: Path, download: bool) -> Dataset:
    train, test = (
        torch.from_numpy(checkerboard_points(size, seed).astype(np.float32))
        for size, seed in ((4096, 1), (1024, 2))
    )
    return Dataset("checkerboard", train, test, None)


_LOADERS: dict[str, Callable[[Path, bool], Dataset]] = {
    "digits": _digits,
    "mnist": _mnist,
    "cifar10": _cifar10,
    "imagenet32": _imagenet32,
    "swirl": _swirl,
    "swirl-real": _swirl_real,
    "checkerboard": _checkerboard,
}
NAMES = tuple(_LOADERS)
IN_ROOT = ("mnist", "cifar10", "imagenet32")  # files in a folder of data sets
