"""Networks: shapes, starting points, derivatives, equivariance, dropout."""

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import forward_ad

from diffenc_ct.encoders import with_rate
from diffenc_ct.networks import MLP, EncoderUNet, ScoreUNet, VectorNetwork
from diffenc_ct.networks.blocks import (
    AttentionBlock,
    DepthEmbedding,
    ResnetBlock,
    fourier_features,
    group_norm,
)
from diffenc_ct.networks.bodies import multiresolution_levels
from tests.strategies import close, normal, randomise, seeds

F64 = torch.float64
BODIES = {
    "flat": {"body": "flat"},
    "flat with attention": {"body": "flat", "attention": True},
    "pooled": {"body": "pooled", "doubling": True},
    "pooled by convolution": {"body": "pooled", "pooling": "convolution"},
    "unpooled": {"body": "pooled", "pooling": "none", "doubling": True},
    "multiresolution": {"body": "multiresolution", "layers": 4, "height": 4},
}
SMALL = {"width": 8, "layers": 1, "groups": 2, "block_groups": 4, "dropout": 0.0}


def unet(kind, body, channels=1, **options):
    return kind(channels, **SMALL | BODIES[body] | options)


NETWORKS = {
    **{f"score, {body}": functools.partial(unet, ScoreUNet, body) for body in BODIES},
    **{f"encoder, {body}": functools.partial(unet, EncoderUNet, body) for body in BODIES},
    "score, no Fourier features": functools.partial(unet, ScoreUNet, "flat", fourier=False),
    "score, paired": functools.partial(unet, ScoreUNet, "flat", out_channels=2),
    "encoder, damped and scaled": functools.partial(
        unet, EncoderUNet, "pooled", damping=frozenset({"start", "end"}), scale=0.5
    ),
    "encoder, unbounded": functools.partial(unet, EncoderUNet, "pooled", bounded=False),
    "vector": lambda: VectorNetwork((1, 4, 4), width=4),
}
networks = pytest.mark.parametrize("name", NETWORKS)


def network(name, seed=0, scale=0.2):
    return randomise(NETWORKS[name](), seed, scale).eval()


def inputs(seed, batch=2, channels=1, height=4, width=4):
    return normal(seed, batch, channels, height, width), torch.linspace(-9.0, 2.0, batch, dtype=F64)


@given(
    body=st.sampled_from(list(BODIES)),
    channels=st.integers(1, 3),
    batch=st.integers(1, 3),
    sides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    multiple=st.integers(1, 2),
    dtype=st.sampled_from([torch.float32, F64]),
)
def test_shapes_and_untrained_networks(body, channels, batch, sides, multiple, dtype):
    """An untrained score network returns z (0 for a second half), an untrained encoder 0, at any size."""
    z = torch.randn(batch, channels, 4 * sides[0], 4 * sides[1], dtype=dtype)
    gamma = torch.linspace(-13, 4, batch, dtype=dtype)
    score = unet(ScoreUNet, body, channels, out_channels=multiple * channels).to(dtype)
    expected = torch.cat([z] + [torch.zeros_like(z)] * (multiple - 1), dim=1)
    assert torch.equal(score(z, gamma), expected)
    assert torch.equal(unet(EncoderUNet, body, channels).to(dtype)(z, gamma), torch.zeros_like(z))
    flat = z.flatten(1)
    mlp = MLP(flat.shape[1], width=5, outputs=multiple * flat.shape[1]).to(dtype)
    assert torch.equal(mlp(flat, gamma), flat.new_zeros(batch, multiple * flat.shape[1]))


def difference(function, at, along, step=1e-6):
    """Central differences of order four; a small step, since max pooling has kinks."""
    near = function(at + step * along) - function(at - step * along)
    far = function(at + 2 * step * along) - function(at - 2 * step * along)
    return (8 * near - far) / (12 * step)


@networks
def test_forward_mode_equals_finite_differences(name):
    """The derivative along (dz, dgamma), and the value under forward mode, which takes other ways inside."""
    net = network(name)
    (z, gamma), (dz, dgamma) = inputs(1), inputs(2)
    if "Fourier" not in name and not name.startswith("encoder"):
        dz = dz / 100  # the Fourier features turn by 2 pi 2^7 a unit of z
    outside = net(z, gamma)
    with forward_ad.dual_level():
        dual = net(forward_ad.make_dual(z, dz), forward_ad.make_dual(gamma, dgamma))
        value, rate = forward_ad.unpack_dual(dual)
    close(value, outside, 1e-12)
    line = difference(
        lambda s: net(z + s * dz, gamma + s * dgamma), z.new_zeros(()), z.new_ones(())
    )
    assert rate.abs().max() > 1e-3
    close(rate, line, 1e-7)


