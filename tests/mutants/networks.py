"""Mutants of nets."""

from tests.mutants import Mutant

BLOCKS, BODIES, UNETS = (f"diffenc_ct/networks/{name}.py" for name in ("blocks", "bodies", "unets"))
TESTS = "tests/networks/test_nets.py"

MUTANTS = [
    Mutant(
        BLOCKS,
        "scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])",
        "scores = q @ k.transpose(1, 2) / q.shape[-1]",
        "another scale of attention under forward mode",
        (f"{TESTS}::test_attention_both_ways",),
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
        "self.conv2 = zero_(nn.Conv2d(",
        "self.conv2 = lecun_(nn.Conv2d(",
        "residual blocks that do not start as the identity",
        (f"{TESTS}::test_residual_blocks_start_as_the_identity",),
    ),
    Mutant(
        UNETS,
        "self.conv_out = zero_(nn.Conv2d(width, out_channels, 3, padding=1))",
        "self.conv_out = lecun_(nn.Conv2d(width, out_channels, 3, padding=1))",
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
        "y = y * (1 - u)",
        "y = y * u",
        "damped at the wrong end",
        (f"{TESTS}::test_damping_ties_an_end_down",),
    ),
    Mutant(
        "diffenc_ct/networks/jets.py",
        "gate * (1 + self.value * (1 - gate)) * self.rate",
        "gate * (1 + self.value) * self.rate",
        "a slope of swish half right",
        ("tests/networks/test_nets.py::test_jets_equal_forward_mode",),
    ),
    Mutant(
        "diffenc_ct/networks/jets.py",
        "return Jet(layer(h.value), _linear_part(layer, h.rate))",
        "return Jet(layer(h.value), layer(h.rate))",
        "a bias in the derivative",
        ("tests/networks/test_nets.py::test_jets_equal_forward_mode",),
    ),
    Mutant(
        "diffenc_ct/networks/jets.py",
        "return h.each(lambda a: a * mask)",
        "return h.each(layer)",
        "other units dropped from the derivative than from the value",
        ("tests/networks/test_nets.py::test_jets_equal_forward_mode",),
    ),
]
