"""`elbo`: its other terms, parts of a batch, draws, dtypes and gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.elbo import latent_loss
from diffenc_ct.encoders import Encoding
from diffenc_ct.process import marginal
from diffenc_ct.schedules import alpha2, expand, sigma2
from tests.strategies import (
    batches,
    cases,
    close,
    dtypes,
    generator,
    make_encoder,
    make_model,
    monotone,
    normal,
    seeds,
)

F64 = torch.float64


def square(error):
    return error.square().flatten(1).sum(1)


@given(cases(), st.sampled_from([None, 3]), seeds)
def test_reconstruction_and_latent(case, depth, seed):
    model, x, noise_0 = case.model, case.x, normal(seed, *case.x.shape)
    terms = dc.elbo(model, x, bounds(depth), draws=dc.Draws(case.t, case.noise, noise_0))
    gamma_0, gamma_1 = (model.schedule(torch.tensor(e, dtype=F64)).gamma for e in (0.0, 1.0))
    batch = gamma_0.expand(len(x))
    z_0 = marginal(model.encoder.encode(x, batch), batch).sample(noise=noise_0)
    close(terms.reconstruction, -model.decode_log_prob(x, z_0, gamma_0))
    x_1 = model.encoder.encode(x, gamma_1.expand(len(x)))
    v = sigma2(gamma_1)
    expected = 0.5 * (alpha2(gamma_1) * square(x_1) + x[0].numel() * (v - 1 - torch.log(v)))
    close(terms.latent, expected, 1e-9)
    close(latent_loss(x_1, gamma_1), expected, 1e-9)
    close(terms.total, terms.reconstruction + terms.diffusion + terms.latent)
    bits = terms.bits_per_dimension()
    for name in ("reconstruction", "diffusion", "latent", "total"):
        close(getattr(bits, name), getattr(terms, name) / (x[0].numel() * math.log(2)))
    assert bits.dimensions == terms.dimensions == x[0].numel()


@given(cases(), st.floats(0.01, 1), seeds)
def test_part_of_the_batch_for_the_ends(case, fraction, seed):
    """Examples floor(i B/n), i < n = ceil(fraction B), scaled by B/n, 0 elsewhere: the mean is that of the part."""
    draws, B = dc.Draws(case.t, case.noise, normal(seed, *case.x.shape)), len(case.x)
    whole = dc.elbo(case.model, case.x, draws=draws)
    part = dc.elbo(case.model, case.x, dc.InfiniteDepth(ends_fraction=fraction), draws=draws)
    n, chosen = part_of(fraction, B)
    for name in ("reconstruction", "latent"):
        close(getattr(part, name)[chosen], getattr(whole, name)[chosen] * B / n)
        assert getattr(part, name).shape == (B,) and not getattr(part, name)[~chosen].any()
    close(part.diffusion, whole.diffusion)


def part_of(fraction, batch):
    """How many examples a part of the batch has, and which, as a mask."""
    n = math.ceil(fraction * batch)
    chosen = torch.zeros(batch, dtype=torch.bool)
    chosen[[i * batch // n for i in range(n)]] = True
    return n, chosen


class WithoutDerivative(dc.Encoder):
    """Another encoder with the rate alpha^2 (x - x_t)."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder, self.rate_factor, self.scale = encoder, encoder.rate_factor, encoder.scale

    def encode(self, x, gamma):
        return self.encoder.encode(x, gamma)

    def forward(self, x, gamma):
        x_t = self.encode(x, gamma)
        return Encoding(x_t, expand(alpha2(gamma), x) * (x - x_t))


@given(cases(), st.floats(0.01, 0.99))
def test_part_of_the_batch_for_the_rate(case, fraction):
    """a + (b - a) B/n on the part, a elsewhere: b with the rate, a without the network's derivative."""
    draws, level = dc.Draws(case.t, case.noise), case.noise_level
    bound = dc.InfiniteDepth(level, rate_fraction=fraction)
    part = dc.elbo(case.model, case.x, bound, draws=draws).diffusion
    b = dc.elbo(case.model, case.x, dc.InfiniteDepth(level), draws=draws).diffusion
    case.model.encoder = WithoutDerivative(case.model.encoder)
    without = dc.elbo(case.model, case.x, dc.InfiniteDepth(level), draws=draws)
    (n, chosen), a = part_of(fraction, len(case.x)), without.diffusion
    close(part, torch.where(chosen, a + (b - a) * len(case.x) / n, a), 1e-9)


