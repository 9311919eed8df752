"""Pictures of samples: grids of images, strips and animations of how they came about."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffenc_ct.sampling import Trajectory


def image_grid(
    samples: Tensor, levels: int | None, *, scale: int | None = None, columns: int | None = None
) -> Image.Image:
    """Images (N, C, H, W), C = 1 or 3, side by side in a nearly square grid, or in rows of `columns`; reals are cut to
    (-1, 1)."""
    values = samples.double()
    values = (values.clamp(-1, 1) + 1) / 2 if levels is None else values / (levels - 1)
    pixels = (255 * values).round().to(torch.uint8)
    count, channels, height, width = pixels.shape
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
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


def write_trajectory(trajectory: Trajectory, path: Path, *, columns: int = 12) -> list[Path]:
    """PATH-trajectory.png: for each image a row of z_t and one of x_hat, from noise to data; PATH-trajectory.gif: the
    same in time. Latents are shown as z_t / 3, which keeps noise of three deviations in sight."""
    frames = (
        torch.linspace(0, len(trajectory.z) - 1, min(columns, len(trajectory.z))).round().long()
    )
    rows = torch.stack([trajectory.z[frames] / 3, trajectory.x_hat[frames]], 0)
    strip = rows.permute(2, 0, 1, *range(3, rows.ndim)).flatten(0, 2)
    still = path.with_name(path.stem + "-trajectory.png")
    image_grid(strip, None, columns=len(frames), scale=2).save(still)
    moving = path.with_name(path.stem + "-trajectory.gif")
    pictures = [
        image_grid(torch.cat([z / 3, x_hat]), None, columns=len(z), scale=4)
        for z, x_hat in zip(trajectory.z, trajectory.x_hat, strict=True)
    ]
    pictures[0].save(
        moving,
        save_all=True,
        append_images=pictures[1:],
        duration=max(40, 4000 // len(pictures)),
        loop=0,
    )
    return [still, moving]
