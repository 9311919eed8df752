"""Mutants of verification."""

from tests.mutants import Mutant

LOSSES, CHECKS, IDENTITIES = (
    f"diffenc_ct/verification/{name}.py" for name in ("losses", "checks", "identities")
)
TESTS = "tests/verification/test_verification.py"
PARTS, PART_TESTS = "diffenc_ct/verification/parts.py", "tests/verification/test_parts.py"

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
    # Parts of one's own --------------------------------------------------------------------------------
    Mutant(
        PARTS,
        "if not (change > 0).all():",
        "if not (change > -99).all():",
        "schedules that fall are believed",
        (f"{PART_TESTS}::test_a_schedule_that_falls",),
    ),
    Mutant(
        PARTS,
        "miss = (change - sign * found.sum(1)).abs().amax(1)",
        "miss = (change.abs() - found.sum(1).abs()).abs().amax(1)",
        "rates of the wrong sign are believed",
        (
            f"{PART_TESTS}::test_a_schedules_rate_that_is_not_its_derivative",
            f"{PART_TESTS}::test_an_encoders_rate_that_is_not_its_derivative",
        ),
    ),
    Mutant(
        PARTS,
        "for training in (False, True):",
        "for training in (False,):",
        "batch normalisation is believed",
        (f"{PART_TESTS}::test_batch_normalisation_is_caught_in_training_mode",),
    ),
    Mutant(
        PARTS,
        "depth[1:] = gamma[0]",
        "depth[1:] = gamma[1:]",
        "networks that take a mean over depths are believed",
        (f"{PART_TESTS}::test_examples_that_see_each_other",),
    ),
    Mutant(
        PARTS,
        "tried = copy.deepcopy(model).double()",
        "tried = model.double()",
        "the model itself is tried, and changed",
        (f"{PART_TESTS}::test_good_parts_pass_and_nothing_changes",),
    ),
    Mutant(
        "diffenc_ct/verification/identities.py",
        "math.hypot(error, mean_error), truncation)",
        "mean_error, truncation)",
        "the error of one of two estimates for that of their difference",
        ("tests/test_standard_errors.py",),
    ),
    Mutant(
        "diffenc_ct/verification/identities.py",
        "draws = Draws(t=t, noise=noise, noise_0=noise)",
        "draws = Draws(t=t, noise=noise)",
        "verify moves the caller's random numbers",
        ("tests/test_generators.py",),
    ),
    Mutant(
        "diffenc_ct/training/heads.py",
        "LowDiscrepancyDepths().draw(len(data), like=data, generator=generator)",
        "LowDiscrepancyDepths().draw(len(data), like=data)",
        "depths of a fitted head that its seed does not decide",
        ("tests/test_generators.py",),
    ),
]
