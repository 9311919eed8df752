"""Mutants of likelihood: the mistakes of other libraries among them."""

from tests.mutants import Mutant

FOLDER = "diffenc_ct/likelihood"
DIVERGENCE, ADAMS, FLOW = f"{FOLDER}/divergence.py", f"{FOLDER}/adams.py", f"{FOLDER}/flow.py"
LEVELS, ESTIMATE = f"{FOLDER}/dequantisation.py", f"{FOLDER}/estimate.py"
SOLVERS, RANDOM = f"{FOLDER}/solvers.py", f"{FOLDER}/randomness.py"
WORLDS, OPTIONS = "tests/likelihood/test_likelihood.py", "tests/likelihood/test_likelihood_options.py"
SUMS = "tests/likelihood/test_likelihood_levels.py"

MUTANTS = [
    Mutant(
        FLOW,
        "return at_end[:, None] + (-integral if inverse else integral)",
        "return at_end[:, None] - (-integral if inverse else integral)",
        "the divergence's sign",
        (f"{WORLDS}::test_density_of_a_world_is_analytic",),
    ),
    Mutant(
        DIVERGENCE,
        "trace = trace + slope.sum(1)",
        "trace = trace + slope.mean(1)",
        "the divergence divided by the number of directions",
        (f"{WORLDS}::test_exact_divergence_and_score",),
    ),
    Mutant(
        DIVERGENCE,
        "return velocity, score, (v * change).flatten(1).sum(1)",
        "return velocity, score, 10 * (v * change).flatten(1).sum(1)",
        "a divergence ten times too large, which passes other libraries' tests",
        (f"{WORLDS}::test_exact_divergence_and_score",),
    ),
    Mutant(
        DIVERGENCE,
        "return (expand(alpha(gamma), z) * heads.x_hat - z) / expand(sigma2(gamma), z)",
        "return (z - expand(alpha(gamma), z) * heads.x_hat) / expand(sigma2(gamma), z)",
        "the score's sign",
        (f"{WORLDS}::test_exact_divergence_and_score",),
    ),
    Mutant(
        DIVERGENCE,
        "(of_x / 2 + of_r)",
        "(of_x + of_r)",
        "the SDE's factor in the flow's divergence",
        (f"{WORLDS}::test_a_network_that_knows_its_traces",),
    ),
    Mutant(
        DIVERGENCE,
        "return (2 * signs - 1).to(like)",
        "return signs.to(like)",
        "probes of 0 and 1 are not of unit covariance",
        (f"{WORLDS}::test_hutchinson_along_the_path",),
    ),
    Mutant(
        FLOW,
        "start, end = end, start",
        "pass",
        "the direction of integration",
        (f"{WORLDS}::test_there_and_back",),
    ),
    Mutant(
        FLOW,
        "(-integral if inverse else integral)",
        "integral",
        "the inverse's divergence counted forwards",
        (f"{WORLDS}::test_there_and_back",),
    ),
    Mutant(
        FLOW,
        "(z if inverse else last)",
        "(last if inverse else z)",
        "the prior taken at the path's start",
        (f"{WORLDS}::test_density_of_a_world_is_analytic",),
    ),
    Mutant(
        FLOW,
        "z_0, z_1 = (solution.z, z) if inverse else (z, solution.z)",
        "z_0, z_1 = (z, solution.z) if inverse else (z, z)",
        "a path whose end is its start",
        (f"{WORLDS}::test_samples_have_the_worlds_law",),
    ),
    Mutant(
        LEVELS,
        "jacobian = dimensions * scale.double().log()",
        "jacobian = -dimensions * scale.double().log()",
        "the sign of the scaling's Jacobian",
        (f"{SUMS}::test_real_data",),
    ),
    Mutant(
        LEVELS,
        "width = 2 / model.levels",
        "width = 1 / model.levels",
        "a bin's width on (-1, 1) is 2/V",
        (f"{SUMS}::test_probabilities_of_all_levels_sum_to_one_and_bounds_to_less",),
    ),
    Mutant(
        LEVELS,
        "return math.erf(tau / math.sqrt(2))",
        "return math.erf(3 / math.sqrt(2))",
        "the constant of one tau used for all",
        (f"{SUMS}::test_truncated_normal_constant",),
    ),
    Mutant(
        LEVELS,
        "model.decode_log_prob(x, z_0, gamma_0) - q.log_prob(z_0)",
        "model.decode_log_prob(x, z_0, gamma_0) + q.log_prob(z_0)",
        "the dequantiser's entropy with the wrong sign",
        (f"{SUMS}::test_probabilities_of_all_levels_sum_to_one_and_bounds_to_less",),
    ),
    Mutant(
        ESTIMATE,
        "nats = weights.logsumexp(1) - math.log(samples)",
        "nats = weights.logsumexp(1)",
        "K forgotten in the logarithm",
        (f"{SUMS}::test_estimates_are_of_the_bound_they_name",),
    ),
    Mutant(
        ESTIMATE,
        "nats = weights.logsumexp(1) - math.log(samples)",
        "nats = weights.mean(1)",
        "the mean of logarithms, which does not tighten with K",
        (f"{SUMS}::test_estimates_are_of_the_bound_they_name",),
    ),
    Mutant(
        ESTIMATE,
        "noise_variance = samples * share.var(1)",
        "noise_variance = share.var(1)",
        "the share is exp w over the sum, not over the mean",
        (f"{SUMS}::test_standard_error_of_dequantisation",),
    ),
    Mutant(
        ESTIMATE,
        "(share[:, :, None] * per_probe).sum(1).var(1) / per_probe.shape[2]",
        "(share[:, :, None] * per_probe).sum(1).var(1)",
        "the spread of one probe for that of their mean",
        (f"{SUMS}::test_standard_error_of_probes",),
    ),
    Mutant(
        DIVERGENCE,
        "probes = self.probes if rows is None else self.probes[rows]",
        "probes = torch.randn_like(self.probes if rows is None else self.probes[rows])",
        "probes drawn anew at every evaluation",
        (f"{OPTIONS}::test_results_do_not_depend_on_batch_mates",),
    ),
    Mutant(
        DIVERGENCE,
        "probes = self.probes if rows is None else self.probes[rows]",
        "probes = self.probes[: len(z)]",
        "probes of the first examples, whichever are still under way",
        (f"{OPTIONS}::test_results_do_not_depend_on_batch_mates",),
    ),
    Mutant(
        FLOW,
        "return [base * 2**31 + i for i in range(n)]",
        "return [base * 2**31 + n + i for i in range(n)]",
        "noise that depends on how many examples there are",
        (f"{OPTIONS}::test_results_do_not_depend_on_batch_mates",),
    ),
    Mutant(
        ADAMS,
        "error = torch.maximum(quadrature, _MISS_WEIGHT * goal) / tolerance",
        "error = (torch.maximum(quadrature, _MISS_WEIGHT * goal) / tolerance).max().expand(len(goal))",
        "one step size for the whole batch",
        (f"{OPTIONS}::test_results_do_not_depend_on_batch_mates",),
    ),
    Mutant(
        ADAMS,
        'settled = torch.where(done, history["nodes"][:, 0], behind)',
        "settled = behind",
        "the last steps never integrated for good",
        (f"{WORLDS}::test_density_of_a_world_is_analytic",),
    ),
    Mutant(
        ADAMS,
        "finite = error.isfinite() & velocity.isfinite().all(1)",
        "finite = torch.ones_like(goal, dtype=torch.bool)",
        "NaNs that pass as small errors",
        (f"{OPTIONS}::test_a_nan_has_a_status_and_spares_the_others",),
    ),
    Mutant(
        SOLVERS,
        "(steps if method.fixed else 1) + 1",
        "(steps - 1 if method.fixed else 1) + 1",
        "one step fewer than asked for",
        (f"{WORLDS}::test_hutchinson_along_the_path",),
    ),
    Mutant(
        RANDOM,
        "(_STREAMS[stream] + 8 * draw)",
        "_STREAMS[stream]",
        "the same noise for every importance sample",
        (f"{SUMS}::test_estimates_are_of_the_bound_they_name",),
    ),
    Mutant(
        SOLVERS,
        "2**method.order - 1",
        "2**method.order + 1",
        "Richardson's factor",
        (f"{OPTIONS}::test_a_coarser_solve_tells_the_error",),
    ),
    Mutant(
        SOLVERS,
        "by_probe(last, integral) - by_probe(rough[0], rough[1])",
        "by_probe(last, integral) - by_probe(rough[0], integral)",
        "the coarse solve's divergence forgotten",
        (f"{OPTIONS}::test_a_coarser_solve_tells_the_error_of_the_divergence",),
    ),
]
