"""diffenc decompress"""

import argparse
import io
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffenc_ct.cli import Result
from diffenc_ct.cli.compress import steps_of
from diffenc_ct.cli.numbers import counted
from diffenc_ct.cli.options import add_device, make_folder, open_given, use_device
from diffenc_ct.cli.progress import progress
from diffenc_ct.coding import decode, join, read
from diffenc_ct.report.extras import require
from diffenc_ct.report.files import write_atomically
from diffenc_ct.report.values import is_picture

EPILOG = """\
Writes the images that `diffenc compress` was given, as PNG files in a folder or as one .npy file. Nothing is written
unless all of them are the same as before, bit for bit: a file that is damaged or another's, other weights, and floats
that differ (another machine, another version of torch) are refused. Images that were cut into tiles have their own
sizes again; one .npy file holds images of one size.

examples:
  diffenc decompress digits.diffenc -o digits
  diffenc decompress images.diffenc -o images.npy
  diffenc decompress images.diffenc --run another/place/of/the/run -o images
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("file", metavar="FILE", help="that `diffenc compress` wrote")
    parser.add_argument(
        "-o",
        "--out",
        required=True,
        metavar="FOLDER",
        help="folder of PNG files, or a name that ends in .npy",
    )
    parser.add_argument("--run", help="in the place of the run that the file names")
    parser.add_argument("--weights", help="in the place of those that the file names")
    parser.add_argument("--checkpoint", help="in the place of that which the file names")
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        help="in the place of that which the file names, if it names one",
    )
    add_device(parser)


def run(arguments: argparse.Namespace) -> Result:
    """Decode, compare, write."""
    require("constriction", "coding")
    device, path = use_device(arguments), Path(arguments.file)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}); give a file of `diffenc compress`"
        ) from None
    try:
        header = read(data).header
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not header.run:
        raise ValueError(f"{path} names no run: it was made by the library; decode it there")
    names = ("run", "weights", "checkpoint", "calibration")
    own = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    asked = argparse.Namespace(**header.run | own, given=set())
    opened = open_given(asked)
    as_files = Path(arguments.out).suffix.lower() != ".npy"
    if as_files and not (is_picture(tuple(header.shape)) and header.levels <= 256):
        raise ValueError(
            f"examples of shape {tuple(header.shape)} are no images; give --out NAME.npy"
        )
    if not as_files and any(size != header.sizes[0] for size in header.sizes):
        raise ValueError(f"{path} holds images of several sizes, no one array; give --out FOLDER")
    a, unit = ("a", "tile") if header.sizes else ("an", "image")
    started = time.perf_counter()
    with progress("decompress", header.count, unit) as shown:
        try:
            x = decode(opened.model.to(device), data, steps_of(asked, opened), progress=shown)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    speed = header.count / (time.perf_counter() - started)
    images = join(x, header.sizes)
    (_write_files if as_files else _write_array)(images, header.levels, Path(arguments.out))
    print(
        f"{counted(len(images), 'image')}, the same as before by their checksum: "
        f"{counted(header.depth, 'evaluation')} {a} {unit}, "
        f"{speed:.3g} {unit}s a second"
    )
    print(f"wrote {arguments.out}")
    facts = {
        "images": len(images),
        "depth": header.depth,
        "images_per_second": speed * len(images) / header.count,
    }
    return Result(facts, [arguments.out])


def _write_files(images: list[Tensor], levels: int, folder: Path) -> None:
    """One PNG an image, named by its number."""
    image, digits = require("PIL.Image", "data"), len(str(len(images) - 1))
    make_folder(folder)
    for number, each in enumerate(images):
        values = each.numpy().astype(np.uint8)
        pixels = values[0] if len(values) == 1 else np.moveaxis(values, 0, 2)
        stream = io.BytesIO()
        image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
        write_atomically(folder / f"{number:0{digits}}.png", stream.getvalue())


def _write_array(images: list[Tensor], levels: int, path: Path) -> None:
    """The smallest type of integers that holds all levels."""
    make_folder(path.parent)
    stream = io.BytesIO()
    np.save(stream, torch.stack(images).numpy().astype(np.min_scalar_type(levels - 1)))
    write_atomically(path, stream.getvalue())
