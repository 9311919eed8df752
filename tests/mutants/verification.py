"""Mutants of verification."""

from tests.mutants import Mutant

LOSSES, CHECKS, TESTS = (
    "diffenc_ct/verification/losses.py",
    "diffenc_ct/verification/checks.py",
    "tests/verification/test_verification.py",
)

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
]
