"""Mutants of sampling."""

from tests.mutants import Mutant

FILE = "diffenc_ct/sampling/samples.py"
PROBLEM, TESTS = "diffenc_ct/sampling/problem.py", "tests/sampling/test_sampling.py"

MUTANTS = [
    Mutant(
        FILE,
        "indices = range(first, min(first + batch_size, n))",
        "indices = range(0, min(first + batch_size, n) - first)",
        "images numbered within their batch",
        (f"{TESTS}::test_images_do_not_depend_on_the_batch",),
    ),
    Mutant(
        FILE,
        "latents[first : first + len(indices)]",
        "latents[: len(indices)]",
        "every batch starts from the first latents",
        (f"{TESTS}::test_latents_are_the_start",),
    ),
    Mutant(
        FILE,
        "return model.paired or isinstance",
        "return model.paired and isinstance",
        "paired heads not trusted",
        (f"{TESTS}::test_noise_level_where_the_flow_is_not_exact",),
    ),
    Mutant(
        FILE,
        "problem.evaluations * len(indices), path",
        "problem.evaluations, path",
        "evaluations a batch for evaluations an image",
        (f"{TESTS}::test_evaluations_are_counted",),
    ),
    Mutant(
        PROBLEM,
        "x_hat_s = heads.x_hat + expand(gamma_t - gamma_s, z) * heads.r_hat",
        "x_hat_s = heads.x_hat",
        "the encoder's motion within a step forgotten",
        (f"{TESTS}::test_ancestral_is_the_models_own_reverse",),
    ),
    Mutant(
        PROBLEM,
        "p.std * w.to(z).sqrt()",
        "p.std * w.to(z)",
        "w scales the variance, not the standard deviation",
        (f"{TESTS}::test_ancestral_is_the_models_own_reverse",),
    ),
]
