"""Readers of data files: IDX, ImageNet32's npz batches, folders of images, arrays.

Each returns numpy arrays and refuses what it cannot read with an error that names the file. Nothing here
unpickles: a data file cannot execute code.
"""

import gzip
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from diffenc_ct._extras import require

__all__ = ["read_array_file", "read_idx", "read_image_folder", "read_imagenet_batches"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


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
    try:
        data = gzip.decompress(found.read_bytes()) if found == packed else found.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{found} is truncated or no gzip file ({error}); fetch it again"
        ) from error
    header = 4 + 4 * data[3] if len(data) > 3 else 4
    if data[:3] != b"\0\0\x08" or len(data) < header:
        raise ValueError(f"{found} is no IDX file of unsigned bytes; fetch it again")
    shape = tuple(np.frombuffer(data[4:header], ">u4").tolist())
    if len(data) - header != int(np.prod(shape)):
        raise ValueError(
            f"{found}: header promises {int(np.prod(shape))} bytes, {len(data) - header} follow; fetch it again"
        )
    return np.frombuffer(bytearray(data), np.uint8, offset=header).reshape(shape)


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


def read_image_folder(
    folder: Path, patch: int | None = None
) -> dict[str, UInt8[np.ndarray, "channels height width"]]:
    """Every image below a folder by its relative path, of 1 or 3 channels.

    All must have the mode of the first (in order of their paths), and its size unless patches are cut from them.
    One-bit images become grey, palettes colour; transparency and 16-bit images are refused.

    Args:
        folder: of the images.
        patch: side of the patches that each must hold.

    Raises:
        ValueError: for none, and for one that does not fit, naming it.
        MissingExtra: without pillow.
    """
    require("PIL.Image", "data")  # before a folder is searched
    paths = sorted(
        (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES),
        key=lambda path: path.relative_to(folder).as_posix(),
    )
    if not paths:
        raise ValueError(f"no images in {folder} (looked for {' '.join(IMAGE_SUFFIXES)}); add some")
    images: dict[str, np.ndarray] = {}
    for path in paths:
        image = _read_image(path)
        first = next(iter(images.values()), image)
        if patch is not None and min(image.shape[1:]) < patch:
            raise ValueError(
                f"{path} is {_describe(image)}, smaller than a patch of {patch}x{patch}; remove it, or give a smaller "
                "patch"
            )
        common, free = (slice(1), "mode") if patch else (slice(None), "size and mode")
        if image.shape[common] != first.shape[common]:
            raise ValueError(
                f"{path} is {_describe(image)} but {paths[0].name} is {_describe(first)}; "
                f"bring all images to one {free}{'' if patch else ', or cut them into patches with --patch'}"
            )
        images[path.relative_to(folder).as_posix()] = image
    return images


def _read_image(path: Path) -> np.ndarray:
    try:
        with require("PIL.Image", "data").open(path) as image:
            if _is_deep(image):
                raise ValueError(f"{path} has 16 bits; convert it to 8-bit grey or RGB")
            if image.mode == "1":
                image = image.convert("L")
            elif image.mode == "P" and "transparency" not in image.info:
                image = image.convert("RGB")
            if image.mode not in ("L", "RGB"):
                raise ValueError(f"{path} has mode {image.mode}; convert it to 8-bit grey or RGB")
            pixels = np.array(image)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read as an image ({error}); remove or replace it"
        ) from error
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


def _is_deep(image: Any) -> bool:
    """Whether an image of mode RGB has 16 bits a channel in its file, of which pillow would keep 8 and say nothing."""
    for codec, _, _, given in image.tile:
        if codec == "ppm" and given[-1] > 255:
            return True
        if re.search(r";16[BLN]", str(given)) and image.mode == "RGB":
            return True
    return False


def _describe(image: np.ndarray) -> str:
    channels, height, width = image.shape
    return f"{width}x{height} with {channels} channel{'s' if channels > 1 else ''}"


def read_array_file(path: Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Arrays of an .npz file by name, or an .npy file's under the name `data`.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: where there is none.
        ValueError: for another format; an array of objects, which could execute code, is one.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give the path of an .npy or .npz file")
    try:
        if path.suffix == ".npy":
            return {"data": np.load(path, allow_pickle=False)}
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as arrays ({error}); save it again") from error
