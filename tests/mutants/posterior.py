"""Mutants of posterior heads: the mean over levels, the heads, what their networks see, the residual encoder."""

from tests.mutants import Mutant

MEAN, MEAN_TESTS = "diffenc_ct/networks/level_mean.py", "tests/networks/test_level_mean.py"
FUNCTIONS = "diffenc_ct/networks/level_functions.py"
FUNCTION_TESTS = "tests/networks/test_level_functions.py"
FEATURES, FEATURE_TESTS = "diffenc_ct/networks/features.py", "tests/networks/test_features.py"
UNET, UNET_TESTS = "diffenc_ct/networks/halving.py", "tests/networks/test_halving.py"
HEADS, HEAD_TESTS = "diffenc_ct/model/posterior.py", "tests/model/test_posterior.py"
BAYES = "diffenc_ct/model/_bayes.py"
NUMBER_TESTS = "tests/model/test_posterior_numbers.py"
ENCODERS, ENCODER_TESTS = "diffenc_ct/encoders.py", "tests/encoders/test_encoders.py"
TERMS, TERM_TESTS = "diffenc_ct/elbo/terms.py", "tests/elbo/test_bounds.py"
STEP, STATE = "diffenc_ct/training/step.py", "diffenc_ct/training/state.py"
DEPTH_TESTS = "tests/training/test_training_depths.py"

