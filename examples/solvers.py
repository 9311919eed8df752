"""One model, many solvers, one's own among them: how close are mean and deviation after few evaluations?

python examples/solvers.py
"""

from dataclasses import dataclass

import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.sampling import Grid, Problem
from diffenc_ct.worlds import GaussianWorld


@dataclass(frozen=True, eq=False, kw_only=True)
class EulerMaruyama(dc.GridSolver):
    """A solver of one's own: from depth 1 to 0 with the problem's drift, diffusion and noise."""

    def __call__(self, problem: Problem, z: Tensor, grid: Grid) -> Tensor:
        for t, s in zip(grid.t[:-1], grid.t[1:], strict=True):
            step = s - t
            z = z + problem.drift(z, t) * step
            z = z + problem.diffusion(t, z) * (-step).sqrt() * problem.noise(z)
        return z


def main() -> None:
    torch.set_default_dtype(torch.float64)
    world = GaussianWorld(
        torch.tensor([0.4, -0.3]), torch.tensor([0.5, 0.02]), dc.NonTrainableEncoder()
    )
    model = world.model(dc.LinearSchedule(-10.0, 5.0))
    truth = torch.cat([world.mean, world.covariance.diagonal().sqrt()])
    print(f"{'solver':<24}{'evaluations':>12}   mean, deviation (truth {truth.numpy().round(3)})")
    for solver in (
        dc.Exponential(steps=12),
        dc.Exponential(steps=24, noise_level=1.0),
        dc.Ancestral(steps=48),
        dc.TorchSDE("heun", steps=24),
        dc.TorchDiffEq("dopri5", rtol=1e-4),
        dc.Adams(),
        EulerMaruyama(steps=96, noise_level=1.0),
    ):
        generator = torch.Generator().manual_seed(0)
        out = dc.sample(model, 2000, shape=(2,), solver=solver, generator=generator)
        found = torch.cat([out.samples.mean(0), out.samples.std(0)])
        print(f"{out.log['solver']:<24}{out.evaluations:>12.0f}   {found.numpy().round(3)}")


if __name__ == "__main__":
    main()
