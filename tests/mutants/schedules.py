"""Mutants of schedules."""

from tests.mutants import Mutant

FILE, TESTS = "diffenc_ct/schedules.py", "tests/schedules/test_schedules.py"

MUTANTS = [
    Mutant(
        FILE,
        "return torch.sigmoid(-gamma)",
        "return torch.sigmoid(gamma + 0)",
        "gamma and lambda confused",
        (f"{TESTS}::test_variances",),
    ),
    Mutant(
        FILE,
        "return torch.exp(-gamma)",
        "return torch.exp(gamma)",
        "gamma and log SNR confused",
        (f"{TESTS}::test_variances",),
    ),
    Mutant(
        FILE,
        "return torch.sigmoid(gamma)",
        "return 1 - torch.sigmoid(-gamma)",
        "equal on paper; loses every digit at small depth",
        (f"{TESTS}::test_float32_keeps_its_digits_at_the_extremes",),
    ),
    Mutant(
        FILE,
        "return self.sigma2 * self.rate",
        "return self.rate",
        "beta = gamma' is the variance exploding process's",
        (f"{TESTS}::test_point",),
    ),
    Mutant(
        FILE,
        "width * ((1 - w) + w * n * t ** (n - 1))",
        "width * ((1 - w) + w * t ** (n - 1))",
        "the power's derivative without its factor",
        (f"{TESTS}::test_conformance",),
    ),
    Mutant(
        FILE,
        "gamma_max / (2 * (gamma_max - gamma_min)) if",
        "0.5 if",
        "the authors' two halves taken for a mean",
        (f"{TESTS}::test_poly10_is_the_authors",),
    ),
    Mutant(
        FILE,
        "heights * slopes * gates * (1 - gates)",
        "heights * gates * (1 - gates)",
        "chain rule forgotten in the monotone network's rate",
        (f"{TESTS}::test_conformance",),
    ),
    Mutant(
        FILE,
        "width * share, width * slope,",
        "width * share, slope,",
        "the network's rate not scaled to the pinned ends",
        (f"{TESTS}::test_conformance",),
    ),
    Mutant(
        FILE,
        "slope = self.slope.abs().to(t.dtype)",
        "slope = self.slope.to(t.dtype)",
        "a learned slope that may turn negative",
        (f"{TESTS}::test_learned_ends_move_with_their_parameters",),
    ),
    Mutant(
        FILE,
        "width * slope, (share, slope))",
        "width * slope, (share,))",
        "half of the gradient passes by the interior",
        (f"{TESTS}::test_all_of_gamma_but_its_ends_passes_through_the_interior",),
    ),
    Mutant(
        FILE,
        "width * slope, (share, slope))",
        "width * slope, (self.gamma_min + width * share, slope))",
        "gamma itself taken for its interior: the learned ends move with it",
        (f"{TESTS}::test_interior_gradients_reach_everything_but_the_ends",),
    ),
    Mutant(
        FILE,
        "itertools.chain(self.parameters(), self.buffers())",
        "itertools.chain(self.buffers())",
        "a start that is learned taken for a number",
        (f"{TESTS}::test_the_start_of_a_users_schedule_that_learns_or_stores_is_not_fixed",),
    ),
    Mutant(
        FILE,
        "return self.gamma_min if isinstance(self.gamma_min, float) else None",
        "return float(self.gamma_min)",
        "a learned end read as a number, which waits for the device",
        (f"{TESTS}::test_fixed_start",),
    ),
]
