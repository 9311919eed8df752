"""Mutants of encoders."""

from tests.mutants import Mutant

FILE, TESTS = "diffenc_ct/encoders.py", "tests/encoders/test_encoders.py"
RATES, FOREIGN = "diffenc_ct/networks/rates.py", "tests/encoders/test_foreign_encoders.py"

MUTANTS = [
    Mutant(
        FILE,
        "forward_ad.make_dual(gamma.clone(), -torch.ones_like(gamma))",
        "forward_ad.make_dual(gamma.clone(), torch.ones_like(gamma))",
        "the rate with respect to gamma instead of lambda",
        (f"{TESTS}::test_rate_is_with_respect_to_log_snr_example_by_example",),
    ),
    Mutant(
        FILE,
        "torch.inference_mode(False), torch.set_grad_enabled(grad), whole",
        "whole",
        "inference mode drops the tangent silently",
        (f"{TESTS}::test_without_gradients_the_rate_is_the_same",),
    ),
    Mutant(
        FILE,
        "torch.zeros_like(value) if rate is None else rate",
        "torch.ones_like(value) if rate is None else rate",
        "a network that ignores gamma has no rate",
        (f"{TESTS}::test_a_function_that_ignores_gamma_has_rate_zero",),
    ),
    Mutant(
        FILE,
        "return Encoding(x_t, expand(sigma2(gamma), x) * x_t)",
        "return Encoding(x_t, expand(sigma2(gamma), x) * x)",
        "x for x_t in DiffEnc-nt's rate",
        (f"{TESTS}::test_nontrainable",),
    ),
    Mutant(
        FILE,
        "(x_t - y.value + y.rate)",
        "(x_t - y.value - y.rate)",
        "dy/dgamma for dy/dlambda",
        (f"{TESTS}::test_trainable",),
    ),
    Mutant(
        FILE,
        "(x_t - y.value + y.rate)",
        "(x - y.value + y.rate)",
        "x for x_t in the trainable encoder's rate",
        (f"{TESTS}::test_trainable",),
    ),
    Mutant(
        FILE,
        "(x_t - y.value + y.rate)",
        "(x_t - y.value + y.rate.detach())",
        "no gradient through the encoder's rate",
        (f"{TESTS}::test_gradients_through_the_rate",),
    ),
    Mutant(
        FILE,
        '"""0."""\n        return torch.zeros_like(gamma)',
        '"""0."""\n        return sigma2(gamma)',
        "the identity encoder has no rate to predict",
        (f"{TESTS}::test_identity",),
    ),
    Mutant(
        FILE,
        "flow_is_exact_with_one_head: bool = False",
        "flow_is_exact_with_one_head: bool = True",
        "the flow of one head taken for that of any encoder",
        (f"{TESTS}::test_with_which_encoders_one_head_gives_the_flow",),
    ),
    Mutant(
        FILE,
        "if grad and not torch.compiler.is_compiling() and softmaxes.found:",
        "if False:",
        "the rate of an encoder with attention has no gradients",
        (f"{FOREIGN}::test_gradients_of_the_rate_are_its_derivatives",),
    ),
    Mutant(
        FILE,
        "whole, attention_by_formula():",
        "whole:",
        "fused kernels of attention have no forward derivative, nor a second one",
        (f"{FOREIGN}::test_rates_agree_with_finite_differences",),
    ),
    Mutant(
        RATES,
        "return (value, -rate) if outer",
        "return (value, rate) if outer",
        "the rate with respect to gamma instead of lambda, by two reverse passes",
        (f"{FOREIGN}::test_rates_agree_with_finite_differences",),
    ),
    Mutant(
        RATES,
        "gamma = gamma if gamma.requires_grad else gamma.requires_grad_()",
        "gamma = gamma.detach().requires_grad_()",
        "a schedule learns nothing through the encoder",
        (f"{FOREIGN}::test_gradients_of_the_rate_are_its_derivatives",),
    ),
    Mutant(
        FILE,
        'if not re.search("forward.?(ad|mode)", str(error).lower()):',
        "if False:",
        "a user's own mistake is tried again in another way",
        (f"{FOREIGN}::test_a_mistake_of_the_users_own_is_not_hidden",),
    ),
    Mutant(
        RATES,
        "chosen = _layer_norm if func in (F.layer_norm, torch.layer_norm) else func",
        "chosen = func",
        "the third derivative of PyTorch's LayerNorm is believed",
        (f"{FOREIGN}::test_gradients_of_the_rate_are_its_derivatives",),
    ),
]
