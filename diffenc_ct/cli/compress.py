"""diffenc compress"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffenc_ct.cli import Result
from diffenc_ct.cli.numbers import counted, whole
from diffenc_ct.cli.options import (
    add_batch_size,
    add_data,
    add_device,
    add_seed,
    add_step,
    add_weights,
    check_values,
    data_of,
    load_calibration,
    make_folder,
    open_given,
    refuse_idle,
    use_device,
)
from diffenc_ct.cli.progress import progress
from diffenc_ct.coding import CodingOptions, cut, encode, read
from diffenc_ct.data.dataset import check_values as check_levels
from diffenc_ct.data.images import image_paths, read_image
from diffenc_ct.data.readers import read_array_file
from diffenc_ct.elbo import FiniteDepth, elbo
from diffenc_ct.model import evaluating
from diffenc_ct.report.extras import require
from diffenc_ct.report.files import write_atomically
from diffenc_ct.report.values import is_picture
from diffenc_ct.training.runs import OpenedRun

EPILOG = """\
A model of T steps is a code of the length of its bound: images become one file that `diffenc decompress` turns back
into the same images, bit for bit, with the same run on a machine whose floats are the same. An image costs T network
evaluations each way. The first pops bits that nobody paid for (the initial bits), which many images share.

Images of other sizes than the model's are cut into tiles of its shape; tiles that reach over an image's border are
filled by its last pixels, whose bits count as the image's.

Prints bits per dimension with and without initial bits, beside an estimate of the bound.

