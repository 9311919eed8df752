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
| a folder | its images, of one size and mode | 256 | sub-folders train and test where both are, else below |
| a .npy or .npz file | integers or reals, (N, ...) | largest value + 1, or given | arrays train and test, else below |

Where no split is published, a tenth (rounded, at least one) is the test set: of an array, the end of a
permutation of seed 0; of a folder, the files with the smallest SHA-256 of their name, so that the order
in which a file system lists them does not matter.

Images are (N, channels, height, width) unsigned 8-bit integers, vectors (N, d). Integers take the discrete
decoder and are scaled to (-1, 1) by the model. Reals take the continuous decoder **as they are**: bring them
to about unit scale beforehand, the likelihood is that of the numbers in the file.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffenc_ct.data.readers import (
    read_array_file,
    read_idx,
    read_image_folder,
    read_imagenet_batches,
)

__all__ = ["NAMES", "Dataset", "load_dataset"]


@dataclass(frozen=True)
class Dataset:
    """Train and test examples: (N, *shape) integers in 0..levels-1, or reals where levels is None."""

    name: str
    train: Tensor
    test: Tensor
    levels: int | None

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

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.train.shape[1:])

    @property
    def dimensions(self) -> int:
        """Number of data dimensions d of one example."""
        return self.train[0].numel()


def check_values(values: Tensor, levels: int | None, where: str) -> None:
    """Refuse values that the decoder has no probability for; raises ValueError saying which."""
    if levels is None:
        if not values.is_floating_point():
            raise ValueError(f"{where}: {values.dtype} values need a number of levels; give levels")
        if not bool(torch.isfinite(values).all()):
            raise ValueError(f"{where}: NaN or infinite values; remove them")
        return
    if values.is_floating_point():
        raise ValueError(
            f"{where}: levels={levels} given but values are {values.dtype}; store integers"
        )
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= levels:
        raise ValueError(
            f"{where}: values {low}..{high} do not fit into {levels} levels (0..{levels - 1})"
        )


def default_root() -> Path:
    """Folder of downloaded data sets: the environment variable DIFFENC_DATA, or ./data."""
    return Path(os.environ.get("DIFFENC_DATA", "data"))


def load_dataset(
    name: str, *, root: str | Path | None = None, levels: int | None = None, download: bool = False
) -> Dataset:
    """The data set of that name (see NAMES), or the folder, .npy or .npz file at that path.

    root: folder of the downloaded sets (default: $DIFFENC_DATA or ./data). levels: number of levels of
    integers, taken from the data where not given. download: fetch MNIST or CIFAR-10 if missing.
    Raises ValueError (unknown name, bad values) or FileNotFoundError, naming the cause and the remedy.
    """
    folder = default_root() if root is None else Path(root)
    if name in _LOADERS:
        data = _LOADERS[name](folder, download)
        if levels not in (None, data.levels):
            raise ValueError(
                f"data {name!r} has {data.levels} levels, not {levels}; leave levels out"
            )
        return data
    path = Path(name)
    if path.is_dir():
        return _from_folder(path, levels)
    if path.suffix in (".npy", ".npz"):
        return _from_arrays(path, levels)
    raise ValueError(
        f"unknown data {name!r}; choose one of {', '.join(NAMES)}, a folder of images, or an .npy or .npz file"
    )


def _digits(root: Path, download: bool) -> Dataset:
    from sklearn.datasets import load_digits

    images = torch.from_numpy(load_digits().images.astype(np.uint8))[:, None]
    order = _permutation(len(images), seed=0)
    return Dataset("digits", images[order[:-360]], images[order[-360:]], 17)


def _mnist(root: Path, download: bool) -> Dataset:
    if download:
        from torchvision.datasets import MNIST

        MNIST(str(root), download=True)
    raw = root / "MNIST" / "raw"
    names = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
    train, test = (torch.from_numpy(read_idx(raw / name))[:, None] for name in names)
    return Dataset("mnist", train, test, 256)


def _cifar10(root: Path, download: bool) -> Dataset:
    from torchvision.datasets import CIFAR10  # checks the files' digests before it unpickles them

    try:
        parts = [CIFAR10(str(root), train=train, download=download).data for train in (True, False)]
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


def swirl_points(size: int, seed: int) -> np.ndarray:
    """VDM's swirl before rounding: theta = sqrt(u) 3 pi, r = 2 theta + pi, 4 ((cos theta, sin theta) r + n/4 + 30).

    Shape (size, 2), values about 30..210. (DiffEnc's code shifts all points by one normal number where VDM's
    draws one a coordinate; this is VDM's.)
    """
    random = np.random.Generator(np.random.PCG64(seed))
    theta = np.sqrt(random.random(size)) * 3 * np.pi
    radius = 2 * theta + np.pi
    x = np.stack([np.cos(theta) * radius, np.sin(theta) * radius], axis=1)
    return 4 * (x + 0.25 * random.standard_normal((size, 2)) + 30)


def _swirl(root: Path, download: bool) -> Dataset:
    train, test = (torch.from_numpy(swirl_points(1024, seed).astype(np.uint8)) for seed in (1, 2))
    return Dataset("swirl", train, test, 256)


def _swirl_real(root: Path, download: bool) -> Dataset:
    train, test = (
        torch.from_numpy(((swirl_points(1024, seed) - 120) / 100).astype(np.float32))
        for seed in (1, 2)
    )
    return Dataset("swirl-real", train, test, None)


def checkerboard_points(size: int, seed: int) -> np.ndarray:
    """Uniform points on the squares (i, j), i + j even, of a 4x4 board on (-1, 1)^2: entropy ln 2 nats."""
    random = np.random.Generator(np.random.PCG64(seed))
    column = random.integers(0, 4, size)
    row = 2 * random.integers(0, 2, size) + column % 2
    corner = np.stack([column, row], axis=1)
    return (corner + random.random((size, 2))) / 2 - 1


def _checkerboard(root: Path, download: bool) -> Dataset:
    train, test = (
        torch.from_numpy(checkerboard_points(size, seed).astype(np.float32))
        for size, seed in ((4096, 1), (1024, 2))
    )
    return Dataset("checkerboard", train, test, None)


def _from_folder(path: Path, levels: int | None) -> Dataset:
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


def _from_arrays(path: Path, levels: int | None) -> Dataset:
    arrays = read_array_file(path)
    if set(arrays) >= {"train", "test"}:
        train, test = _as_tensor(arrays["train"], path), _as_tensor(arrays["test"], path)
    elif len(arrays) == 1:
        values = _as_tensor(next(iter(arrays.values())), path)
        held_out = _test_size(len(values), path)
        order = _permutation(len(values), seed=0)
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


def _permutation(count: int, *, seed: int) -> Tensor:
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).permutation(count))


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