@networks
def test_gradient_of_the_rate(name):
    """A loss of value and rate has the gradient that differences of it say: training goes through the rate."""
    net = network(name)
    z, gamma = inputs(3)

    def loss():
        with forward_ad.dual_level():
            dual = net(z, forward_ad.make_dual(gamma, torch.ones_like(gamma)))
            value, rate = forward_ad.unpack_dual(dual)
        return (value**2).sum() + (value * rate).sum()

    parameters = list(net.parameters())
    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
    directions = [normal(i, *p.shape) for i, p in enumerate(parameters)]
    along = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)
    start = [p.detach().clone() for p in parameters]

    def moved(s):
        with torch.no_grad():
            for p, p0, d in zip(parameters, start, directions, strict=True):
                p.copy_(p0 + s * d)
        return loss().detach()

    close(along.detach(), difference(moved, z.new_zeros(()), z.new_ones(())), 2e-6)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name.startswith("encoder")])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_jets_equal_forward_mode(name, dropout):
    """Value, rate and gradients of both (gamma's, too), with and without dropout."""
    net = randomise(NETWORKS[name](dropout=dropout), 0, 0.2).train()
    z, gamma = inputs(4)
    gamma.requires_grad_()

    def differentiate(function):
        torch.manual_seed(0)
        y = with_rate(function, z, gamma)
        loss = (y.value**3).sum() + (y.rate**2 * (1 + y.value)).sum()
        return y.value, y.rate, *torch.autograd.grad(loss, (gamma, *net.parameters()))

    carried = differentiate(net)
    assert carried[1].abs().max() > 1e-3
    for ours, torchs in zip(carried, differentiate(lambda x, g: net(x, g)), strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-7, atol=1e-10)


@networks
@given(seed=seeds, order=st.permutations(range(3)))
def test_permuted_batch(name, seed, order):
    """Examples do not see each other."""
    net, (z, gamma) = network(name, seed), inputs(seed, batch=3)
    with torch.no_grad():
        close(net(z[order], gamma[order]), net(z, gamma)[order], 1e-12)


@given(seed=seeds, start=st.integers(0, 6), octaves=st.integers(1, 3), channels=st.integers(1, 3))
def test_fourier_features(seed, start, octaves, channels):
    """sin, then cos, of 2 pi 2^k x: channel by channel, octave by octave; a period of x for every one."""
    x = normal(seed, 2, channels, 3)
    features = fourier_features(x, start, start + octaves)
    for trig, block in zip((torch.sin, torch.cos), features.chunk(2, dim=1), strict=True):
        for c in range(channels):
            for k in range(octaves):
                close(
                    block[:, c * octaves + k], trig(2 * torch.pi * 2 ** (start + k) * x[:, c]), 1e-9
                )
    close(fourier_features(x + 1, start, start + octaves), features, 1e-9)


@given(st.integers(4, 9), st.floats(-15, 8))
def test_depth_embedding(width, gamma):
    """Sinusoids of 1000 u with frequencies from 1 down to 1/10000, then a zero (two for odd widths)."""
    embed, half, seen = DepthEmbedding(width, (-13.3, 5.0)).double(), width // 2, []
    embed.dense0.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    embed(torch.tensor([gamma], dtype=F64))
    u = 1000 * (gamma + 13.3) / 18.3
    phases = torch.tensor([u * 1e-4 ** (k / (half - 1)) for k in range(half)], dtype=F64)
    expected = torch.cat([phases.sin(), phases.cos(), torch.zeros(width + 1 - 2 * half, dtype=F64)])
    close(seen[0][0], expected, 1e-10)


@given(seeds, st.integers(1, 3))
def test_residual_blocks_start_as_the_identity(seed, width):
    """Residual and attention blocks add nothing before training."""
    x, condition = normal(seed, 2, width, 3, 3), normal(seed, 2, 5)
    block = ResnetBlock(width, width, 5, groups=1, dropout=0.0).double()
    assert torch.equal(block(x, condition), x)
    assert torch.equal(AttentionBlock(width, groups=1).double()(x), x)


