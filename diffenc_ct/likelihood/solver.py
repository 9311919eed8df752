"""What a solver of the probability flow is: for likelihoods it integrates the divergence, too.

    dz/dgamma = f,     dL/dgamma = div f

Solvers integrate over gamma, in which the flow is smooth and needs no schedule but its end points. One's own derives
from `FlowSolver`.

Reference: Chen et al. 2018, theorem 1.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from diffenc_ct.distributed import Progress, silent
from diffenc_ct.likelihood.field import FlowField
from diffenc_ct.model import DiffEnc
from diffenc_ct.process import ConstantNoiseLevel, NoiseLevel
from diffenc_ct.sampling import Grid, Solver, make_grid
from diffenc_ct.schedules import Schedule


class SolverError(RuntimeError):
    """The ODE could not be solved for some examples.

    Args:
        status: why, a few words an example, "ok" where it could.
    """

    def __init__(self, status: Sequence[str]) -> None:
        bad = [f"{i}: {word}" for i, word in enumerate(status) if word != "ok"]
        shown = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
        super().__init__(
            f"{len(bad)} of {len(status)} examples could not be solved ({shown}); a laxer tolerance, more max_steps or "
            'another solver may do, or give the solver on_failure="nan" for NaN in their place'
        )
        self.status = list(status)


@dataclass(frozen=True)
class Solution:
    """A solved flow, one entry an example.

    Attributes:
        z: at the end, (batch, *data).
        integral: of the divergence, (batch, K) in float64.
        error: the solver's estimate of its error of log p, nats; NaN where none was asked for.
        evaluations: of the network.
        accepted: steps that were taken.
        rejected: steps that were tried and not taken; 0 of Radau, BDF and LSODA, for scipy does not tell.
        status: "ok", "step limit", "step underflow", "non-finite" or "scipy gave up"; where it is not "ok", z and
            integral are NaN.
    """

    z: Float[Tensor, "batch *data"]
    integral: Float[Tensor, "batch K"]
    error: Float[Tensor, " batch"]
    evaluations: Int[Tensor, " batch"]
    accepted: Int[Tensor, " batch"]
    rejected: Int[Tensor, " batch"]
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
    z: Float[Tensor, "batch *data"]
    start: Float[Tensor, ""]
    end: Float[Tensor, ""]
    log_density: Callable[[Tensor, Tensor], Tensor]
    progress: Progress = silent


@dataclass(frozen=True, eq=False, kw_only=True)
class FlowSolver(Solver):
    """Base class of solvers of the probability flow. One's own implements `integrate`, and `__call__` for samples.

    Attributes:
        on_failure: where an example cannot be solved, "raise" a SolverError, or leave "nan" with a status.

    Raises:
        ValueError: for another word.

    Example:
        >>> import torch, diffenc_ct as dc
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True, eq=False, kw_only=True)
        ... class Euler(FlowSolver):
        ...     steps: int = 512
        ...     def integrate(self, problem):
        ...         z, total = problem.z, torch.zeros(len(problem.z), problem.field.columns).double()
        ...         h = (problem.end - problem.start) / self.steps
        ...         for i in range(self.steps):
        ...             value = problem.field(z, (problem.start + i * h).expand(len(z)))
        ...             z, total = z + h * value.velocity, total + h * value.divergence
        ...         n, ok = torch.full((len(z),), self.steps), ["ok"] * len(z)
        ...         return Solution(z, total, torch.full((len(z),), torch.nan), n, n, 0 * n, ok)
        ...     def __call__(self, problem, z, grid):
        ...         h = (grid.gamma[-1] - grid.gamma[0]).item() / self.steps
        ...         for i in range(self.steps):
        ...             z = z + h * dc.ProbabilityFlow(problem.model).velocity(
        ...                 z, torch.full((len(z),), grid.gamma[0].item() + i * h).to(z)
        ...             )
        ...         return z
        >>> world = dc.worlds.GaussianWorld(torch.zeros(2).double(), torch.tensor([0.5, 0.1]).double())
        >>> model, x = world.model(dc.LinearSchedule(-6.0, 4.0)), torch.tensor([[0.1, 0.2]]).double()
        >>> exact = dc.log_likelihood(model, x).nats
        >>> (dc.log_likelihood(model, x, solver=Euler()).nats - exact).abs().item() < 0.1
        True
    """

    on_failure: Literal["raise", "nan"] = "raise"

    def __post_init__(self) -> None:
        if self.on_failure not in ("raise", "nan"):
            raise ValueError(f'on_failure={self.on_failure!r}; choose "raise" or "nan"')

    @abstractmethod
    def integrate(self, problem: FlowProblem) -> Solution:
        """z and the integral of the divergence at the other end, with errors and counts.

        Args:
            problem: what is integrated, from where to where.
        """

    def refuse_failures(self, status: Sequence[str]) -> None:
        """Raise what `on_failure` asks for.

        Args:
            status: of each example, "ok" or why it could not be solved.

        Raises:
            SolverError: where one is not "ok", unless on_failure is "nan".
        """
        if self.on_failure == "raise" and any(word != "ok" for word in status):
            raise SolverError(status)

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
    """Refuse what is not a positive number.

    Raises:
        ValueError: naming it.
    """
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name}={value} must be a positive number")


def check_count(name: str, value: int) -> None:
    """Refuse a number below 1.

    Raises:
        ValueError: naming it.
    """
    if value < 1:
        raise ValueError(f"{name}={value} must be at least 1")
