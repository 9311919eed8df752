"""Mutants of elbo."""

from tests.mutants import Mutant

FILE, TESTS, LIMITS = "diffenc_ct/elbo/terms.py", "tests/elbo/test_elbo.py", "tests/elbo/test_elbo_limits.py"
TERMS = "tests/elbo/test_elbo_terms.py"

MUTANTS = [
    Mutant(
        FILE,
        "return 0.5 * point.rate * point.snr / eta_squared * squared",
        "return 0.5 * point.rate * point.snr * squared",
        "right at eta = 1",
        (f"{TESTS}::test_girsanov",),
    ),
    Mutant(
        FILE,
        "return 0.5 * point.rate * point.snr / eta_squared * squared",
        "return 0.5 * point.snr / eta_squared * squared",
        "gamma' forgotten: the loss then depends on the schedule",
        (f"{LIMITS}::test_the_schedule_between_its_ends_does_not_matter",),
    ),
    Mutant(
        FILE,
        "(kappa * errors.x_hat + errors.r_hat)",
        "(kappa * errors.x_hat - errors.r_hat)",
        "the rate's sign",
        (f"{TESTS}::test_v_form_of_the_trainable_encoder",),
    ),
    Mutant(
        FILE,
        "(noise_level.integral(gamma_s, gamma_t) + step))",
        "(2 * step))",
        "right at eta = 1",
        (f"{TESTS}::test_mean_difference",),
    ),
    Mutant(
        FILE,
        "x_s - encoding.value - step * (encoding.rate - errors.r_hat)",
        "x_s - encoding.value - step * (encoding.rate + errors.r_hat)",
        "r_hat's error with the wrong sign",
        (f"{TESTS}::test_mean_difference",),
    ),
    Mutant(
        FILE,
        "mismatch = torch.log1p(w - 1) - (w - 1) / w",
        "mismatch = w - 1 - torch.log(w)",
        "KL with the two variances exchanged",
        (f"{TESTS}::test_step_kl_is_the_kl_of_the_two_gaussians",),
    ),
    Mutant(
        FILE,
        "terms = mismatch + difference**2 / (w * expand(variance, difference))",
        "terms = mismatch + difference**2 / expand(variance, difference)",
        "w forgotten in the mean's part",
        (f"{LIMITS}::test_the_optimal_ratio_is_stationary",),
    ),
    Mutant(
        FILE,
        "diffusion = depth * step_kl(",
        "diffusion = step_kl(",
        "one step's KL for the sum of T",
        (f"{LIMITS}::test_finite_depth_converges_at_first_order",),
    ),
    Mutant(
        FILE,
        "step = (t * depth).ceil().long().clamp(1, depth) - 1",
        "step = (t * depth).round().long().clamp(1, depth) - 1",
        "the first step visited half as often again, the last half as often",
        (f"{TESTS}::test_the_sum_over_all_steps",),
    ),
    Mutant(
        FILE,
        "reconstruction_loss(model, x[ends], x_0, gamma_0, noise_0[ends])",
        "reconstruction_loss(model, x[ends], x_0, gamma_0, noise[ends])",
        "one noise for both depths",
        (f"{TERMS}::test_reconstruction_and_latent",),
    ),
    Mutant(
        FILE,
        "        weight * diffusion,\n",
        "        diffusion,\n",
        "importance-sampled depths without their weights",
        (f"{TERMS}::test_depths_bring_their_weights",),
    ),
    Mutant(
        FILE,
        "scale = 1 / (self.dimensions * math.log(2))",
        "scale = math.log2(math.e) * self.dimensions",
        "bits, but times d",
        (f"{TERMS}::test_reconstruction_and_latent",),
    ),
    Mutant(
        FILE,
        "- diffusion[some]",
        "- 0.0",
        "the rate's part added to the loss without it instead of to the difference",
        (f"{TERMS}::test_part_of_the_batch_for_the_rate",),
    ),
    Mutant(
        "diffenc_ct/elbo/subsets.py",
        "values * (batch / len(values))",
        "values",
        "a part of the batch not scaled up to the whole",
        (f"{TERMS}::test_part_of_the_batch_for_the_rate",),
    ),
    Mutant(
        "diffenc_ct/elbo/subsets.py",
        "exact.rate - rate[index]",
        "exact.rate",
        "the whole rate added to its first part",
        (f"{TERMS}::test_part_of_the_batch_for_the_rate",),
    ),
]
