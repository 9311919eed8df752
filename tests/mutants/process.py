"""Mutants of process."""

from tests.mutants import Mutant

GAUSSIANS, KERNELS, LEVELS = (
    f"diffenc_ct/process/{name}.py" for name in ("gaussians", "kernels", "noise_levels")
)
TESTS = "tests/process/test_process.py"
NOISE = "tests/process/test_noise_levels.py"

MUTANTS = [
    Mutant(
        KERNELS,
        "alpha_ts * z_s + alpha_t * (x_t - x_s)",
        "alpha_ts * z_s + alpha_t * (x_s - x_t)",
        "the encoder's movement with the wrong sign",
        (f"{TESTS}::test_transition_carries_the_marginal_forward",),
    ),
    Mutant(
        KERNELS,
        "variance = -sigma2(gamma_t) * torch.expm1(gamma_s - gamma_t)",
        "variance = sigma2(gamma_t) - sigma2(gamma_s)",
        "alpha_ts^2 forgotten",
        (f"{TESTS}::test_transition_carries_the_marginal_forward",),
    ),
    Mutant(
        KERNELS,
        "return sigma(gamma_s) * torch.sqrt(-torch.expm1(",
        "return sigma(gamma_t) * torch.sqrt(-torch.expm1(",
        "the posterior's variance is at most sigma_s^2",
        (f"{TESTS}::test_posterior_carries_the_marginal_back",),
    ),
    Mutant(
        KERNELS,
        "shrink = level.rho(gamma_s, gamma_t) * sigma(gamma_s) / sigma(gamma_t)",
        "shrink = level.rho(gamma_s, gamma_t) ** 2 * sigma(gamma_s) / sigma(gamma_t)",
        "rho and rho^2 confused",
        (f"{TESTS}::test_posterior_carries_the_marginal_back",),
    ),
    Mutant(
        LEVELS,
        "return torch.exp(-0.5 * self.integral(gamma_s, gamma_t))",
        "return torch.exp(-self.integral(gamma_s, gamma_t))",
        "half forgotten: rho is a correlation, not a variance's factor",
        (f"{TESTS}::test_rho_is_the_correlation_of_the_noises",),
    ),
    Mutant(
        LEVELS,
        "return self.eta**2 * (gamma_t - gamma_s)",
        "return self.eta * (gamma_t - gamma_s)",
        "right at eta = 1 only",
        (f"{NOISE}::test_noise_level_integrals",),
    ),
    Mutant(
        LEVELS,
        "return step + 2 * torch.log1p(",
        "return step + torch.log1p(",
        "eta^2 = 1 + sigma^2",
        (f"{NOISE}::test_noise_level_integrals",),
    ),
    Mutant(
        LEVELS,
        "inside = total[cell] + table[cell] * offset + slope * offset**2 / 2",
        "inside = total[cell] + table[cell] * offset + slope * offset**2",
        "a straight line's integral without its half",
        (f"{NOISE}::test_noise_level_integrals",),
    ),
    Mutant(
        KERNELS,
        "signal = expand(point.alpha * point.rate, z) * encoding.rate",
        "signal = -expand(point.alpha * point.rate, z) * encoding.rate",
        "dx_t/dt = -gamma' dx_t/dlambda",
        (f"{TESTS}::test_forward_drift_moves_the_moments",),
    ),
    Mutant(
        KERNELS,
        "return -0.5 * expand(point.beta, z) * z - signal",
        "return -expand(point.beta, z) * z - signal",
        "half forgotten in the drift",
        (f"{TESTS}::test_forward_drift_moves_the_moments",),
    ),
    Mutant(
        GAUSSIANS,
        "log_u = 2 * (q.std.log() - p.std.log())",
        "log_u = 2 * (p.std.log() - q.std.log())",
        "KL(p || q)",
        (f"{TESTS}::test_gaussian_against_torch",),
    ),
    Mutant(
        GAUSSIANS,
        "variances = torch.expm1(log_u) - log_u",
        "variances = torch.exp(log_u) - 1 - log_u",
        "equal on paper; loses its digits where the variances are close",
        (f"{TESTS}::test_kl_of_close_gaussians_keeps_its_digits",),
    ),
    Mutant(
        LEVELS,
        "return self.eta == 0",
        "return False",
        "no noise not recognised: the bound is infinite without a word",
        (f"{NOISE}::test_which_noise_levels_are_deterministic",),
    ),
    Mutant(
        LEVELS,
        """        level = cls.__new__(cls)
        level._fill(gamma, eta_squared)
        return level""",
        """        return cls(gamma, eta_squared)""",
        "a table made at every step of training looked at, too, which waits for its device",
        (f"{NOISE}::test_an_unchecked_table_is_not_looked_at",),
    ),
]