@given(cases())
def test_the_rate_on_part_of_the_batch_is_unbiased(case):
    """Each example has its turn in the part: the mean over turns is the whole batch's, gradients included."""
    B, parameters = len(case.x), list(case.model.parameters())

    def loss(turn=0, fraction=1.0):
        x, t, noise = (values.roll(turn, 0) for values in (case.x, case.t, case.noise))
        bound = dc.InfiniteDepth(rate_fraction=fraction)
        return case.model(x, bound, draws=dc.Draws(t, noise)).diffusion.mean()

    turns = torch.stack([loss(turn, 1e-3) for turn in range(B)]).mean()
    close(turns, loss(), 1e-9)
    for ours, whole in zip(
        torch.autograd.grad(turns, parameters, allow_unused=True),
        torch.autograd.grad(loss(), parameters, allow_unused=True),
        strict=True,
    ):
        assert (ours is None) == (whole is None)
        if whole is not None:
            close(ours, whole, 1e-8)


def bounds(depth, level=1.0, **options):
    """The bound of `depth` steps, or of infinite depth where depth is None."""
    if depth is None:
        return dc.InfiniteDepth(level, **options)
    return dc.FiniteDepth(depth, noise_level=level, **options)


@given(cases(), st.sampled_from([None, 1, 4]), seeds)
def test_permuting_the_batch(case, depth, seed):
    order, bound = (
        torch.randperm(len(case.x), generator=generator(seed)),
        bounds(depth, case.noise_level),
    )
    given_ = (case.t, case.noise, normal(seed, *case.x.shape))
    whole = dc.elbo(case.model, case.x, bound, draws=dc.Draws(*given_))
    permuted = dc.Draws(*(v[order] for v in given_))
    part = dc.elbo(case.model, case.x[order], bound, draws=permuted)
    for name in ("reconstruction", "diffusion", "latent"):
        close(getattr(part, name), getattr(whole, name)[order])


class FixedDepths:
    def __init__(self, t, weight):
        self.t, self.weight = t, weight

    def draw(self, batch, *, like, generator=None):
        assert batch == len(like) and like.dtype == self.t.dtype
        return self.t, self.weight


@given(cases(), st.sampled_from([None, 5]))
def test_depths_bring_their_weights(case, depth):
    weight = 0.5 + torch.arange(len(case.x), dtype=F64)
    drawn = dc.elbo(
        case.model,
        case.x,
        bounds(depth, depths=FixedDepths(case.t, weight)),
        draws=dc.Draws(noise=case.noise),
    )
    once = dc.elbo(case.model, case.x, bounds(depth), draws=dc.Draws(case.t, case.noise))
    close(drawn.diffusion, weight * once.diffusion)
    by_hand = dc.Draws(case.t, case.noise, case.noise, weight)
    weighted = dc.elbo(case.model, case.x, bounds(depth), draws=by_hand)
    close(weighted.diffusion, weight * once.diffusion)
    plain = dc.elbo(
        case.model, case.x, bounds(depth), draws=dc.Draws(case.t, case.noise, case.noise)
    )
    for name in ("reconstruction", "latent"):  # their integral is none over depth
        assert torch.equal(getattr(weighted, name), getattr(plain, name))


def test_depths_are_stratified_unless_said_otherwise():
    """One t in each of 8 cells, as the model's schedule sees them."""

    class Watched(dc.LinearSchedule):
        seen = None

        def forward(self, t):
            self.seen = t if t.ndim else self.seen
            return super().forward(t)

    model = make_model(Watched(-5.0, 5.0), dc.IdentityEncoder(), (2,), 1)
    for seed in range(5):
        dc.elbo(model, normal(1, 8, 2), generator=generator(seed))
        spaces = (8 * model.schedule.seen.sort().values).diff()
        close(spaces, torch.ones(7, dtype=F64), 1e-9)


