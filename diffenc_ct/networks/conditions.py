"""What a network is told of each example: a label, or a vector, added to its embedding of the depth.

Reference: Dhariwal and Nichol 2021 (class embeddings); Ho and Salimans 2021 (one network with and without condition).
"""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from diffenc_ct.networks.blocks import zero_


class ConditionEmbedding(nn.Module):
    """A label or a vector of each example -> (batch, features), zero at first.

        labels in 0 .. classes-1     a row of a table; -1, no label, the last row
        vectors (batch, dimensions)  a linear map; a vector with a NaN in it, none, has a row of its own

    So an untrained network does not depend on its condition, and one network is the conditional model and the one
    without condition, if training leaves out some conditions.

    Args:
        features: the length of the embedding.
        classes: how many labels, None without.
        dimensions: the length of vectors, None without.
    Raises:
        ValueError: for both.
    Example:
        >>> embed = ConditionEmbedding(6, classes=10)
        >>> embed(torch.tensor([3, -1]), torch.zeros(2, 1)).shape, embed(None, torch.zeros(2, 1)).shape
        (torch.Size([2, 6]), torch.Size([2, 6]))
    """

    def __init__(
        self, features: int, *, classes: int | None = None, dimensions: int | None = None
    ) -> None:
        super().__init__()
        if classes is not None and dimensions is not None:
            raise ValueError(f"classes={classes} and conditions={dimensions}: give one of them")
        if min(1 if n is None else n for n in (classes, dimensions)) < 1:
            raise ValueError(f"classes={classes}, conditions={dimensions}: at least 1 is needed")
        self.classes, self.dimensions = classes, dimensions
        if classes is not None:
            self.labels = nn.Parameter(torch.zeros(classes + 1, features))
        if dimensions is not None:
            self.vectors = zero_(nn.Linear(dimensions, features))
            self.none = nn.Parameter(torch.zeros(features))

    def forward(
        self, condition: Shaped[Tensor, "batch *condition"] | None, like: Float[Tensor, "batch _"]
    ) -> Float[Tensor, "batch features"] | None:
        """The embedding; None where the network takes no condition. NaN for what is no label: values are not looked at.

        Args:
            condition: of each example, None for none of any.
            like: of the batch's length and dtype.
        Raises:
            ValueError: for a condition of another kind or shape.
        """
        if condition is not None:
            self._check_kind(condition)
        if self.classes is not None:
            if condition is None:
                condition = torch.full((len(like),), -1, device=like.device)
            known = (condition >= -1) & (condition < self.classes)
            rows = self.labels[torch.where(known, condition, -1).long()].to(like.dtype)
            return torch.where(known[:, None], rows, math.nan)
        if self.dimensions is not None:
            if condition is None:
                return self.none.expand(len(like), -1).to(like.dtype)
            condition = condition.to(like.dtype)
            known = condition.isfinite().all(1, keepdim=True)
            found: Tensor = self.vectors(torch.where(known, condition, 0.0))
            return torch.where(known, found, self.none.to(like.dtype))
        return None

    def check(self, condition: Shaped[Tensor, "batch *condition"]) -> None:
        """Refuse what is no condition of this network. Waits for the condition's device.

        Args:
            condition: of a batch.
        Raises:
            ValueError: naming what is expected.
        """
        self._check_kind(condition)
        if self.classes is None or not len(condition):
            return
        low, high = int(condition.min()), int(condition.max())
        if low < -1 or high >= self.classes:
            raise ValueError(
                f"labels are 0..{self.classes - 1}, and -1 for none; got {low}..{high}"
            )

    def _check_kind(self, condition: Tensor) -> None:
        """Refuse what has another type or shape than a condition of this network, by nothing that waits."""
        shape = tuple(condition.shape)
        if self.classes is not None:
            whole = not (condition.is_floating_point() or condition.dtype == torch.bool)
            if not whole or len(shape) != 1:
                raise ValueError(
                    f"labels are whole numbers, one an example, (batch,); got {condition.dtype} of shape {shape}"
                )
        elif self.dimensions is not None:
            if not condition.is_floating_point() or shape[1:] != (self.dimensions,):
                raise ValueError(
                    f"conditions are reals of shape (batch, {self.dimensions}); got {condition.dtype} of shape {shape}"
                )
        else:
            raise ValueError(
                "this network was made without conditions; give it classes=10 (labels) or conditions=16 (vectors of "
                "that length), or train with --labels"
            )


class Conditional(nn.Module):
    """A network net(z, gamma, condition) with a `ConditionEmbedding`, which may be one of nothing."""

    condition: ConditionEmbedding

    def check_condition(self, condition: Shaped[Tensor, "batch *condition"]) -> None:
        """As ConditionEmbedding.check."""
        self.condition.check(condition)
