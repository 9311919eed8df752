"""The forward process given data x: marginals, transitions, posteriors with any noise level, the SDE.

With encoded data x_t and any schedule gamma(t),

    q(z_t | x)      = N(alpha_t x_t, sigma_t^2 I)
    q(z_t | z_s, x) = N(alpha_ts z_s + alpha_t (x_t - x_s), sigma_ts^2 I),              s < t
                      alpha_ts = alpha_t / alpha_s,  sigma_ts^2 = -sigma_t^2 expm1(gamma_s - gamma_t)
    q(z_s | z_t, x) = N(alpha_s x_s + rho (sigma_s / sigma_t) (z_t - alpha_t x_t), sigma_s^2 (1 - rho^2) I)
                      rho = exp(-1/2 int_{gamma_s}^{gamma_t} eta^2 dgamma)

Every noise level eta(gamma) >= 0 keeps all marginals q(z_t | x): eta = 1 is the Markov process above (Bayes'
posterior), eta = 0 is deterministic (DDIM). The forward process is the SDE

    dz = [-beta/2 z + alpha dx_t/dt] dt + sqrt(beta) dw,      dx_t/dt = -gamma' x_t'

Nothing here asks which schedule or encoder it was given: x_s and x_t are tensors.

gaussians: N(mean, std^2 I). kernels: the laws above and the drift. noise_levels: eta. estimates: what a model puts in
the place of x_t and x_t', and by how much it errs. mixtures: products of mixtures of Gaussians. values: what a model
says of every value, and the mixture step made of it.

Reference: Nielsen et al. 2024, section 3; Kingma et al. 2021; the noise level as in Song et al., "Denoising
Diffusion Implicit Models", 2021, with a moving x_t.
"""

from diffenc_ct.process.estimates import Errors, Estimates
from diffenc_ct.process.gaussians import Gaussian, kl_divergence, normal_like
from diffenc_ct.process.kernels import (
    forward_drift,
    marginal,
    posterior,
    posterior_std,
    transition,
)
from diffenc_ct.process.mixtures import Components, Mixture, Mixtures, Parts
from diffenc_ct.process.noise_levels import (
    AnyNoiseLevel,
    ConstantNoiseLevel,
    FunctionNoiseLevel,
    NoiseLevel,
    NonTrainableNoiseLevel,
    TabulatedNoiseLevel,
    as_noise_level,
)
from diffenc_ct.process.values import Values

__all__ = [
    "AnyNoiseLevel", "Components", "ConstantNoiseLevel", "Errors", "Estimates", "FunctionNoiseLevel", "Gaussian",
    "Mixture", "Mixtures", "NoiseLevel", "NonTrainableNoiseLevel", "Parts", "TabulatedNoiseLevel", "Values",
    "as_noise_level", "forward_drift", "kl_divergence", "marginal", "normal_like", "posterior", "posterior_std",
    "transition",
]  # fmt: skip
