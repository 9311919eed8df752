"""Images of any size as tiles of the shape that a model codes.

An image of H x W pixels is covered by ceil(H/h) ceil(W/w) tiles of h x w from its top left, row by row, one image after
another. Where a tile reaches over the right or the lower border, the image's last column or row is repeated: pixels
that are coded like all others, and dropped by `join`. Their bits are counted as the image's: bits per dimension are of
its own pixels. Tiles are coded as if they were independent; what one tells of its neighbours is not used.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Integer
from torch import Tensor

Size = Sequence[int]


def cut(
    images: Sequence[Integer[Tensor, "channels _ _"]], shape: Size
) -> tuple[Integer[Tensor, "tiles channels height width"], list[list[int]]]:
    """The tiles of images, and the sizes by which `join` puts them together again.

    Args:
        images: levels, of any heights and widths.
        shape: of a tile: channels, height, width.
    Returns:
        Tiles and [height, width] of each image, in pixels.
    Raises:
        ValueError: for no image, one without pixels, and one of other channels.

    Example:
        >>> tiles, sizes = cut([torch.arange(6).reshape(1, 2, 3)], (1, 2, 2))
        >>> tiles.tolist(), sizes
        ([[[[0, 1], [3, 4]]], [[[2, 2], [5, 5]]]], [[2, 3]])
    """
    if not images:
        raise ValueError("no images; give one or more")
    channels, height, width = shape
    found = []
    for number, image in enumerate(images):
        if image.ndim != 3 or len(image) != channels or not image.numel():
            raise ValueError(
                f"image {number} has shape {tuple(image.shape)}; tiles of shape {tuple(shape)} need "
                f"({channels}, height, width) with a pixel or more"
            )
        rows, columns = _grid(image.shape[1:], shape)
        y, x = (
            torch.arange(reach, device=image.device).clamp(max=side - 1)
            for reach, side in zip((rows * height, columns * width), image.shape[1:], strict=True)
        )
        covered = image[:, y][:, :, x].view(channels, rows, height, columns, width)
        found.append(covered.permute(1, 3, 0, 2, 4).reshape(-1, *shape))
    return torch.cat(found), [list(image.shape[1:]) for image in images]


def join(
    tiles: Integer[Tensor, "tiles *data"], sizes: Sequence[Size]
) -> list[Integer[Tensor, "..."]]:
    """The images that `cut` was given.

    Args:
        tiles: that it returned.
        sizes: that it returned; none where every tile is an image.
    Raises:
        ValueError: for sizes that are not those of these tiles.

    Example:
        >>> image = torch.arange(15).reshape(1, 3, 5)
        >>> torch.equal(join(*cut([image], (1, 2, 2)))[0], image)
        True
    """
    if not sizes:
        return list(tiles)
    shape = tiles.shape[1:]
    check_sizes(sizes, shape, len(tiles))
    grids, images = [_grid(size, shape) for size in sizes], []
    parts = torch.split(tiles, [rows * columns for rows, columns in grids])
    for part, (rows, columns), (height, width) in zip(parts, grids, sizes, strict=True):
        covered = part.view(rows, columns, *shape).permute(2, 0, 3, 1, 4)
        images.append(covered.flatten(3).flatten(1, 2)[:, :height, :width])
    return images


def check_sizes(sizes: Sequence[Size], shape: Size, count: int) -> None:
    """Refuse sizes that so many tiles of a shape do not cover exactly.

    Args:
        sizes: height and width of each image; none where every example is one.
        shape: of a tile: channels, height, width.
        count: of the tiles.
    Raises:
        ValueError: naming the sizes.
    """
    if not sizes:
        return
    try:
        right = all(isinstance(side, int) and side > 0 for size in sizes for side in size)
        wanted = sum(rows * columns for rows, columns in (_grid(size, shape) for size in sizes))
    except (TypeError, ValueError):
        right, wanted = False, 0
    if not right or wanted != count:
        takes = f"take {wanted} tiles" if right else "are no heights and widths for tiles"
        text = str(sizes)
        raise ValueError(
            f"sizes {text if len(text) <= 60 else text[:57] + '...'} {takes} of shape {tuple(shape)}, and there are "
            f"{count}: give tiles and sizes as `cut` returned them"
        )


def _grid(size: Size, shape: Size) -> tuple[int, int]:
    """Rows and columns of the tiles that cover an image."""
    (height, width), (_, tile_height, tile_width) = size, shape
    return -(-height // tile_height), -(-width // tile_width)
