"""Mutants of networks."""

from tests.mutants import Mutant

BLOCKS, BODIES, CHOICE, FORWARD, JETS, NORM, UNETS = (
    f"diffenc_ct/networks/{name}.py"
    for name in ("blocks", "bodies", "body_options", "forward_mode", "jets", "norm_silu", "unets")
)
HALVING, SIZES = "diffenc_ct/networks/halving.py", "tests/networks/test_halving.py"
TESTS = "tests/networks/test_nets.py"
ATTENTION, NORMS = "tests/networks/test_attention.py", "tests/networks/test_norm_silu.py"

MUTANTS = [
    Mutant(
        BLOCKS,
        "scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])",
        "scores = q @ k.transpose(1, 2) / q.shape[-1]",
        "another scale of attention under forward mode",
        (f"{ATTENTION}::test_attention_both_ways",),
    ),
    Mutant(
        BLOCKS,
        "position = (gamma - low) / (high - low) * 1000.0",
        "position = (gamma - low) * 1000.0",
        "depth not normalised",
        (f"{TESTS}::test_depth_embedding",),
    ),
    Mutant(
        BLOCKS,
        "return torch.cat([phases.sin(), phases.cos()], dim=1)",
        "return torch.cat([phases.cos(), phases.sin()], dim=1)",
        "sines and cosines swapped",
        (f"{TESTS}::test_fourier_features",),
    ),
    Mutant(
        BLOCKS,
        "self.conv2 = zero_(conv(",
        "self.conv2 = lecun_(conv(",
        "residual blocks that do not start as the identity",
        (f"{TESTS}::test_residual_blocks_start_as_the_identity",),
    ),
    Mutant(
        UNETS,
        "self.conv_out = zero_(nn.Conv2d(width, outputs, 3, padding=1))",
        "self.conv_out = lecun_(nn.Conv2d(width, outputs, 3, padding=1))",
        "an untrained score network that does not return z",
        (f"{TESTS}::test_shapes_and_untrained_networks",),
    ),
    Mutant(
        BODIES,
        "if smaller % 2 == 1 or smaller <= 8:",
        "if smaller % 2 == 1 or smaller < 8:",
        "one level more at height 8",
        (f"{TESTS}::test_multiresolution_levels",),
    ),
    Mutant(
        UNETS,
        "y = multiply(y, 1 - u)",
        "y = multiply(y, u)",
        "damped at the wrong end",
        (f"{TESTS}::test_damping_ties_an_end_down",),
    ),
    Mutant(
        JETS,
        "gate * (1 + self.value * (1 - gate)) * self.rate",
        "gate * (1 + self.value) * self.rate",
        "a slope of swish half right",
        (f"{TESTS}::test_jets_equal_forward_mode",),
    ),
    Mutant(
        JETS,
        "return Jet(layer(h.value), _linear_part(layer, h.rate))",
        "return Jet(layer(h.value), layer(h.rate))",
        "a bias in the derivative",
        (f"{TESTS}::test_jets_equal_forward_mode",),
    ),
    Mutant(
        JETS,
        "return h.each(lambda a: a * mask)",
        "return h.each(layer)",
        "other units dropped from the derivative than from the value",
        (f"{TESTS}::test_jets_equal_forward_mode",),
    ),
    Mutant(
        JETS,
        "a.rate * b.value + a.value * b.rate",
        "a.rate * b.value",
        "half the product rule",
        (f"{TESTS}::test_jets_equal_forward_mode",),
    ),
    Mutant(
        BLOCKS,
        "if any(transformed(a) or tangent(a) is not None for a in (q, k, v)):",
        "if any(transformed(a) for a in (q, k, v)):",
        "dual tensors in the fused kernel, which has no forward mode",
        (f"{ATTENTION}::test_forward_mode_equals_jets_and_finite_differences",),
    ),
    Mutant(
        BLOCKS,
        "if any(transformed(a) or tangent(a) is not None for a in (q, k, v)):",
        "if any(tangent(a) is not None for a in (q, k, v)):",
        "a tangent below the outermost transform goes unseen",
        (f"{ATTENTION}::test_forward_over_reverse",),
    ),
    Mutant(
        BLOCKS,
        "if any(transformed(a) or tangent(a) is not None for a in (q, k, v)):",
        "if transformed(q) or tangent(q) is not None:",
        "the queries asked for all three",
        (f"{ATTENTION}::test_one_tangent_is_enough",),
    ),
    Mutant(
        BLOCKS,
        "if any(transformed(a) or tangent(a) is not None for a in (q, k, v)):",
        "if True:",
        "the fused kernel never used",
        (f"{ATTENTION}::test_the_fused_kernel_wherever_nothing_is_differentiated_forwards",),
    ),
    Mutant(
        BLOCKS,
        "weights = (scores - scores.amax(-1, keepdim=True).detach()).exp()\n"
        "    return (weights / weights.sum(-1, keepdim=True)) @ v",
        "return scores.softmax(-1) @ v",
        "a softmax whose tangent has no backward pass",
        (f"{ATTENTION}::test_gradients_of_the_rate",),
    ),
    Mutant(
        FORWARD,
        "return not torch.compiler.is_compiling() and torch.func.debug_unwrap(x) is not x",
        "return torch.func.debug_unwrap(x) is not x",
        "a question that torch.compile cannot trace",
        (f"{ATTENTION}::test_traced_without_breaks",),
    ),
    Mutant(
        NORM,
        "if torch.compiler.is_compiling() or transformed(x) or (dx := tangent(x)) is None:",
        "if torch.compiler.is_compiling() or (dx := tangent(x)) is None:",
        "an autograd function of our own inside transforms of torch.func",
        (f"{NORMS}::test_functional_transforms_are_left_to_torch",),
    ),
    Mutant(
        NORM,
        "q = (centred.rate - p * (p * centred.rate).mean(-1, keepdim=True)) * scale",
        "q = centred.rate * scale",
        "the deviation taken for a constant",
        (f"{NORMS}::test_jets_of_the_normalisation_equal_torch",),
    ),
    Mutant(
        CHOICE,
        "if self.blocks is not None:\n            return self.layers, self.blocks",
        "if self.blocks is not None:\n            return self.layers, 1",
        "blocks a level forgotten",
        (f"{TESTS}::test_multiresolution_by_height_or_by_blocks",),
    ),
    Mutant(
        CHOICE,
        "middle_groups=options.middle_groups if pooled else options.groups",
        "middle_groups=options.middle_groups",
        "the middle of a multi-resolution body with the output's groups",
        (f"{TESTS}::test_groups_of_the_middle",),
    ),
    Mutant(
        CHOICE,
        '_check_name("pooling", self.pooling, get_args(Pooling))',
        "pass",
        "a misspelt pooling taken for none of the three",
        (f"{TESTS}::test_impossible_networks_are_refused",),
    ),
    Mutant(
        CHOICE,
        "if self.blocks is not None and self.blocks < 1:",
        "if self.blocks is not None and self.blocks < 0:",
        "levels without blocks",
        (f"{TESTS}::test_impossible_networks_are_refused",),
    ),
    Mutant(
        BODIES,
        "common = math.gcd(*sides)",
        "common = max(sides)",
        "advice that fits one side only",
        (f"{SIZES}::test_impossible_sizes_name_options_that_fit",),
    ),
    Mutant(
        BODIES,
        "return (common & -common).bit_length() - 1",
        "return common.bit_length() - 1",
        "advice of halvings that are none",
        (f"{SIZES}::test_impossible_sizes_name_options_that_fit",),
    ),
    Mutant(
        HALVING,
        "fits = min(self.body.levels, halvings_of(*(side // patch for side in sides)))",
        "fits = self.body.levels - 1",
        "advice that fits some images",
        (f"{SIZES}::test_impossible_sizes_name_options_that_fit",),
    ),
    Mutant(
        HALVING,
        "            patch = 1\n",
        "            patch = self.patch\n",
        "patches kept where they do not fit",
        (f"{SIZES}::test_impossible_sizes_name_options_that_fit",),
    ),
    Mutant(
        BODIES,
        '(f"layers={fits}" if fits else',
        '(f"layers={self.levels - 1}" if fits else',
        "a layer less is not always enough",
        (f"{SIZES}::test_so_do_the_authors_networks",),
    ),
]