examples:
  diffenc compress digits-vdm --split test -o digits.diffenc
  diffenc compress mnist-vdm some/*.png more.npy --depth 32 -o images.diffenc
  diffenc compress kodak-vdm photograph.png another.png --depth 8 -o photographs.diffenc  # tiles of 16x16
  diffenc compress runs/mnist a-folder --calibration -o images.diffenc  # the grid and eta* of `diffenc calibrate`
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "run",
        metavar="RUN",
        help="folder of a run, a checkpoint file, or the name of a pretrained model",
    )
    parser.add_argument(
        "images",
        metavar="IMAGES",
        nargs="*",
        help="image files, folders of them, .npy or .npz files of arrays",
    )
    parser.add_argument("-o", "--out", required=True, metavar="FILE", help="the file to be written")
    parser.add_argument(
        "--split",
        choices=("test", "train"),
        help="in the place of IMAGES: examples of the run's data",
    )
    parser.add_argument(
        "--examples", type=whole(1), help="of --split, the first so many (default all)"
    )
    parser.add_argument("--depth", type=whole(1), default=16, help="T, uniform steps (default 16)")
    add_step(parser, "with --depth")
    parser.add_argument(
        "--calibration", nargs="?", const="", metavar="FILE",
        help="grid, w* and eta* as `diffenc calibrate` fitted them (RUN/calibration.json)",
    )  # fmt: skip
    parser.add_argument(
        "--bits",
        type=whole(0, 10),
        default=4,
        help="how fine latents are below a step's noise (default 4)",
    )
    add_batch_size(parser, 16, "most images at a time")
    add_weights(parser)
    add_seed(parser)
    add_data(parser)
    add_device(parser)
    parser.set_defaults(step=None)


def run(arguments: argparse.Namespace) -> Result:
    """Code, write, print."""
    require("constriction", "coding")
    device, opened = use_device(arguments), open_given(arguments)
    path = Path(arguments.out)
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder; give a file's name in it")
    loss = steps_of(arguments, opened)
    x, sizes = _examples(arguments, opened)
    count, (a, unit) = len(sizes or x), ("a", "tile") if sizes else ("an", "image")
    make_folder(path.parent)
    model = opened.model.to(device)
    names = ("run", "weights", "checkpoint", "depth", "step", "calibration")
    kept = {name: getattr(arguments, name) for name in names}
    options = CodingOptions(arguments.bits, arguments.batch_size, arguments.seed)
    started = time.perf_counter()
    with progress("compress", len(x), unit) as shown:
        data = encode(model, x, loss, options, sizes=sizes, run=kept, progress=shown)
    speed = len(x) / (time.perf_counter() - started)
    write_atomically(path, data)
    found = read(data)
    # A tile's bits are those of its pixels in the image.
    mean, error = (
        v * x.numel() / found.header.dimensions for v in _bound(opened, x.to(device), loss)
    )
    tiles = f"in {len(x):,} tiles " if sizes else ""
    each = counted(loss.depth, "evaluation")
    print(
        f"{counted(count, 'image')} {tiles}of {x[0].numel():,} values by {arguments.run}, "
        f"{counted(loss.depth, f'{loss.step_kind} step')}: {each} {a} {unit}, {speed:.3g} {unit}s a second"
    )
    print(f"net    {found.net:.4f} bits per dimension, without the initial bits")
    print(
        f"gross  {found.gross:.4f} bits per dimension of the file, {found.initial:.4f} of them initial bits"
    )
    spread = f" ± {error:.4f}" if len(x) > 1 else ""
    print(f"bound  {mean:.4f}{spread} bits per dimension, estimated anew")
    print(f"wrote {path}, {len(data):,} bytes")
    values = {
        "run": str(arguments.run),
        "images": count,
        "tiles": len(x) if sizes else None,
        "dimensions": x[0].numel(),
        "depth": loss.depth,
        "step_kind": loss.step_kind,
        "images_per_second": speed * count / len(x),
        "bits_per_dimension": {"net": found.net, "gross": found.gross, "initial": found.initial},
        "bound": {"mean": mean, "standard_error": error},
        "bytes": len(data),
    }
    return Result(values, [path])


def steps_of(arguments: argparse.Namespace, opened: OpenedRun) -> FiniteDepth:
    """What --depth and --step, or --calibration, say; mixture steps where the heads know every value.

    Args:
        arguments: as given, or as a file's header has them.
        opened: the run.
    Raises:
        ValueError: for options that contradict each other.
    """
    if arguments.calibration is not None:
        brings = "a calibration brings its own steps"
        refuse_idle(arguments, dict.fromkeys(("depth", "step"), brings))
        return FiniteDepth(load_calibration(arguments.calibration, opened, arguments.run))
    if arguments.step is None:
        arguments.step = "mixture" if opened.model.heads.knows_values else "gaussian"
    check_values(arguments, opened)
    return FiniteDepth(arguments.depth, step=arguments.step)


def _examples(arguments: argparse.Namespace, opened: OpenedRun) -> tuple[Tensor, list[list[int]]]:
    """Levels of --split or of IMAGES, or tiles and sizes of these; refused where the model cannot code them."""
    levels = opened.model.decoder.levels
    if levels is None:
        raise ValueError(
            f"{arguments.run} is a model of reals, which have no code; give a run of levels"
        )
    if arguments.split is not None:
        if arguments.images:
            raise ValueError(
                f"--split {arguments.split} stands in the place of IMAGES; leave one of them out"
            )
        found: Tensor = getattr(data_of(opened, arguments), arguments.split)[: arguments.examples]
        return found, []
    idle = "it is of --split"
    refuse_idle(arguments, dict.fromkeys(("examples", "data", "data_root", "download"), idle))
    if not arguments.images:
        raise ValueError("give images, or --split test for the run's test examples")
    parts = [part for name in arguments.images for part in _read(Path(name))]
    whole, shape = all(part.shape[1:] == opened.shape for _, part in parts), opened.shape
    for name, part in parts:
        if not part.numel():
            raise ValueError(f"{name} holds no examples: its shape is {tuple(part.shape)}")
        tiled = is_picture(shape) and part.ndim == 4 and part.shape[1] == shape[0]
        if part.shape[1:] != shape and not tiled:
            what = (
                f"bring them to {shape[0]} channels"
                if is_picture(shape)
                else "bring them to that shape"
            )
            raise ValueError(
                f"{name} has examples of shape {tuple(part.shape[1:])}, {arguments.run} codes {shape}: {what}"
            )
        check_levels(part, levels, name)
    if whole:
        return torch.cat([part.long() for _, part in parts]), []
    return cut([image.long() for _, part in parts for image in part], shape)


def _read(path: Path) -> list[tuple[str, Tensor]]:
    """The examples of a path, each part with what it is called."""
    if path.suffix.lower() in (".npy", ".npz"):
        arrays = read_array_file(path).items()
        return [(f"{path}:{name}", torch.from_numpy(np.array(a))) for name, a in arrays]
    files = image_paths(path) if path.is_dir() else [path]
    return [(str(file), torch.from_numpy(read_image(file).copy())[None]) for file in files]


@torch.no_grad()
def _bound(opened: OpenedRun, images: Tensor, loss: FiniteDepth) -> tuple[float, float]:
    """The bound in bits per dimension and its standard error (NaN of one image), one step of each image."""
    generator, found = torch.Generator(images.device).manual_seed(0), []
    with evaluating(opened.model):
        for part in torch.split(images, 64):
            terms = elbo(opened.model, part, loss, generator=generator)
            found.append(terms.bits_per_dimension().total)
    each = torch.cat(found).double()
    error = float(each.std()) / len(each) ** 0.5 if len(each) > 1 else math.nan
    return float(each.mean()), error
