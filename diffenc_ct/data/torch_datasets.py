"""Any map-style torch.utils.data.Dataset as a data set: its examples are read when a step needs them."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from diffenc_ct.data.dataset import Dataset, check_values
from diffenc_ct.data.moments import Moments, warn_of_reals
from diffenc_ct.data.source import Rows, copy_of, fixed_part
from diffenc_ct.data.splits import split_in_order

__all__ = ["from_torch"]


def from_torch(
    train: TorchDataset[Any],
    test: TorchDataset[Any] | None = None,
    *,
    levels: int | None = None,
    name: str = "",
) -> Dataset:
    """The examples of torch's data sets; of tuples (as of images with labels) the first part.

    In memory are the test examples and the first training examples (at most 32,768, and about a GiB), which serve for
    histograms and fits; the others are read when a step needs them, once an epoch. Their values are looked at then.

    Args:
        train: with a length; its examples are tensors or arrays (d,), (H, W) or (C, H, W), of integers or reals.
        test: the same of examples for tests; without it a tenth of `train`, the end of a permutation of seed 0.
        levels: of integers, None for reals.
        name: what reports call the data; the class of `train` unless given.

    Raises:
        TypeError: for examples that are no tensors, and for a data set without a length.
        ValueError: for values that do not fit, as of Dataset, and for examples of different shapes.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> images = torch.arange(40).reshape(10, 1, 2, 2) % 7
        >>> data = from_torch(TensorDataset(images, torch.zeros(10)), levels=7)
        >>> len(data.source), len(data.test), data.shape
        (9, 1, (1, 2, 2))
    """
    name = name or type(train).__name__
    if test is None:
        sides = [(train, numbers) for numbers in split_in_order(_count(train, name), name)]
    else:
        sides = [(each, torch.arange(_count(each, name))) for each in (train, test)]
    seen, others = (Rows(_Reader(each, levels, name), numbers) for each, numbers in sides)
    if not (len(seen) and len(others)):
        raise ValueError(f"data {name!r} has no examples for training or none for tests; add some")
    some = fixed_part(seen)
    if levels is None:
        warn_of_reals(Moments.of([some]), f"data {name!r}")
    return Dataset(name, some, copy_of(others), levels, seen)


def _count(examples: TorchDataset[Any], name: str) -> int:
    if not hasattr(examples, "__len__"):
        raise TypeError(
            f"data {name!r}: {type(examples).__name__} has no length; give a map-style data set, with __len__ and "
            "__getitem__"
        )
    return len(examples)


class _Reader:
    """From numbers to examples of a data set, looked at."""

    def __init__(self, examples: TorchDataset[Any], levels: int | None, name: str) -> None:
        self.examples, self.levels, self.name = examples, levels, name

    def __call__(self, numbers: Tensor) -> Tensor:
        found = [self._one(number) for number in numbers.tolist()]
        for number, one in zip(numbers.tolist(), found, strict=True):
            if one.shape != found[0].shape or one.dtype != found[0].dtype:
                raise ValueError(
                    f"data {self.name!r}: examples {int(numbers[0])} and {number} are {_describe(found[0])} and "
                    f"{_describe(one)}; bring all to one shape and type"
                )
        values = torch.stack(found)
        check_values(values, self.levels, f"data {self.name!r}")
        return values

    def _one(self, number: int) -> Tensor:
        given = self.examples[number]
        if isinstance(given, tuple | list):
            given = given[0]
        if not isinstance(given, Tensor):
            if not hasattr(given, "__array__") or hasattr(given, "getbands"):
                raise TypeError(
                    f"data {self.name!r}: example {number} is a {type(given).__name__}; let its transform give "
                    "tensors (of images torchvision.transforms.PILToTensor())"
                )
            given = torch.as_tensor(given)
        if given.ndim not in (1, 2, 3) or given.dtype == torch.bool or given.is_complex():
            raise ValueError(
                f"data {self.name!r}: example {number} is {_describe(given)}; expected integers or reals (d,), (H, W) "
                "or (C, H, W)"
            )
        values = given.float() if given.is_floating_point() else given
        return values[None] if values.ndim == 2 else values


def _describe(example: Tensor) -> str:
    return f"{example.dtype} of shape {tuple(example.shape)}"
