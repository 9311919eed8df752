"""What any solver must satisfy, as a function that a user calls on their own.

    from tests.conformance_solvers import check_solver
    check_solver(MySolver(steps=64, noise_level=1.0))       # a dc.Solver

Raises AssertionError with what is wrong.
"""

import torch

import diffenc_ct as dc
from diffenc_ct.likelihood import FlowSolver, log_density
from diffenc_ct.sampling import ImageNoise, Problem
from diffenc_ct.worlds import GaussianWorld


def check_solver(solver: dc.Solver, *, images: int = 2000) -> None:
    """The solver's samples of a two-dimensional Gaussian world with a moving encoder have its mean and covariance.

    Also: it keeps shape and dtype, leaves its input alone, repeats itself, treats images apart from each other, and
    takes its noise from the problem. A solver of the flow gives the world's log q(z_0), too, and the same z_0 with it.
    """
    mean, variances = torch.tensor([0.4, -0.2]), torch.tensor([0.3, 0.05])
    world = GaussianWorld(mean.double(), variances.double(), dc.NonTrainableEncoder())
    schedule = dc.LinearSchedule(-6.0, 5.0)
    model = world.model(schedule)
    level, grid = solver.level(model), solver.grid(schedule)
    # A solver of the flow is given the two ends alone, and is as exact as its own steps.
    steps = 64 if grid.steps == 1 else grid.steps

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
    if isinstance(solver, FlowSolver):
        _check_density(solver, model, few)


def _check_density(solver: FlowSolver, model: dc.DiffEnc, z_0: torch.Tensor) -> None:
    """log q(z_0) with q(z_1) as the prior, by one column and by several; there and back ends where samples end."""
    world = model.heads.network
    gamma_0, gamma_1 = (model.schedule.at(t, z_0).gamma for t in (0.0, 1.0))
    truth = world.log_q(z_0, gamma_0)
    for divergence, columns in ((dc.Exact(), 1), (dc.Rademacher(probes=3), 3)):
        found = log_density(
            model, z_0, solver=solver, divergence=divergence,
            prior=lambda end: world.log_q(end, gamma_1),
        )  # fmt: skip
        solution = found.solution
        assert solution.integral.shape == (len(z_0), columns), "not a column for each probe"
        assert solution.integral.dtype == torch.float64, "the integral must be of float64"
        assert solution.status == ["ok"] * len(z_0), f"status {solution.status}"
        assert (solution.evaluations > 0).all(), "no evaluations were counted"
        # No variance of this world is another's, and there probes of +-1 find the trace exactly.
        off = (found.per_probe - truth[:, None]).abs().max()
        assert off < 0.1, f"log q(z_0) is off by {off:.3f} nats"
    back = dc.sample_with_log_prob(model, tuple(z_0.shape), z_1=found.z_1, solver=solver)
    off = (back.z_0 - z_0).abs().max()
    assert off < 0.02, f"there and back is off by {off:.3f}"
