"""What torchdiffeq's and scipy's methods share as solvers of the flow: counting, failures, an estimate of the error."""

import math
import re
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffenc_ct.dynamics import ProbabilityFlow
from diffenc_ct.likelihood.field import FlowField
from diffenc_ct.likelihood.solver import FlowProblem, FlowSolver, Solution
from diffenc_ct.model import evaluating
from diffenc_ct.sampling import Grid, Problem

Derivative = Callable[[Tensor, Any], Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class Library(FlowSolver):
    """Common parts of torchdiffeq's and scipy's methods.

    Attributes:
        estimate_error: of log p, by a second, coarser solve without gradients, for about half as many evaluations
            again: |difference|/(2^order - 1) from half as many steps of a fixed grid; |difference|, which is far above
            the error, for methods of several orders at once (Adams) and from ten times the tolerances of adaptive ones.
    """

    estimate_error: bool = True

    @abstractmethod
    def _odeint(self, function: "Function", state: Any, gammas: Tensor, laxer: float) -> Any:
        """The states at gammas, at `laxer` times the tolerances."""

    @abstractmethod
    def _gammas(self, start: Tensor, end: Tensor, *, coarse: bool) -> Tensor:
        """Where the steps of `integrate` end."""

    @property
    def _error_ratio(self) -> float:
        """By how much the difference to the coarse solve exceeds the error."""
        return 1.0

    def _function(self, model: nn.Module, derivative: Derivative) -> "Function":
        return Function(model, derivative)

    def _augmented(self, field: FlowField) -> "Function":
        """d(z, L)/dgamma."""

        def derivative(gamma: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            value = field(state[0], gamma.to(state[0]).expand(len(state[0])))
            return value.velocity, value.divergence

        return self._function(field.model, derivative)

    def __call__(
        self, problem: Problem, z: Float[Tensor, "batch *data"], grid: Grid
    ) -> Float[Tensor, "batch *data"]:
        flow = ProbabilityFlow(problem.model)
        function = self._function(
            problem.model, lambda gamma, z: flow.velocity(z, gamma.to(z).expand(len(z)))
        )
        path, status = self._attempt(function, z, grid.gamma.to(z), 1.0)
        self.refuse_failures([status] * len(z))
        end: Tensor = torch.full_like(z, torch.nan) if path is None else path[-1]
        return end

    def integrate(self, problem: FlowProblem) -> Solution:
        z, function = problem.z, self._augmented(problem.field)
        last, integral, status = self._integrate(function, problem)
        bad = ~(last.flatten(1).isfinite().all(1) & integral.isfinite().all(1))
        error = torch.full((len(z),), torch.nan, dtype=torch.float64, device=z.device)
        evaluations = function.evaluations
        if self.estimate_error and status == "ok" and self._can_be_coarser:
            coarse = self._augmented(problem.field)
            with torch.no_grad():
                rough = self._integrate(coarse, problem, coarse=True)
                difference = problem.log_density(last, integral) - problem.log_density(*rough[:2])
                error = difference.mean(1).abs() / self._error_ratio
            evaluations += coarse.evaluations

        def each(n: int) -> Tensor:
            return torch.full((len(z),), n, dtype=torch.long, device=z.device)

        problem.progress(len(z))
        spoiled = "non-finite" if status == "ok" else status
        return Solution(
            z=last,
            integral=integral,
            error=error,
            evaluations=each(evaluations),
            accepted=each(self._accepted(function, status)),
            rejected=each(function.rejected),
            status=[spoiled if b else "ok" for b in bad.tolist()],
        )

    @property
    def _can_be_coarser(self) -> bool:
        return True

    def _accepted(self, function: "Function", status: str) -> int:
        return function.accepted

    def _integrate(
        self, function: "Function", problem: FlowProblem, *, coarse: bool = False
    ) -> tuple[Tensor, Tensor, str]:
        """z and the divergence's integral at the end, and a word for how it went; NaN where it did not."""
        z = problem.z
        zeros = torch.zeros(len(z), problem.field.columns, dtype=z.dtype, device=z.device)
        gammas = self._gammas(problem.start.to(z), problem.end.to(z), coarse=coarse)
        states, status = self._attempt(function, (z, zeros), gammas, 10.0 if coarse else 1.0)
        if states is None:
            nan = torch.full_like(z, torch.nan), torch.full_like(zeros, torch.nan).double()
            return *nan, status
        return states[0][-1], states[1][-1].double(), status

    def _attempt(
        self, function: "Function", state: Any, gammas: Tensor, laxer: float
    ) -> tuple[Any, str]:
        """The states at gammas and "ok", or None and a word for why there are none."""
        try:
            return self._odeint(function, state, gammas, laxer), "ok"
        except (AssertionError, RuntimeError, ValueError, GaveUp) as error:
            return None, _explain(error)


class GaveUp(Exception):
    """A solve that ended early; the message is the status of its examples."""


class Function(nn.Module):
    """What a library integrates, with counts; the model is a submodule for the adjoint's sake.

    Args:
        model: whose flow it is.
        derivative: (gamma, state) -> d state/dgamma, all examples at one gamma.
        most: steps that may be tried, of which one more raises GaveUp.
    """

    def __init__(self, model: nn.Module, derivative: Derivative, most: float = math.inf) -> None:
        super().__init__()
        self.model, self.derivative, self.most = model, derivative, most
        self.evaluations = self.tried = self.accepted = self.rejected = 0

    def forward(self, gamma: Tensor, state: Any) -> Any:
        """The derivative; in evaluation mode also where the adjoint asks for it, when the solve is long over."""
        self.evaluations += 1
        with evaluating(self.model):
            return self.derivative(gamma, state)

    def callback_step(self, *_: object) -> None:
        """Count a step that begins; torchdiffeq calls it."""
        if self.tried >= self.most:
            raise GaveUp("step limit")
        self.tried += 1


class Judged(Function):
    """With the callbacks of torchdiffeq's adaptive methods, whose steps may be rejected."""

    def callback_accept_step(self, *_: object) -> None:
        """Count an accepted step."""
        self.accepted += 1

    def callback_reject_step(self, *_: object) -> None:
        """Count a rejected step."""
        self.rejected += 1


def _explain(error: Exception) -> str:
    """How a solve failed, in words; raises what is no failure of a solver.

    torchdiffeq asserts that steps do not underflow and that values stay finite; scipy raises ValueError at values that
    are not.
    """
    if isinstance(error, GaveUp):
        return str(error)
    if re.search(r"\bnon-finite\b|\binfs or NaNs\b|\bmust be finite\b", str(error)):
        return "non-finite"
    if isinstance(error, RuntimeError | ValueError):
        raise error
    return "step underflow"
