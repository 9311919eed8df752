"""The evidence lower bound at infinite and finite depth.

    -log p(x) <= L_0 + L_1 + L_T

terms: what a bound is made of. infinite, finite: L_inf and L_T. steps: what a step costs. ratios: w of a step. depths:
how t is drawn. subsets: terms on part of a batch. bound: one call.

Reference: Nielsen et al. 2024, sections 3 and 4, appendices; Kingma et al. 2021, section 4.
"""

from diffenc_ct.elbo.bound import Bound, elbo
from diffenc_ct.elbo.depths import (
    Depths,
    ImportanceDepths,
    LowDiscrepancyDepths,
    UniformDepths,
    check_grid,
    uniform_grid,
)
from diffenc_ct.elbo.finite import FiniteDepth
from diffenc_ct.elbo.infinite import InfiniteDepth, infinite_depth_integrand
from diffenc_ct.elbo.ratios import Ratio, StateRatio, check_ratio, ratio_at
from diffenc_ct.elbo.steps import StepKind, check_step, mean_difference, step_kl
from diffenc_ct.elbo.terms import Draws, Maps, Residuals, Terms, latent_loss

__all__ = [
    "Bound", "Depths", "Draws", "FiniteDepth", "ImportanceDepths", "InfiniteDepth", "LowDiscrepancyDepths",
    "Maps", "Ratio", "Residuals", "StateRatio", "StepKind", "Terms", "UniformDepths", "check_grid", "check_ratio",
    "check_step", "elbo", "infinite_depth_integrand", "latent_loss", "mean_difference", "ratio_at", "step_kl",
    "uniform_grid",
]  # fmt: skip
