"""What one pass over examples finds: range, mean and deviation; and what is odd about reals.

Means and deviations are those of each dimension of vectors and of each channel of images. Parts of the examples are
joined by

    n = n_1 + n_2,   mean = mean_1 + (n_2/n) delta,   M = M_1 + M_2 + (n_1 n_2/n) delta^2,   delta = mean_2 - mean_1

where M is the sum of squared differences from the mean, so that nothing cancels where a mean is large.

Reference: Chan, Golub, LeVeque 1983.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

# Deviations of about unit scale; beyond, too, where the root of the mean square is larger.
UNIT = (0.1, 5.0)
_FEW = 256  # different values, which reals should have more of


@dataclass(frozen=True)
class Moments:
    """Of examples (N, C, ...), over all axes but the second.

    Attributes:
        low: the smallest value.
        high: the largest one.
        mean: of each channel or dimension.
        deviation: the root of its variance.
        whole: whether all values are whole numbers.
        different: how many different values the first 16,384 have; None where they are too few to tell.
    """

    low: float
    high: float
    mean: Float64[Tensor, " channels"]
    deviation: Float64[Tensor, " channels"]
    whole: bool
    different: int | None

    @classmethod
    def of(cls, parts: Iterable[Shaped[Tensor, "_ channels *more"]]) -> "Moments":
        """Those of all parts together.

        Args:
            parts: one after the other.

        Example:
            >>> Moments.of([torch.tensor([[1.0]]), torch.tensor([[2.0], [6.0]])]).mean.item()
            3.0
        """
        count, low, high, whole = 0, float("inf"), float("-inf"), True
        mean, squares = torch.zeros(2, 1, dtype=torch.float64)
        different: int | None = None
        for number, part in enumerate(parts):
            values = part.double().transpose(0, 1).flatten(1)
            if number == 0:
                some = values.flatten()[: 64 * _FEW]
                different = len(torch.unique(some)) if len(some) > 4 * _FEW else None
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            whole = whole and bool((values == values.round()).all())
            added, here = values.shape[1], values.mean(1)
            delta, total = here - mean, count + added
            squares = squares + (values - here[:, None]).square().sum(1)
            squares = squares + delta**2 * (count * added / total)
            mean, count = mean + delta * (added / total), total
        return cls(low, high, mean, (squares / count).sqrt(), whole, different)

    @property
    def worst(self) -> int:
        """The channel or dimension that is furthest from unit scale."""
        size = (self.mean.square() + self.deviation.square()).sqrt()
        return int(torch.maximum(size.log(), -self.deviation.log()).argmax())

    @property
    def off_scale(self) -> bool:
        """Whether a channel or dimension is far from unit scale."""
        size = (self.mean.square() + self.deviation.square()).sqrt()
        return bool((size > UNIT[1]).any() or (self.deviation < UNIT[0]).any())


def warn_of_reals(moments: Moments, where: str, *, standardise: bool = False) -> None:
    """Say what is odd about reals, of which a model would give numbers without a meaning.

    Args:
        moments: theirs.
        where: what to call them.
        standardise: whether a model takes them standardised, so that their scale is no matter.
    """
    seen = f"{where}: reals from {moments.low:g} to {moments.high:g}"
    if moments.whole:
        warnings.warn(
            f"{seen}, all whole numbers: a density of them has no limit; store them as integers, whose "
            "probabilities a model bounds",
            stacklevel=2,
        )
    elif moments.different is not None and moments.different <= _FEW:
        warnings.warn(
            f"{seen}, of only {moments.different} different values: a density of them has no limit; if they are "
            "levels, store their numbers 0, 1, 2, ... as integers",
            stacklevel=2,
        )
    if moments.off_scale and not standardise:
        worst = moments.worst
        warnings.warn(
            f"{seen}; dimension or channel {worst} has mean {moments.mean[worst]:g} and deviation "
            f"{moments.deviation[worst]:g}, where models expect about unit scale (deviations of {UNIT[0]:g} to "
            f"{UNIT[1]:g}): bits per dimension may mean little; rescale them, or let "
            "the model do it (--standardise)",
            stacklevel=2,
        )
