"""diffenc sample"""

import argparse

import numpy as np
import torch
from torch import Tensor

from diffenc_ct.cli.options import (
    add_device,
    add_timeout,
    load_calibration,
    output_path,
    progress,
    use_device,
)
from diffenc_ct.distributed import launched
from diffenc_ct.report.pictures import image_grid, write_trajectory
from diffenc_ct.sampling import DEFAULT, sample
from diffenc_ct.training.evaluation import parse_noise_level
from diffenc_ct.training.runs import open_run

NAME = "sample"
HELP = "Draw samples from a trained model: a PNG grid (of images) and an .npz file."
EPILOG = """\
Writes samples.png and samples.npz (arrays `samples`: levels, or reals; `latents`: z_1; `z_0`) to the run's folder
(see --out).

examples:
  diffenc sample runs/digits
  diffenc sample runs/mnist --count 100 --steps 500
  diffenc sample runs/mnist --solver ancestral --noise-level 0 --steps 50  # DDIM
  diffenc sample runs/mnist --solver dopri5  # any method of torchdiffeq, scipy or torchsde
  diffenc sample runs/mnist --schedule calibrated  # the grid of `diffenc calibrate`
  diffenc sample runs/mnist --trajectory 4  # also a strip and a GIF of how four of them came about
  diffenc sample runs/mnist --seed 7 --out pictures/seven.png
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "run",
        metavar="RUN",
        help="folder of a run, a checkpoint file, or the name of a pretrained model",
    )
    parser.add_argument("--count", type=int, default=64, help="how many (default 64)")
    parser.add_argument(
        "--solver",
        default=DEFAULT,
        help="exponential, ancestral, torchsde:METHOD, torchdiffeq:METHOD, scipy:METHOD (default exponential)",
    )
    parser.add_argument(
        "--steps", type=int, help="steps (default 30 exponential, 64 of an ODE method, else 256)"
    )
    parser.add_argument(
        "--noise-level",
        help="eta of the steps: a number, tight, or optimal for the model's own eta* (default: what solver and model "
        "allow)",
    )
    parser.add_argument(
        "--schedule",
        help="where the steps lie: uniform, log-snr, balanced, or calibrated (ancestral steps as `diffenc calibrate` "
        "found them; a file of its own as calibrated:FILE)",
    )
    parser.add_argument(
        "--latents", metavar="FILE", help="start from latents z_1 in an .npy or .npz file"
    )
    parser.add_argument(
        "--trajectory", type=int, default=0, metavar="K", help="show the path of the first K images"
    )
    parser.add_argument(
        "--batch-size", type=int, default=256, help="at a time; it changes no image (default 256)"
    )
    parser.add_argument(
        "--weights", default="ema", help="ema, raw, or the rate of an average (default ema)"
    )
    parser.add_argument(
        "--checkpoint", default="latest", help="latest, best, or a step (default latest)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise (default 0)")
    parser.add_argument(
        "--out", help="where to write the PNG (default RUN/samples.png); the .npz goes beside it"
    )
    add_device(parser)
    add_timeout(parser)


def run(arguments: argparse.Namespace) -> int:
    """Sample and write."""
    for name in ("count", "steps", "batch_size"):
        if (getattr(arguments, name) or 1) < 1 or getattr(arguments, name) == 0:
            raise ValueError(
                f"--{name.replace('_', '-')} {getattr(arguments, name)}; give at least 1"
            )
    device = use_device(arguments)
    opened = open_run(arguments.run, weights=arguments.weights, checkpoint=arguments.checkpoint)
    path = output_path(arguments.out, opened.folder, "samples.png")
    level = arguments.noise_level
    level = None if level is None else parse_noise_level(level, opened.model)
    solver, schedule, calibration = arguments.solver, arguments.schedule, None
    if schedule is not None and schedule.partition(":")[0] == "calibrated":
        file = schedule.partition(":")[2]
        calibration, schedule = load_calibration(file, opened, arguments.run), None
        solver = "ancestral" if solver == DEFAULT else solver
    latents = None if arguments.latents is None else _latents(arguments.latents, opened.shape)
    with launched(device, timeout=arguments.process_timeout) as processes:
        result = sample(
            opened.model.to(device),
            arguments.count if latents is None else len(latents),
            shape=opened.shape,
            solver=solver,
            steps=arguments.steps,
            noise_level=level,
            schedule=schedule,
            calibration=calibration,
            latents=latents,
            trajectory=arguments.trajectory,
            batch_size=arguments.batch_size,
            generator=torch.Generator().manual_seed(arguments.seed),
            progress=progress("sample", "batch"),
            processes=processes,
        )
    if not processes.first:
        return 0
    samples = result.samples.cpu()
    np.savez_compressed(
        path.with_suffix(".npz"),
        samples=samples.numpy(),
        latents=result.z_1.cpu().numpy(),
        z_0=result.z_0.cpu().numpy(),
    )
    written = [path.with_suffix(".npz")]
    if len(opened.shape) == 3 and opened.shape[0] in (1, 3):
        image_grid(samples, opened.model.levels).save(path)
        written.append(path)
        if result.trajectory is not None:
            written += write_trajectory(result.trajectory, path)
    print(
        f"{len(samples)} samples of {arguments.run} at step {opened.step} by {result.log['solver']}, "
        f"{result.evaluations:.0f} evaluations, noise level {result.log['noise_level']}: "
        f"wrote {', '.join(map(str, written))}"
    )
    return 0


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
