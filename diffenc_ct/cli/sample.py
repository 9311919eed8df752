"""diffenc sample"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffenc_ct.cli import Result
from diffenc_ct.cli.numbers import finite, noise_level, whole
from diffenc_ct.cli.options import (
    add_batch_size,
    add_device,
    add_run,
    add_seed,
    add_step,
    add_timeout,
    add_weights,
    check_values,
    load_calibration,
    make_folder,
    open_given,
    output_path,
    refuse_idle,
    use_device,
)
from diffenc_ct.cli.progress import progress
from diffenc_ct.cli.solvers import lacking, make_solver
from diffenc_ct.distributed import Work, launched
from diffenc_ct.model import DiffEnc
from diffenc_ct.process import NoiseLevel
from diffenc_ct.report.pictures import image_grid, write_images, write_trajectory
from diffenc_ct.report.values import is_picture
from diffenc_ct.sampling import Ancestral, Solver, sample
from diffenc_ct.training.build import named_noise_level
from diffenc_ct.training.runs import OpenedRun

EPILOG = """\
Writes samples.png and samples.npz (arrays `samples`: levels in the smallest type that holds them, or reals; `latents`:
z_1; `z_0`; `labels` of a model that is given them) to the run's folder (see --out).

examples:
  diffenc sample runs/digits
  diffenc sample runs/mnist --count 100 --steps 500
  diffenc sample runs/mnist --solver ancestral --noise-level 0 --steps 50  # DDIM
  diffenc sample runs/mnist --solver ancestral --step mixture --steps 16
  diffenc sample runs/mnist --solver dopri5  # any method of torchdiffeq, scipy or torchsde
  diffenc sample runs/mnist --schedule calibrated  # the grid of `diffenc calibrate`
  diffenc sample runs/mnist --trajectory 4  # also a strip and a GIF of how four of them came about
  diffenc sample runs/mnist --count 1000 --images pictures/mnist  # one PNG a sample
  diffenc sample runs/mnist --seed 7 --out pictures/seven.png
  diffenc sample runs/labelled --labels 3 8 --guidance 2  # threes and eights in turn, of a run with --labels
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_run(parser)
    parser.add_argument("--count", type=whole(1), default=64, help="how many (default 64)")
    parser.add_argument(
        "--solver",
        help="exponential, ancestral, adams, torchsde:METHOD, torchdiffeq:METHOD, scipy:METHOD (default exponential)",
    )
    parser.add_argument(
        "--steps",
        type=whole(1),
        help="steps (default 30 exponential, 64 of an ODE method, else 256)",
    )
    parser.add_argument(
        "--noise-level",
        type=noise_level,
        help="eta of the steps: a number, tight, or optimal for the model's own eta* (default: what solver and model "
        "allow)",
    )
    parser.add_argument(
        "--schedule",
        help="where the steps lie: uniform, log-snr, balanced, or calibrated (ancestral steps as `diffenc calibrate` "
        "found them; a file of its own as calibrated:FILE)",
    )
    add_step(parser, "of --solver ancestral, how p(z_s | z_t) is made")
    parser.add_argument(
        "--latents", metavar="FILE", help="start from latents z_1 in an .npy or .npz file"
    )
    parser.add_argument(
        "--labels",
        type=whole(-1),
        nargs="+",
        metavar="LABEL",
        help="of a model with labels: those of the samples, in turn; -1 for none (default: all classes in turn)",
    )
    parser.add_argument(
        "--guidance",
        type=finite,
        help="of a model with labels: classifier-free guidance of this weight (default 1, none). Guided samples are of "
        "no model that evaluate reports on",
    )
    parser.add_argument(
        "--trajectory",
        type=whole(1),
        default=0,
        metavar="K",
        help="show the path of the first K images",
    )
    add_batch_size(parser, 256, "at a time; it changes no image")
    add_weights(parser)
    add_seed(parser)
    parser.add_argument(
        "--max-steps",
        type=whole(1),
        help="of a solver that chooses its steps: how many it tries before it gives up (default 10000)",
    )
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        help="also one PNG of 8 bits an image: 000000.png, 000001.png, ... in a new or empty folder",
    )
    parser.add_argument(
        "--out",
        help="where to write (default RUN/samples.png): the PNG under this name, the .npz beside it",
    )
    add_device(parser)
    add_timeout(parser)


