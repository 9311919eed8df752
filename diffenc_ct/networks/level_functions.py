"""A few functions over the levels of data, through which neighbouring levels share what a network learns.

    "cosines"   sqrt(2) cos(pi j (k + 1/2)/V), j = 1..n, smooth first
    "hats"      piecewise linear B-splines on n + 1 equal pieces without the first, which a constant makes up for
    "free"      every level its own: a logit each

and, beside cosines and hats, one function for each of some levels at either end, for the darkest and the brightest are
often levels of their own (the white of a scanner is 252 on one page and 254 on the next).
A constant is not among them, for the logits' common part changes nothing.
"""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

Basis = Literal["cosines", "hats", "free"]


def level_functions(
    levels: int, count: int = 24, basis: Basis = "cosines", *, ends: int = 8
) -> Float[Tensor, "functions {levels}"]:
    """The functions at the levels.

    Args:
        levels: V.
        count: n, how many without the ends'.
        basis: "cosines", "hats" or "free".
        ends: how many levels at either end have a function of their own.

    Returns:
        (functions, levels), float32. Where they would be as many as the levels, every logit is free.

    Raises:
        ValueError: for an unknown basis, no function, or less than no level at the ends.

    Example:
        >>> level_functions(256).shape, level_functions(4).shape
        (torch.Size([40, 256]), torch.Size([4, 4]))
    """
    if basis not in get_args(Basis):
        raise ValueError(f"basis={basis!r}; choose one of {', '.join(map(repr, get_args(Basis)))}")
    if count < 1:
        raise ValueError(f"functions={count}; at least one is needed")
    if ends < 0:
        raise ValueError(f"ends={ends}; it cannot be negative")
    if basis == "free" or count + 2 * ends >= levels:
        return torch.eye(levels)
    k = torch.arange(levels, dtype=torch.float64)
    j = torch.arange(1, count + 1, dtype=torch.float64)[:, None]
    if basis == "cosines":
        smooth = math.sqrt(2) * torch.cos(math.pi * j * (k + 0.5) / levels)
    else:
        smooth = (1 - (k / (levels - 1) * count - j).abs()).clamp(min=0)
    own = torch.eye(levels, dtype=torch.float64)
    return torch.cat([smooth, own[:ends], own[levels - ends :]]).float()
