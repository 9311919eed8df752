"""Where the steps lie: depths from 0 to 1 by name, or as a tensor.

    "uniform"     equal steps of t
    "log-snr"     equal steps of lambda
    "balanced"    equal steps of lambda + 3/2 alpha^2(lambda), the default of the exponential integrators

An encoder moves where alpha^2 does (x_t = alpha^2 x + sigma^2 y): "balanced" spends more steps there, and as much as
"log-snr" elsewhere. The factor 3/2 was chosen on Gaussian data of variances from 1e-4 to 1 with three encoders.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.elbo import check_grid, uniform_grid
from diffenc_ct.schedules import Schedule, alpha2

Placement = Literal["uniform", "log-snr", "balanced"]

_MEASURES: dict[str, Callable[[Tensor], Tensor]] = {
    "log-snr": lambda lam: lam,
    "balanced": lambda lam: lam + 1.5 * alpha2(-lam),
}


def depth_of(schedule: Schedule, gamma: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """t with schedule(t).gamma = gamma, by bisection.

    Args:
        schedule: an increasing gamma(t).
        gamma: values between the schedule's ends, float64.

    Example:
        >>> import torch, diffenc_ct as dc
        >>> depth_of(dc.LinearSchedule(-10.0, 10.0), torch.tensor([-5.0, 0.0], dtype=torch.float64))
        tensor([0.2500, 0.5000], dtype=torch.float64)
    """
    low, high = torch.zeros_like(gamma), torch.ones_like(gamma)
    for _ in range(60):
        middle = (low + high) / 2
        above = schedule(middle).gamma > gamma
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2


def check_placement(placement: Placement | Float[Tensor, "*shape"], steps: int) -> None:
    """Refuse what is neither a known name nor a grid of `steps` steps.

    Args:
        placement: a name, or depths.
        steps: how many steps the depths are to make.

    Raises:
        ValueError: naming what is allowed.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}; a solver needs at least one step")
    if isinstance(placement, Tensor):
        if placement.ndim == 1 and len(placement) != steps + 1:
            raise ValueError(
                f"placement holds {len(placement)} depths, of {len(placement) - 1} steps, but steps={steps}; "
                "give the same number to both"
            )
        check_grid(placement, steps, placement)
    elif placement not in get_args(Placement):
        raise ValueError(
            f"placement={placement!r}; choose {', '.join(get_args(Placement))}, or give the depths as a tensor"
        )


@torch.no_grad()
def make_grid(
    schedule: Schedule, steps: int, placement: Placement | Float[Tensor, "*shape"]
) -> Float[Tensor, " {steps}+1"]:
    """steps + 1 depths increasing from 0 to 1, float64.

    Args:
        schedule: gamma(t).
        steps: at least 1.
        placement: a name above, or the depths themselves.

    Raises:
        ValueError: for an unknown name, steps below 1, depths that do not increase strictly from 0 to 1.

    Example:
        >>> import diffenc_ct as dc
        >>> make_grid(dc.LinearSchedule(), 4, "uniform")
        tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000], dtype=torch.float64)
    """
    check_placement(placement, steps)
    device = next(schedule.parameters(), torch.empty(0)).device
    like = torch.empty(0, dtype=torch.float64, device=device)
    if isinstance(placement, Tensor):
        return check_grid(placement, steps, like)
    if placement == "uniform":
        return uniform_grid(steps, like)
    measure = _MEASURES[placement]
    ends = schedule(like.new_tensor([1.0, 0.0])).gamma
    shares = measure(-ends[0]) + (measure(-ends[1]) - measure(-ends[0])) * torch.linspace(
        0, 1, steps + 1, dtype=like.dtype, device=like.device
    )
    low, high = (-end.expand(steps + 1) for end in ends)
    for _ in range(60):
        middle = (low + high) / 2
        above = measure(middle) > shares
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    t = depth_of(schedule, -low).flip(0)
    t[0], t[-1] = 0, 1
    return check_grid(t, steps, like)
