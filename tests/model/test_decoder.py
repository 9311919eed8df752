"""Decoders: p(x | z_0) and the scaling of data, against the full softmax."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.model import Direct
from diffenc_ct.schedules import alpha
from tests.refusals import refused
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


def decoder_of(levels):
    """V or a decoder, as a decoder."""
    return dc.Levels(levels) if isinstance(levels, int) else levels or dc.Reals()


def model(levels):
    decoder = decoder_of(levels)
    heads = dc.Single(RandomNetwork((1,), 0))
    return dc.DiffEnc(dc.LinearSchedule(), dc.IdentityEncoder(), heads, decoder)


def centres(levels):
    """x_k = 2 (k + 1/2)/V - 1; with the ends among them 2 k/(V - 1) - 1."""
    decoder = decoder_of(levels)
    V = decoder.levels
    each = [2 * k / (V - 1) - 1 if decoder.ends else 2 * (k + 0.5) / V - 1 for k in range(V)]
    return torch.tensor(each, dtype=F64)


def full_softmax(z_0, gamma_0, levels):
    """log p(k | z_0) of every level: (*shape, V)."""
    u = z_0 / torch.sqrt(torch.sigmoid(-gamma_0))
    return (-((u[..., None] - centres(levels)) ** 2) / (2 * torch.exp(gamma_0))).log_softmax(-1)


@seeded
def decodings(pick):
    """Levels, x, gamma_0 and a z_0 that lies near the data, far from them, or beyond the range."""
    V, shape, seed = pick.choice([2, 3, 17, 256]), pick.choice(SHAPES), seed_of(pick)
    decoder = dc.Levels(V, ends=pick.random() < 0.5)
    gamma_0 = torch.tensor(pick.uniform(-16, 2), dtype=F64)
    x = torch.randint(0, V, (3, *shape), generator=generator(seed))
    spread = pick.choice([math.exp(float(gamma_0) / 2), 0.3, 2.0])
    z_0 = alpha(gamma_0) * (centres(decoder)[x] + spread * normal(seed, 3, *shape))
    return decoder, x, z_0, gamma_0


@given(decodings())
def test_the_banded_sum_is_the_full_softmax(case):
    decoder, x, z_0, gamma_0 = case
    full = (
        full_softmax(z_0, gamma_0, decoder).gather(-1, x[..., None]).squeeze(-1).flatten(1).sum(1)
    )
    close(model(decoder).decode_log_prob(x, z_0, gamma_0), full, 1e-9)


@pytest.mark.parametrize("V, value", [(256, -13.3), (256, -9.0), (17, 2.0)])
def test_the_band_is_as_narrow_as_it_can_be(V, value):
    """The first k with k (k - 1) h^2 / (2 exp(gamma_0)) >= 45 on both sides, h = 2/V; at most all levels."""
    h2, k = (2 / V) ** 2, 1
    while k * (k - 1) * h2 / (2 * math.exp(value)) < 45 and k < V:
        k += 1
    assert dc.Levels(V)._near(torch.zeros(2, 1, dtype=F64), value).shape == (2, 1, 2 * k + 1)


@given(decodings())
def test_all_levels_where_gamma_0_is_not_known_as_a_number(case):
    """The same to a rounding, and a fetch from no device: `start` is what is known without one."""
    decoder, x, z_0, gamma_0 = case
    u = z_0 / alpha(gamma_0)
    close(
        decoder.log_prob(x, u, gamma_0),
        decoder.log_prob(x, u, gamma_0, start=float(gamma_0)),
        1e-12,
    )
    assert decoder._near(u, None).shape == (*u.shape, decoder.levels)
    close(decoder.log_prob(x, u, gamma_0), model(decoder).decode_log_prob(x, z_0, gamma_0), 1e-12)


def test_the_probability_of_training_waits_for_no_device():
    """Values on the `meta` device cannot be fetched."""
    u, gamma_0 = (torch.zeros(shape, device="meta") for shape in ((2, 3), ()))
    k = torch.zeros(2, 3, dtype=torch.uint8, device="meta")
    for start in (None, -13.3):
        assert dc.Levels(8).log_prob(k, u, gamma_0, start).shape == (2,)
    assert dc.Reals().log_prob(u, u, gamma_0).shape == (2,)
    assert (
        dc.Levels(8).scale(k, torch.float32).shape == dc.Reals().scale(u, u.dtype).shape == (2, 3)
    )


@given(decodings())
def test_probabilities_of_all_levels_sum_to_one(case):
    decoder, _, z_0, gamma_0 = case
    u = z_0.flatten()[:2, None]
    every = [torch.full((2, 1), k) for k in range(decoder.levels)]
    each = [model(decoder).decode_log_prob(k, u, gamma_0).exp() for k in every]
    close(sum(each), torch.ones(2, dtype=F64), 1e-12)


@given(decodings())
def test_gradients_are_the_full_softmaxs(case):
    decoder, x, z_0, gamma_0 = case
    z_0, gamma_0 = z_0.requires_grad_(), gamma_0.requires_grad_()
    ours = model(decoder).decode_log_prob(x, z_0, gamma_0).sum()
    full = full_softmax(z_0, gamma_0, decoder).gather(-1, x[..., None]).sum()
    for a, b in zip(
        torch.autograd.grad(ours, [z_0, gamma_0]),
        torch.autograd.grad(full, [z_0, gamma_0]),
        strict=True,
    ):
        close(a, b, 1e-9)


@given(decodings())
def test_decode_is_the_most_probable_level(case):
    decoder, x, z_0, gamma_0 = case
    decoded = model(decoder).decode(z_0, gamma_0)
    assert decoded.dtype == torch.int64 and decoded.shape == x.shape
    best = full_softmax(z_0, gamma_0, decoder)
    close(best.gather(-1, decoded[..., None]).squeeze(-1), best.max(-1).values)


@given(levels, st.booleans(), st.floats(-16, -12))
def test_clean_latents_decode_to_their_data(V, ends, value):
    """Anything nearer to a level than half the levels' distance, too; beyond them it is the end's."""
    decoder = dc.Levels(V, ends=ends)
    gamma_0, x = torch.tensor(value, dtype=F64), torch.arange(V)[:, None]
    for off in (0.0, 0.49, -0.49):
        u = centres(decoder)[:, None] + off * decoder.width
        assert torch.equal(model(decoder).decode(alpha(gamma_0) * u, gamma_0), x)
    far = decoder.most_probable(torch.tensor([[-9.0, 9.0]], dtype=F64))
    assert far.tolist() == [[0, V - 1]]


@given(levels, st.booleans())
def test_levels_are_apart_by_their_width(V, ends):
    decoder = dc.Levels(V, ends=ends)
    close(centres(decoder).diff(), torch.full((V - 1,), decoder.width, dtype=F64), 1e-12)
    assert dc.Reals().width is None


def test_levels_with_ends_are_those_of_most_code():
    """x/127.5 - 1 of bytes."""
    x = torch.arange(256, dtype=torch.uint8)[None]
    found = model(dc.Levels(256, ends=True)).scale(x)
    close(found, x.double() / 127.5 - 1, 1e-15)
    assert float(found[0, 0]) == -1 and float(found[0, -1]) == 1


@pytest.mark.parametrize(
    "V, value", [(2, 1.0), (17, -3.0), (256, -9.0), (5, 2.0), (dc.Levels(17, ends=True), -3.0)]
)
def test_sampled_levels_follow_the_softmax(V, value):
    """20,000 draws at four latents, two of them beyond the range: frequencies within five standard errors."""
    n, gamma_0 = 20_000, torch.tensor(value, dtype=F64)
    z_0 = torch.tensor([[-1.4, -0.31, 0.62, 1.02]], dtype=F64)
    draws = model(V).decode(z_0.expand(n, -1), gamma_0, sample=True, generator=generator(3))
    again = model(V).decode(z_0.expand(n, -1), gamma_0, sample=True, generator=generator(3))
    assert torch.equal(draws, again) and draws.dtype == torch.int64
    probability, V = full_softmax(z_0[0], gamma_0, V).exp(), decoder_of(V).levels
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
    for dtype in (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8):
        # Fewer levels than there are, too: what a type cannot hold is compared as it is, not as it wraps.
        x = torch.arange(min(V, torch.iinfo(dtype).max + 1)).to(dtype)[None]
        close(model(V).scale(x), centres(V)[: x.shape[1]][None])
        assert dc.Levels(V).check(x) is None
    assert centres(V).abs().max() < 1


def test_real_data_pass_unchanged():
    x = normal(1, 2, 3).float()
    assert model(None).scale(x) is x
    assert dc.Reals().check(x) is None and dc.Reals().levels is None


def test_scale_takes_the_models_dtype():
    assert model(4).float().scale(torch.tensor([[1]])).dtype == torch.float32
    heads = Direct(torch.nn.Identity())
    plain = dc.DiffEnc(dc.LinearSchedule(), dc.IdentityEncoder(), heads, dc.Levels(4))
    assert plain.scale(torch.tensor([[1]])).dtype == torch.get_default_dtype()


@pytest.mark.parametrize("x", [torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool)])
def test_reals_where_levels_are_expected(x):
    for call in (model(8).scale, dc.Levels(8).check, lambda x: dc.Levels(8).scale(x, F64)):
        with pytest.raises(TypeError, match=r"Levels\(8\) means integer data.*0..7"):
            call(x)


def test_levels_where_reals_are_expected():
    x = torch.zeros(1, 2, dtype=torch.long)
    for call in (model(None).scale, dc.Reals().check, lambda x: dc.Reals().scale(x, F64)):
        with pytest.raises(TypeError, match=r"Reals\(\) means real data.*Levels"):
            call(x)


@pytest.mark.parametrize("x", [[[0, 8]], [[-1, 3]]])
def test_levels_out_of_range(x):
    with pytest.raises(ValueError, match="values from.*levels=8.*0..7"):
        dc.Levels(8).check(torch.tensor(x))


@given(levels)
def test_what_is_no_level_is_scaled_to_nan(V):
    """Without a look at values, which would wait for a device; a loss of NaN is NaN."""
    k = torch.tensor([[-300, -1, 0, V - 1, V, 70_000]])
    for x in (k, k.int()):
        scaled = dc.Levels(V).scale(x, F64)
        close(scaled[:, 2:4], centres(V)[[0, V - 1]][None])
        assert scaled.isnan().tolist() == [[True, True, False, False, True, True]]
    of_bytes = dc.Levels(2).scale(torch.tensor([[0, 1, 2, 255]], dtype=torch.uint8), F64)
    assert of_bytes.isnan().tolist() == [[False, False, True, True]]


@pytest.mark.parametrize("V", [1, 0, -3])
def test_too_few_levels_are_refused(V):
    with pytest.raises(ValueError, match=f"levels={V}.*at least 2"):
        dc.Levels(V)


@pytest.mark.parametrize("decoder", [dc.Levels(8), dc.Reals()])
def test_decoders_are_values(decoder):
    """Equal where they are the same, and not to be changed behind a model's back."""
    assert decoder == (dc.Levels(8) if decoder.levels else dc.Reals())
    assert dc.Levels(8) != dc.Levels(8, ends=True)
    assert dc.Levels(8) != dc.Levels(9) and dc.Levels(8) != dc.Reals()
    assert repr(decoder) == ("Levels(levels=8, ends=False)" if decoder.levels else "Reals()")
    with pytest.raises(AttributeError):
        decoder.levels = 4


@pytest.mark.parametrize("V", [8, None])
def test_data_and_latents_of_different_shapes(V):
    x = torch.zeros(3, 1, dtype=torch.long if V else F64)
    with refused(ValueError, "shape"):
        model(V).decode_log_prob(x, torch.zeros(3, 2, dtype=F64), torch.tensor(-5.0, dtype=F64))


def test_float32_at_small_gamma():
    """Log-probabilities at gamma_0 = -13.3 with 256 levels, to float32's accuracy of the latent."""
    gamma_0, x = torch.tensor(-13.3), torch.arange(256)[None]
    z_0 = (alpha(gamma_0) * centres(256)[None].float() + 1e-3 * normal(1, 1, 256).float()).float()
    exact = model(256).decode_log_prob(x, z_0.double(), gamma_0.double())
    ours = model(256).float().decode_log_prob(x, z_0, gamma_0)
    assert ours.dtype == torch.float32
    assert abs(float(ours) - float(exact)) < 1e-3 * (1 + abs(float(exact)))
