"""Attention: its definition, forward mode by every way into it, the fused kernel elsewhere, no order of positions."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap

from diffenc_ct.networks import Jet
from diffenc_ct.networks.blocks import AttentionBlock, attention
from tests.networks.test_nets import difference
from tests.strategies import close, normal, randomise, seeds


def by_dual_level(f, x, dx):
    with forward_ad.dual_level():
        return tuple(forward_ad.unpack_dual(f(forward_ad.make_dual(x, dx))))


def alone(f):
    """f of one example without its batch."""
    return lambda example: f(example[None])[0]


# (f, x, dx) -> f(x) and the derivative along dx; examples do not see each other.
WAYS = {
    "dual level": by_dual_level,
    "jvp": lambda f, x, dx: jvp(f, (x,), (dx,)),
    "vmap(jvp)": lambda f, x, dx: vmap(lambda a, da: jvp(alone(f), (a,), (da,)))(x, dx),
    "jvp(vmap)": lambda f, x, dx: jvp(vmap(alone(f)), (x,), (dx,)),
}


def inputs(seed):
    block = randomise(AttentionBlock(4, groups=2), seed)
    return block, normal(seed, 2, 4, 2, 3), normal(seed + 1, 2, 4, 2, 3)


@pytest.mark.parametrize("way", WAYS)
@given(seed=seeds)
def test_forward_mode_equals_jets_and_finite_differences(way, seed):
    block, x, dx = inputs(seed)
    value, rate = WAYS[way](block, x, dx)
    jet = block(Jet(x, dx))
    close(value, block(x), 1e-12)
    close(value, jet.value, 1e-12)
    close(rate, jet.rate, 1e-12)
    along = difference(lambda s: block(x + s * dx), x.new_zeros(()), x.new_ones(()), step=1e-3)
    close(rate, along, 1e-7)


@pytest.mark.parametrize("way", WAYS)
def test_gradients_of_the_rate(way):
    """The backward pass through value and rate, to parameters, input and direction, equals that of jets."""
    block, x, dx = inputs(0)
    leaves = [x.requires_grad_(), dx.requires_grad_(), *block.parameters()]

    def gradients(value, rate):
        return torch.autograd.grad((value**3).sum() + (rate**2 * (1 + value)).sum(), leaves)

    jet = block(Jet(x, dx))
    expected = gradients(jet.value, jet.rate)
    assert expected[0].abs().max() > 1e-3
    for ours, theirs in zip(gradients(*WAYS[way](block, x, dx)), expected, strict=True):
        close(ours, theirs, 1e-10)


@given(seed=seeds)
def test_forward_over_reverse(seed):
    """H dx by jvp(grad(f)), where the tangent lies below the outermost transform, and by jets."""
    block, x, dx = inputs(seed)
    cotangent = normal(seed + 2, *x.shape)
    parameters = {name: p.detach() for name, p in block.named_parameters()}

    def f(a):
        return (cotangent * functional_call(block, parameters, (a,)) ** 2).sum()

    _, product = jvp(grad(f), (x,), (dx,))
    jet = block(Jet(x.requires_grad_(), dx))
    slope = (cotangent * 2 * jet.value * jet.rate).sum()
    close(product, torch.autograd.grad(slope, x)[0], 1e-10)


@given(
    seed=seeds,
    tokens=st.integers(1, 9),
    width=st.integers(1, 4),
    scale=st.sampled_from([1.0, 30.0]),
)
def test_attention_both_ways(seed, tokens, width, scale):
    """softmax(q k^T / sqrt c) v by its definition; the fused and the written-out way, values and gradients."""
    q, k, v = (scale * normal(seed + i, 2, tokens, width) for i in range(3))
    weights = torch.exp(q @ k.mT / width**0.5 - (q @ k.mT / width**0.5).amax(-1, keepdim=True))
    close(attention(q, k, v), weights / weights.sum(-1, keepdim=True) @ v, 1e-12)
    leaves = [a.requires_grad_() for a in (q, k, v)]
    cotangent = normal(seed + 3, 2, tokens, width)
    fused = attention(*leaves)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(a, torch.ones_like(a)) for a in leaves]
        written = forward_ad.unpack_dual(attention(*duals)).primal
    close(written, fused, 1e-12)
    expected = torch.autograd.grad(fused, leaves, cotangent)
    for a, b in zip(torch.autograd.grad(written, leaves, cotangent), expected, strict=True):
        close(a, b, 1e-11)


@pytest.mark.parametrize("which", range(3))
def test_one_tangent_is_enough(which):
    """Queries, keys and values may come from different places: one of them with a tangent makes it forward mode."""
    q, k, v = (normal(i, 2, 5, 3) for i in range(3))
    parts, tangent = [q, k, v], normal(3, 2, 5, 3)

    def f(a):
        return attention(*parts[:which], a, *parts[which + 1 :])

    _, expected = jvp(f, (parts[which],), (tangent,))
    close(by_dual_level(f, parts[which], tangent)[1], expected, 1e-12)
    close(expected, difference(lambda s: f(parts[which] + s * tangent), q.new_zeros(()), 1.0), 1e-7)


def test_the_fused_kernel_wherever_nothing_is_differentiated_forwards(monkeypatch):
    """Outside forward mode and for constants inside it; never for what has a tangent."""
    calls, fused = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a: calls.append(a) or fused(*a))
    block, x, dx = inputs(0)
    block(x)
    assert len(calls) == 1
    with forward_ad.dual_level():
        block(x)
        assert len(calls) == 2
        block(forward_ad.make_dual(x, dx))
    jvp(block, (x,), (dx,))
    assert len(calls) == 2


def test_traced_without_breaks(traceable):
    """One graph of torch.compile, value and gradients those of the eager block."""
    block, x, _ = inputs(0)
    traced = torch.compile(block, backend="aot_eager", fullgraph=True)
    results = []
    for function in (traced, block):
        y = function(x)
        results.append((y, *torch.autograd.grad((y**3).sum(), list(block.parameters()))))
    for ours, theirs in zip(*results, strict=True):
        close(ours, theirs, 1e-12)


@given(seed=seeds)
def test_attention_has_no_order(seed):
    """Permuting the positions permutes the output."""
    block, x, _ = inputs(seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))

    def shuffled(a):
        return a.flatten(2)[..., order].unflatten(2, (2, 3))

    close(block(shuffled(x)), shuffled(block(x)), 1e-12)
