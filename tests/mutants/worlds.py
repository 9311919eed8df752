"""Mutants of worlds."""

from tests.mutants import Mutant

WORLD = "diffenc_ct/worlds/_world.py"
GAUSSIAN, MIXTURE = "diffenc_ct/worlds/gaussian.py", "diffenc_ct/worlds/mixture.py"
TESTS, LIMITS = "tests/worlds/test_worlds.py", "tests/elbo/test_elbo_limits.py"
NORMAL = "tests/worlds/test_gaussian_world.py"

MUTANTS = [
    Mutant(
        WORLD,
        "return (found.x_hat + found.r_hat) / (1 +",
        "return found.x_hat / (1 +",
        "the single head learns the sum of x_t and its rate",
        (f"{TESTS}::test_models_of_a_world",),
    ),
    Mutant(
        GAUSSIAN,
        "encoding.rate.view(n, d, d).mT",
        "encoding.rate.view(n, d, d)",
        "a basis gives columns, a batch holds rows",
        (f"{NORMAL}::test_linear_encoder",),
    ),
    Mutant(
        GAUSSIAN,
        "snr(gamma)[:, None, None] * signal.mT @ signal",
        "alpha(gamma)[:, None, None] ** 2 * signal.mT @ signal",
        "the noise's variance forgotten in the precision of x given z",
        (f"{NORMAL}::test_conditioning",),
    ),
    Mutant(
        GAUSSIAN,
        "_trace(rate @ P @ A.mT)",
        "_trace(A @ P @ A.mT)",
        "c is the covariance of x_t with its rate",
        (f"{NORMAL}::test_conditioning",),
    ),
    Mutant(
        GAUSSIAN,
        "return torch.sqrt(1 + 4 * (b + c) / a)",
        "return torch.sqrt(1 + 4 * b / a)",
        "c forgotten: not stationary, not 1 + 2 sigma^2",
        (f"{NORMAL}::test_where_the_bound_is_tight",),
    ),
    Mutant(
        GAUSSIAN,
        "(kappa**2 * a + 2 * kappa * c + b) / eta_squared",
        "(kappa**2 * a + kappa * c + b) / eta_squared",
        "the cross term counted once",
        (f"{LIMITS}::test_totals_of_the_gaussian_world",),
    ),
    Mutant(
        GAUSSIAN,
        "N = A_s - A_t - D[:, None, None] * rate",
        "N = A_s - A_t + D[:, None, None] * rate",
        "lambda_s - lambda_t = gamma_t - gamma_s",
        (f"{LIMITS}::test_finite_depth_in_the_gaussian_world",),
    ),
    Mutant(
        GAUSSIAN,
        "self.covariance.to(gamma_t) - P + torch.outer(m, m)",
        "self.covariance.to(gamma_t) - P",
        "right for centred data",
        (f"{NORMAL}::test_steps_are_those_of_the_librarys_difference",),
    ),
    Mutant(
        MIXTURE,
        "shrink = (sigma2(gamma) / variance[:, 0]) ** 2",
        "shrink = sigma2(gamma) / variance[:, 0]",
        "a factor of a mean enters a variance squared",
        (f"{TESTS}::test_mixture_variance_is_the_divergence_of_its_mean",),
    ),
    Mutant(
        MIXTURE,
        "return a, rate, scale, scale**2 * self.deviation**2",
        "return a, rate, scale, scale * self.deviation**2",
        "alpha a for its square",
        (f"{TESTS}::test_mixture_density",),
    ),
    Mutant(
        MIXTURE,
        "return Estimates(expand(a, z) * x, expand(rate, z) * x)",
        "return Estimates(expand(a, z) * x, expand(sigma2(gamma.expand(len(z))) * a, z) * x)",
        "right for DiffEnc-nt only",
        (f"{TESTS}::test_continuity",),
    ),
]
