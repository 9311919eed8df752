"""What examples are taken from where they are not in one tensor: by their numbers, when they are wanted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

AT_ONCE = 2**22  # values that are looked at or copied at a time
MOST, MOST_BYTES = 2**15, 2**30  # examples of the fixed part of a source, and their bytes


@runtime_checkable
class Source(Protocol):
    """Examples by number.

    Attributes:
        epochs: whether training shows each once an epoch, or draws from them anew at every step.
        images: whole images that the examples are cut from, in memory; none where they lie elsewhere.
    """

    @property
    def epochs(self) -> bool: ...

    @property
    def images(self) -> tuple[Tensor, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, numbers: Int64[Tensor, " some"]) -> Shaped[Tensor, "some *data"]: ...


@dataclass(frozen=True)
class Rows:
    """Some of many examples, read when they are asked for.

    Attributes:
        read: from numbers to examples.
        numbers: that these examples have there.
    """

    read: Callable[[Tensor], Tensor]
    numbers: Int64[Tensor, " examples"]
    epochs = True
    images: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, numbers: Int64[Tensor, " some"]) -> Shaped[Tensor, "some *data"]:
        """The examples of these numbers.

        Args:
            numbers: in 0..len-1.
        """
        return self.read(self.numbers[numbers])


def copy_of(source: Source, count: int | None = None) -> Shaped[Tensor, "count *data"]:
    """The first examples in one tensor, beside which nothing of its size is needed.

    Args:
        source: of them.
        count: how many, None for all.
    """
    one, count = source[torch.tensor([0])], len(source) if count is None else count
    found = one.new_empty((count, *one.shape[1:]))
    for numbers in torch.split(torch.arange(count), max(1, AT_ONCE // one.numel())):
        found[numbers[0] : numbers[-1] + 1] = source[numbers]
    return found


def fixed_part(source: Source) -> Shaped[Tensor, "some *data"]:
    """The first examples, as many as `Dataset.train` holds of a source.

    Args:
        source: of them.
    """
    one = source[torch.tensor([0])]
    return copy_of(source, min(len(source), MOST, max(1, MOST_BYTES // one.nbytes)))