MUTANTS = [
    # The mean over levels ---------------------------------------------------------------------------
    Mutant(
        MEAN,
        "variance, skew = covariance[..., -2], covariance[..., -1]\n    return g[:, None] * variance, s * variance",
        "variance, skew = covariance[..., -2], covariance[..., -1]\n    return variance, s * variance",
        "the variance of d for the derivative by the observation",
        (f"{MEAN_TESTS}::test_value_and_gradients",),
    ),
    Mutant(
        MEAN,
        "second.mul_(d).sum(-1) + 2 * m * variance",
        "second.mul_(d).sum(-1) + 2 * variance * variance",
        "a third moment that is not central",
        (f"{MEAN_TESTS}::test_value_and_gradients",),
    ),
    Mutant(
        MEAN,
        "p = (c[part] @ phi).add_(prior)",
        "p = (c[part] @ phi).add_(prior[:1])",
        "the first value's prior for all of them",
        (f"{NUMBER_TESTS}::test_every_value_has_its_own_prior",),
    ),
    Mutant(
        MEAN,
        "torch.addcmul(s[part, :, None], g[part, None, None], d, value=-1)",
        "torch.addcmul(s[part, :, None], g[:, None, None][:1], d, value=-1)",
        "the first example's noise for all of them",
        (f"{MEAN_TESTS}::test_value_and_gradients",),
    ),
    Mutant(
        MEAN,
        "if torch.is_grad_enabled():  # this pass is to be differentiated",
        "if False:",
        "a gradient of a gradient that is silently wrong",
        (f"{MEAN_TESTS}::test_gradcheck",),
    ),
    Mutant(
        MEAN,
        "if torch.is_grad_enabled() and any(map(_requires_grad, inputs[:3])):",
        "if torch.is_grad_enabled() and any(a.requires_grad for a in inputs[:3]):",
        "transforms hide that a tensor requires a gradient: a trained divergence learns nothing",
        (f"{MEAN_TESTS}::test_gradient_of_a_forward_derivative",),
    ),
    Mutant(
        MEAN,
        "with torch.autocast(device, enabled=False) if known else nullcontext():",
        "with nullcontext():",
        "probabilities of eight bits under autocast",
        (f"{MEAN_TESTS}::test_low_precision_around_it_is_left_outside",),
    ),
    # The functions over levels ------------------------------------------------------------------------
    Mutant(
        FUNCTIONS,
        "torch.cos(math.pi * j * (k + 0.5) / levels)",
        "torch.cos(math.pi * j * k / levels)",
        "cosines that are not centred on the levels: they hold a constant",
        (f"{FUNCTION_TESTS}::test_cosines",),
    ),
    Mutant(
        FUNCTIONS,
        "(1 - (k / (levels - 1) * count - j).abs())",
        "(1 - (k / levels * count - j).abs())",
        "nodes that do not end at the last level",
        (f"{FUNCTION_TESTS}::test_hats",),
    ),
    # The heads ----------------------------------------------------------------------------------------
    Mutant(
        BAYES,
        "near = (z / signal).detach().clamp(-1, 1)",
        "near = (z.detach() / signal).clamp(-1, 1)",
        "a learned schedule gets a gradient through the reference, of which no derivative is told",
        (f"{HEAD_TESTS}::test_derivatives",),
    ),
    Mutant(
        BAYES,
        "near = (x_t / expand(a, x_t)).detach().clamp(-1, 1)",
        "near = (x_t.detach() / expand(a, x_t)).clamp(-1, 1)",
        "the same in training, where the encoder's scale depends on gamma",
        (f"{HEAD_TESTS}::test_derivatives",),
    ),
    Mutant(
        BAYES,
        "return Observation((z - signal * near) / noise, g / sigma(gamma), near)",
        "return Observation((z - signal * near) / noise, alpha(gamma) / sigma(gamma), near)",
        "the observation's noise forgets that the encoder shrinks the data",
        (f"{HEAD_TESTS}::test_noise_is_that_of_the_latent", f"{HEAD_TESTS}::test_bayes_rule"),
    ),
    Mutant(
        BAYES,
        "(x_t - a * seen.near) - a * excess",
        "(x_t - a * seen.near) - excess",
        "data where encoded data are meant",
        (f"{HEAD_TESTS}::test_conformance",),
    ),
    Mutant(
        HEADS,
        "logits = logits - 0.5 * ((y - from_near).square() / (own + v) + (own + v).log())",
        "logits = logits - 0.5 * ((y - from_near).square() / (own + v))",
        "wide and narrow Gaussians of the same height: no densities",
        (f"{HEAD_TESTS}::test_bayes_rule",),
    ),
    Mutant(
        HEADS,
        "means = (from_near * v + y * own) / (own + v)",
        "means = (from_near * own + y * v) / (own + v)",
        "the observation trusted the less the more precise it is",
        (f"{HEAD_TESTS}::test_one_gaussian_is_the_gaussian_world",),
    ),
    Mutant(
        BAYES,
        "return self.x_loss(errors.x, gamma) if self.paired else None",
        "return self.x_loss(errors.x, gamma)",
        "a regression of heads that have one output",
        (f"{HEAD_TESTS}::test_a_regression_only_where_two_outputs_are_to_be_told_apart",),
    ),
    Mutant(
        BAYES,
        "out = torch.unflatten(out.to(z.dtype), 1, (self.outputs, z.shape[1]))",
        "out = torch.unflatten(out.to(z.dtype), 1, (z.shape[1], self.outputs)).transpose(1, 2)",
        "a colour's outputs side by side, where the other heads have an output's colours",
        (f"{HEAD_TESTS}::test_bayes_rule",),
    ),
    Mutant(
        HEADS,
        "pooled = data.transpose(0, 1).flatten(1).T",
        "pooled = data.flatten(0, -2)",
        "histograms of columns of pixels for those of channels",
        (f"{NUMBER_TESTS}::test_the_histogram",),
    ),
    # What networks see --------------------------------------------------------------------------------
    Mutant(
        FEATURES,
        "left = torch.exp(-0.5 * w.square() * gamma.exp()[:, None])",
        "left = torch.exp(-0.5 * w * gamma.exp()[:, None])",
        "features that go on speaking of what the noise hides",
        (f"{FEATURE_TESTS}::test_they_are_averages_over_what_the_noise_hides",),
    ),
    Mutant(
        FEATURES,
        "phases = z.unsqueeze(2) * (w * (1 + gamma.exp()).sqrt()[:, None]).reshape(one)",
        "phases = z.unsqueeze(2) * w.reshape(1, 1, -1, *one[3:])",
        "features of z for those of z/alpha",
        (f"{FEATURE_TESTS}::test_they_are_averages_over_what_the_noise_hides",),
    ),
    Mutant(
        UNET,
        "groups = 2 if width == 8 else 4 if width % 8 else 8",
        "groups = 4 if width % 8 else 8",
        "norms of single channels: a network of width 8 does not know its depth",
        (f"{UNET_TESTS}::test_the_depth_is_seen",),
    ),
    Mutant(
        UNET,
        "OCTAVES = (0.0, 7.5, 0.5)",
        "OCTAVES = (0.0, 7.5, 1.0)",
        "every other frequency",
        (f"{UNET_TESTS}::test_features_show_what_they_are_of",),
    ),
    Mutant(
        FUNCTIONS,
        "own[levels - ends :]",
        "own[levels - 1 :]",
        "one bright level of its own, where as many as dark ones were asked for",
        (f"{FUNCTION_TESTS}::test_cosines",),
    ),
    Mutant(
        "diffenc_ct/training/build.py",
        '{"features": True} |',
        '{"features": not posterior} |',
        "posterior heads whose network sees no fine differences",
        ("tests/training/test_build.py::test_features_are_for_heads",),
    ),
    Mutant(
        "diffenc_ct/training/build.py",
        '"bounded": True, "features": False}',
        '"bounded": True}',
        "an encoder's network that has no jets",
        ("tests/training/test_build.py::test_features_are_for_heads",),
    ),
    Mutant(
        UNET,
        "self.takes_jets = not features",
        "self.takes_jets = True",
        "features, which depend on gamma, have no jets",
        (f"{UNET_TESTS}::test_the_rate_along_gamma",),
    ),
    Mutant(
        UNET,
        "out = each(lambda a: F.pixel_shuffle(a, self.patch), out)",
        "out = each(lambda a: F.pixel_shuffle(a, self.patch).mT, out)",
        "rows for columns on the way back from patches",
        (f"{UNET_TESTS}::test_patches_are_positions",),
    ),
    # The residual encoder, and depths -----------------------------------------------------------------
    Mutant(
        ENCODERS,
        "rate = variance * (u.rate - expand(alpha2(gamma), x) * u.value)",
        "rate = variance * (u.rate + expand(alpha2(gamma), x) * u.value)",
        "dsigma^2/dgamma for dsigma^2/dlambda",
        (f"{ENCODER_TESTS}::test_residual",),
    ),
    Mutant(
        ENCODERS,
        '"""0: it begins at the identity."""\n        return torch.zeros_like(gamma)',
        '"""0: it begins at the identity."""\n        return sigma2(gamma)',
        "the rate factor of the encoder that it is a form of",
        (f"{ENCODER_TESTS}::test_a_residual_encoder_begins_at_vdm",),
    ),
    Mutant(
        TERMS,
        "if weight is not None:\n                raise",
        "if False:\n                raise",
        "weights without depths are passed over in silence",
        (f"{TERM_TESTS}::test_a_weight_without_its_depth_is_refused",),
    ),
    Mutant(
        STEP,
        "seen.append(depths.count(draws_.t, nats.diffusion / draws_.weight))",
        "seen.append(depths.count(draws_.t, nats.diffusion))",
        "the density learns from losses that it has weighted itself",
        (f"{DEPTH_TESTS}::test_a_step_against_the_bound_with_its_draws",),
    ),
    Mutant(
        STEP,
        "for v in (t, noise, noise_0, weight))",
        "for v in (t, noise, noise_0))",
        "depths of another density, and no weights for it",
        (f"{DEPTH_TESTS}::test_a_step_against_the_bound_with_its_draws",),
    ),
    Mutant(
        STATE,
        "self.depths.moments = saved.tensors[DEPTHS].to(self.depths.moments)",
        "pass",
        "a resumed run begins its depths anew",
        (f"{DEPTH_TESTS}::test_an_interrupted_run_ends_bit_for_bit_like_an_undisturbed_one",),
    ),
]
