"""The decoder p(x | z_0) and the scaling of data, against the full softmax."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.schedules import alpha
from tests.strategies import (
    SHAPES,
    RandomNetwork,
    close,
    generator,
    levels,
    normal,
    seed_of,
    seeded,
    seeds,
    shapes,
)

F64 = torch.float64


def model(levels):
    return dc.DiffEnc(
        dc.LinearSchedule(), dc.IdentityEncoder(), RandomNetwork((1,), 0), levels=levels
    )


def centres(levels):
    """x_k = 2 (k + 1/2)/V - 1."""
    return torch.tensor([2 * (k + 0.5) / levels - 1 for k in range(levels)], dtype=F64)


def full_softmax(z_0, gamma_0, levels):
    """log p(k | z_0) of every level: (*shape, V)."""
    u = z_0 / torch.sqrt(torch.sigmoid(-gamma_0))
    return (-((u[..., None] - centres(levels)) ** 2) / (2 * torch.exp(gamma_0))).log_softmax(-1)


@seeded
def decodings(pick):
    """levels, x, gamma_0 and a z_0 that lies near the data, far from them, or beyond the range."""
    V, shape, seed = pick.choice([2, 3, 17, 256]), pick.choice(SHAPES), seed_of(pick)
    gamma_0 = torch.tensor(pick.uniform(-16, 2), dtype=F64)
    x = torch.randint(0, V, (3, *shape), generator=generator(seed))
    spread = pick.choice([math.exp(float(gamma_0) / 2), 0.3, 2.0])
    z_0 = alpha(gamma_0) * (centres(V)[x] + spread * normal(seed, 3, *shape))
    return V, x, z_0, gamma_0


@given(decodings())
def test_the_banded_sum_is_the_full_softmax(case):
    V, x, z_0, gamma_0 = case
    full = full_softmax(z_0, gamma_0, V).gather(-1, x[..., None]).squeeze(-1).flatten(1).sum(1)
    close(model(V).decode_log_prob(x, z_0, gamma_0), full, 1e-9)


@pytest.mark.parametrize("V, value", [(256, -13.3), (256, -9.0), (17, 2.0)])
def test_the_band_is_as_narrow_as_it_can_be(V, value):
    """The first k with k (k - 1) h^2 / (2 exp(gamma_0)) >= 45 on both sides, h = 2/V; at most all levels."""
    h2, k = (2 / V) ** 2, 1
    while k * (k - 1) * h2 / (2 * math.exp(value)) < 45 and k < V:
        k += 1
    gamma_0 = torch.tensor(value, dtype=F64)
    assert model(V)._nearby(torch.zeros(2, 1, dtype=F64), gamma_0).shape == (2, 1, 2 * k + 1)


@given(decodings())
def test_probabilities_of_all_levels_sum_to_one(case):
    V, _, z_0, gamma_0 = case
    u = z_0.flatten()[:2, None]
    each = [model(V).decode_log_prob(torch.full((2, 1), k), u, gamma_0).exp() for k in range(V)]
    close(sum(each), torch.ones(2, dtype=F64), 1e-12)


@given(decodings())
def test_gradients_are_the_full_softmaxs(case):
    V, x, z_0, gamma_0 = case
    z_0, gamma_0 = z_0.requires_grad_(), gamma_0.requires_grad_()
    ours = model(V).decode_log_prob(x, z_0, gamma_0).sum()
    full = full_softmax(z_0, gamma_0, V).gather(-1, x[..., None]).sum()
    for a, b in zip(
        torch.autograd.grad(ours, [z_0, gamma_0]),
        torch.autograd.grad(full, [z_0, gamma_0]),
        strict=True,
    ):
        close(a, b, 1e-9)


@given(decodings())
def test_decode_is_the_most_probable_level(case):
    V, x, z_0, gamma_0 = case
    decoded = model(V).decode(z_0, gamma_0)
    assert decoded.dtype == torch.int64 and decoded.shape == x.shape
    best = full_softmax(z_0, gamma_0, V)
    close(best.gather(-1, decoded[..., None]).squeeze(-1), best.max(-1).values)


@given(levels, st.floats(-16, -12))
def test_clean_latents_decode_to_their_data(V, value):
    gamma_0, x = torch.tensor(value, dtype=F64), torch.arange(V)[:, None]
    assert torch.equal(model(V).decode(alpha(gamma_0) * centres(V)[:, None], gamma_0), x)


@pytest.mark.parametrize("V, value", [(2, 1.0), (17, -3.0), (256, -9.0), (5, 2.0)])
def test_sampled_levels_follow_the_softmax(V, value):
    """20,000 draws at four latents, two of them beyond the range: frequencies within five standard errors."""
    n, gamma_0 = 20_000, torch.tensor(value, dtype=F64)
    z_0 = torch.tensor([[-1.4, -0.31, 0.62, 1.02]], dtype=F64)
    draws = model(V).decode(z_0.expand(n, -1), gamma_0, sample=True, generator=generator(3))
    again = model(V).decode(z_0.expand(n, -1), gamma_0, sample=True, generator=generator(3))
    assert torch.equal(draws, again) and draws.dtype == torch.int64
    probability = full_softmax(z_0[0], gamma_0, V).exp()
    for column, p in zip(draws.unbind(1), probability, strict=True):
        frequency = torch.bincount(column, minlength=V) / n
        assert len(frequency) == V
        assert ((frequency - p).abs() <= 5 * torch.sqrt(p * (1 - p) / n) + 1e-4).all()


@given(seeds, st.floats(-10, 2), shapes)
def test_real_data(seed, value, shape):
    """p(x | z_0) = N(z_0/alpha_0, exp(gamma_0) I)."""
    gamma_0, x, z_0 = (
        torch.tensor(value, dtype=F64),
        normal(seed, 3, *shape),
        normal(seed + 1, 3, *shape),
    )
    real = model(None)
    mean = z_0 * math.sqrt(1 + math.exp(value))
    expected = torch.distributions.Normal(mean, math.exp(value / 2)).log_prob(x)
    close(real.decode_log_prob(x, z_0, gamma_0), expected.flatten(1).sum(1))
    close(real.decode(z_0, gamma_0), mean)
    draw = real.decode(z_0, gamma_0, sample=True, generator=generator(seed))
    close((draw - mean) / math.exp(value / 2), normal(seed, 3, *shape), 1e-8)


@given(levels)
def test_levels_are_scaled_to_the_centres_of_their_bins(V):
    for dtype in (torch.int64, torch.int32, torch.uint8):
        scaled = model(V).scale(torch.arange(V).to(dtype)[None])
        close(scaled, centres(V)[None])
    assert centres(V).abs().max() < 1


def test_real_data_pass_unchanged():
    x = normal(1, 2, 3).float()
    assert model(None).scale(x) is x


def test_scale_takes_the_models_dtype():
    assert model(4).float().scale(torch.tensor([[1]])).dtype == torch.float32
    plain = dc.DiffEnc(dc.LinearSchedule(), dc.IdentityEncoder(), torch.nn.Identity(), levels=4)
    assert plain.scale(torch.tensor([[1]])).dtype == torch.get_default_dtype()


@pytest.mark.parametrize("x", [torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool)])
def test_reals_where_levels_are_expected(x):
    with pytest.raises(TypeError, match="levels=8"):
        model(8).scale(x)


def test_levels_where_reals_are_expected():
    with pytest.raises(TypeError, match="levels=None"):
        model(None).scale(torch.zeros(1, 2, dtype=torch.long))


@pytest.mark.parametrize("x", [[[0, 8]], [[-1, 3]]])
def test_levels_out_of_range(x):
    with pytest.raises(ValueError, match="levels=8"):
        model(8).scale(torch.tensor(x))


@pytest.mark.parametrize("V", [8, None])
def test_data_and_latents_of_different_shapes(V):
    x = torch.zeros(3, 1, dtype=torch.long if V else F64)
    with pytest.raises(ValueError, match="shape"):
        model(V).decode_log_prob(x, torch.zeros(3, 2, dtype=F64), torch.tensor(-5.0, dtype=F64))


def test_float32_at_small_gamma():
    """Log-probabilities at gamma_0 = -13.3 with 256 levels, to float32's accuracy of the latent."""
    gamma_0, x = torch.tensor(-13.3), torch.arange(256)[None]
    z_0 = (alpha(gamma_0) * centres(256)[None].float() + 1e-3 * normal(1, 1, 256).float()).float()
    exact = model(256).decode_log_prob(x, z_0.double(), gamma_0.double())
    ours = model(256).float().decode_log_prob(x, z_0, gamma_0)
    assert ours.dtype == torch.float32
    assert abs(float(ours) - float(exact)) < 1e-3 * (1 + abs(float(exact)))
