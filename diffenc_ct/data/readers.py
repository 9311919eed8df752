"""Readers of data files: IDX, ImageNet32's npz batches, arrays.

Each returns numpy arrays and refuses what it cannot read with an error that names the file. Nothing here
unpickles: a data file cannot execute code. What a file promises is compared with what it holds, and a small file
that unpacks to a crowd of bytes is not unpacked.
"""

import gzip
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8

__all__ = ["read_array_file", "read_idx", "read_imagenet_batches", "reading"]

# A packed file may unpack to so many bytes, or so many times its own size.
MOST_UNPACKED, MOST_GROWTH = 2**28, 100


@contextmanager
def reading(path: Path, kind: str, remedy: str) -> Iterator[None]:
    """Turn whatever a parser says of a file's bytes into one line that names the file.

    Damaged bytes lead parsers to exceptions of any type (struct.error, KeyError, MemoryError, ...), so all are meant.

    Args:
        path: of the file.
        kind: what it is read as.
        remedy: what a user can do.

    Raises:
        ValueError: for every exception within.
    """
    try:
        yield
    except Exception as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read as {kind} ({words}); {remedy}") from error


def read_idx(path: Path) -> UInt8[np.ndarray, "*shape"]:
    """Unsigned bytes from an IDX file, in the shape its header states.

    Args:
        path: of the file, which may have .gz appended.

    Raises:
        FileNotFoundError: where there is neither.
        ValueError: for another format or a truncated file.
    """
    packed = path.with_name(path.name + ".gz")
    found = path if path.exists() else packed
    if not found.exists():
        raise FileNotFoundError(
            f"{path} is missing (so is {packed.name}); put the file there, name another root, or allow download"
        )
    with reading(found, "IDX data", "fetch it again"):
        opened = gzip.open(found) if found == packed else open(found, "rb")
        with opened as stream:
            start = stream.read(4)
            if start[:3] != b"\0\0\x08" or len(start) < 4:
                raise ValueError("no IDX file of unsigned bytes")
            header = stream.read(4 * start[3])
            shape = tuple(np.frombuffer(header, ">u4").tolist())
            promised = math.prod(shape)
            _refuse_bomb(found.stat().st_size, promised)
            data = stream.read(promised + 1)
        if len(shape) < start[3] or len(data) != promised:
            more = "more" if len(data) > promised else len(data)
            raise ValueError(f"its header promises {promised} bytes, {more} follow")
        return np.frombuffer(bytearray(data), np.uint8).reshape(shape)


def read_imagenet_batches(
    folder: Path,
) -> tuple[UInt8[np.ndarray, "train 3 32 32"], UInt8[np.ndarray, "test 3 32 32"]]:
    """Train and test images from train_data_batch_1..10.npz and val_data.npz.

    The published format: an array `data` of shape (N, 3072), unsigned bytes, channel first.

    Args:
        folder: of the files.

    Raises:
        FileNotFoundError: naming those that lack.
        ValueError: for one of another format.
    """
    names = [f"train_data_batch_{i}" for i in range(1, 11)] + ["val_data"]
    missing = [name for name in names if not (folder / f"{name}.npz").exists()]
    if missing:
        raise FileNotFoundError(
            f"ImageNet32 in {folder} lacks {', '.join(f'{name}.npz' for name in missing)}; "
            "get the npz batches from image-net.org (an account is needed) or name another root"
        )
    parts = []
    for name in names:
        path = folder / f"{name}.npz"
        arrays = read_array_file(path)
        data = arrays.get("data")
        if data is None or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * 32 * 32:
            raise ValueError(
                f"{path}: expected an array `data` of bytes, shape (N, 3072); fetch it again"
            )
        parts.append(data.reshape(-1, 3, 32, 32))
    return np.concatenate(parts[:-1]), parts[-1]


def read_array_file(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Arrays of an .npz file by name, or an .npy file's under the name `data`.

    An .npy file is not read but mapped: its values come from the disk when they are looked at.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: for another format, and for what was cut off or added; an array of objects, which could execute
            code, is one.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the path of an .npy or .npz file")
    with reading(path, "arrays", "save it again"):
        if path.suffix.lower() == ".npy":
            return {"data": _map_npy(path)}
        with zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if each.filename.endswith(".npy")]
            return {each.filename[: -len(".npy")]: _unpack(archive, each) for each in members}


def _map_npy(path: Path) -> np.ndarray:
    array = np.lib.format.open_memmap(path, mode="r")
    promised, there = array.offset + array.nbytes, path.stat().st_size
    if promised != there:
        raise ValueError(f"its header promises {promised} bytes, it has {there}")
    return array


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    _refuse_bomb(member.compress_size, member.file_size)
    with archive.open(member) as stream:
        array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
        if stream.read(1):
            raise ValueError(f"bytes follow the array {member.filename}")
    return array


def _refuse_bomb(packed: int, unpacked: int) -> None:
    if unpacked > max(MOST_UNPACKED, MOST_GROWTH * packed):
        raise ValueError(
            f"{packed:,} bytes that would unpack to {unpacked:,}: more than {MOST_GROWTH} times as many"
        )
