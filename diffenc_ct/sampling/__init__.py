"""Sampling: solvers of the reverse process as objects that carry their options, and one call.

solver: what a solver is. problem: what it is given. grids: where its steps lie. exponential, ancestral, stochastic:
solvers (those of the probability flow, which also give likelihoods, are in `likelihood`). samples: one call. linear:
what a solver makes of a Gaussian world, exactly.
"""

from diffenc_ct.sampling.ancestral import Ancestral
from diffenc_ct.sampling.exponential import Exponential, ExponentialSinglestep
from diffenc_ct.sampling.grids import Placement, make_grid
from diffenc_ct.sampling.problem import Grid, ImageNoise, Problem
from diffenc_ct.sampling.samples import Samples, Trajectory, sample
from diffenc_ct.sampling.solver import GridSolver, Solver
from diffenc_ct.sampling.stochastic import TORCHSDE_METHODS, TorchSDE

__all__ = [
    "TORCHSDE_METHODS", "Ancestral", "Exponential", "ExponentialSinglestep", "Grid", "GridSolver", "ImageNoise",
    "Placement", "Problem", "Samples", "Solver", "TorchSDE", "Trajectory", "make_grid", "sample",
]  # fmt: skip
