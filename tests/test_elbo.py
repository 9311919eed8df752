"""The ELBO: every form of the loss in the literature, the step's KL from its two Gaussians, the wiring of `elbo`."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.dynamics import ConditionalReverseSDE, ReverseSDE
from diffenc_ct.elbo import check_grid, latent_loss, mean_difference, step_kl, uniform_grid
from diffenc_ct.encoders import with_rate
from diffenc_ct.process import kl_divergence, marginal, posterior
from diffenc_ct.schedules import alpha, alpha2, expand, sigma, sigma2
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
single = ("single",)


def infinite(case, **options):
    """The library's infinite-depth term at the case's own t and noise."""
    return dc.elbo(case.model, case.x, t=case.t, noise=case.noise, **options).diffusion


def square(error):
    return error.square().flatten(1).sum(1)


# Infinite depth -----------------------------------------------------------------------------------


@given(cases())
def test_any_noise_level_and_heads(case):
    """1/2 gamma' SNR eta^-2 || kappa (x_t - x_hat) + (x_t' - r_hat) ||^2."""
    point, encoding = case.model.schedule(case.t), case.encoding
    heads, eta2 = case.model.predict(case.z_t, point.gamma), case.noise_level.squared(point.gamma)
    kappa = expand((1 + eta2) / 2, case.x)
    error = kappa * (encoding.value - heads.x_hat) + encoding.rate - heads.r_hat
    expected = 0.5 * point.rate * torch.exp(-point.gamma) / eta2 * square(error)
    close(infinite(case, noise_level=case.noise_level), expected)


@given(cases(heads=single, kinds=("nontrainable", "trainable", "user")))
def test_x_form(case):
    """The paper's: 1/2 gamma' SNR || x_t + x_t' - (1 + sigma^2) x_hat ||^2."""
    point, encoding = case.model.schedule(case.t), case.encoding
    x_hat = case.model.predict(case.z_t, point.gamma).x_hat
    error = encoding.value + encoding.rate - (1 + expand(point.sigma2, x_hat)) * x_hat
    close(infinite(case), 0.5 * point.rate * point.snr * square(error))


def v_and_prediction(case):
    """v and v_hat, v_hat = (alpha z - x_hat)/sigma whatever the network predicts."""
    a, s = expand(alpha(case.gamma_t), case.x), expand(sigma(case.gamma_t), case.x)
    x_hat = case.model.predict(case.z_t, case.gamma_t).x_hat
    return a * case.noise - s * case.encoding.value, (a * case.z_t - x_hat) / s, x_hat, s


@given(cases(heads=single, kinds=("trainable",)))
def test_v_form_of_the_trainable_encoder(case):
    """1/2 gamma' alpha^2 || v - v_hat + sigma (x_hat - x_t + y - dy/dlambda) ||^2, dy/dlambda = -dy/dgamma."""
    point = case.model.schedule(case.t)
    v, v_hat, x_hat, s = v_and_prediction(case)
    y = with_rate(case.model.encoder.network, case.x, point.gamma)
    error = v - v_hat + s * (x_hat - case.encoding.value + y.value - y.rate)
    close(infinite(case), 0.5 * point.rate * point.alpha2 * square(error))


@given(cases(heads=single, kinds=("nontrainable",)))
def test_v_form_of_the_nontrainable_encoder(case):
    """1/2 gamma' alpha^2 || v - v_hat + sigma (x_hat - x_t) ||^2."""
    point = case.model.schedule(case.t)
    v, v_hat, x_hat, s = v_and_prediction(case)
    error = v - v_hat + s * (x_hat - case.encoding.value)
    close(infinite(case), 0.5 * point.rate * point.alpha2 * square(error))


@given(cases(heads=single, kinds=("identity",)))
def test_vdm_forms(case):
    """1/2 gamma' alpha^2 ||v - v_hat||^2 = 1/2 gamma' ||eps - eps_hat||^2."""
    point = case.model.schedule(case.t)
    v, v_hat, x_hat, s = v_and_prediction(case)
    close(infinite(case), 0.5 * point.rate * point.alpha2 * square(v - v_hat))
    eps_hat = (case.z_t - expand(point.alpha, x_hat) * x_hat) / s
    close(infinite(case), 0.5 * point.rate * square(case.noise - eps_hat))


