"""The exact likelihood of the probability-flow ODE, its bounds for levels, and samples with their
log-probability.

    log p_0(z_0) = log N(z_1; 0, I) + int_{gamma_0}^{gamma_1} div f dgamma       along dz/dgamma = f

f is the model's probability flow: tied (a single head) or paired. Either is a continuous normalising flow with
an exact likelihood of its own; it is the ODE model's, not the SDE's, and for a trainable encoder only heads that tell
E[x_t | z] and E[x_t' | z] apart give the flow that keeps the data's marginals.

solver, adams, libraries: solvers of the flow as objects. field: what they integrate. divergence: the trace.
dequantisation: from levels to latents. flow: the density at latents. estimate: one call.

Reference: Chen et al. 2018; Grathwohl et al. 2019; Song et al. 2021 (probability flow); Burda et al. 2016 (K
samples).
"""

from diffenc_ct.likelihood.adams import Adams
from diffenc_ct.likelihood.dequantisation import (
    Dequantisation,
    Dequantised,
    ModelNoise,
    NoDequantisation,
    TruncatedNormal,
    UniformNoise,
)
from diffenc_ct.likelihood.divergence import Divergence, Exact, GaussianProbes, Rademacher
from diffenc_ct.likelihood.estimate import Likelihood, log_likelihood
from diffenc_ct.likelihood.field import FlowField, FlowValue
from diffenc_ct.likelihood.flow import FlowDensity, log_density, sample_with_log_prob
from diffenc_ct.likelihood.libraries import SciPy, TorchDiffEq, TorchDiffEqFixed
from diffenc_ct.likelihood.solver import FlowProblem, FlowSolver, Solution, SolverError

__all__ = [
    "Adams", "Dequantisation", "Dequantised", "Divergence", "Exact", "FlowDensity", "FlowField", "FlowProblem",
    "FlowSolver", "FlowValue", "GaussianProbes", "Likelihood", "ModelNoise", "NoDequantisation", "Rademacher", "SciPy",
    "Solution", "SolverError", "TorchDiffEq", "TorchDiffEqFixed", "TruncatedNormal", "UniformNoise", "log_density",
    "log_likelihood", "sample_with_log_prob",
]  # fmt: skip
