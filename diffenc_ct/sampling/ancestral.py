"""Ancestral sampling: the model's own steps p(z_s | z_t), at any depth and on any grid.

    z_s = alpha_s x_hat_s + rho (sigma_s/sigma_t) (z_t - alpha_t x_hat) + sqrt(w) sigma_s sqrt(1 - rho^2) eps

with x_hat_s = x_hat + (lambda_s - lambda_t) r_hat. Noise level 0 is DDIM. Reference: Kingma et al. 2021; Nielsen et
al. 2024; Song et al. 2021 (DDIM).
"""

from torch import Tensor

from diffenc_ct.sampling.problem import Grid, Problem


class Ancestral:
    """p(z_s | z_t) step by step, with the variance ratio of `problem`. Order 1."""

    def order(self, stochastic: bool) -> int:
        """The convergence order, weak and strong."""
        return 1

    def __call__(self, problem: Problem, z: Tensor, grid: Grid) -> Tensor:
        for step in range(grid.steps):
            z = problem.reverse(z, grid, step)
        return z
