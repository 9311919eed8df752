"""Mutants of verification."""

from tests.mutants import Mutant

LOSSES, CHECKS, IDENTITIES = (
    f"diffenc_ct/verification/{name}.py" for name in ("losses", "checks", "identities")
)
TESTS = "tests/verification/test_verification.py"

MUTANTS = [
    Mutant(
        LOSSES,
        'method="heun", dt=1 / steps',
        'method="midpoint", dt=4 / steps',
        "a method that sees half a step's noise",
        (f"{TESTS}::test_path_kl_is_unbiased",),
    ),
    Mutant(
        LOSSES,
        "(8 * four_times - 6 * twice + once) / 3",
        "(8 * four_times - 4 * twice - once) / 3",
        "weights that sum to one but extrapolate nothing",
        (f"{TESTS}::test_richardson_is_exact_to_second_order",),
    ),
    Mutant(
        CHECKS,
        "return self.deviations <= 4",
        "return not self.deviations > 40",
        "a check that nothing fails",
        (f"{TESTS}::test_check_arithmetic",),
    ),
    Mutant(
        CHECKS,
        "return math.inf if math.isnan(result)",
        "return 0.0 if math.isnan(result)",
        "a number that is none passes",
        (f"{TESTS}::test_check_arithmetic",),
    ),
    Mutant(
        IDENTITIES,
        "limit = 2 * math.log(2) * infinite",
        "limit = math.log(2) * infinite",
        "T (w* - 1) tends to L_inf / d",
        (f"{TESTS}::test_a_gaussian_world_passes",),
    ),
    Mutant(
        IDENTITIES,
        "expected = (1 / ratio - 1 + math.log(ratio)) / (2 * math.log(2))",
        "expected = (1 / ratio - 1 - math.log(ratio)) / (2 * math.log(2))",
        "ln w with the wrong sign",
        (f"{TESTS}::test_a_gaussian_world_passes",),
    ),
]
