"""Mutants of calibration and its step tables."""

from tests.mutants import Mutant

FILE, TABLES = "diffenc_ct/calibration/plan.py", "diffenc_ct/calibration/tables.py"
RATIOS = "diffenc_ct/calibration/ratios.py"
TESTS, OF_VALUES = "tests/calibration/test_calibration.py", "tests/calibration/test_ratios.py"
EXACTLY = "tests/calibration/test_ratios_exactly.py"
COSTS = (f"{OF_VALUES}::test_costs_of_steps_by_brute_force",)
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
        "ratio = 1 + excess.mean(0)",
        "ratio = 1 + excess.mean(0) / 2",
        "half of the excess",
        (f"{TESTS}::test_optimal_ratio_in_closed_form",),
    ),
    Mutant(
        RATIOS,
        "difference.double() ** 2 / variance.double()",
        "difference.double() ** 2 * variance.double()",
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
        "- 2 * k * D * er",
        "+ 2 * k * D * er",
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
        ("tests/cli/test_calibration_commands.py::test_evaluation_on_a_grid",),
    ),
    Mutant(
        "diffenc_ct/elbo/named_steps.py",
        '"optimal": calibration.ratio,',
        '"optimal": calibration.ratio.flip(0),',
        "ratios counted from the noise",
        (f"{TESTS}::test_elbo_takes_a_calibration",),
    ),
    Mutant(
        RATIOS,
        "(binned(v) for v in (moved**2, e[t] * moved, r[t] * moved))",
        "(binned(v) for v in (moved**2, r[t] * moved, e[t] * moved))",
        "inner products in another order",
        COSTS,
    ),
    Mutant(
        RATIOS,
        "moved = x[:t] - x[t]",
        "moved = x[t] - x[:t]",
        "the encoding moves the other way",
        COSTS,
    ),
    Mutant(
        RATIOS,
        "terms = share * torch.log1p(excess_l[:t, t, None] * spread)",
        "terms = share * torch.log1p(excess_l[t, :t, None] * spread)",
        "the table of excesses read by (t, s)",
        COSTS,
    ),
    Mutant(
        RATIOS,
        "mass = (1 / len(e) + error",
        "mass = (0 / len(e) + error",
        "edges by errors alone",
        COSTS,
    ),
    Mutant(
        RATIOS,
        "yield step, x_t - errors.x_hat,",
        "yield step, x_t + errors.x_hat,",
        "the error's sign in x_hat",
        (f"{EXACTLY}::test_fitted_values_are_the_posterior_variance",),
    ),
    Mutant(
        RATIOS,
        "values=1 + (sums",
        "values=(sums",
        "w* without its 1",
        (f"{EXACTLY}::test_fitted_values_are_the_posterior_variance",),
    ),
    Mutant(
        RATIOS,
        "torch.searchsorted(edges, x_hat)",
        "torch.searchsorted(edges, -x_hat)",
        "values looked up from the other end",
        (f"{OF_VALUES}::test_a_ratio_per_value_is_looked_up_by_step_and_bin",),
    ),
    Mutant(
        "diffenc_ct/elbo/terms.py",
        "Heads(x_t - errors.x_hat, -errors.r_hat)",
        "Heads(x_t - errors.x_hat, errors.r_hat)",
        "the sign of the r_hat that a ratio sees",
        (f"{OF_VALUES}::test_the_heads_that_a_ratio_sees",),
    ),
    Mutant(
        FILE,
        "cost, which = costs.min(0)",
        "cost, which = (half * torch.log1p(expected)).min(0)",
        "the grid chosen for one ratio a step",
        (f"{EXACTLY}::test_the_grid_is_chosen_for_the_ratio",),
    ),
    Mutant(
        FILE,
        "RatioPerValue(edges[t].double()",
        "RatioPerValue(edges[s].double()",
        "the bins of a step's other end",
        (f"{EXACTLY}::test_the_grid_is_chosen_for_the_ratio",),
    ),
]
