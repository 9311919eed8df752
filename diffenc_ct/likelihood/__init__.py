"""The exact likelihood of the probability-flow ODE, its bounds for levels, and samples with their
log-probability.

    log p_0(z_0) = log N(z_1; 0, I) + int_{gamma_0}^{gamma_1} div f dgamma       along dz/dgamma = f

f is the model's probability flow: tied (a single head) or paired. Either is a continuous normalising flow with
an exact likelihood of its own; it is the ODE model's, not the SDE's, and for a trainable encoder only paired
heads give the flow that keeps the data's marginals. For levels see dequantisation.py, for the default solver
adams.py.

Reference: Chen et al. 2018; Grathwohl et al. 2019; Song et al. 2021 (probability flow); Burda et al. 2016 (K
samples).
"""

from diffenc_ct.likelihood.estimate import Likelihood, SolverError, log_likelihood
from diffenc_ct.likelihood.flow import FlowDensity, log_density, sample_with_log_prob

__all__ = [
    "FlowDensity",
    "Likelihood",
    "SolverError",
    "log_density",
    "log_likelihood",
    "sample_with_log_prob",
]
