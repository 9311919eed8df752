"""diffenc sample"""

import argparse
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffenc_ct.cli.options import add_device, output_path, progress, use_device
from diffenc_ct.model import DiffEnc
from diffenc_ct.training.evaluation import parse_noise_level
from diffenc_ct.training.runs import open_run

NAME = "sample"
HELP = "Draw samples from a trained model: a PNG grid (of images) and an .npz file."
EPILOG = """\
Writes samples.png and samples.npz (array `samples`: levels, or reals) to the run's folder (see --out).

examples:
  diffenc sample runs/digits
  diffenc sample runs/mnist --count 100 --steps 500
  diffenc sample runs/mnist --noise-level 0 --steps 50  # deterministic given the first noise
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
        "--steps", type=int, default=256, help="steps of the ancestral sampler (default 256)"
    )
    parser.add_argument(
        "--noise-level", default="1", help="eta of the steps: a number, or tight (default 1)"
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


def run(arguments: argparse.Namespace) -> int:
    """Sample and write."""
    for name in ("count", "steps"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} {getattr(arguments, name)}; give at least 1")
    device = use_device(arguments)
    opened = open_run(arguments.run, weights=arguments.weights, checkpoint=arguments.checkpoint)
    level = parse_noise_level(arguments.noise_level)
    path = output_path(arguments.out, opened.folder, "samples.png")
    generator = torch.Generator(device).manual_seed(arguments.seed)
    samples = ancestral(
        opened.model.to(device), (arguments.count, *opened.shape), arguments.steps, level, generator
    ).cpu()
    np.savez_compressed(path.with_suffix(".npz"), samples=samples.numpy())
    written = [str(path.with_suffix(".npz"))]
    if len(opened.shape) == 3 and opened.shape[0] in (1, 3):
        image_grid(samples, opened.model.levels).save(path)
        written.append(str(path))
    print(
        f"{len(samples)} samples of {arguments.run} at step {opened.step}: wrote {' and '.join(written)}"
    )
    return 0


@torch.no_grad()
def ancestral(
    model: DiffEnc, shape: tuple[int, ...], steps: int, level, generator: torch.Generator
) -> Tensor:
    """From z_1 ~ N(0, I) through p(z_s | z_t) on the uniform grid to z_0, then the most probable data."""
    z = torch.randn(shape, generator=generator, device=generator.device)
    gammas = model.schedule(torch.linspace(0, 1, steps + 1, device=z.device)).gamma
    for i in progress("sample", "step")(range(steps, 0, -1)):
        s, t = (gammas[j].expand(len(z)) for j in (i - 1, i))
        z = model.reverse(z, s, t, noise_level=level).sample(generator)
    return model.decode(z, gammas[0])


def image_grid(samples: Tensor, levels: int | None, *, scale: int | None = None) -> Image.Image:
    """Images (N, C, H, W), C = 1 or 3, side by side in a nearly square grid; reals are cut to (-1, 1)."""
    values = samples.double()
    values = (values.clamp(-1, 1) + 1) / 2 if levels is None else values / (levels - 1)
    pixels = (255 * values).round().to(torch.uint8)
    count, channels, height, width = pixels.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = torch.zeros(rows * columns, channels, height + 1, width + 1, dtype=torch.uint8)
    grid[:count, :, :height, :width] = pixels
    grid = grid.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4).flatten(1, 2).flatten(2, 3)
    array = grid[0].numpy() if channels == 1 else grid.permute(1, 2, 0).numpy()
    picture = Image.fromarray(np.ascontiguousarray(array))
    factor = max(1, 512 // picture.width) if scale is None else scale
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )
