"""What torchdiffeq's and scipy's methods share as solvers of the flow: counting, failures, an estimate of the error."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffenc_ct.dynamics import ProbabilityFlow
from diffenc_ct.likelihood.field import FlowField
from diffenc_ct.likelihood.solver import FlowProblem, FlowSolver, Solution
from diffenc_ct.sampling import Grid, Problem
from diffenc_ct.sampling.problem import Counted


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

    @property
    def _most_evaluations(self) -> float:
        return math.inf

    def _counted(self, field: FlowField) -> "Augmented":
        return Augmented(field, self._most_evaluations)

    def __call__(
        self, problem: Problem, z: Float[Tensor, "batch *data"], grid: Grid
    ) -> Float[Tensor, "batch *data"]:
        function = Velocity(problem.model, self._most_evaluations)
        path, status = self._attempt(function, z, grid.gamma.to(z), 1.0)
        self.refuse_failures([status] * len(z))
        end: Tensor = torch.full_like(z, torch.nan) if path is None else path[-1]
        return end

    def integrate(self, problem: FlowProblem) -> Solution:
        z, function = problem.z, self._counted(problem.field)
        last, integral, status = self._integrate(function, problem)
        bad = ~(last.flatten(1).isfinite().all(1) & integral.isfinite().all(1))
        error = torch.full((len(z),), torch.nan, dtype=torch.float64, device=z.device)
        evaluations = function.evaluations
        if self.estimate_error and status == "ok" and self._can_be_coarser:
            coarse = self._counted(problem.field)
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
            accepted=each(self._accepted(function)),
            rejected=each(function.rejected),
            status=[spoiled if b else "ok" for b in bad.tolist()],
        )

    @property
    def _can_be_coarser(self) -> bool:
        return True

    def _accepted(self, function: "Augmented") -> int:
        return function.accepted

    def _integrate(
        self, function: "Augmented", problem: FlowProblem, *, coarse: bool = False
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
        except (AssertionError, RuntimeError, ValueError, StepLimit) as error:
            return None, _explain(error)


class StepLimit(Exception):
    """A function was evaluated more often than is allowed."""


class Function(nn.Module):
    """What torchdiffeq integrates, with a count of evaluations; the model is a submodule for the adjoint's sake.

    Args:
        model: whose flow it is.
        most: evaluations, beyond which it raises StepLimit.
    """

    def __init__(self, model: nn.Module, most: float) -> None:
        super().__init__()
        self.model, self.most = model, most
        self.evaluations = self.accepted = self.rejected = 0

    def count(self) -> None:
        """One evaluation more."""
        self.evaluations += 1
        if self.evaluations > self.most:
            raise StepLimit


class Velocity(Function):
    """dz/dgamma.

    Args:
        model: whose flow it is.
        most: evaluations, beyond which it raises StepLimit.
    """

    def __init__(self, model: Counted, most: float) -> None:
        super().__init__(model, most)
        self.flow = ProbabilityFlow(model)

    def forward(self, gamma: Tensor, z: Tensor) -> Tensor:
        """f at z, all examples at one gamma."""
        self.count()
        return self.flow.velocity(z, gamma.to(z).expand(len(z)))


class Augmented(Function):
    """d(z, L)/dgamma.

    Args:
        field: f and div f.
        most: evaluations, beyond which it raises StepLimit.
    """

    def __init__(self, field: FlowField, most: float) -> None:
        super().__init__(field.model, most)
        self.field = field

    def forward(self, gamma: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """f and div f at z, all examples at one gamma."""
        self.count()
        z = state[0]
        value = self.field(z, gamma.to(z).expand(len(z)))
        return value.velocity, value.divergence


class Counting(Augmented):
    """With the callbacks of torchdiffeq's adaptive methods."""

    def callback_accept_step(self, *_: object) -> None:
        """Count an accepted step."""
        self.accepted += 1

    def callback_reject_step(self, *_: object) -> None:
        """Count a rejected step."""
        self.rejected += 1


def _explain(error: Exception) -> str:
    """How a solve failed, in words; raises what is no failure of a solver.

    torchdiffeq asserts that steps do not underflow and that values stay finite; scipy raises ValueError at values that
    are not, and what it gave up comes back empty.
    """
    words = {"size 0": "scipy gave up", "finite": "non-finite", "NaN": "non-finite"}
    found = [word for part, word in words.items() if part in str(error)]
    if found:
        return found[0]
    if isinstance(error, RuntimeError | ValueError):
        raise error
    return "step limit" if isinstance(error, StepLimit) else "step underflow"