@given(cases())
def test_girsanov(case):
    """1/2 ||b_eta - b_Q||^2 / (eta^2 beta), from the SDE objects that a solver would be given."""
    model, t, level = case.model, case.t[:1], case.noise_level
    point = model.schedule(t[0])
    encoding = model.encoder(case.x, point.gamma.expand(len(case.x)))
    z = marginal(encoding.value, point.gamma.expand(len(case.x))).sample(noise=case.noise)
    shape, tau = tuple(case.x.shape[1:]), 1 - t[0]
    ours = ReverseSDE(model, noise_level=level, shape=shape)
    truth = ConditionalReverseSDE(model.schedule, model.encoder, case.x, noise_level=level)
    y = z.flatten(1)
    difference = (ours.f(tau, y) - truth.f(tau, y)) / ours.g(tau, y)
    terms = dc.elbo(model, case.x, t=t.expand(len(z)), noise=case.noise, noise_level=level)
    close(terms.diffusion, 0.5 * difference.square().sum(1), 1e-9)


# Finite depth -------------------------------------------------------------------------------------


def difference(case):
    model, encoding = case.model, case.encoding
    errors = model.errors(case.z_t, case.noise, encoding, case.gamma_t)
    return mean_difference(
        errors, encoding, case.x_s, case.gamma_s, case.gamma_t, case.noise_level
    )


@given(cases())
def test_mean_difference(case):
    """Delta = mu_Q - mu_P; the rate cancels from it."""
    level, g_s, g_t = case.noise_level, case.gamma_s, case.gamma_t
    q = posterior(case.z_t, case.x_s, case.encoding.value, g_s, g_t, level)
    p = case.model.reverse(case.z_t, g_s, g_t, noise_level=level)
    close(difference(case) * expand(alpha(g_s), case.x), q.mean - p.mean)
    still = dc.Encoding(case.encoding.value, torch.zeros_like(case.x))
    errors = case.model.errors(case.z_t, case.noise, still, g_t)
    close(mean_difference(errors, still, case.x_s, g_s, g_t, level), difference(case))


@given(cases(), st.floats(0.2, 4), seeds)
def test_step_kl_is_the_kl_of_the_two_gaussians(case, ratio, seed):
    """Any noise level, heads and variance ratio: a number, one an example, one a dimension."""
    level, g_s, g_t = case.noise_level, case.gamma_s, case.gamma_t
    q = posterior(case.z_t, case.x_s, case.encoding.value, g_s, g_t, level)
    per_dimension = 0.3 + normal(seed, *case.x.shape).abs()
    per_example = per_dimension.flatten(1)[:, 0].reshape(-1, *[1] * (case.x.ndim - 1))
    for w in (1.0, ratio, per_example, per_dimension):
        p = case.model.reverse(case.z_t, g_s, g_t, noise_level=level, ratio=w)
        close(step_kl(difference(case), g_s, g_t, level, w), kl_divergence(q, p), 1e-9)


@given(cases(), st.floats(0.2, 4))
def test_step_kl_formula(case, w):
    """d/2 (1/w - 1 + ln w) + ||Delta||^2 / (2 w S^2)."""
    g_s, g_t, level = case.gamma_s, case.gamma_t, case.noise_level
    delta = difference(case) * expand(alpha(g_s), case.x)
    variance = sigma2(g_s) * (1 - level.rho(g_s, g_t) ** 2)
    d = case.x[0].numel()
    expected = d / 2 * (1 / w - 1 + math.log(w)) + square(delta) / (2 * w * variance)
    close(step_kl(difference(case), g_s, g_t, level, w), expected, 1e-9)


@given(cases(heads=single, kinds=("identity",)), st.integers(1, 9))
def test_discrete_vdm(case, depth):
    """w = 1, no encoder, eta = 1: L_T = T/2 E[expm1(gamma_t - gamma_s) ||eps - eps_hat||^2]."""
    step = (case.t * depth).ceil()
    gamma_s, gamma_t = (case.model.schedule(u / depth).gamma for u in (step - 1, step))
    z = marginal(case.x, gamma_t).sample(noise=case.noise)
    x_hat = case.model.predict(z, gamma_t).x_hat
    eps_hat = (z - expand(alpha(gamma_t), z) * x_hat) / expand(sigma(gamma_t), z)
    expected = depth / 2 * torch.expm1(gamma_t - gamma_s) * square(case.noise - eps_hat)
    close(infinite(case, depth=depth), expected, 1e-9)


def test_step_kl_near_ratio_one_keeps_its_digits():
    """float32: 1/w - 1 + ln w is h^2/2 at w = 1 + h."""
    zero, level = torch.zeros(1, 1), dc.ConstantNoiseLevel()
    for h in (1e-2, 1e-3):
        kl = step_kl(zero, torch.zeros(1), torch.ones(1), level, 1 + h)
        assert abs(float(kl) / (h**2 / 4) - 1) < 3 * h


