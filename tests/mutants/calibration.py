"""Mutants of calibration and its step tables."""

from tests.mutants import Mutant

FILE, TABLES = "diffenc_ct/calibration.py", "diffenc_ct/step_tables.py"
TESTS = "tests/test_calibration.py"
DIFFERENCE = (f"{TESTS}::test_tables_hold_every_steps_difference",)

MUTANTS = [
    Mutant(
        FILE,
        "best, source = (best[:, None] + cost).min(0)",
        "best, source = (best[None, :] + cost).min(0)",
        "the recurrence adds the cost of the path to where it arrives",
        (f"{TESTS}::test_dynamic_programming_equals_brute_force",),
    ),
    Mutant(
        FILE,
        "for _ in range(steps - 1):",
        "for _ in range(steps):",
        "one step too many",
        (f"{TESTS}::test_dynamic_programming_equals_brute_force",),
    ),
    Mutant(
        FILE,
        "ratio=1 + excess.mean(0),",
        "ratio=1 + excess.mean(0) / 2,",
        "half of the excess",
        (f"{TESTS}::test_optimal_ratio_in_closed_form",),
    ),
    Mutant(
        FILE,
        "sums.append((difference.double() ** 2).sum(0) / variance.double())",
        "sums.append((difference.double() ** 2).sum(0) * variance.double())",
        "multiplied by S^2",
        (f"{TESTS}::test_per_dimension_excess_in_closed_form",),
    ),
    Mutant(
        FILE,
        "return total + slope * (gamma.double() - start)",
        "return total - slope * (gamma.double() - start)",
        "a sign in the integral of eta^2",
        (f"{TESTS}::test_stepped_noise_level",),
    ),
    Mutant(
        TABLES,
        "k = -torch.expm1(-0.5 * (integral + D))",
        "k = -torch.expm1(-0.5 * (integral - D))",
        "the signal's part of the decay with the wrong sign",
        DIFFERENCE,
    ),
    Mutant(
        TABLES,
        "- 2 * k * D * er[:, None, :]",
        "+ 2 * k * D * er[:, None, :]",
        "the sign of r_hat in the cross term",
        DIFFERENCE,
    ),
    Mutant(
        TABLES,
        "ex, rx = ex.mT, rx.mT  # to (s, t)",
        "pass  # (t, s) for (s, t)",
        "tables read by the wrong index",
        DIFFERENCE,
    ),
    Mutant(
        TABLES,
        "moved = own[:, :, None] + own[:, None, :] - 2 * xx",
        "moved = own[:, :, None] + own[:, None, :] - xx",
        "||x_s - x_t||^2 without its 2",
        DIFFERENCE,
    ),
    Mutant(
        FILE,
        'source = tables.smoothed() if grid == "best" else tables',
        "source = tables",
        "a grid chosen on single depths, some of which were lucky",
        (f"{TESTS}::test_a_grid_is_not_fooled_by_rare_errors_that_were_missed",),
    ),
    Mutant(
        TABLES,
        "rows = table.movedim(1, -1)",
        "rows = table",
        "the average taken over s, where the errors depend on t",
        (f"{TESTS}::test_smoothed_tables_average_errors_over_depth",),
    ),
    Mutant(
        "diffenc_ct/training/evaluation.py",
        "loss / (steps * width)",
        "loss * (steps * width)",
        "the loss per unit of depth multiplied by a step's width",
        ("tests/test_calibration_commands.py::test_evaluation_on_a_grid",),
    ),
    Mutant(
        "diffenc_ct/named_steps.py",
        'fitted = {"optimal": calibration.ratio,',
        'fitted = {"optimal": calibration.ratio.flip(0),',
        "ratios counted from the noise",
        (f"{TESTS}::test_elbo_takes_a_calibration",),
    ),
]