def run(arguments: argparse.Namespace) -> Result:
    """Sample and write."""
    device = use_device(arguments)
    opened = open_given(arguments)
    check_values(arguments, opened)
    pictures = is_picture(opened.shape)
    refuse_idle(arguments, _idle(arguments, pictures, opened.classes))
    path = output_path(arguments.out, opened.folder, "samples.png", ".png", ".npz")
    path = path.with_suffix(".png")
    folder = None if arguments.images is None else _empty_folder(Path(arguments.images))
    solver = _solver(arguments, opened)
    latents = None if arguments.latents is None else _latents(arguments.latents, opened.shape)
    count = arguments.count if latents is None else len(latents)
    model, labels = _told(arguments, opened, count)
    with launched(device, timeout=arguments.process_timeout) as processes:
        with progress("sample", count // processes.size, "image") as shown:
            result = sample(
                model.to(device),
                count,
                solver=solver,
                latents=latents,
                trajectory=arguments.trajectory,
                generator=torch.Generator().manual_seed(arguments.seed),
                work=Work(arguments.batch_size, shown, processes),
            )
    if not processes.first:
        return Result()
    samples = result.samples.cpu()
    arrays: dict[str, Any] = {
        "samples": in_own_type(samples, opened.model.decoder.levels).numpy(),
        "latents": result.z_1.cpu().numpy(),
        "z_0": result.z_0.cpu().numpy(),
    }
    if labels is not None:
        arrays["labels"] = labels.numpy()
    np.savez_compressed(path.with_suffix(".npz"), **arrays)
    written = [path.with_suffix(".npz")]
    if folder is not None:
        written += [write_images(samples, opened.model.decoder.levels, folder)]
    if pictures:
        image_grid(samples, opened.model.decoder.levels).save(path)
        written.append(path)
        if result.trajectory is not None:
            written += write_trajectory(result.trajectory, path)
    guided = "" if arguments.guidance is None else f", guidance {arguments.guidance:g}"
    print(
        f"{len(samples)} samples of {arguments.run} at step {opened.step} by {result.log['solver']}, "
        f"{result.evaluations:.0f} evaluations, noise level {result.log['noise_level']}{guided}: "
        f"wrote {', '.join(map(str, written))}"
    )
    values = {
        "run": str(arguments.run),
        "step": opened.step,
        "samples": len(samples),
        "solver": result.log["solver"],
        "evaluations": result.evaluations,
        "noise_level": str(result.log["noise_level"]),
        "guidance": arguments.guidance,
    }
    return Result(values, written)


def _told(
    arguments: argparse.Namespace, opened: OpenedRun, count: int
) -> tuple[DiffEnc, Tensor | None]:
    """The model given the labels of --labels, with --guidance, and these labels; of a model without, itself."""
    if opened.classes is None:
        return opened.model, None
    each = torch.tensor(arguments.labels or list(range(opened.classes)))
    labels = each[torch.arange(count) % len(each)]
    model = opened.model.given(labels)
    return (model if arguments.guidance is None else model.guided(arguments.guidance)), labels


def _idle(arguments: argparse.Namespace, pictures: bool, classes: int | None) -> dict[str, str]:
    """Options that have no effect in the mode that the others choose, and why."""
    found: dict[str, str] = {}
    if not pictures:
        found |= dict.fromkeys(("trajectory", "images"), "the samples are no images")
    if classes is None:
        found |= dict.fromkeys(("labels", "guidance"), "the model was trained without labels")
    if arguments.latents is not None:
        found["count"] = "there are as many samples as latents"
    return found


def _empty_folder(folder: Path) -> Path:
    """The folder for single images: a new or empty one, so that nobody counts another's among them."""
    make_folder(folder)
    if any(folder.iterdir()):
        raise ValueError(f"--images {folder} is not empty; give a new folder")
    return folder


def in_own_type(samples: Tensor, levels: int | None) -> Tensor:
    """Samples in the smallest type of whole numbers that holds the levels; reals as they are."""
    if levels is None:
        return samples
    if levels > 2**16:
        return samples.long()
    return samples.to(torch.uint8 if levels <= 2**8 else torch.uint16)


def _solver(arguments: argparse.Namespace, opened: OpenedRun) -> Solver:
    """What --solver, --steps, --schedule and --noise-level say."""
    level = _noise_level(arguments, opened)
    kind, _, file = (arguments.schedule or "").partition(":")
    if kind != "calibrated":
        name = arguments.solver or "exponential"
        same = ("steps", "noise_level", "max_steps", "step")
        fields = {"schedule": "placement"} | {n: n for n in same}
        refuse_idle(arguments, lacking(name, fields))
        return make_solver(
            name,
            steps=arguments.steps,
            placement=arguments.schedule,
            noise_level=level,
            max_steps=arguments.max_steps,
            step=arguments.step if "step" in arguments.given else None,
        )
    brings = "a calibration brings its own grid and steps, of --solver ancestral"
    refuse_idle(arguments, dict.fromkeys(("steps", "max_steps", "step"), brings))
    if arguments.solver != "ancestral":
        refuse_idle(arguments, {"solver": brings})
    return Ancestral.of(load_calibration(file, opened, arguments.run), level)


def _noise_level(arguments: argparse.Namespace, opened: OpenedRun) -> NoiseLevel | None:
    if arguments.noise_level is None:
        return None
    if arguments.noise_level != "optimal":
        return named_noise_level(arguments.noise_level)
    if opened.optimal_noise_level is None:
        raise ValueError(
            f"--noise-level optimal: eta* of this run is not known; diffenc evaluate {arguments.run} "
            "--noise-level optimal fits it"
        )
    return opened.optimal_noise_level


def _latents(file: str, shape: tuple[int, ...]) -> Tensor:
    """z_1 (n, *shape) from an .npy file, or from `latents` in an .npz file such as this command writes."""
    try:
        loaded = np.load(file)
    except ValueError:
        raise ValueError(f"{file} is neither an .npy nor an .npz file of numbers") from None
    if not isinstance(loaded, np.ndarray):
        if "latents" not in loaded:
            raise ValueError(f"{file} has no array `latents`; it has {', '.join(loaded.files)}")
        loaded = loaded["latents"]
    if loaded.shape[1:] != shape or not np.issubdtype(loaded.dtype, np.floating):
        raise ValueError(
            f"{file} holds {loaded.dtype} of shape {loaded.shape}; latents are floats of shape (n, *{shape})"
        )
    return torch.from_numpy(loaded)