@given(cases(), st.integers(1, 7), st.booleans(), st.floats(0.5, 2))
def test_the_sum_over_all_steps(case, depth, uneven, w):
    """The mean over t of what `elbo` returns is the sum of the KLs of all steps, whatever the grid and ratios."""
    model, level = case.model, case.noise_level
    nodes = torch.linspace(0, 1, depth + 1, dtype=F64)
    nodes = nodes**2 if uneven else nodes
    # The first and the last step have ratios of their own: one a step and dimension.
    table = w + torch.arange(depth, dtype=F64).reshape(-1, *[1] * (case.x.ndim - 1))
    table = table + torch.linspace(0, 1, case.x[0].numel(), dtype=F64).reshape(case.x.shape[1:])
    total = torch.zeros(len(case.x), dtype=F64)
    for i in range(depth):
        gamma_s, gamma_t = (model.schedule(n).gamma.expand(len(case.x)) for n in nodes[i : i + 2])
        x_s, x_t = (model.encoder.encode(case.x, g) for g in (gamma_s, gamma_t))
        z = marginal(x_t, gamma_t).sample(noise=case.noise)
        q = posterior(z, x_s, x_t, gamma_s, gamma_t, level)
        p = model.reverse(z, gamma_s, gamma_t, noise_level=level, ratio=table[i])
        total = total + kl_divergence(q, p)
    # Both ends and the middle of every step's interval of t belong to that step.
    for share in (1e-9, 0.5, 1.0):
        found = [
            dc.elbo(
                model,
                case.x,
                depth=depth,
                grid=nodes if uneven else None,
                ratio=table,
                noise_level=level,
                t=torch.full((len(case.x),), (i + share) / depth, dtype=F64),
                noise=case.noise,
            ).diffusion
            for i in range(depth)
        ]
        close(torch.stack(found).mean(0), total, 1e-8)


# The other terms and the wiring -------------------------------------------------------------------


@given(cases(), seeds)
def test_reconstruction_and_latent(case, seed):
    model, x, noise_0 = case.model, case.x, normal(seed, *case.x.shape)
    terms = dc.elbo(model, x, t=case.t, noise=case.noise, noise_0=noise_0)
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


@given(cases(), st.sampled_from([None, 3]), st.floats(0.01, 1), seeds)
def test_part_of_the_batch_for_the_ends(case, depth, fraction, seed):
    """The first ceil(fraction B) examples, scaled by B over their number, 0 elsewhere: the mean is that of the part."""
    noise_0, B = normal(seed, *case.x.shape), len(case.x)
    options = {"t": case.t, "noise": case.noise, "noise_0": noise_0, "depth": depth}
    whole = dc.elbo(case.model, case.x, **options)
    part = dc.elbo(case.model, case.x, ends_fraction=fraction, **options)
    n = math.ceil(fraction * B)
    for name in ("reconstruction", "latent"):
        close(getattr(part, name)[:n], getattr(whole, name)[:n] * B / n)
        assert getattr(part, name).shape == (B,) and not getattr(part, name)[n:].any()
    close(part.diffusion, whole.diffusion)


@given(cases(), st.sampled_from([None, 1, 4]), seeds)
def test_permuting_the_batch(case, depth, seed):
    order = torch.randperm(len(case.x), generator=generator(seed))
    noise_0 = normal(seed, *case.x.shape)
    fixed = {"depth": depth, "noise_level": case.noise_level}
    whole = dc.elbo(case.model, case.x, t=case.t, noise=case.noise, noise_0=noise_0, **fixed)
    part = dc.elbo(
        case.model,
        case.x[order],
        t=case.t[order],
        noise=case.noise[order],
        noise_0=noise_0[order],
        **fixed,
    )
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
    options = {"noise": case.noise, "depth": depth}
    drawn = dc.elbo(case.model, case.x, depths=FixedDepths(case.t, weight), **options)
    close(drawn.diffusion, weight * dc.elbo(case.model, case.x, t=case.t, **options).diffusion)


@given(cases(), st.sampled_from([None, 4]), seeds)
def test_the_same_seed_gives_the_same_numbers(case, depth, seed):
    def run(s):
        return dc.elbo(case.model, case.x, depth=depth, generator=generator(s))

    for name in ("reconstruction", "diffusion", "latent"):
        assert torch.equal(getattr(run(seed), name), getattr(run(seed), name))
    assert not torch.equal(run(seed).total, run(seed + 1).total)


