"""Where the steps lie: depths from 0 to 1 by name, or as a tensor.

    "uniform"     equal steps of t
    "log-snr"     equal steps of lambda
    "balanced"    equal steps of lambda + 3/2 alpha^2(lambda), the default of the exponential integrators

An encoder moves where alpha^2 does (x_t = alpha^2 x + sigma^2 y): "balanced" spends more steps there, and as much as
"log-snr" elsewhere. The factor 3/2 was chosen on Gaussian data of variances from 1e-4 to 1 with three encoders.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from diffenc_ct.elbo import check_grid, uniform_grid
from diffenc_ct.schedules import Schedule, alpha2

PLACEMENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "log-snr": lambda lam: lam,
    "balanced": lambda lam: lam + 1.5 * alpha2(-lam),
}


def depth_of(schedule: Schedule, gamma: Tensor) -> Tensor:
    """t with schedule(t).gamma = gamma, by bisection; gamma (n,) between the schedule's ends, float64."""
    low, high = torch.zeros_like(gamma), torch.ones_like(gamma)
    for _ in range(60):
        middle = (low + high) / 2
        above = schedule(middle).gamma > gamma
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (low + high) / 2


@torch.no_grad()
def make_grid(schedule: Schedule, steps: int, placement: str | Tensor) -> Tensor:
    """steps + 1 depths increasing from 0 to 1, float64.

    placement: a name above, or the depths themselves. Raises ValueError for an unknown name, steps below 1, depths that
    do not increase strictly from 0 to 1.
    """
    like = torch.empty(
        0, dtype=torch.float64, device=next(schedule.parameters(), torch.empty(0)).device
    )
    if isinstance(placement, Tensor):
        return check_grid(placement, steps, like)
    if steps < 1:
        raise ValueError(f"steps={steps}; a sampler needs at least one step")
    if placement == "uniform":
        return uniform_grid(steps, like)
    if placement not in PLACEMENTS:
        raise ValueError(
            f"schedule={placement!r}; choose uniform, {', '.join(PLACEMENTS)}, or give the depths as a tensor"
        )
    measure = PLACEMENTS[placement]
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
