"""Ancestral sampling: the model's own steps p(z_s | z_t), at any depth and on any grid.

    z_s = alpha_s x_hat_s + rho (sigma_s/sigma_t) (z_t - alpha_t x_hat) + sqrt(w) sigma_s sqrt(1 - rho^2) eps

with x_hat_s = x_hat + (lambda_s - lambda_t) r_hat; or, of mixture steps, each value the process of one component of
what is known of it (see `process.values`). Noise level 0 of the first is DDIM.

Reference: Kingma et al. 2021; Nielsen et al. 2024; Song et al. 2021 (DDIM).
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from diffenc_ct.elbo import Ratio, StepKind, check_ratio, check_step
from diffenc_ct.elbo.finite import Steps
from diffenc_ct.process import AnyNoiseLevel
from diffenc_ct.sampling.problem import Grid, Problem
from diffenc_ct.sampling.solver import GridSolver


@dataclass(frozen=True, eq=False, kw_only=True)
class Ancestral(GridSolver):
    """p(z_s | z_t) step by step. Order 1; eta = 1 unless given, 0 is DDIM.

    Attributes:
        ratio: the variance ratio w, counted from the data: a number, one a step (steps,), one a step and dimension
            (steps, *data), or a function of the step and the estimates there.
        step: "gaussian", or "mixture" for heads that know a distribution of every value: then at eta = 0, too, a
            component is drawn.

    Raises:
        ValueError: for a ratio that is not positive or not one a step, and another kind of step.

    Example:
        >>> import diffenc_ct as dc
        >>> dc.Ancestral(steps=50, noise_level=0.0).steps
        50
    """

    ratio: Ratio = 1.0
    step: StepKind = "gaussian"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ratio(self.ratio, self.steps)
        check_step(self.step)

    @classmethod
    def of(cls, steps: Steps, noise_level: AnyNoiseLevel | None = None) -> "Ancestral":
        """With the grid, the finest ratio, the noise level and the kind of step of a Calibration.

        Args:
            steps: what `calibrate` found.
            noise_level: another eta than the calibration's.

        Example:
            >>> import torch, diffenc_ct as dc
            >>> g = torch.Generator().manual_seed(0)
            >>> world = dc.worlds.GaussianWorld(torch.zeros(2).double(), torch.tensor([0.5, 0.1]).double())
            >>> model = world.model(dc.LinearSchedule(-6.0, 4.0))
            >>> options = dc.CalibrationOptions(candidates=16)
            >>> dc.Ancestral.of(dc.calibrate(model, world.sample(64, g), 4, options, generator=g)).steps
            4
        """
        return cls(
            steps=len(steps.grid) - 1,
            placement=steps.grid,
            ratio=steps.finest_ratio,
            noise_level=steps.noise_level if noise_level is None else noise_level,
            step=steps.step,
        )

    def __call__(
        self, problem: Problem, z: Float[Tensor, "batch *data"], grid: Grid
    ) -> Float[Tensor, "batch *data"]:
        reverse = problem.mixture_reverse if self.step == "mixture" else problem.reverse
        for step in range(grid.steps):
            z = reverse(z, grid, step, self.ratio)
        return z
