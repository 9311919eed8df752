"""Mutants of tightness, of running estimates and of heads fitted afterwards."""

from tests.mutants import Mutant

TIGHTNESS, RUNNING = "diffenc_ct/calibration/_tightness.py", "diffenc_ct/calibration/running.py"
HEADS = "diffenc_ct/training/heads.py"
TESTS, OF_RUNNING = "tests/calibration/test_tightness.py", "tests/calibration/test_running.py"
OF_HEADS = "tests/calibration/test_fitted_heads.py"

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
        RUNNING,
        "found = optimal_eta_squared(a, b, c).clamp(0.25, 16)",
        "found = optimal_eta_squared(a, b, c)",
        "a young model's eta without bounds",
        (f"{OF_RUNNING}::test_eta_stays_within_bounds",),
    ),
    Mutant(
        RUNNING,
        "torch.where((a > 0).all(), found, torch.ones_like(found))",
        "torch.where(a > 0, found, torch.ones_like(found))",
        "bins that were seen beside some that were not",
        (f"{OF_RUNNING}::test_eta_is_one_until_every_bin_was_seen",),
    ),
    Mutant(
        RUNNING,
        "self.moments = self.decay * self.moments + counted",
        "self.moments = self.decay * self.moments + (1 - self.decay) * counted",
        "a mean for a sum: what is kept of old runs is of another size",
        (f"{OF_RUNNING}::test_counts_of_parts_add_up_to_those_of_the_batch",),
    ),
    Mutant(
        RUNNING,
        "cell = torch.bucketize(gamma.detach().double(), self.edges[1:-1])",
        "cell = torch.bucketize(gamma.detach().double().cpu(), self.edges[1:-1])",
        "counted on the CPU",
        (f"{OF_RUNNING}::test_its_numbers_stay_on_the_device_of_what_is_counted",),
    ),
    Mutant(
        HEADS,
        "data = model.scale(x)\n        t, _",
        "data = 0 * model.scale(x)\n        t, _",
        "a head fitted to nothing",
        (f"{OF_HEADS}::test_a_fitted_head_learns_the_posterior_mean_and_leaves_the_elbo",),
    ),
    Mutant(
        HEADS,
        'head = copy.deepcopy(tied.get_submodule("network")) if head',
        'head = tied.get_submodule("network") if head',
        "the head shares the network it must not touch",
        (f"{OF_HEADS}::test_variants_fit_what_they_say",),
    ),
]
