"""Rows of a table of bounds: one number an image, their mean and its standard error, and differences of two rows."""

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One estimate of every image; means are over the images that have one.

    Attributes:
        name: what it is of.
        bits_per_dimension: of every image, NaN where it could not be solved.
        bounds: of what its mean is an upper bound on -log p.
        facts: further numbers: standard errors of its noise and probes, the solver's error, evaluations an image.
        status: "ok" of every image that was solved, else why not; empty where all were.

    Example:
        >>> import torch
        >>> bits = torch.tensor([1.0, 2.0, math.nan], dtype=torch.float64)
        >>> row = Row("a", bits, "the ODE model", {}, ["ok", "ok", "max_steps"])
        >>> row.mean, row.error, row.failures
        (1.5, 0.5, {'max_steps': 1})
    """

    name: str
    bits_per_dimension: Float[Tensor, " images"]
    bounds: str
    facts: dict[str, float]
    status: list[str] = field(default_factory=list)

    @property
    def failures(self) -> dict[str, int]:
        """How many images could not be solved, by the reason."""
        return dict(Counter(word for word in self.status if word != "ok"))

    @property
    def solved(self) -> Float[Tensor, " solved"]:
        """The values of images that have one."""
        kept = [i for i, word in enumerate(self.status) if word == "ok"]
        return self.bits_per_dimension[kept] if self.status else self.bits_per_dimension

    @property
    def mean(self) -> float:
        """Mean over images, in bits per dimension."""
        return self.solved.mean().item()

    @property
    def error(self) -> float:
        """Standard error of that mean; NaN of a single image."""
        n = len(self.solved)
        return self.solved.std().item() / math.sqrt(n) if n > 1 else math.nan

    @property
    def plain(self) -> dict[str, Any]:
        """Its numbers, for JSON, but those of single images."""
        return {
            "name": self.name,
            "bounds": self.bounds,
            "mean": self.mean,
            "standard_errors": {"images": self.error, **self.facts},
            "failed": self.failures,
        }


def difference(one: Row, other: Row) -> Row:
    """One less the other, image by image: what the same images have in common is in neither mean nor error.

    Args:
        one: of some images.
        other: of the same images in the same order, best on the same draws.

    Returns:
        A row of the images that both have solved.

    Example:
        >>> import torch
        >>> one, other = (Row(n, torch.tensor(v), "", {}) for n, v in (("a", [2.0, 4.0]), ("b", [1.0, 3.0])))
        >>> difference(one, other).mean, difference(one, other).error
        (1.0, 0.0)
    """
    values = one.bits_per_dimension - other.bits_per_dimension
    words = [("ok", "not solved")[int(missing)] for missing in values.isnan()]
    name = one.name if one.name == other.name else f"{one.name}, less {other.name}"
    return Row(name, values, "", {}, words)
