"""Mutants of calibration and its step tables."""

from tests.mutants import Mutant

FILE, PATHS, TABLES, PRODUCTS, RATIOS, STEPPED, STEPS = (
    f"diffenc_ct/calibration/{name}.py"
    for name in ("fit", "paths", "tables", "products", "ratios", "stepped", "steps")
)
TESTS, OF_VALUES = "tests/calibration/test_calibration.py", "tests/calibration/test_ratios.py"
OF_TABLES, EXACTLY = "tests/calibration/test_tables.py", "tests/calibration/test_ratios_exactly.py"
COSTS = (f"{OF_VALUES}::test_costs_of_steps_by_brute_force",)
DIFFERENCE = (f"{OF_TABLES}::test_tables_hold_every_steps_difference",)

MUTANTS = [
    Mutant(
        PATHS,
        "best, source = (best[:, None] + cost).min(0)",
        "best, source = (best[None, :] + cost).min(0)",
        "the recurrence adds the cost of the path to where it arrives",
        (f"{TESTS}::test_dynamic_programming_equals_brute_force",),
    ),
    Mutant(
        PATHS,
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
        STEPPED,
        "return total + slope * (gamma.double() - start)",
        "return total - slope * (gamma.double() - start)",
        "a sign in the integral of eta^2",
        (f"{TESTS}::test_stepped_noise_level",),
    ),
    Mutant(
        PRODUCTS,
        "k = -torch.expm1(-0.5 * (integral + D))",
        "k = -torch.expm1(-0.5 * (integral - D))",
        "the signal's part of the decay with the wrong sign",
        DIFFERENCE,
    ),
    Mutant(
        PRODUCTS,
        "- 2 * k * D * p.er",
        "+ 2 * k * D * p.er",
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
        'source = tables.smoothed() if options.grid == "best" else tables',
        "source = tables",
        "a grid chosen on single depths, some of which were lucky",
        (f"{TESTS}::test_a_grid_is_not_fooled_by_rare_errors_that_were_missed",),
    ),
    Mutant(
        TABLES,
        "rows = table.movedim(1, -1)",
        "rows = table",
        "the average taken over s, where the errors depend on t",
        (f"{OF_TABLES}::test_smoothed_tables_average_errors_over_depth",),
    ),
    Mutant(
        "diffenc_ct/training/evaluation.py",
        "columns += [*bound.along(t, terms.diffusion / weight), weight]",
        "columns += [t, terms.diffusion / weight, weight]",
        "the loss of a step shown where the draw is, not where the step is",
        ("tests/cli/test_calibration_commands.py::test_evaluation_on_a_grid",),
    ),
    Mutant(
        STEPS,
        "fitted = (self.ratio_per_value, self.ratio_per_dimension, self.ratio)",
        "fitted = (self.ratio, self.ratio_per_dimension, self.ratio_per_value)",
        "the coarsest ratio for the finest",
        ("tests/elbo/test_bounds.py::test_a_calibration_brings_grid_ratio_and_noise_level",),
    ),
    Mutant(
        "diffenc_ct/elbo/ratios.py",
        "return expand(ratio.to(like)[step], like)",
        "return expand(ratio.to(like).flip(0)[step], like)",
        "ratios counted from the noise",
        (f"{TESTS}::test_a_bound_takes_a_calibration",),
    ),
    Mutant(
        FILE,
        'if options.ratio != "value":',
        "if tables.kept is None:",
        "ratios per value whatever was asked for, where values were kept",
        (f"{EXACTLY}::test_the_grid_is_chosen_for_the_ratio",),
    ),
    Mutant(
        FILE,
        "if self.noise_level is not None:\n            return",
        "if False:\n            return",
        "eta* fitted where a noise level is given",
        (f"{TESTS}::test_a_given_noise_level_is_that_of_all_steps",),
    ),
    Mutant(
        FILE,
        "        if self.noise_level is not None:\n"
        "            refuse_determinism(as_noise_level(self.noise_level))\n",
        "",
        "steps of infinite cost",
        (f"{TESTS}::test_refusals_of_calibrations",),
    ),
    Mutant(
        RATIOS,
        "@torch.no_grad()\ndef fit_values(",
        "def fit_values(",
        "ratios that carry the graph of all evaluations",
        (f"{OF_VALUES}::test_nothing_that_is_fitted_carries_a_graph",),
    ),
    Mutant(
        TABLES,
        "some = order[: max(1, round(share * count))]",
        "some = order",
        "every value kept, whatever was asked for",
        (f"{OF_TABLES}::test_single_values_are_kept_where_they_are_asked_for",),
    ),
    Mutant(
        TABLES,
        "kept.append(_some((e, r, x_t), share, picked))",
        "kept.append(_some((e, x_t, r), share, picked))",
        "r_hat and x_t exchanged in what is kept",
        (f"{OF_TABLES}::test_single_values_are_kept_where_they_are_asked_for",),
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
        "yield step, x_t - errors.x,",
        "yield step, x_t + errors.x,",
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
    Mutant(
        "diffenc_ct/calibration/fit.py",
        "ratio_error=excess.std(0) / len(excess) ** 0.5",
        "ratio_error=excess.std(0)",
        "the spread of groups for the error of their mean",
        ("tests/test_standard_errors.py",),
    ),
]