def test_noises_are_independent():
    """A network that echoes its latent shows the noise at t; it is not the noise at 0."""
    g, x = generator(3), torch.zeros(20_000, 1, dtype=F64)
    model = make_model(dc.LinearSchedule(-5.0, 5.0), dc.IdentityEncoder(), (1,), 1)
    terms = dc.elbo(model, x, t=torch.full((20_000,), 0.5, dtype=F64), generator=g)
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
    noise, noise_0 = (normal(seed + i, batch, 1, 2, 2) for i in range(2))
    for depth in (None, 8):
        exact = dc.elbo(
            model.double(),
            x if levels else x.double(),
            depth=depth,
            t=t,
            noise=noise,
            noise_0=noise_0,
        )
        terms = dc.elbo(
            model.to(dtype),
            x,
            depth=depth,
            t=t.to(dtype),
            noise=noise.to(dtype),
            noise_0=noise_0.to(dtype),
        )
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
            dc.LinearSchedule(-20.0, 20.0), make_encoder(kind, (3,), 0), (3,), 2, prediction=prediction
        )
        x, noise = (normal(i, n, 3).float() for i in range(2))
        for depth, tolerance in ((None, 1e-5), (n, 5e-3)):
            options = {"depth": depth}
            exact = dc.elbo(
                model.double(), x.double(), t=t.double(), noise=noise.double(), **options
            ).diffusion
            ours = dc.elbo(model.float(), x, t=t, noise=noise, **options).diffusion
            assert ((ours.double() - exact) / exact).abs().max() < tolerance


def test_gradients_reach_every_part():
    """Schedule, encoder and network learn from the one loss, at finite and infinite depth."""
    for depth in (None, 4):
        schedule = monotone(-6.0, 4.0, 1)
        model = make_model(schedule, make_encoder("trainable", (3,), 1), (3,), 2)
        terms = dc.elbo(model, normal(1, 5, 3), depth=depth, generator=generator(0))
        terms.total.mean().backward()
        for name, p in model.named_parameters():
            assert p.grad is not None and torch.isfinite(p.grad).all(), name
            assert p.grad.abs().max() > 0, name


REAL = make_model(dc.LinearSchedule(-5.0, 5.0), dc.NonTrainableEncoder(), (2,), 1)
X = normal(1, 3, 2)


@pytest.mark.parametrize(
    "options, name",
    [
        ({"noise_level": 0.0}, "noise_level"),
        ({"noise_level": -1.0}, "noise_level"),
        ({"ratio": 2.0}, "ratio"),
        ({"ratio": torch.ones(4)}, "ratio"),
        ({"ratio": -1.0, "depth": 4}, "ratio"),
        ({"ratio": 0.0, "depth": 4}, "ratio"),
        ({"ratio": torch.ones(3), "depth": 4}, "ratio"),
        ({"ratio": torch.ones(4, 3), "depth": 4}, "ratio"),
        ({"depth": 0}, "depth"),
        ({"depth": 3, "grid": torch.linspace(0, 1, 3)}, "grid"),
        ({"grid": torch.tensor([0.1, 0.5, 1.0])}, "grid"),
        ({"grid": torch.tensor([0.0, 0.5, 0.9])}, "grid"),
        ({"grid": torch.tensor([0.0, 0.5, 0.5, 1.0])}, "grid"),
        ({"t": torch.zeros(2)}, "t has shape"),
        ({"t": torch.zeros(3, 1)}, "t has shape"),
        ({"noise": torch.zeros(3, 1)}, "noise"),
        ({"noise_0": torch.zeros(1, 2)}, "noise_0"),
        ({"ends_fraction": 0.0}, "ends_fraction"),
        ({"ends_fraction": 1.1}, "ends_fraction"),
    ],
)
def test_bad_options_are_refused(options, name):
    with pytest.raises(ValueError, match=name):
        dc.elbo(REAL, X, **options)


def test_bad_data_are_refused():
    with pytest.raises(ValueError, match="x has shape"):
        dc.elbo(REAL, X[:, 0])
    with pytest.raises(TypeError, match="levels=None"):
        dc.elbo(REAL, torch.zeros(2, 2, dtype=torch.long))
    with pytest.raises(TypeError, match="noise_level"):
        dc.elbo(REAL, X, noise_level="optimal")


@given(st.integers(1, 9), dtypes)
def test_grids(depth, dtype):
    like = torch.zeros(1, dtype=dtype)
    grid = uniform_grid(depth, like)
    close(grid, (torch.arange(depth + 1, dtype=F64) / depth).to(dtype))
    close(check_grid(grid.double() ** 2, depth, like), (grid.double() ** 2).to(dtype))
