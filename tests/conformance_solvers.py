"""What any solver must satisfy, as a function that a user calls on their own.

    from tests.conformance_solvers import check_solver
    check_solver(MySolver(steps=64, noise_level=1.0))       # a dc.Solver

Raises AssertionError with what is wrong.
"""

import torch

import diffenc_ct as dc
from diffenc_ct.sampling import ImageNoise, Problem
from diffenc_ct.worlds import GaussianWorld


def check_solver(solver: dc.Solver, *, images: int = 2000) -> None:
    """The solver's samples of a two-dimensional Gaussian world with a moving encoder have its mean and covariance.

    Also: it keeps shape and dtype, leaves its input alone, repeats itself, treats images apart from each other, and
    takes its noise from the problem.
    """
    mean, variances = torch.tensor([0.4, -0.2]), torch.tensor([0.3, 0.05])
    world = GaussianWorld(mean.double(), variances.double(), dc.NonTrainableEncoder())
    schedule = dc.LinearSchedule(-6.0, 5.0)
    model = world.model(schedule)
    level, grid = solver.level(model), solver.grid(schedule)
    steps = 64 if solver.adaptive else grid.steps

    def run(n: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        noise = ImageNoise(seed, range(n))
        z = noise(torch.empty(n, 2, dtype=dtype))
        kept = z.clone()
        with torch.no_grad():
            out = solver(Problem(model, level, noise), z, grid)
        assert torch.equal(z, kept), "the solver changed its input in place"
        assert out.shape == z.shape, f"the solver returned {tuple(out.shape)} for {tuple(z.shape)}"
        assert out.dtype == dtype, f"the solver returned {out.dtype} for {dtype}"
        assert out.isfinite().all(), "the solver returned values that are not finite"
        return out

    few = run(5)
    assert torch.equal(few, run(5)), "the same seed gave different samples"
    near = 1e-4 if solver.batch_matters else 1e-8
    assert torch.allclose(few[:2], run(2), atol=near), "an image depends on its batch mates"
    assert not torch.allclose(few, run(5, seed=1)), "the samples do not depend on the seed"
    run(2, dtype=torch.float32)
    z = run(images)
    truth = world.marginal(schedule(torch.zeros(1, dtype=torch.float64)).gamma)
    spread = truth.covariance_matrix[0].diagonal().sqrt()
    off = ((z.mean(0) - truth.mean[0]) / spread).abs().max()
    assert off < 4.5 / images**0.5 + 4 / steps, f"the mean is off by {off:.3f} deviations"
    whitened = (z - truth.mean[0]) / spread
    excess = (whitened.mT @ whitened / images - torch.eye(2, dtype=z.dtype)).abs().max()
    assert excess < 6.5 / images**0.5 + 8 / steps, f"the covariance is off by {excess:.3f}"
