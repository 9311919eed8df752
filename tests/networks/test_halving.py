"""The halving U-Net: silent at first, exact derivatives, patches, what it refuses."""

import itertools
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad

import diffenc_ct as dc
from diffenc_ct.encoders import with_rate
from diffenc_ct.networks import EncoderUNet, Jet, ScoreUNet, UNet
from tests.conformance import check_encoder
from tests.strategies import close, normal, randomise, seeds

F64 = torch.float64
OPTIONS = {
    "plain": {"features": False},
    "patches": {"features": False, "patch": 2, "halvings": 1},
    "bounded": {"features": False, "bounded": True, "blocks": 2},
    "features": {"halvings": 1, "doubling": False},
}
options = pytest.mark.parametrize("name", OPTIONS)


def network(name, seed=0, channels=1, **more):
    given_ = {"width": 8, "halvings": 1} | OPTIONS[name] | more
    return randomise(UNet(channels, **given_), seed, 0.2).eval()


def inputs(seed, batch=2, channels=1, side=4):
    return normal(seed, batch, channels, side, side), torch.linspace(-9.0, 2.0, batch, dtype=F64)


@given(
    channels=st.integers(1, 3),
    multiple=st.integers(1, 3),
    halvings=st.integers(1, 2),
    patch=st.integers(1, 2),
    sides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    features=st.booleans(),
    bounded=st.booleans(),
    dtype=st.sampled_from([torch.float32, F64]),
)
def test_an_untrained_network_is_zero(
    channels, multiple, halvings, patch, sides, features, bounded, dtype
):
    """At any size that can be halved, of any number of outputs."""
    unit = patch * 2**halvings
    z = torch.randn(2, channels, unit * sides[0], unit * sides[1], dtype=dtype)
    given_ = {"width": 8, "halvings": halvings, "patch": patch, "features": features}
    net = UNet(channels, out_channels=multiple * channels, bounded=bounded, **given_).to(dtype)
    out = net(z, torch.tensor([-13.0, 4.0], dtype=dtype))
    assert out.shape == (2, multiple * channels, *z.shape[2:]) and out.dtype == dtype
    assert not out.any()


@options
def test_forward_mode_and_jets_equal_finite_differences(name):
    net, (z, gamma) = network(name), inputs(1)
    dz, dgamma = normal(2, *z.shape) / 100, torch.tensor([0.7, -0.4], dtype=F64)

    def along(step):
        return net(z + step * dz, gamma + step * dgamma)

    step = 1e-4
    line = (8 * (along(step) - along(-step)) - along(2 * step) + along(-2 * step)) / (12 * step)
    with forward_ad.dual_level():
        dual = net(forward_ad.make_dual(z, dz), forward_ad.make_dual(gamma, dgamma))
        value, rate = forward_ad.unpack_dual(dual)
    close(value, net(z, gamma), 1e-12)
    assert rate.abs().max() > 1e-3
    close(rate, line, 1e-7)
    by_func = torch.func.jvp(net, (z, gamma), (dz, dgamma))[1]
    close(by_func, rate, 1e-10)


@options
def test_the_rate_along_gamma(name):
    """Jets where they are taken, forward mode where not; gradients of both, as training an encoder asks for."""
    net, (z, gamma) = network(name), inputs(3)
    assert net.takes_jets == (name != "features")
    found = []
    for function in (net, lambda z, gamma: net(z, gamma)):
        y = with_rate(function, z, gamma)
        loss = (y.value**3).sum() + (y.rate**2 * (1 + y.value)).sum()
        found.append((y.value, y.rate, *torch.autograd.grad(loss, list(net.parameters()))))
    value, rate = torch.func.jvp(lambda gamma: net(z, gamma), (gamma,), (-torch.ones_like(gamma),))
    found.append((value, rate))
    assert rate.abs().max() > 1e-3
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=False):
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)


@options
@pytest.mark.parametrize("kind", [dc.ResidualEncoder, dc.TrainableEncoder])
def test_as_an_encoders_network(name, kind):
    x, _ = inputs(5, batch=2)
    check_encoder(kind(network(name, bounded=True)), x, gammas=(-9.0, -0.5, 3.0), step=0.01)


@options
@settings(max_examples=4)
@given(seed=seeds, order=st.permutations(range(3)))
def test_permuted_batch(name, seed, order):
    net, (z, gamma) = network(name, seed), inputs(seed, batch=3)
    with torch.no_grad():
        close(net(z[order], gamma[order]), net(z, gamma)[order], 1e-12)


@settings(max_examples=6)
@given(seeds)
def test_bounded_outputs_stay_in_the_unit_interval(seed):
    net, (z, gamma) = network("bounded", seed), inputs(seed)
    with torch.no_grad():
        net.conv_out.weight.mul_(20)
        bounded = net(z, gamma)
        net.bounded = False
        free = net(z, gamma)
    assert free.abs().max() > 1
    close(bounded, free.tanh())
    assert bounded.abs().max() <= 1


def test_patches_are_positions():
    """Pixels (2i + a, 2j + b) are the channels 2a + b of position (i, j), and go back there."""
    net, (z, gamma) = network("patches"), inputs(7)
    plain = UNet(4, width=8, halvings=1, features=False).double()
    plain.load_state_dict(net.state_dict())
    grouped = plain(torch.nn.functional.pixel_unshuffle(z, 2), gamma)
    out = net(z, gamma)
    for a, b in itertools.product(range(2), range(2)):
        close(out[:, 0, a::2, b::2], grouped[:, 2 * a + b])
    jet = net(z, Jet(gamma, torch.ones_like(gamma)))
    rates = plain(
        torch.nn.functional.pixel_unshuffle(z, 2), Jet(gamma, torch.ones_like(gamma))
    ).rate
    close(jet.rate[:, 0, 1::2, 0::2], rates[:, 2])


