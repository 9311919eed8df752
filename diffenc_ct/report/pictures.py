"""Pictures of samples: grids of images, strips and animations of how they came about.

Importing this module needs the extra `figures`: import it where a picture is drawn.
"""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor

from diffenc_ct.report.extras import require
from diffenc_ct.report.values import as_values
from diffenc_ct.sampling import Trajectory

require("PIL", "figures")

from PIL import Image  # noqa: E402


def image_grid(
    samples: Shaped[Tensor, "images channels height width"],
    levels: int | None,
    *,
    scale: int | None = None,
    columns: int | None = None,
) -> Image.Image:
    """Images side by side.

    Args:
        samples: of 1 or 3 channels; levels, or reals, which are cut to (-1, 1).
        levels: how many there are, None for reals.
        scale: pixels a side for one of the data; enough for a width of 512 by default.
        columns: a nearly square grid by default.
    """
    pixels = as_pixels(samples, levels)
    count, channels, height, width = pixels.shape
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
    rows = math.ceil(count / columns)
    grid = torch.zeros(rows, columns, channels, height + 1, width + 1, dtype=torch.uint8)
    grid.flatten(0, 1)[:count, :, :height, :width] = pixels
    # To height x width x channels: a cell's row and column come after the grid's.
    joined = grid.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
    array = joined[..., 0] if channels == 1 else joined
    picture = Image.fromarray(np.ascontiguousarray(array.numpy()))
    factor = max(1, 512 // picture.width) if scale is None else scale
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )


def as_pixels(samples: Shaped[Tensor, "*shape"], levels: int | None) -> UInt8[Tensor, "*shape"]:
    """Values of 8 bits: levels spread over 0 to 255, or reals cut to (-1, 1).

    Args:
        samples: levels 0..levels - 1, or reals.
        levels: how many there are, None for reals.
    """
    return (255 * as_values(samples.double(), levels)).round().to(torch.uint8)


def write_images(
    samples: Shaped[Tensor, "images channels height width"], levels: int | None, folder: Path
) -> Path:
    """FOLDER/000000.png, 000001.png, ...: one image of 8 bits each.

    Args:
        samples: of 1 or 3 channels; levels, or reals, which are cut to (-1, 1).
        levels: how many there are, None for reals.
        folder: that exists.

    Returns:
        The folder.
    """
    for i, pixels in enumerate(as_pixels(samples, levels).numpy()):
        array = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)
        Image.fromarray(np.ascontiguousarray(array)).save(folder / f"{i:06d}.png")
    return folder


def frames_of(trajectory: Trajectory, most: int) -> list[int]:
    """Which points of a path are shown: both ends, and others evenly between them.

    Args:
        trajectory: of images.
        most: how many at most.
    """
    points = len(trajectory.z)
    return torch.linspace(0, points - 1, min(most, points)).round().long().tolist()


def strip(trajectory: Trajectory, columns: int, *, scale: int | None = 2) -> Image.Image:
    """For each image a row of z_t and one of x_hat, from noise to data. Latents are shown as z_t / 3, which keeps noise
    of three deviations in sight.

    Args:
        trajectory: of images.
        columns: at most.
        scale: as in image_grid.
    """
    frames = frames_of(trajectory, columns)
    rows = torch.stack([trajectory.z[frames] / 3, trajectory.x_hat[frames]], 0)
    pictures = rows.permute(2, 0, 1, *range(3, rows.ndim)).flatten(0, 2)
    return image_grid(pictures, None, columns=len(frames), scale=scale)


# From dark to bright, in even steps of lightness (matplotlib's viridis at its quarters).
_HEAT = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


def heat(
    values: Float[Tensor, "images height width"], low: float, high: float
) -> UInt8[Tensor, "images 3 height width"]:
    """Numbers as colours, from dark to bright.

    Args:
        values: of every pixel.
        low: what is darkest, with all that is below it.
        high: what is brightest, with all that is above it.

    Example:
        >>> heat(torch.tensor([[[0.0, 1.0]]]), 0.0, 1.0)[0, :, 0].T.tolist()
        [[68, 1, 84], [253, 231, 37]]
    """
    colours = torch.tensor(_HEAT, dtype=torch.float64)
    share = (values.double() - low) / max(high - low, 1e-12)
    place = share.clamp(0, 1) * (len(colours) - 1)
    first = place.long().clamp(max=len(colours) - 2)
    mixed = torch.lerp(colours[first], colours[first + 1], (place - first)[..., None])
    return mixed.round().to(torch.uint8).movedim(-1, 1)


def write_trajectory(trajectory: Trajectory, path: Path, *, columns: int = 12) -> list[Path]:
    """PATH-trajectory.png: a strip (see `strip`); PATH-trajectory.gif: the same in time.

    Args:
        trajectory: of images.
        path: of their picture, beside which these go.
        columns: of the strip at most.

    Returns:
        Both paths.
    """
    still = path.with_name(path.stem + "-trajectory.png")
    strip(trajectory, columns).save(still)
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
