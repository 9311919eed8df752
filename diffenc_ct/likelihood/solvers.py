"""Solvers of the flow with its divergence by name: the library's own, and every method of torchdiffeq.

    "adams"                          the default (see adams.py): steps and errors of each example its own
    torchdiffeq, adaptive            "dopri5", "dopri8", "bosh3", ...: one step sequence for the whole batch
    torchdiffeq, fixed grid          "euler", "midpoint", "rk4", ...: `steps` equal steps in gamma
    "scipy_solver", "scipy_solver:LSODA"    scipy's solve_ivp on the whole batch

All integrate over gamma, in which the flow is smooth and needs no schedule but its end points.

Reference: Chen, torchdiffeq (github.com/rtqichen/torchdiffeq).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffenc_ct.likelihood.adams import Field, Solution

DEFAULT = "adams"
_SCIPY = ("RK45", "RK23", "DOP853", "Radau", "BDF", "LSODA")
_STOCHASTIC = (
    "ancestral",
    "euler_maruyama",
    "euler-maruyama",
    "milstein",
    "srk",
    "reversible_heun",
)


@dataclass(frozen=True)
class Method:
    """A checked solver name. shared: whether the batch shares its steps; fixed: whether they form a given grid, with
    errors of that order."""

    name: str
    shared: bool
    fixed: bool
    order: int = 1
    scipy: str | None = None


def parse_solver(name: str) -> Method:
    """The solver called `name`; ValueError for an unknown one, and for a stochastic one, which has no density."""
    if name == DEFAULT:
        return Method(name, shared=False, fixed=False)
    from torchdiffeq._impl.odeint import SOLVERS
    from torchdiffeq._impl.solvers import FixedGridODESolver

    base, _, variant = name.partition(":")
    if base in _STOCHASTIC:
        raise ValueError(
            f"solver={name!r} is stochastic: its paths have no density by change of variables; choose an ODE solver "
            f'such as "{DEFAULT}", or the ELBO'
        )
    if base not in SOLVERS or (variant and base != "scipy_solver"):
        raise ValueError(f"solver={name!r}; choose {DEFAULT}, {', '.join(SOLVERS)}")
    if base == "scipy_solver":
        if (variant or "RK45") not in _SCIPY:
            raise ValueError(f"solver={name!r}; scipy has {', '.join(_SCIPY)}")
        return Method(base, shared=True, fixed=False, scipy=variant or "RK45")
    fixed = issubclass(SOLVERS[base], FixedGridODESolver)
    # Adams methods of a fixed grid start with lower orders: nothing to divide by there
    order = SOLVERS[base].order if fixed and "adams" not in base else 1
    return Method(base, shared=not fixed, fixed=fixed, order=order)


class _Augmented(nn.Module):
    """d(z, L)/dgamma for torchdiffeq, counting evaluations; the model is a submodule for the adjoint's sake."""

    def __init__(self, field: Field, model: nn.Module, max_evaluations: int) -> None:
        super().__init__()
        self.field, self.model, self.limit = field, model, max_evaluations
        self.evaluations = self.accepted = self.rejected = 0

    def forward(self, gamma: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        z = state[0]
        self.evaluations += 1
        if self.evaluations > self.limit:
            raise _StepLimit
        value = self.field(z, gamma.to(z).expand(len(z)))
        return value.velocity, value.divergence


class _Counting(_Augmented):
    """With the callbacks of torchdiffeq's adaptive methods."""

    def callback_accept_step(self, *_: object) -> None:
        self.accepted += 1

    def callback_reject_step(self, *_: object) -> None:
        self.rejected += 1


class _StepLimit(Exception):
    pass


def solve_torchdiffeq(
    method: Method,
    field: Field,
    model: nn.Module,
    z: Tensor,
    start: Tensor,
    end: Tensor,
    *,
    rtol: float,
    atol: float,
    steps: int,
    max_steps: int,
    adjoint: bool,
    by_probe: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Solution:
    """As adams.solve_adams, by torchdiffeq. With the adjoint, gradients are solved backwards at the same tolerance.

    by_probe: (z, integral) at the end -> log p_0 by each probe. If given, a second, coarser solve without gradients
    estimates the error: |difference|/(2^order - 1) from half as many steps of a fixed grid; |difference|, which is far
    above the error, for methods of several orders at once (Adams) and from ten times the tolerances of adaptive ones.
    Its evaluations count.
    """
    ends = (start.to(z), end.to(z))
    kind = _Counting if method.shared and not method.scipy else _Augmented
    function = kind(field, model, 20 * max_steps)
    last, integral, status = _integrate(method, function, z, ends, steps, rtol, atol, adjoint)
    bad = ~(last.flatten(1).isfinite().all(1) & integral.isfinite().all(1))
    error = torch.full((len(z),), torch.nan, dtype=torch.float64, device=z.device)
    evaluations = function.evaluations
    if by_probe is not None and status == "ok" and not (method.fixed and steps == 1):
        coarse = kind(field, model, 20 * max_steps)
        with torch.no_grad():
            rough = _integrate(method, coarse, z, ends, steps // 2, 10 * rtol, 10 * atol, False)
            difference = by_probe(last, integral) - by_probe(rough[0], rough[1])
            error = difference.mean(1).abs()
        error = error / (2**method.order - 1 if method.fixed else 1)
        evaluations += coarse.evaluations

    def each(n: int) -> Tensor:
        return torch.full((len(z),), n, dtype=torch.long, device=z.device)

    return Solution(
        z=last,
        integral=integral,
        error=error,
        evaluations=each(evaluations),
        accepted=each(steps if method.fixed else function.accepted),
        rejected=each(function.rejected),
        status=[("non-finite" if status == "ok" else status) if b else "ok" for b in bad.tolist()],
    )


def _integrate(
    method: Method,
    function: "_Augmented",
    z: Tensor,
    ends: tuple[Tensor, Tensor],
    steps: int,
    rtol: float,
    atol: float,
    adjoint: bool,
) -> tuple[Tensor, Tensor, str]:
    """z and the divergence's integral at the end, and a word for how it went; NaN where it did not."""
    from torchdiffeq import odeint, odeint_adjoint  # here, for its import warns

    state = (z, torch.zeros(len(z), function.field.columns, dtype=z.dtype, device=z.device))
    path = torch.linspace(0, 1, (steps if method.fixed else 1) + 1, dtype=z.dtype, device=z.device)
    grid = ends[0] + (ends[1] - ends[0]) * path
    options: dict[str, object] = {"solver": method.scipy} if method.scipy else {}
    keywords = {"rtol": rtol, "atol": atol, "method": method.name, "options": options}
    try:
        if adjoint:
            parameters = tuple(function.model.parameters())
            states = odeint_adjoint(function, state, grid, adjoint_params=parameters, **keywords)
        else:
            states = odeint(function, state, grid, **keywords)
        return states[0][-1], states[1][-1].double(), "ok"
    except (AssertionError, RuntimeError, ValueError, _StepLimit) as error:
        # torchdiffeq asserts that steps do not underflow and that values stay finite; scipy raises ValueError at values
        # that are not, and what it gave up comes back empty
        words = {"size 0": "scipy gave up", "finite": "non-finite", "NaN": "non-finite"}
        found = [word for part, word in words.items() if part in str(error)]
        if not found and isinstance(error, (RuntimeError, ValueError)):
            raise
        unnamed = "step limit" if isinstance(error, _StepLimit) else "step underflow"
        status = found[0] if found else unnamed
        nan = torch.full_like(z, torch.nan), torch.full_like(state[1], torch.nan).double()
        return *nan, status