def test_colours_keep_their_places():
    """(batch, outputs channels, ...) with patches: the first output's colours first, for each pixel."""
    z, gamma = inputs(8, channels=3, side=4)
    net = network("patches", channels=3, out_channels=6)
    with torch.no_grad():
        net.conv_out.weight.zero_()
        net.conv_out.bias.copy_(torch.arange(6.0).repeat_interleave(4))
    out = net(z, gamma)
    close(out, torch.arange(6, dtype=F64).view(1, 6, 1, 1).expand(2, 6, 4, 4))


@pytest.mark.parametrize("width", [8, 16, 24])
def test_the_depth_is_seen(width):
    """At every width, the smallest too: norms of single channels would take away what is added to whole ones."""
    net, (z, _) = network("plain", width=width), inputs(6)
    apart = net(z, torch.tensor([-9.0, 2.0], dtype=F64)) - net(z, torch.full((2,), 2.0, dtype=F64))
    assert apart[0].abs().max() > 1e-2 and not apart[1].any()


def test_the_whole_image_is_seen():
    """A change of one corner reaches the opposite one."""
    net, (z, gamma) = network("plain", halvings=2), inputs(9, batch=1, side=16)
    moved = z.clone()
    moved[0, 0, 0, 0] += 1
    assert (net(moved, gamma) - net(z, gamma))[0, 0, -1, -1].abs() > 1e-8


def test_dropout_in_training_only():
    net, (z, gamma) = network("plain", dropout=0.5), inputs(0)
    with torch.no_grad():
        assert torch.equal(*(net.eval()(z, gamma) for _ in range(2)))
        assert not torch.equal(*(net.train()(z, gamma) for _ in range(2)))


def test_features_show_what_they_are_of():
    """z and its features beside it, at the scale of the levels."""
    from diffenc_ct.networks.features import noise_aware_features

    seen, (z, _) = [], inputs(4, channels=2)
    gamma = torch.tensor([-12.0, -8.0], dtype=F64)
    net = network("features", channels=2, levels=16)
    net.conv_in.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    net(z, gamma)
    octaves = (0, 7.5, 0.5)
    close(seen[0], torch.cat([z, noise_aware_features(z, gamma, octaves, 16 / 256)], 1))
    assert seen[0].shape[1] == 2 * (1 + 2 * 15)
    assert UNet(1, width=8, levels=None).scale == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 14}, "width=14"),
        ({"width": 0}, "width=0"),
        ({"halvings": 0}, "halvings=0"),
        ({"blocks": 0}, "blocks=0"),
        ({"patch": 0}, "patch=0"),
    ],
)
def test_impossible_networks_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UNet(1, **options)


side = st.integers(1, 24)


@given(side, side, st.integers(1, 3), st.sampled_from([1, 2, 3, 4]))
def test_impossible_sizes_name_options_that_fit(height, width, halvings, patch):
    """The first remedy is one, whatever the sides; where there is none, another network takes them."""
    z, gamma, unit = torch.zeros(1, 1, height, width), torch.zeros(1), patch * 2**halvings
    net = UNet(1, width=8, halvings=halvings, patch=patch)
    if height % unit == 0 and width % unit == 0:
        assert net(z, gamma).shape == z.shape
        return
    with pytest.raises(ValueError, match=f"images of {height}x{width}") as error:
        net(z, gamma)
    said = str(error.value)
    if height % 2 or width % 2:
        assert "crop or pad" in said and "score-unet" in said and "body=flat" in said
        groups = {"groups": 4, "block_groups": 4}
        assert ScoreUNet(1, width=8, layers=1, **groups)(z, gamma).shape == z.shape
        flat = EncoderUNet(1, width=8, layers=1, body="flat", **groups)
        assert flat(z, gamma).shape == z.shape
        return
    assert f"multiples of patch 2^halvings = {unit}" in said
    found = {name: int(value) for name, value in re.findall(r"(halvings|patch)=(\d)", said)}
    options = {"halvings": halvings, "patch": patch} | found
    assert options != {"halvings": halvings, "patch": patch} and options["halvings"] <= halvings
    assert UNet(1, width=8, **options)(z, gamma).shape == z.shape


@given(side, side, st.sampled_from(["pooled", "multiresolution"]))
def test_so_do_the_authors_networks(height, width, body):
    z, gamma = torch.zeros(1, 1, height, width), torch.zeros(1)
    options = {"body": body, "width": 8, "groups": 4, "block_groups": 4, "doubling": False}
    net = EncoderUNet(1, layers=3, height=height, **options)
    try:
        assert net(z, gamma).shape == z.shape
    except ValueError as error:
        said = str(error)
    else:
        return
    assert f"images of {height}x{width} cannot be halved" in said
    found = re.search(r"give the network (layers=(\d)|body=flat)", said)
    assert found is not None and (found[2] is None) == bool(height % 2 or width % 2)
    fitting = options | ({"layers": int(found[2])} if found[2] else {"body": "flat", "layers": 1})
    assert EncoderUNet(1, height=height, **fitting)(z, gamma).shape == z.shape
