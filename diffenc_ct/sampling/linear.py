"""What a solver makes of noise in a linear world, exactly: no samples.

Where the heads are affine in z (a Gaussian world), so is every solver that is not adaptive: z_0 = q + J z_1 + sum_i
L_i eps_i. The columns are read off by running the solver on basis vectors, one noise vector at a time, so with z_1 ~
N(0, I)

    z_0 ~ N(q, J J^T + sum_i L_i L_i^T)

and its Kullback-Leibler divergence to the true q(z_0) is a number without sampling error.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from diffenc_ct.model import DiffEnc
from diffenc_ct.sampling.problem import Problem
from diffenc_ct.sampling.solver import Solver
from diffenc_ct.worlds import GaussianWorld


class _BasisNoise:
    """Noise call i of a run: for rows 1 + d + i d + j the j-th basis vector, for all others 0."""

    def __init__(self, d: int) -> None:
        self.d, self.calls = d, 0

    def __call__(self, like: Tensor) -> Tensor:
        noise, first = torch.zeros_like(like), 1 + self.d * (1 + self.calls)
        if first + self.d > len(like):
            raise ValueError(
                f"the solver drew noise more than {self.calls} times: more than one vector a step"
            )
        noise[first : first + self.d] = torch.eye(self.d, dtype=like.dtype, device=like.device)
        self.calls += 1
        return noise


@torch.no_grad()
def produced_gaussian(
    model: DiffEnc, dimensions: int, solver: Solver
) -> tuple[MultivariateNormal, int]:
    """The distribution of z_0 from z_1 ~ N(0, I), and how many evaluations it took. float64, vectors (batch, d).

    Args:
        model: whose estimates are affine in z.
        dimensions: d.
        solver: whose steps do not depend on the state, with at most one noise vector a step.

    Raises:
        ValueError: for a solver that draws more noise than that.

    Example:
        >>> import diffenc_ct as dc
        >>> world = GaussianWorld(torch.zeros(2).double(), torch.tensor([0.5, 0.1]).double())
        >>> model = world.model(dc.LinearSchedule(-8.0, 5.0))
        >>> produced_gaussian(model, 2, dc.Exponential(order=2, steps=12))[1]
        12
    """
    d, grid = dimensions, solver.grid(model.schedule)
    problem = Problem(model, solver.level(model), _BasisNoise(d))
    rows = 1 + d + (d * grid.steps if problem.stochastic else 0)
    z_1 = torch.zeros(rows, d, dtype=torch.float64)
    z_1[1 : 1 + d] = torch.eye(d, dtype=torch.float64)
    z_0 = solver(problem, z_1, grid)
    responses = z_0[1:] - z_0[0]
    return MultivariateNormal(z_0[0], responses.mT @ responses), problem.evaluations


def kl_per_dimension(
    produced: MultivariateNormal, world: GaussianWorld, gamma_0: Float[Tensor, ""]
) -> float:
    """KL(produced || q(z_0)) / d in nats.

    Args:
        produced: a law of z_0.
        world: whose q(z_0) is meant.
        gamma_0: gamma at depth 0.
    """
    truth = world.marginal(gamma_0.reshape(1))
    target = MultivariateNormal(truth.mean[0], truth.covariance_matrix[0])
    return float(kl_divergence(produced, target)) / world.dimensions
