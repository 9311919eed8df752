"""Mutants of tightness and of heads fitted afterwards."""

from tests.mutants import Mutant

TIGHTNESS, HEADS = "diffenc_ct/calibration/_tightness.py", "diffenc_ct/training/heads.py"
TESTS = "tests/calibration/test_tightness.py"

MUTANTS = [
    Mutant(
        TIGHTNESS,
        "(1 + 4 * (b + c) / a)",
        "(1 + 4 * (b - c) / a)",
        "the cross-covariance's sign",
        (f"{TESTS}::test_noise_level_is_tabulated_and_lowest",),
    ),
    Mutant(
        TIGHTNESS,
        "kappa = (1 + eta_squared) / 2",
        "kappa = (1 + eta_squared.sqrt()) / 2",
        "eta for eta squared",
        (f"{TESTS}::test_noise_level_is_tabulated_and_lowest",),
    ),
    Mutant(
        TIGHTNESS,
        "0.5 * snr(gamma) * each_b",
        "snr(gamma) * each_b",
        "the half in front of the gap",
        (f"{TESTS}::test_gap_and_gain_of_a_world",),
    ),
    Mutant(
        TIGHTNESS,
        "means, errors = moments.mean(0), moments.std(0) / n**0.5",
        "means, errors = moments.mean(0), moments.std(0) / n",
        "the standard error of the mean falls like sqrt n",
        (f"{TESTS}::test_covariances_of_a_world",),
    ),
    Mutant(
        TIGHTNESS,
        "(left * right).sum(1)",
        "(left * right).sum(1).abs()",
        "a covariance has a sign",
        (f"{TESTS}::test_covariances_of_a_world",),
    ),
    Mutant(
        HEADS,
        "data = model.scale(x)\n        t, _",
        "data = 0 * model.scale(x)\n        t, _",
        "a head fitted to nothing",
        (f"{TESTS}::test_a_fitted_head_learns_the_posterior_mean_and_leaves_the_elbo",),
    ),
    Mutant(
        HEADS,
        "head = copy.deepcopy(model.network) if head is None else head\n    fitted",
        "head = model.network if head is None else head\n    fitted",
        "the head shares the network it must not touch",
        (f"{TESTS}::test_variants_fit_what_they_say",),
    ),
]
