"""Mutants of sampling: one call, exponential coefficients, noise, directions, grids, the command line's names."""

from tests.mutants import Mutant

FOLDER = "diffenc_ct/sampling"
CALL, PROBLEM, SOLVER = f"{FOLDER}/samples.py", f"{FOLDER}/problem.py", f"{FOLDER}/solver.py"
EXP, GRIDS, SDE = f"{FOLDER}/exponential.py", f"{FOLDER}/grids.py", f"{FOLDER}/stochastic.py"
ANCESTRAL, LINEAR, NAMES = (
    f"{FOLDER}/ancestral.py",
    f"{FOLDER}/linear.py",
    "diffenc_ct/cli/solvers.py",
)
SAMPLING, SOLVERS = "tests/sampling/test_sampling.py", "tests/sampling/test_solvers.py"
ORDERS = "tests/sampling/test_solver_orders.py"
REFUSALS = "tests/sampling/test_sampling_refusals.py"
WITH_NOISE = "tests/sampling/test_solver_orders_with_noise.py"
COMMAND = "tests/cli/test_solvers.py"
EXACT = (f"{SOLVERS}::test_quadratic_estimates_are_integrated_exactly",)
CONSTANT = (f"{SOLVERS}::test_constant_estimates_are_integrated_exactly",)
ORDER, WEAK = (f"{ORDERS}::test_deterministic_order",), (f"{WITH_NOISE}::test_weak_order_exactly",)

