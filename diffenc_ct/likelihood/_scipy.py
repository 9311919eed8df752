"""scipy's solvers of an ODE, a step at a time: their steps are counted and limited like those of all others."""

from typing import Any

import numpy as np
import scipy.integrate
import torch
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.likelihood._library import Function, GaveUp

State = Tensor | tuple[Tensor, ...]


def solve_scipy(
    function: Function, state: State, ends: Float[Tensor, " nodes"], method: str, **options: Any
) -> State:
    """The state at the last of `ends`, from that at the first.

    Args:
        function: d state/dgamma, whose counts and limit are those of the solve.
        state: a tensor, or several, (batch, ...) each.
        ends: gamma.
        method: RK45, RK23, DOP853, Radau, BDF or LSODA.
        options: of scipy.integrate's class of that name; `solver`, an OdeSolver, takes its place.

    Raises:
        GaveUp: for too many steps, a derivative that is not finite at the start, or where scipy gives up.
    """
    several = isinstance(state, tuple)
    parts = state if isinstance(state, tuple) else (state,)
    first, sizes = parts[0], [part[0].numel() for part in parts]
    start, end = float(ends[0]), float(ends[-1])

    def split(y: Any) -> State:
        rows = torch.split(torch.as_tensor(y).to(first).reshape(len(first), -1), sizes, 1)
        found = tuple(row.reshape(part.shape) for row, part in zip(rows, parts, strict=True))
        return found if several else found[0]

    def join(values: State) -> Any:
        values = values if isinstance(values, tuple) else (values,)
        rows = torch.cat([value.detach().flatten(1) for value in values], 1)
        return rows.flatten().double().cpu().numpy()

    def derivative(gamma: float, y: Any) -> Any:
        with torch.no_grad():
            found = join(function(first.new_tensor(gamma), split(y)))
        if gamma == start and not np.isfinite(found).all():
            raise GaveUp("non-finite")  # no step is short enough, and scipy would not end
        return found

    kind = options.pop("solver", None) or getattr(scipy.integrate, method)
    solver = kind(derivative, start, join(state), end, **options)
    while solver.status == "running":
        _take_step(solver, function)
    return split(solver.y)


def _take_step(solver: Any, function: Function) -> None:
    """The next step that an OdeSolver accepts, and those before it that a Runge-Kutta method rejects."""
    function.callback_step()
    before = solver.nfev
    solver.step()
    failed = solver.status == "failed"
    stages = getattr(solver, "n_stages", None)
    tried = 1 if stages is None else (solver.nfev - before) // stages
    for _ in range(tried - (not failed)):
        function.rejected += 1
        function.callback_step()
    if failed:
        raise GaveUp("scipy gave up")
    function.accepted += 1
