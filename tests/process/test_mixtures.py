"""Products of mixtures: densities, draws and divergences against other libraries and brute force."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, MixtureSameFamily, Normal

from diffenc_ct.process import Components, Mixture, Mixtures, mixtures
from tests.strategies import close, generator, normal, seeds

F64 = torch.float64
# The trapezium rule, which errs by exp(-1/step) on smooth functions beside a Gaussian.
AT = torch.arange(-9.0, 9.0, 0.01, dtype=F64)
OF = 0.01 * torch.exp(-0.5 * AT**2) / math.sqrt(2 * math.pi)


def some_mixture(seed, *shape, components=3):
    """Random weights, means and deviations."""
    weights = normal(seed, *shape, components).log_softmax(-1)
    return Mixture(
        weights,
        normal(seed + 1, *shape, components),
        0.3 + normal(seed + 2, *shape, components).abs(),
    )


def product(seed, batch=2, values=3, components=3):
    """Random independent values with a gain an example, and their mixtures by hand."""
    m = some_mixture(seed, batch * values, components=components)
    d, variance = m.mean, m.std.square()
    centre, gain = normal(seed + 3, batch, values), normal(seed + 4, batch)
    std = 0.5 + normal(seed + 5, batch, 1).abs()
    law = Mixtures(
        lambda rows: Components(m.log_weights[rows], d[rows], variance[rows]),
        components,
        centre,
        gain,
        std,
    )
    each = gain.repeat_interleave(values)[:, None]
    width = std.expand(batch, values).flatten()[:, None]
    by_hand = MixtureSameFamily(
        Categorical(logits=m.log_weights),
        Normal(centre.flatten()[:, None] + each * d, (width**2 + each**2 * variance).sqrt()),
    )
    return law, by_hand


@given(seeds, st.sampled_from([(), (4,), (2, 3)]))
def test_density(seed, shape):
    m = some_mixture(seed, *shape)
    other = MixtureSameFamily(Categorical(logits=m.log_weights), Normal(m.mean, m.std))
    z = 3 * normal(seed + 7, *shape)
    close(m.log_prob(z), other.log_prob(z), 1e-12)


def test_a_draw_is_of_one_component_in_their_order():
    """The normal probability of `choice` says which, noise where in it."""
    m = Mixture(
        torch.tensor([0.2, 0.5, 0.3], dtype=F64).log(),
        torch.arange(3.0).double(),
        torch.full((1,), 0.01, dtype=F64),
    )
    choice = Normal(0.0, 1.0).icdf(torch.tensor([0.0, 0.19, 0.21, 0.69, 0.71, 1.0]).double())
    every = Mixture(*(v.expand(6, -1) for v in (m.log_weights, m.mean, m.std)))
    noise = torch.full((6,), 2.0, dtype=F64)
    close(every.draw(choice, noise), torch.tensor([0, 0, 1, 1, 2, 2]).double() + 0.02, 1e-12)


@given(seeds)
@settings(max_examples=5)
def test_a_product_of_values(seed):
    """Each example has its gain, each value its centre, and the variance of x adds to that of the step."""
    law, by_hand = product(seed)
    z = normal(seed + 9, 2, 3)
    close(law.log_prob(z), by_hand.log_prob(z.flatten()).view(2, 3).sum(1), 1e-12)
    whole = law.mixture(slice(None))
    close(whole.log_prob(z.flatten()), by_hand.log_prob(z.flatten()), 1e-12)
    choice, noise = normal(seed + 10, 2, 3), normal(seed + 11, 2, 3)
    drawn = law.sample(choice=choice, noise=noise)
    close(drawn.flatten(), whole.draw(choice.flatten(), noise.flatten()), 1e-12)


@given(seeds)
@settings(max_examples=5)
def test_draws_have_the_mixtures_moments(seed):
    one, n = some_mixture(seed), 20_000
    every = Mixture(*(v.expand(n, -1) for v in (one.log_weights, one.mean, one.std)))
    drawn = every.draw(normal(seed + 5, n), normal(seed + 6, n))
    law = MixtureSameFamily(Categorical(logits=one.log_weights), Normal(one.mean, one.std))
    off = drawn - law.mean
    assert off.mean().abs() < 5 * (law.variance / n).sqrt()
    assert (off.square().mean() - law.variance).abs() < 5 * off.square().std() / n**0.5


@given(seeds)
@settings(max_examples=5)
def test_divergence(seed):
    """By the trapezium rule; by quadrature; and the mean of single draws, which is an integral of them."""
    law, by_hand = product(seed)
    log_p = by_hand.log_prob(AT[:, None])
    expected = (
        ((Normal(0.0, 1.0).log_prob(AT)[:, None] - log_p) * OF[:, None]).sum(0).view(2, 3).sum(1)
    )
    close(law.divergence(nodes=80), expected, 1e-6)
    draws = torch.stack(
        [law.divergence(noise=torch.full((2, 3), float(e)).double()) for e in AT[::10]]
    )
    close((10 * OF[::10, None] * draws).sum(0), expected, 1e-9)


def test_a_standard_normal_costs_nothing():
    zero = torch.zeros(6, 1, dtype=F64)
    law = Mixtures(
        lambda rows: Components(zero[rows], zero[rows], zero[rows]), 1,
        torch.zeros(2, 3, dtype=F64), torch.ones(2, dtype=F64), torch.ones((), dtype=F64),
    )  # fmt: skip
    close(law.divergence(nodes=4), torch.zeros(2, dtype=F64), 1e-12)
    close(law.divergence(noise=normal(0, 2, 3)), torch.zeros(2, dtype=F64), 1e-12)


@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_chunks_change_nothing(monkeypatch, chunk):
    """However few values are looked at together; never more than fit."""
    law, _ = product(3)
    z = normal(1, 2, 3)
    whole = law.log_prob(z), law.divergence(nodes=5), law.sample(generator(0))
    monkeypatch.setattr(mixtures, "_CHUNK", {"cpu": chunk})
    parts = law.log_prob(z), law.divergence(nodes=5), law.sample(generator(0))
    for one, other in zip(whole, parts, strict=True):
        close(one, other, 1e-12)
    sizes = [len(m.mean) for _, m in law.chunks(places=5)]
    assert sum(sizes) == 6 and max(sizes) == max(1, chunk // 15)
