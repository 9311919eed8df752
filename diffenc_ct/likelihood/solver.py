"""What a solver of the probability flow is: for likelihoods it integrates the divergence, too.

    dz/dgamma = f,     dL/dgamma = div f

Solvers integrate over gamma, in which the flow is smooth and needs no schedule but its end points. One's own derives from
`FlowSolver`.

Reference: Chen et al. 2018, theorem 1.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from diffenc_ct.distributed import Progress, silent
from diffenc_ct.likelihood.divergence import FlowField
from diffenc_ct.model import DiffEnc
from diffenc_ct.process import ConstantNoiseLevel, NoiseLevel
from diffenc_ct.sampling import Grid, Solver, make_grid
from diffenc_ct.schedules import Schedule


class SolverError(RuntimeError):
    """The ODE could not be solved for some examples; `status` says why, one word an example."""

    def __init__(self, status: list[str], advice: str) -> None:
        bad = [f"{i}: {word}" for i, word in enumerate(status) if word != "ok"]
        shown = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
        super().__init__(
            f"{len(bad)} of {len(status)} examples have no likelihood ({shown}); {advice}, or give the solver "
            'on_failure="nan" for NaN in their place'
        )
        self.status = status


@dataclass(frozen=True)
class Solution:
    """A solved flow, one entry an example.

    Attributes:
        z: at the end, (batch, *data).
        integral: of the divergence, (batch, K) in float64.
        error: the solver's estimate of its error of log p, nats; NaN where none was asked for.
        evaluations: of the network.
        accepted: steps.
        rejected: steps.
        status: "ok", "step limit", "step underflow", "non-finite" or "scipy gave up"; where it is not "ok", z and integral
            are NaN.
    """

    z: Tensor
    integral: Tensor
    error: Tensor
    evaluations: Tensor
    accepted: Tensor
    rejected: Tensor
    status: list[str]


@dataclass(frozen=True)
class FlowProblem:
    """What a flow solver integrates: dz/dgamma = f, dL/dgamma = div f, from one end of gamma to the other.

    Attributes:
        field: f, div f and the score (see divergence).
        z: where it starts, (batch, *data).
        start: gamma there, a scalar.
        end: gamma at the end, a scalar.
        log_density: (z, integral) at the end -> log p_0 by each probe, (batch, K).
        progress: called with the number of examples that came to an end.
    """

    field: FlowField
    z: Tensor
    start: Tensor
    end: Tensor
    log_density: Callable[[Tensor, Tensor], Tensor]
    progress: Progress = silent


@dataclass(frozen=True, eq=False, kw_only=True)
class FlowSolver(Solver):
    """Base class of solvers of the probability flow. One's own implements `integrate`, and `__call__` for samples.

    Attributes:
        on_failure: where an example cannot be solved, "raise" a SolverError, or leave "nan" with a status.

    Raises:
        ValueError: for another word.
    """

    on_failure: Literal["raise", "nan"] = "raise"

    def __post_init__(self) -> None:
        if self.on_failure not in ("raise", "nan"):
            raise ValueError(f'on_failure={self.on_failure!r}; choose "raise" or "nan"')

    @abstractmethod
    def integrate(self, problem: FlowProblem) -> Solution:
        """z and the integral of the divergence at the other end, with errors and counts."""

    @property
    def differentiable(self) -> bool:
        """Whether results carry gradients."""
        return False

    @property
    def adaptive(self) -> bool:
        """Whether it chooses its steps by a tolerance."""
        return True

    def level(self, model: DiffEnc) -> NoiseLevel:
        """0: the flow has no noise."""
        return ConstantNoiseLevel(0.0)

    def grid(self, schedule: Schedule) -> Grid:
        """The two ends."""
        return Grid.of(schedule, make_grid(schedule, 1, "uniform"))


def check_positive(name: str, value: float) -> None:
    """ValueError unless value is a positive number."""
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name}={value} must be a positive number")


def check_count(name: str, value: int) -> None:
    """ValueError unless value is at least 1."""
    if value < 1:
        raise ValueError(f"{name}={value} must be at least 1")
