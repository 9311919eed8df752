"""Mutants of model."""

from tests.mutants import Mutant

HEADS, PLAIN, READINGS, DECODERS, MODEL, REVERSE = (
    f"diffenc_ct/model/{name}.py"
    for name in ("heads", "plain", "readings", "decoder", "diffenc", "reverse")
)
OF_HEADS, OF_REVERSE, OF_MODEL, OF_DECODERS = (
    f"tests/model/test_{name}.py" for name in ("heads", "reverse", "model", "decoder")
)

MODE, OF_MODE = "diffenc_ct/model/mode.py", "tests/model/test_mode.py"

MUTANTS = [
    Mutant(
        MODE,
        "            module.training = training",
        "            model.train(modes[0][1])",
        "a part that was frozen in evaluation mode comes back in training mode",
        (f"{OF_MODE}::test_the_context_is_of_every_submodule",),
    ),
    Mutant(
        MODE,
        "    model.eval()\n",
        "    model.requires_grad_()\n",
        "dropout in what is reported",
        (f"{OF_MODE}::test_the_context_is_of_every_submodule",),
    ),
    Mutant(
        "diffenc_ct/sampling/samples.py",
        "    with evaluating(model):\n        parts",
        "    if model:\n        parts",
        "samples of a model with dropout",
        (f"{OF_MODE}::test_what_is_found_does_not_depend_on_the_mode",),
    ),
    Mutant(
        "diffenc_ct/likelihood/flow.py",
        "with evaluating(model), torch.set_grad",
        "with torch.set_grad",
        "a density through dropout",
        (f"{OF_MODE}::test_what_is_found_does_not_depend_on_the_mode",),
    ),
    Mutant(
        "diffenc_ct/likelihood/estimate.py",
        "    with evaluating(model), torch.autocast",
        "    with torch.autocast",
        "levels are encoded through dropout before the flow begins",
        (f"{OF_MODE}::test_what_is_found_does_not_depend_on_the_mode",),
    ),
    Mutant(
        REVERSE,
        "expand(gamma_t - gamma_s, z_t) * estimates.r_hat",
        "expand(gamma_s - gamma_t, z_t) * estimates.r_hat",
        "lambda_s - lambda_t with gamma's order",
        (f"{OF_REVERSE}::test_the_papers_reverse_step",),
    ),
    Mutant(
        REVERSE,
        "posterior(z_t, x_hat_s, estimates.x_hat, gamma_s",
        "posterior(z_t, x_hat_s, x_hat_s, gamma_s",
        "the noise taken from the moved estimate",
        (f"{OF_REVERSE}::test_the_papers_reverse_step",),
    ),
    Mutant(
        MODEL,
        "step.std * w.sqrt()",
        "step.std * w",
        "w scales the variance, not the standard deviation",
        (f"{OF_REVERSE}::test_the_papers_reverse_step",),
    ),
    Mutant(
        REVERSE,
        "kappa = expand((1 + eta_squared) / 2, z)",
        "kappa = expand((1 + eta_squared.sqrt()) / 2, z)",
        "eta for eta^2: right at 0 and 1",
        (f"{OF_REVERSE}::test_the_limit_of_the_step_is_the_reverse_sde",),
    ),
    Mutant(
        REVERSE,
        "* (kappa * estimates.x_hat + estimates.r_hat)",
        "* kappa * (estimates.x_hat + estimates.r_hat)",
        "kappa on the rate: right at eta = 1",
        (f"{OF_REVERSE}::test_reverse_drift_is_the_time_reversal_of_the_forward_drift",),
    ),
    Mutant(
        READINGS,
        "return alpha_ * z - sigma_ * u if",
        "return alpha_ * z + sigma_ * u if",
        "v of the opposite sign",
        (f"{OF_HEADS}::test_a_perfect_network_recovers_the_encoded_data",),
    ),
    Mutant(
        READINGS,
        "return (sigma_ / alpha_) * (u - noise)",
        "return sigma_ * (u - noise)",
        "eps-prediction's error without 1/alpha: nearly right at small depth",
        (f"{OF_HEADS}::test_errors_are_what_predict_leaves",),
    ),
    Mutant(
        PLAIN,
        "return Estimates(x_hat, tied.x_hat + tied.r_hat - x_hat)",
        "return Estimates(x_hat, tied.r_hat)",
        "the separate head's share of the sum not taken off",
        (f"{OF_HEADS}::test_a_separate_head",),
    ),
    Mutant(
        PLAIN,
        "return Errors(head.x, tied.r + tied.x - head.x)",
        "return Errors(head.x, tied.r)",
        "the errors of a separate head without the sum that both share",
        (f"{OF_HEADS}::test_errors_are_what_predict_leaves",),
    ),
    Mutant(
        PLAIN,
        "encoding.rate - variance * (encoding.value - error + second)",
        "encoding.rate - variance * (encoding.value + second)",
        "the paired head's rate hangs on x_hat, not on x_t",
        (f"{OF_HEADS}::test_errors_are_what_predict_leaves",),
    ),
    Mutant(
        PLAIN,
        "return Errors(error, encoding.rate - factor * encoding.value + factor * error)",
        "return Errors(error, encoding.rate - factor * encoding.value)",
        "the single head's rate hangs on x_hat, not on x_t",
        (f"{OF_HEADS}::test_errors_are_what_predict_leaves",),
    ),
    Mutant(
        HEADS,
        "return Errors(encoding.value - found.x_hat, encoding.rate - found.r_hat)",
        "return Errors(found.x_hat - encoding.value, encoding.rate - found.r_hat)",
        "errors of opposite signs in heads of one's own",
        (f"{OF_HEADS}::test_heads_of_ones_own_go_through_the_bounds",),
    ),
    Mutant(
        READINGS,
        'weight = (alpha2(gamma) if predicts == "eps" else 1) / sigma2(gamma)',
        "weight = 1 / sigma2(gamma)",
        "v's weight for eps",
        (f"{OF_HEADS}::test_the_regression_is_the_networks_own_loss",),
    ),
    Mutant(
        PLAIN,
        "tells_apart = False",
        "tells_apart = True",
        "one output taken for two estimates",
        (f"{OF_MODEL}::test_whose_flow_is_exact",),
    ),
    Mutant(
        MODEL,
        "return self.heads.tells_apart or self.encoder.flow_is_exact_with_one_head",
        "return self.heads.tells_apart and self.encoder.flow_is_exact_with_one_head",
        "both asked for where one is enough",
        (f"{OF_MODEL}::test_whose_flow_is_exact",),
    ),
    Mutant(
        MODEL,
        "(InfiniteDepth() if loss is None else loss).terms(model, x, draws, generator)",
        "InfiniteDepth().terms(model, x, draws, generator)",
        "the loss that was given forgotten",
        (f"{OF_MODEL}::test_the_call_takes_the_bounds_options_and_draws",),
    ),
    Mutant(
        MODEL,
        "start = float(gamma_0.detach())",
        "start = self.schedule.fixed_start",
        "the band of the schedule's end at another gamma",
        (f"{OF_DECODERS}::test_the_banded_sum_is_the_full_softmax",),
    ),
    Mutant(
        DECODERS,
        "return 0.0 if self.ends else 0.5",
        "return 0.0",
        "levels begin at -1, as for pictures",
        (f"{OF_DECODERS}::test_levels_are_scaled_to_the_centres_of_their_bins",),
    ),
    Mutant(
        DECODERS,
        "2 * (k.to(dtype) + self._offset) / (self.levels - self.ends) - 1",
        "2 * (k.to(dtype) + self._offset) / self.levels - 1",
        "the last of V levels with ends short of 1",
        (f"{OF_DECODERS}::test_levels_with_ends_are_those_of_most_code",),
    ),
    Mutant(
        DECODERS,
        "/ 2 + (0.5 - self._offset)",
        "/ 2",
        "the nearest level by rounding down where levels begin at -1",
        (f"{OF_DECODERS}::test_clean_latents_decode_to_their_data",),
    ),
    Mutant(
        DECODERS,
        'return "ends" if self.ends else ""',
        'return ""',
        "what was fitted to levels elsewhere is believed",
        (
            "tests/model/test_places_of_levels.py::test_a_fit_to_levels_elsewhere_is_to_another_model",
        ),
    ),
    Mutant(
        "diffenc_ct/model/posterior.py",
        "x = decoder.centres(torch.arange(levels), torch.float64)",
        "x = Levels(levels).centres(torch.arange(levels), torch.float64)",
        "heads whose levels are centres of bins whatever the decoder says",
        ("tests/model/test_places_of_levels.py::test_levels_lie_where_the_decoders_do",),
    ),
    Mutant(
        DECODERS,
        "return 2 / (self.levels - self.ends)",
        "return 2 / self.levels",
        "the distance of levels without ends for all",
        (f"{OF_DECODERS}::test_levels_are_apart_by_their_width",),
    ),
    Mutant(
        DECODERS,
        "k = x.long()",
        "k = x",
        "bytes compared with 256 as they wrap: every picture is NaN",
        (f"{OF_DECODERS}::test_levels_are_scaled_to_the_centres_of_their_bins",),
    ),
    Mutant(
        DECODERS,
        "torch.where((k >= 0) & (k < self.levels),",
        "torch.where(k < self.levels,",
        "data below zero trained on without a word",
        (f"{OF_DECODERS}::test_what_is_no_level_is_scaled_to_nan",),
    ),
    Mutant(
        DECODERS,
        "outside = (near < 0) | (near >= self.levels)",
        "outside = near < 0",
        "levels beyond the last in the sum",
        (f"{OF_DECODERS}::test_the_banded_sum_is_the_full_softmax",),
    ),
    Mutant(
        DECODERS,
        "math.sqrt(0.25 + 45 / per_bin)",
        "math.sqrt(0.25 + 4 / per_bin)",
        "the band too narrow",
        (f"{OF_DECODERS}::test_the_banded_sum_is_the_full_softmax",),
    ),
    Mutant(
        DECODERS,
        "own = -0.5 * precision * (u - self.centres(x, u.dtype)) ** 2",
        "own = -precision * (u - self.centres(x, u.dtype)) ** 2",
        "half forgotten in one of two logits",
        (f"{OF_DECODERS}::test_probabilities_of_all_levels_sum_to_one",),
    ),
    Mutant(
        DECODERS,
        "levels: None = field(default=None, init=False, repr=False)",
        "levels: None = None",
        "Reals(256), which means nothing, is taken",
        (f"{OF_MODEL}::test_what_cannot_be_combined_has_no_place_to_be_written",),
    ),
]
