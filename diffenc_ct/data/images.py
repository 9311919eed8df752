"""Images of a folder: which files they are, and their pixels as they are meant, or a refusal.

A reader that gives eight bits of sixteen, the first of many pages or colours without their transparency changes the
data and says nothing. What 8-bit grey or RGB does not hold is therefore refused by the file's name. An orientation
that a camera noted is applied.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from diffenc_ct.data.readers import reading
from diffenc_ct.report.extras import require

__all__ = ["image_paths", "read_image", "read_images"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
# What programs leave beside images, in lower case; all names that begin with a dot are of this kind.
_LEFT_BY_PROGRAMS = {"__macosx", "thumbs", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"}
_BITS, _SAMPLES = 258, 277  # tags of TIFF


def image_paths(folder: Path) -> list[Path]:
    """Image files below a folder, in order of their relative paths.

    Hidden files and folders, and what programs leave beside images, are none. A link is followed unless it leads to a
    folder that it lies in.

    Args:
        folder: to be searched.

    Raises:
        ValueError: where there is none.
        OSError: for a folder that cannot be listed.
        MissingExtra: without pillow, before anything is searched.
    """
    require("PIL.Image", "data")
    found: list[Path] = []

    def search(here: Path, above: tuple[Path, ...]) -> None:
        above = (*above, here.resolve())
        for entry in here.iterdir():
            if _is_no_data(entry.name):
                continue
            if entry.is_dir():
                if entry.resolve() not in above:
                    search(entry, above)
            elif entry.suffix.lower() in SUFFIXES:
                found.append(entry)

    search(folder, ())
    if not found:
        raise ValueError(f"no images in {folder} (looked for {' '.join(SUFFIXES)}); add some")
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _is_no_data(name: str) -> bool:
    return name.startswith((".", "~")) or name.endswith("~") or name.lower() in _LEFT_BY_PROGRAMS


def read_images(
    folder: Path, names: list[str], patch: int | None = None
) -> dict[str, UInt8[np.ndarray, "channels height width"]]:
    """The images of these names.

    All must have the mode of the first, and its size unless patches are cut from them. One-bit images become grey,
    palettes colour.

    Args:
        folder: that they are in.
        names: paths in it.
        patch: side of the patches that each must hold.

    Raises:
        ValueError: for one that does not fit, naming it.
        MissingExtra: without pillow.
    """
    images: dict[str, np.ndarray] = {}
    for name in names:
        path, image = folder / name, read_image(folder / name)
        first = images.setdefault(names[0], image)
        if patch is not None and min(image.shape[1:]) < patch:
            raise ValueError(
                f"{path} is {_describe(image)}, smaller than a patch of {patch}x{patch}; remove it, or give a smaller "
                "patch"
            )
        common, free = (slice(1), "mode") if patch else (slice(None), "size and mode")
        if image.shape[common] != first.shape[common]:
            raise ValueError(
                f"{path} is {_describe(image)} but {names[0]} is {_describe(first)}; "
                f"bring all images to one {free}{'' if patch else ', or cut them into patches with --patch'}"
            )
        images[name] = image
    return images


def read_image(path: Path) -> UInt8[np.ndarray, "channels height width"]:
    """The pixels of an image file, of 1 or 3 channels.

    Args:
        path: of the file.

    Raises:
        ValueError: for what is damaged, and for more than 8-bit grey or RGB can hold.
        MissingExtra: without pillow.
    """
    opened = require("PIL.Image", "data").open
    if not path.is_file():
        raise ValueError(f"{path} is no file (or a link to none); remove or replace it")
    with (
        reading(path, "an image", "remove or replace it"),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        warnings.filterwarnings("error", message="Image size")  # of a decompression bomb
        with opened(path, formats=FORMATS) as image:
            reason = _unfit(image)
            pixels = None if reason else _pixels(image)
    if pixels is None:
        raise ValueError(f"{path} {reason}")
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        warnings.warn(f"{path}: {text}", stacklevel=2)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


def _unfit(image: Any) -> str | None:
    """Why an image is more than its pixels would tell, and the remedy; None for one that is not."""
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        return f"has {pages} pages or frames, of which one would be read; save each as a file of its own"
    if _is_deep(image):
        return (
            "has 16 bits a channel, of which eight would be read; convert it to 8-bit grey or RGB"
        )
    samples, bands = getattr(image, "tag_v2", {}).get(_SAMPLES, 1), image.getbands()
    if samples > len(bands):
        return f"has {samples} channels, of which {len(bands)} would be read; convert it to 8-bit grey or RGB"
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        # Of two or four bits pillow spreads the greys, but not the one that is transparent.
        spread = image.mode == "L" and any(given in ("L;2", "L;4") for *_, given in image.tile)
        if spread or image.convert("RGBA").getextrema()[3][0] < 255:
            return f"has transparent pixels (mode {image.mode}); convert it to 8-bit grey or RGB"
    elif image.mode not in ("1", "L", "P", "RGB"):
        return f"has mode {image.mode}; convert it to 8-bit grey or RGB"
    return None


def _pixels(image: Any) -> np.ndarray:
    """Grey (height, width) or colours (height, width, 3), turned as the camera noted."""
    upright = require("PIL.ImageOps", "data").exif_transpose(image)
    return np.array(upright.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))


def _is_deep(image: Any) -> bool:
    """Whether a file has more than eight bits a channel, of which pillow may keep eight and say nothing."""
    if max(getattr(image, "tag_v2", {}).get(_BITS, (8,))) > 8:
        return True
    for codec, _, _, given in image.tile:
        if codec in ("ppm", "ppm_plain") and isinstance(given, tuple) and given[-1] > 255:
            return True
        if ";16" in str(given) and not str(given).startswith("BGR;"):
            return True
    return str(image.mode).startswith("I")


def _describe(image: np.ndarray) -> str:
    channels, height, width = image.shape
    return f"{width}x{height} with {channels} channel{'s' if channels > 1 else ''}"
