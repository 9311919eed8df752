"""The default solver of the flow: variable-step Adams for each example, controlled by the error of log p itself.

Its steps, error control and error estimate are explained where they are computed, in `_adams`.

Reference: Hairer, Norsett, Wanner, "Solving Ordinary Differential Equations I", III.5.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffenc_ct.likelihood._adams import solve_adams
from diffenc_ct.likelihood.field import FlowValue, flow_and_score
from diffenc_ct.likelihood.solver import (
    FlowProblem,
    FlowSolver,
    Solution,
    check_count,
    check_positive,
)
from diffenc_ct.sampling import Grid, Problem


@dataclass(frozen=True, eq=False, kw_only=True)
class Adams(FlowSolver):
    """Adams steps in gamma, each example its own.

    Attributes:
        atol: error of log p allowed a step, nats a dimension.
        max_steps: attempts, accepted and rejected steps together, before an example is given up.
        gradient: of results, "none" or "solve" (through the steps, whose sizes are constants).

    Raises:
        ValueError: for a tolerance that is not positive, fewer than one step, another gradient.

    Example:
        >>> import diffenc_ct as dc
        >>> dc.Adams(atol=1e-6).batch_matters
        False
    """

    atol: float = 1e-5
    max_steps: int = 10_000
    gradient: Literal["none", "solve"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("atol", self.atol)
        check_count("max_steps", self.max_steps)
        if self.gradient not in ("none", "solve"):
            raise ValueError(
                f'gradient={self.gradient!r}; choose "none" or "solve" (the adjoint is torchdiffeq\'s)'
            )

    @property
    def depths_are_shared(self) -> bool:
        """Every example takes steps of its own."""
        return False

    @property
    def differentiable(self) -> bool:
        """Whether results carry gradients."""
        return self.gradient != "none"

    @property
    def nodes(self) -> int:
        """How many values of the past its polynomials go through."""
        return 6 if self.atol > 1e-8 else 8

    def convergence_order(self, stochastic: bool) -> float:
        """One less than its nodes: f is evaluated at points that are extrapolated through two nodes fewer."""
        return self.nodes - 1

    def integrate(self, problem: FlowProblem) -> Solution:
        return solve_adams(
            problem.field,
            problem.z,
            problem.start,
            problem.end,
            tolerance=self.atol * problem.z[0].numel(),
            nodes=self.nodes,
            max_steps=self.max_steps,
            progress=problem.progress,
        )

    def __call__(
        self, problem: Problem, z: Float[Tensor, "batch *data"], grid: Grid
    ) -> Float[Tensor, "batch *data"]:
        """Samples: the error of log p that is controlled is that of a displaced z_0, score . error."""
        solution = solve_adams(
            _WithoutDivergence(problem),
            z,
            grid.gamma[0],
            grid.gamma[-1],
            tolerance=self.atol * z[0].numel(),
            nodes=self.nodes,
            max_steps=self.max_steps,
        )
        self.refuse_failures(solution.status)
        return solution.z


class _WithoutDivergence:
    """The flow and its score alone: samples need no density."""

    columns = 1

    def __init__(self, problem: Problem) -> None:
        self.model = problem.model

    def __call__(
        self,
        z: Float[Tensor, "batch *data"],
        gamma: Float[Tensor, " batch"],
        rows: Int[Tensor, " batch"] | None = None,
    ) -> FlowValue:
        model = self.model if rows is None else self.model.rows(rows)
        velocity, score = flow_and_score(model, z, gamma)
        return FlowValue(velocity, torch.zeros_like(gamma)[:, None], score)
