"""Crops of one size from images of any size, which are kept in memory once.

A crop is known by its number: positions are counted image by image, row by row, from the top left. A number that is
uniform therefore chooses an image in proportion to its positions, and among these each alike.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Patches:
    """All square crops of images; indexed by a tensor of numbers, these crops.

    Attributes:
        images: bytes (channels, height, width), each at least as high and wide as a crop.
        size: of a crop's side, in pixels.
        epochs: False: so many crops are never all seen, each step draws some.

    Example:
        >>> patches = Patches((torch.arange(12, dtype=torch.uint8).reshape(1, 3, 4),), 2)
        >>> len(patches), patches[torch.tensor([5])].tolist()
        (6, [[[[6, 7], [10, 11]]]])
    """

    images: tuple[UInt8[Tensor, "channels _ _"], ...]
    size: int
    epochs = False

    @cached_property
    def _counts(self) -> Int64[Tensor, " images"]:
        """Positions of each image."""
        sides = torch.tensor([image.shape[1:] for image in self.images])
        return (sides - self.size + 1).prod(1)

    def __len__(self) -> int:
        """Number of positions of all images."""
        return int(self._counts.sum())

    def __getitem__(
        self, numbers: Int64[Tensor, " crops"]
    ) -> UInt8[Tensor, "crops channels size size"]:
        """The crops of these numbers.

        Args:
            numbers: in 0..len-1.
        """
        ends, size = self._counts.cumsum(0), self.size
        owners = torch.searchsorted(ends, numbers, right=True)
        within = numbers - (ends - self._counts)[owners]
        crops = []
        for owner, number in zip(owners.tolist(), within.tolist(), strict=True):
            image = self.images[owner]
            y, x = divmod(number, image.shape[2] - size + 1)
            crops.append(image[:, y : y + size, x : x + size])
        return torch.stack(crops)

    def grid(self) -> Int64[Tensor, " crops"]:
        """Numbers of the crops that tile each image from its top left; what does not fill a crop is left out."""
        found, start = [], 0
        for image, count in zip(self.images, self._counts.tolist(), strict=True):
            rows, columns = (side - self.size + 1 for side in image.shape[1:])
            y, x = (torch.arange(0, many, self.size) for many in (rows, columns))
            found.append(start + (y[:, None] * columns + x).flatten())
            start += count
        return torch.cat(found)