@given(seeds, st.sampled_from(["start", "end"]))
def test_damping_ties_an_end_down(seed, end):
    """y vanishes at gamma_min or gamma_max, and is bounded by `scale` elsewhere."""
    net = randomise(unet(EncoderUNet, "pooled", damping=frozenset({end}), scale=0.5), seed, 0.5)
    x = normal(seed, 2, 1, 4, 4)
    y = net(x, torch.tensor([-13.3, 5.0], dtype=F64)).abs().amax((1, 2, 3))
    tied, free = (y[0], y[1]) if end == "start" else (y[1], y[0])
    assert tied < 1e-12 and 0 < free <= 0.5


@given(st.integers(1, 8), st.sampled_from([8, 12, 16, 20, 24, 28, 32, 40, 56, 64]))
def test_multiresolution_levels(layers, height):
    """Levels halve evenly until the height is odd or at most 8, and the blocks are shared out evenly."""
    levels, blocks = multiresolution_levels(layers, height)
    heights = [height // 2**i for i in range(levels + 1)]
    assert all(h % 2 == 0 and h > 8 for h in heights[1:levels])
    assert levels == layers or heights[levels] % 2 == 1 or heights[levels] <= 8
    assert blocks == (1 if levels == layers else layers // levels)


def test_multiresolution_by_height_or_by_blocks():
    by_height = EncoderUNet(1, **SMALL | {"body": "multiresolution", "layers": 5, "height": 28})
    by_blocks = EncoderUNet(1, **SMALL | {"body": "multiresolution", "layers": 2, "blocks": 2})
    assert str(by_height) == str(by_blocks)


@pytest.mark.parametrize("kind", [ScoreUNet, EncoderUNet])
@pytest.mark.parametrize("body", BODIES)
def test_groups_of_the_middle(kind, body):
    """The output's in a pooled body, the blocks' in the others, as the authors have it; attention has the blocks'."""
    net = unet(kind, body)
    middle = net.body.middle
    expected = SMALL["groups"] if BODIES[body]["body"] == "pooled" else SMALL["block_groups"]
    assert {middle.block1.norm1.num_groups, middle.block2.norm2.num_groups} == {expected}
    assert middle.attention.norm.num_groups == SMALL["block_groups"]
    assert net.norm_out.num_groups == SMALL["groups"]


@networks
def test_dropout_in_training_only(name):
    if name == "vector":
        pytest.skip("no dropout in it")
    net = NETWORKS[name](dropout=0.5).double()
    randomise(net, 0, 0.3)
    (z, gamma), rng = inputs(0), torch.get_rng_state()
    with torch.no_grad():
        evaluated = [net.eval()(z, gamma) for _ in range(2)]
        assert torch.equal(torch.get_rng_state(), rng) and torch.equal(*evaluated)
        trained = [net.train()(z, gamma) for _ in range(2)]
    assert not torch.equal(*trained)


@given(groups=st.integers(1, 8), channels=st.integers(1, 16))
def test_groups_must_divide(groups, channels):
    if channels % groups == 0:
        assert group_norm(groups, channels).eps == 1e-6
        return
    with pytest.raises(ValueError, match=f"groups={groups} does not divide {channels}"):
        group_norm(groups, channels)


@pytest.mark.parametrize("kind", [ScoreUNet, EncoderUNet])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 3}, "groups=3"),
        ({"block_groups": 3}, "groups=3"),
        ({"layers": 0}, "layers=0"),
        ({"body": "round"}, "round"),
        ({"pooling": "min"}, "min"),
        ({"body": "multiresolution", "blocks": 0}, "blocks"),
        ({"body": "multiresolution"}, "height"),
        ({"width": 2, "groups": 1, "block_groups": 1}, "width=2"),
    ],
)
def test_impossible_networks_are_refused(unchecked, kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(1, **SMALL | options)


def test_impossible_sizes_are_refused():
    net = unet(EncoderUNet, "pooled", layers=2)
    with pytest.raises(ValueError, match="multiples of 4"):
        net(torch.zeros(1, 1, 6, 8), torch.zeros(1))
    with pytest.raises(ValueError, match="out_channels=3"):
        ScoreUNet(2, **SMALL, out_channels=3)
