"""Mutants of model."""

from tests.mutants import Mutant

FILE, TESTS, DECODER = "diffenc_ct/model/diffenc.py", "tests/model/test_model.py", "tests/model/test_decoder.py"

MUTANTS = [
    Mutant(
        FILE,
        "expand(gamma_t - gamma_s, z_t) * heads.r_hat",
        "expand(gamma_s - gamma_t, z_t) * heads.r_hat",
        "lambda_s - lambda_t with gamma's order",
        (f"{TESTS}::test_the_papers_reverse_step",),
    ),
    Mutant(
        FILE,
        "posterior(z_t, x_hat_s, heads.x_hat, gamma_s",
        "posterior(z_t, x_hat_s, x_hat_s, gamma_s",
        "the noise taken from the moved estimate",
        (f"{TESTS}::test_the_papers_reverse_step",),
    ),
    Mutant(
        FILE,
        "device=z_t.device).sqrt()",
        "device=z_t.device)",
        "w scales the variance, not the standard deviation",
        (f"{TESTS}::test_the_papers_reverse_step",),
    ),
    Mutant(
        FILE,
        "kappa = expand((1 + eta_squared) / 2, z)",
        "kappa = expand((1 + eta_squared.sqrt()) / 2, z)",
        "eta for eta^2: right at 0 and 1",
        (f"{TESTS}::test_the_limit_of_the_step_is_the_reverse_sde",),
    ),
    Mutant(
        FILE,
        "* (kappa * heads.x_hat + heads.r_hat)",
        "* kappa * (heads.x_hat + heads.r_hat)",
        "kappa on the rate: right at eta = 1",
        (f"{TESTS}::test_reverse_drift_is_the_time_reversal_of_the_forward_drift",),
    ),
    Mutant(
        FILE,
        "return alpha_ * z - sigma_ * u if",
        "return alpha_ * z + sigma_ * u if",
        "v of the opposite sign",
        (f"{TESTS}::test_a_perfect_network_recovers_the_encoded_data",),
    ),
    Mutant(
        FILE,
        "return (sigma_ / alpha_) * (u - noise)",
        "return sigma_ * (u - noise)",
        "eps-prediction's error without 1/alpha: nearly right at small depth",
        (f"{TESTS}::test_errors_are_what_predict_leaves",),
    ),
    Mutant(
        FILE,
        "return Heads(x_head, (1 + factor) * x_hat - x_head)",
        "return Heads(x_head, factor * x_hat)",
        "the separate head's share of the sum not taken off",
        (f"{TESTS}::test_a_separate_head",),
    ),
    Mutant(
        FILE,
        "2 * (k.to(dtype or self._dtype()) + 0.5) / self.levels - 1",
        "2 * k.to(dtype or self._dtype()) / (self.levels - 1) - 1",
        "levels scaled to [-1, 1] with its ends, as for pictures",
        (f"{DECODER}::test_levels_are_scaled_to_the_centres_of_their_bins",),
    ),
    Mutant(
        FILE,
        "outside = (nearby < 0) | (nearby >= self.levels)",
        "outside = nearby < 0",
        "levels beyond the last in the sum",
        (f"{DECODER}::test_the_banded_sum_is_the_full_softmax",),
    ),
    Mutant(
        FILE,
        "math.sqrt(0.25 + 45 / per_bin)",
        "math.sqrt(0.25 + 4 / per_bin)",
        "the band too narrow",
        (f"{DECODER}::test_the_banded_sum_is_the_full_softmax",),
    ),
    Mutant(
        FILE,
        "own = -0.5 * precision * (u - self._centres(x, u.dtype)) ** 2",
        "own = -precision * (u - self._centres(x, u.dtype)) ** 2",
        "half forgotten in one of two logits",
        (f"{DECODER}::test_probabilities_of_all_levels_sum_to_one",),
    ),
]
