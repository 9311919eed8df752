"""One model, many solvers, one's own among them: how close are mean and deviation after few evaluations?

    python examples/solvers.py
"""

import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.sampling.names import Grid, Problem
from diffenc_ct.worlds import GaussianWorld


def euler_maruyama(problem: Problem, z: Tensor, grid: Grid) -> Tensor:
    """A solver of one's own: from depth 1 to 0 with the problem's drift, diffusion and noise."""
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
    for solver, options in (
        ("exponential", {"steps": 12}),
        ("exponential", {"steps": 24, "noise_level": 1.0}),
        ("ancestral", {"steps": 48}),
        ("torchsde:heun", {"steps": 24}),
        ("dopri5", {"rtol": 1e-4}),
        (euler_maruyama, {"steps": 96, "noise_level": 1.0}),
    ):
        generator = torch.Generator().manual_seed(0)
        out = dc.sample(model, 2000, shape=(2,), solver=solver, generator=generator, **options)
        found = torch.cat([out.samples.mean(0), out.samples.std(0)])
        print(f"{out.log['solver']:<24}{out.evaluations:>12.0f}   {found.numpy().round(3)}")


if __name__ == "__main__":
    main()
