"""The evidence lower bound."""

from diffenc_ct.elbo.depths import (
    Depths,
    ImportanceDepths,
    LowDiscrepancyDepths,
    UniformDepths,
    check_grid,
    uniform_grid,
)
from diffenc_ct.elbo.terms import (
    Terms,
    elbo,
    infinite_depth_integrand,
    latent_loss,
    mean_difference,
    reconstruction_loss,
    step_kl,
)

__all__ = [
    "Depths", "ImportanceDepths", "LowDiscrepancyDepths", "Terms", "UniformDepths", "check_grid", "elbo",
    "infinite_depth_integrand", "latent_loss", "mean_difference", "reconstruction_loss", "step_kl", "uniform_grid",
]  # fmt: skip
