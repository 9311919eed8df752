"""Mutants of mixture steps: the law, its frames and divergence, grids, samples, the command line."""

from tests.mutants import Mutant

MIXTURES, MIXTURE_TESTS = "diffenc_ct/process/mixtures.py", "tests/process/test_mixtures.py"
VALUES, STEP_TESTS = "diffenc_ct/process/values.py", "tests/elbo/test_mixture_steps.py"
COSTS, COST_TESTS = "diffenc_ct/calibration/mixtures.py", "tests/calibration/test_mixture_costs.py"
FINITE, PROBLEM = "diffenc_ct/elbo/finite.py", "diffenc_ct/sampling/problem.py"
ANCESTRAL = "diffenc_ct/sampling/ancestral.py"
COMMANDS = "tests/cli/test_mixture_commands.py"

MUTANTS = [
    Mutant(
        MIXTURES,
        "-0.5 * standard.square() - self.std.log()",
        "-0.5 * standard.square()",
        "components of the same height, whatever their width",
        (f"{MIXTURE_TESTS}::test_density",),
    ),
    Mutant(
        MIXTURES,
        "std = (std.square() + gain.square() * found.variance).sqrt()",
        "std = (std.square() + found.variance).sqrt()",
        "the variance of x for that of what the step keeps of it",
        (f"{MIXTURE_TESTS}::test_a_product_of_values",),
    ),
    Mutant(
        MIXTURES,
        "at, weight / weight.sum()",
        "at, weight",
        "weights of exp(-x^2/2) for those of the normal density",
        (f"{MIXTURE_TESTS}::test_divergence",),
    ),
    Mutant(
        MIXTURES,
        "k = torch.searchsorted(below, share)",
        "k = torch.searchsorted(below, share, right=True).sub(1).clamp(min=0)",
        "the component before the one that was drawn",
        (f"{MIXTURE_TESTS}::test_a_draw_is_of_one_component_in_their_order",),
    ),
    Mutant(
        MIXTURES,
        "drawn = [mixture.draw(first[rows], second[rows])",
        "drawn = [mixture.draw(first[rows], first[rows])",
        "one number for the component and its noise",
        (f"{MIXTURE_TESTS}::test_a_product_of_values",),
    ),
    Mutant(
        VALUES,
        "slope = encoder.scale(gamma_s) + D * (c * scale.value - scale.rate)",
        "slope = encoder.scale(gamma) + D * c * scale.value",
        "x_t + D x_t' of every level, as the Gaussian step has it",
        (f"{STEP_TESTS}::test_every_level_follows_its_own_process",),
    ),
    Mutant(
        VALUES,
        "slope = encoder.scale(gamma_s) + D * (c * scale.value - scale.rate)",
        "slope = encoder.scale(gamma_s)",
        "an encoder whose rate factor is not that of its scale",
        (f"{STEP_TESTS}::test_short_steps_have_the_gaussian_steps_mean",),
    ),
    Mutant(
        VALUES,
        "faster = 1 + D * (c + alpha2(gamma))",
        "faster = 1 + D * c",
        "sigma^2 falls by alpha^2 sigma^2, which what is added has to make up for",
        (f"{STEP_TESTS}::test_short_steps_have_the_gaussian_steps_mean",),
    ),
    Mutant(
        VALUES,
        "difference = keep * (x_t - known) + (x_s - x_t) - (later - known)",
        "difference = keep * (x_t - known)",
        "right without an encoder",
        (f"{STEP_TESTS}::test_one_draw_is_the_difference_of_log_densities",),
    ),
    Mutant(
        VALUES,
        "return (a_s - a_t) + _keep(gamma_s, gamma_t, level) * a_t",
        "return _keep(gamma_s, gamma_t, level) * a_t",
        "every level moves with the encoder's scale",
        (f"{STEP_TESTS}::test_every_level_follows_its_own_process",),
    ),
    Mutant(
        VALUES,
        "gain = alpha(gamma_s) * _gain(",
        "gain = _gain(",
        "levels at z_s/alpha_s",
        (f"{STEP_TESTS}::test_every_level_follows_its_own_process",),
    ),
    Mutant(
        VALUES,
        "return torch.where(w > 0, w, torch.nan).sqrt()",
        "return torch.where(w > 0, w, torch.nan)",
        "w for a deviation's sqrt(w)",
        (f"{STEP_TESTS}::test_every_level_follows_its_own_process",),
    ),
    Mutant(
        VALUES,
        "return torch.where(w > 0, w, torch.nan).sqrt()",
        "return w.abs().sqrt()",
        "a ratio of the state that is negative taken for another",
        (f"{STEP_TESTS}::test_ratios_as_numbers_tables_and_functions",),
    ),
    Mutant(
        "diffenc_ct/model/posterior.py",
        "own = prior[of_value] if len(prior) > 1 else prior",
        "own = prior[:1]",
        "the first value's prior for all of them",
        (
            f"{STEP_TESTS}::test_what_is_known_has_the_heads_estimates",
            f"{STEP_TESTS}::test_every_level_follows_its_own_process",
        ),
    ),
    Mutant(
        "diffenc_ct/model/posterior.py",
        "return Components(logits.log_softmax(-1), means, own * v / (own + v))",
        "return Components(logits.log_softmax(-1), means, own)",
        "the prior's variance for the posterior's",
        (f"{STEP_TESTS}::test_mixtures_of_gaussians_by_brute_force",),
    ),
    Mutant(
        FINITE,
        "return p.divergences(noise=normal_like(at.z, generator)), None",
        "return p.divergences(noise=at.noise), None",
        "z_s drawn with the noise of z_t: biased",
        (f"{STEP_TESTS}::test_a_draw_estimates_what_quadrature_gives",),
    ),
    Mutant(
        PROBLEM,
        "p = values.step(z, gamma_s, self.noise_level, w)",
        "p = values.step(z, gamma_s, self.noise_level)",
        "samples forget the ratio that the bound has",
        (f"{STEP_TESTS}::test_a_sample_is_a_draw_of_the_step",),
    ),
    Mutant(
        ANCESTRAL,
        "            step=steps.step,\n",
        "",
        "a calibration of mixture steps sampled by Gaussian ones",
        (f"{COST_TESTS}::test_calibrate_save_load_and_use",),
    ),
    Mutant(
        COSTS,
        "weight = x.numel() / len(some) / group.bincount()[of].double()",
        "weight = 1 / group.bincount()[of].double()",
        "a sample of values that stands for itself alone",
        (f"{COST_TESTS}::test_a_sample_of_values_stands_for_all",),
    ),
    Mutant(
        COSTS,
        "cost[i, j].index_add_(0, of, weight * kl.double().cpu())",
        "cost[i, j].index_add_(0, of % 1, weight * kl.double().cpu())",
        "all examples in the first group",
        (f"{COST_TESTS}::test_costs_are_those_of_the_bound",),
    ),
    Mutant(
        COSTS,
        "losses = self.costs[chosen, :, s, t].sum(0)",
        "losses = self.costs[:, :, s, t].amin(0).T.sum(0)",
        "each group with the noise level that is best for it",
        (f"{COST_TESTS}::test_the_plan_is_the_cheapest_of_all_grids",),
    ),
    Mutant(
        "diffenc_ct/cli/options.py",
        'if arguments.step == "mixture" and not opened.model.heads.knows_values:',
        "if False:",
        "no word of the run in the refusal",
        (f"{COMMANDS}::test_refusals",),
    ),
]
