"""Variance ratios w: a number, one a step, one a step and dimension, or a function of the state."""

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from diffenc_ct.process import Estimates, Values
from diffenc_ct.schedules import expand

# A ratio that depends on the state: of steps (batch,), 0 next to the data, and the estimates at z_t; w (batch, *data).
StateRatio = Callable[[Tensor, Estimates], Tensor]
Ratio = float | Tensor | StateRatio


def check_ratio(ratio: Ratio, steps: int) -> None:
    """Refuse a ratio that is not positive, or a table that is not one a step.

    Args:
        ratio: w.
        steps: T.

    Raises:
        TypeError: for what is no ratio.
        ValueError: naming what is allowed.
    """
    if callable(ratio):
        return
    if not isinstance(ratio, int | float | Tensor):
        raise TypeError(
            f"ratio={ratio!r}; give a number, a tensor of one a step or a function of steps and estimates"
        )
    w = torch.as_tensor(ratio)
    if not ((w > 0) & w.isfinite()).all() or (w.ndim and len(w) != steps):
        raise ValueError(
            f"ratio multiplies a variance: it must be positive, one number or one a step ({steps}); got {ratio}"
        )


def ratio_at(ratio: Ratio, step: Int[Tensor, " batch"], estimates: Estimates) -> float | Tensor:
    """w of each example's step.

    Args:
        ratio: a number, a table (T,) or (T, *data), or a function of the state.
        step: of each example, 0 next to the data.
        estimates: at the step's z_t, (batch, *data).

    Raises:
        ValueError: for a table of another shape than the data's.
    """
    return ratio(step, estimates) if callable(ratio) else _table_at(ratio, step, estimates.x_hat)


def ratio_of_values(ratio: Ratio, step: Int[Tensor, " batch"], values: Values) -> float | Tensor:
    """As ratio_at, of a mixture step: estimates are computed only for a ratio that looks at them.

    Args:
        ratio: as in ratio_at.
        step: as in ratio_at.
        values: what is known at the step's z_t.

    Raises:
        ValueError: as ratio_at.
    """
    if callable(ratio):
        return ratio(step, values.estimates())
    return _table_at(ratio, step, values.near)


def _table_at(ratio: float | Tensor, step: Tensor, like: Tensor) -> float | Tensor:
    """w of each example's step where it does not depend on the state."""
    if not isinstance(ratio, Tensor) or ratio.ndim == 0:
        return ratio
    if ratio.ndim > 1 and ratio.shape[1:] != like.shape[1:]:
        raise ValueError(
            f"ratio has shape {tuple(ratio.shape)}; one a step and dimension is {(len(ratio), *like.shape[1:])}"
        )
    return expand(ratio.to(like)[step], like)