@given(cases(), st.sampled_from([None, 4]), seeds)
def test_the_same_seed_gives_the_same_numbers(case, depth, seed):
    def run(s):
        return dc.elbo(case.model, case.x, bounds(depth), generator=generator(s))

    for name in ("reconstruction", "diffusion", "latent"):
        assert torch.equal(getattr(run(seed), name), getattr(run(seed), name))
    assert not torch.equal(run(seed).total, run(seed + 1).total)


def test_noises_are_independent():
    """A network that echoes its latent shows the noise at t; it is not the noise at 0."""
    g, x = generator(3), torch.zeros(20_000, 1, dtype=F64)
    model = make_model(dc.LinearSchedule(-5.0, 5.0), dc.IdentityEncoder(), (1,), 1)
    terms = dc.elbo(model, x, draws=dc.Draws(t=torch.full((20_000,), 0.5, dtype=F64)), generator=g)
    r = torch.corrcoef(torch.stack([terms.reconstruction, terms.diffusion]))[0, 1]
    assert abs(r.item()) < 5 / math.sqrt(20_000)


@pytest.mark.parametrize("levels", [None, 5])
@given(dtypes, batches, seeds)
def test_dtype(levels, dtype, batch, seed):
    encoder = make_encoder("trainable", (1, 2, 2), seed)
    model = make_model(dc.LinearSchedule(-6.0, 4.0), encoder, (1, 2, 2), seed, levels=levels)
    x = torch.randint(0, 5, (batch, 1, 2, 2), generator=generator(seed))
    x = x if levels else (x / 4).to(dtype)
    t = 0.05 + 0.9 * torch.rand(batch, dtype=F64, generator=generator(seed))
    given_ = (t, normal(seed, batch, 1, 2, 2), normal(seed + 1, batch, 1, 2, 2))
    draws, rounded = dc.Draws(*given_), dc.Draws(*(v.to(dtype) for v in given_))
    for depth in (None, 8):
        exact = dc.elbo(model.double(), x if levels else x.double(), bounds(depth), draws=draws)
        terms = dc.elbo(model.to(dtype), x, bounds(depth), draws=rounded)
        for name in ("reconstruction", "diffusion", "latent", "total"):
            value = getattr(terms, name)
            assert value.shape == (batch,) and torch.isfinite(value).all()
            close(value, getattr(exact, name).to(dtype), 1e-3 if dtype == torch.float32 else None)


@pytest.mark.parametrize("prediction", ["v", "eps"])
def test_float32_at_the_extremes(prediction):
    """End points -20 and 20: relative errors of float32's own order at infinite depth. At finite depth x_s - x_t is
    rounded at 1e-7 where sigma is 5e-5."""
    n = 41
    t = (torch.arange(n) + 0.5) / n
    for kind in ("identity", "nontrainable"):
        model = make_model(
            dc.LinearSchedule(-20.0, 20.0),
            make_encoder(kind, (3,), 0),
            (3,),
            2,
            prediction=prediction,
        )
        x, noise = (normal(i, n, 3).float() for i in range(2))
        for depth, tolerance in ((None, 1e-5), (n, 5e-3)):
            draws = dc.Draws(t.double(), noise.double())
            exact = dc.elbo(model.double(), x.double(), bounds(depth), draws=draws).diffusion
            ours = dc.elbo(model.float(), x, bounds(depth), draws=dc.Draws(t, noise)).diffusion
            assert ((ours.double() - exact) / exact).abs().max() < tolerance


def test_gradients_reach_every_part():
    """Schedule, encoder and network learn from the one loss, at finite and infinite depth."""
    for depth in (None, 4):
        schedule = monotone(-6.0, 4.0, 1)
        model = make_model(schedule, make_encoder("trainable", (3,), 1), (3,), 2)
        terms = dc.elbo(model, normal(1, 5, 3), bounds(depth), generator=generator(0))
        terms.total.mean().backward()
        for name, p in model.named_parameters():
            assert p.grad is not None and torch.isfinite(p.grad).all(), name
            assert p.grad.abs().max() > 0, name