MUTANTS = [
    Mutant(
        CALL,
        "indices = range(first, min(first + batch_size, n))",
        "indices = range(0, min(first + batch_size, n) - first)",
        "images numbered within their batch",
        (f"{SAMPLING}::test_images_do_not_depend_on_the_batch",),
    ),
    Mutant(
        CALL,
        "latents[first : first + len(indices)]",
        "latents[: len(indices)]",
        "every batch starts from the first latents",
        (f"{SAMPLING}::test_latents_are_the_start",),
    ),
    Mutant(
        SOLVER,
        "ConstantNoiseLevel(0.0 if model.flow_is_exact else 1.0)",
        "ConstantNoiseLevel(1.0 if model.flow_is_exact else 0.0)",
        "the flow taken where it is wrong, and noise where none is needed",
        (f"{SAMPLING}::test_noise_level_where_the_flow_is_not_exact",),
    ),
    Mutant(
        CALL,
        "return z, z_0, problem.evaluated_images, problem.path",
        "return z, z_0, problem.evaluations, problem.path",
        "evaluations a batch for evaluations an image",
        (f"{SAMPLING}::test_evaluations_are_counted",),
    ),
    Mutant(
        PROBLEM,
        "reverse_step(z, found, gamma_s, gamma_t, self.noise_level)",
        "reverse_step(z, found, gamma_s, gamma_t, type(self.noise_level)(1.0))",
        "the noise level forgotten",
        (f"{SAMPLING}::test_ancestral_is_the_models_own_reverse",),
    ),
    Mutant(
        PROBLEM,
        "p.std * w.to(z).sqrt()",
        "p.std * w.to(z)",
        "w scales the variance, not the standard deviation",
        (f"{SAMPLING}::test_ancestral_is_the_models_own_reverse",),
    ),
    Mutant(
        EXP,
        "kappa = (1 + level.squared(-points)) / 2",
        "kappa = (1 - level.squared(-points)) / 2",
        "kappa of the conditional process for the probability flow's",
        CONSTANT,
    ),
    Mutant(
        EXP,
        "return 0.5 * (b - a + level.integral(-b, -a))",
        "return 0.5 * (b - a + level.integral(-a, -b))",
        "the integral of eta^2 taken in lambda, where it is given in gamma",
        CONSTANT,
    ),
    Mutant(
        EXP,
        "keep = torch.exp(-growth(points, b, level))",
        "keep = torch.exp(-growth(a, points, level))",
        "the weight of the other frame",
        EXACT,
    ),
    Mutant(
        EXP,
        "basis * sigma2(-points) / sigma2(-nodes)[:, None]",
        "basis * sigma2(-points) * sigma2(-nodes)[:, None]",
        "multiplied by sigma^2 at the node instead of divided",
        EXACT,
    ),
    Mutant(
        EXP,
        "* torch.exp(growth(a, nodes, level)), for_r.sum(1)",
        "* torch.exp(-growth(a, nodes, level)), for_r.sum(1)",
        "n scaled to the wrong end",
        EXACT,
    ),
    Mutant(
        EXP,
        "(node - others[:, None])).prod(0)",
        "(node + others[:, None])).prod(0)",
        "a sign in Lagrange's denominator",
        (f"{SOLVERS}::test_lagrange_basis",),
    ),
    Mutant(
        EXP,
        "known = [here, *known][:k]\n            before",
        "known = [here, *known][: max(1, k - 1)]\n            before",
        "one value of the past too few",
        ORDER,
    ),
    Mutant(
        EXP,
        "if known and (correct or len(known) < k - 1):",
        "if known and correct:",
        "the first step left at order 1",
        ORDER,
    ),
    Mutant(
        EXP,
        'u = advance(before, known[0].lam, a, values, level, "data") + noise',
        'u = advance(before, known[0].lam, a, values, level, "data")',
        "the corrector forgets the step's noise",
        WEAK,
    ),
    Mutant(
        EXP,
        "for share in (1 / 3, 2 / 3):",
        "for share in (1 / 3, 1 / 2):",
        "the midpoint where two thirds belong",
        ORDER,
    ),
    Mutant(
        EXP,
        "std = posterior_std(-b, -a, problem.noise_level) / alpha(-b)",
        "std = posterior_std(-b, -a, problem.noise_level)",
        "noise of z added to z/alpha",
        WEAK,
    ),
    Mutant(
        SDE,
        "self._U = h * (self._W / 2 + math.sqrt(h / 12) * self._noise(self._like))",
        "self._U = h * (self._W / 2 - math.sqrt(h / 6) * self._noise(self._like))",
        "the variance of the space-time integral doubled",
        (f"{WITH_NOISE}::test_strong_order_of_torchsde",),
    ),
    Mutant(
        SDE,
        "tau = (1 - grid.t).to(z)",
        "tau = grid.t.flip(0).to(z)",
        "depths taken for reverse time, which only a uniform grid forgives",
        (f"{SAMPLING}::test_torchsde_steps_lie_on_the_grid",),
    ),
    Mutant(
        PROBLEM,
        "(len(z),), grid.steps - 1 - step, device=z.device)",
        "(len(z),), step, device=z.device)",
        "ratios counted from the noise",
        (f"{SAMPLING}::test_ancestral_is_the_models_own_reverse",),
    ),
    Mutant(
        GRIDS,
        "above = schedule(middle).gamma > gamma",
        "above = schedule(middle).gamma < gamma",
        "bisection towards the wrong side",
        (f"{SOLVERS}::test_depth_of_inverts_the_schedule",),
    ),
    Mutant(
        CALL,
        "batch_size = work.batch_size if solver.batch_matters else",
        "batch_size = n if solver.batch_matters else",
        "the batch that matters is not the one asked for",
        (f"{SAMPLING}::test_a_batch_that_matters_is_the_one_asked_for",),
    ),
    Mutant(
        PROBLEM,
        "z[first].cpu(), x_hat()[first].cpu()",
        "x_hat()[first].cpu(), z[first].cpu()",
        "a path whose latents are estimates",
        (f"{SAMPLING}::test_trajectory_leads_from_noise_to_data",),
    ),
    Mutant(
        CALL,
        "if trajectory and not solver.depths_are_shared:",
        "if False:",
        "a path of images that are at different depths",
        (f"{REFUSALS}::test_what_cannot_be_sampled_is_refused",),
    ),
    Mutant(
        CALL,
        "bad = int((~z_0.flatten(1).isfinite().all(1)).sum())",
        "bad = int((~z_0.flatten(1).isfinite().any(1)).sum())",
        "images with some finite pixels pass",
        (f"{REFUSALS}::test_divergence_is_not_hidden",),
    ),
    Mutant(
        PROBLEM,
        "self.images += len(z)",
        "self.images += 1",
        "evaluations a batch for evaluations an image",
        (f"{SAMPLING}::test_evaluations_are_counted_image_by_image",),
    ),
    Mutant(
        ANCESTRAL,
        "ratio=steps.finest_ratio,",
        "ratio=1.0,",
        "a calibration's ratios forgotten",
        (f"{SAMPLING}::test_a_calibration_brings_the_steps_of_its_finite_depth_model",),
    ),
    Mutant(
        ANCESTRAL,
        "steps.noise_level if noise_level is None else noise_level",
        "steps.noise_level",
        "another noise level given and not heard",
        (f"{SAMPLING}::test_a_calibration_brings_the_steps_of_its_finite_depth_model",),
    ),
    Mutant(
        LINEAR,
        "responses = z_0[1:] - z_0[0]",
        "responses = z_0[1:]",
        "the mean counted as spread",
        (f"{SOLVERS}::test_exact_flow_keeps_the_start_mismatch",),
    ),
    Mutant(
        GRIDS,
        "if placement.ndim == 1 and len(placement) != steps + 1:",
        "if False:",
        "a grid of another length than the steps, told as one that does not increase",
        (f"{REFUSALS}::test_bad_options_are_refused_when_a_solver_is_made",),
    ),
    Mutant(
        NAMES,
        "if len(matches) != 1:",
        "if not matches:",
        "of two libraries' methods of one name the first is taken",
        (f"{COMMAND}::test_a_name_nearly_right_is_answered_with_what_was_meant",),
    ),
    Mutant(
        NAMES,
        "given = {key: value for key, value in options.items() if value is not None}",
        "given = {key: value for key, value in options.items() if value}",
        "zeros taken for options that were not given",
        (f"{COMMAND}::test_options_that_a_solver_does_not_have_are_refused",),
    ),
]
