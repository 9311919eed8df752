"""Solvers of the flow with its divergence by name: the library's own, and every method of torchdiffeq.

    "adams"                          the default (see adams.py): steps and errors of each example its own
    torchdiffeq, adaptive            "dopri5", "dopri8", "bosh3", ...: one step sequence for the whole batch
    torchdiffeq, fixed grid          "euler", "midpoint", "rk4", ...: `steps` equal steps in gamma
    "scipy_solver", "scipy_solver:LSODA"    scipy's solve_ivp on the whole batch

All integrate over gamma, in which the flow is smooth and needs no schedule but its end points.

Reference: Chen, torchdiffeq (github.com/rtqichen/torchdiffeq).
"""

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
    """A checked solver name. shared: whether the batch shares its steps; fixed: whether they form a given grid."""

    name: str
    shared: bool
    fixed: bool
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
    return Method(base, shared=not fixed, fixed=fixed)


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
) -> Solution:
    """As adams.solve_adams, by torchdiffeq. With the adjoint, gradients are solved backwards at the same tolerance."""
    from torchdiffeq import odeint, odeint_adjoint  # here, for its import warns

    kind = _Counting if method.shared and not method.scipy else _Augmented
    function = kind(field, model, 20 * max_steps)
    state = (z, torch.zeros(len(z), field.columns, dtype=z.dtype, device=z.device))
    ends = torch.stack([start, end]).to(z)
    if method.fixed:
        ends = start.to(z) + (end - start).to(z) * torch.linspace(
            0, 1, steps + 1, dtype=z.dtype, device=z.device
        )
    options: dict[str, object] = {"solver": method.scipy} if method.scipy else {}
    keywords = {"rtol": rtol, "atol": atol, "method": method.name, "options": options}
    status = "ok"
    try:
        if adjoint:
            states = odeint_adjoint(
                function, state, ends, adjoint_params=tuple(model.parameters()), **keywords
            )
        else:
            states = odeint(function, state, ends, **keywords)
        last, integral = states[0][-1], states[1][-1].double()
    except (AssertionError, _StepLimit) as error:
        # torchdiffeq asserts that steps do not underflow and that values stay finite
        status = "step limit" if isinstance(error, _StepLimit) else "step underflow"
        if "non-finite" in str(error):
            status = "non-finite"
        last, integral = (
            torch.full_like(z, torch.nan),
            torch.full_like(state[1], torch.nan).double(),
        )
    bad = ~(last.flatten(1).isfinite().all(1) & integral.isfinite().all(1))
    if method.fixed:
        function.accepted = steps

    def each(n: int) -> Tensor:
        return torch.full((len(z),), n, dtype=torch.long, device=z.device)

    return Solution(
        z=last,
        integral=integral,
        error=torch.full((len(z),), torch.nan, dtype=torch.float64, device=z.device),
        evaluations=each(function.evaluations),
        accepted=each(function.accepted),
        rejected=each(function.rejected),
        status=[("non-finite" if status == "ok" else status) if b else "ok" for b in bad.tolist()],
    )
