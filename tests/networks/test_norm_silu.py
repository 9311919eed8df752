"""silu(group_norm(x)) under forward mode: equal to PyTorch's own, value, tangent and gradients of both."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import forward_ad
from torch.func import grad, jvp, vmap

from diffenc_ct.networks import Jet
from diffenc_ct.networks.norm_silu import _NormSilu, norm, norm_silu


def plain(norm, x):
    return F.silu(norm(x))


def differentiate(function, norm, x, dx):
    """Value, tangent, and the gradients of a nonlinear loss of both."""
    with forward_ad.dual_level():
        y, dy = forward_ad.unpack_dual(function(norm, forward_ad.make_dual(x, dx)))
    loss = (y**3).sum() + (dy**2 * (1 + y)).sum()
    return y, dy, *torch.autograd.grad(loss, (x, dx, norm.weight, norm.bias))


@settings(max_examples=20, deadline=None)
@given(
    groups=st.integers(1, 3),
    width=st.integers(1, 3),
    batch=st.integers(1, 3),
    sides=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    seed=st.integers(0, 2**16),
)
def test_equals_torch(groups, width, batch, sides, seed):
    torch.manual_seed(seed)
    channels = groups * width
    norm = nn.GroupNorm(groups, channels, eps=1e-6).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    # Two values a group at least: a single one has no deviation to speak of.
    sides = [*sides, 2]
    x = torch.randn(batch, channels, *sides, dtype=torch.float64, requires_grad=True)
    dx = torch.randn_like(x, requires_grad=True)
    for ours, theirs in zip(
        differentiate(norm_silu, norm, x, dx), differentiate(plain, norm, x, dx), strict=True
    ):
        torch.testing.assert_close(
            ours, theirs, rtol=1e-7, atol=1e-7 * float(theirs.detach().abs().max())
        )


def test_gradients_by_finite_differences():
    torch.manual_seed(0)
    x, dx = (torch.randn(2, 6, 3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight, bias = (torch.randn(6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda *a: _NormSilu.apply(*a, 2, 1e-6), (x, dx, weight, bias))


def test_plain_tensors_and_missing_tangents_take_the_ordinary_path():
    norm, x = nn.GroupNorm(2, 4), torch.randn(2, 4, 3, 3)
    assert torch.equal(norm_silu(norm, x), plain(norm, x))
    with forward_ad.dual_level():
        assert torch.equal(norm_silu(norm, x), plain(norm, x))


@pytest.mark.parametrize("way", ["jvp", "vmap(jvp)", "jvp(vmap)", "jvp(grad)"])
def test_functional_transforms_are_left_to_torch(way):
    norm, x = nn.GroupNorm(2, 4).double(), torch.randn(2, 4, 3, 3, dtype=torch.float64)
    dx = torch.randn_like(x)

    def derivative(function):
        def f(v):
            return function(norm, v)

        def alone(v):
            return f(v[None])[0]

        if way == "vmap(jvp)":
            return vmap(lambda v, dv: jvp(alone, (v,), (dv,)))(x, dx)[1]
        transformed = {"jvp": f, "jvp(vmap)": vmap(alone), "jvp(grad)": grad(lambda v: f(v).sum())}
        return jvp(transformed[way], (x,), (dx,))[1]

    torch.testing.assert_close(derivative(norm_silu), derivative(plain))


def test_jets_of_the_normalisation_equal_torch():
    """norm(jet) and norm_silu(jet), a rate that broadcasts included, are PyTorch's forward mode."""
    layer = nn.GroupNorm(2, 4).double()
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    rate = torch.randn(2, 4, 1, 1, dtype=torch.float64)
    for ours, theirs in ((norm, layer), (norm_silu, lambda v: plain(layer, v))):
        jet = ours(layer, Jet(x, rate))
        value, derivative = jvp(theirs, (x,), (rate.expand_as(x),))
        torch.testing.assert_close(jet.value, value)
        torch.testing.assert_close(jet.rate, derivative)


def test_traced_without_breaks(traceable):
    layer, x = nn.GroupNorm(2, 4).double(), torch.randn(2, 4, 3, dtype=torch.float64)
    traced = torch.compile(norm_silu, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(traced(layer, x), plain(layer, x))
    jet, expected = traced(layer, Jet(x, x)), norm_silu(layer, Jet(x, x))
    torch.testing.assert_close((jet.value, jet.rate), (expected.value, expected.rate))


def test_second_derivatives_are_refused_rather_than_wrong():
    norm, x = (
        nn.GroupNorm(2, 4).double(),
        torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True),
    )
    with forward_ad.dual_level():
        dy = forward_ad.unpack_dual(
            norm_silu(norm, forward_ad.make_dual(x, torch.ones_like(x)))
        ).tangent
    (grad,) = torch.autograd.grad(dy.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(grad.sum(), x)
