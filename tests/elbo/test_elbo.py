"""The ELBO: every form of the loss in the literature, the step's KL from its two Gaussians, the wiring of `elbo`."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.dynamics import ConditionalReverseSDE, ReverseSDE
from diffenc_ct.elbo import mean_difference, step_kl
from diffenc_ct.encoders import with_rate
from diffenc_ct.process import ConstantNoiseLevel, kl_divergence, marginal, posterior
from diffenc_ct.schedules import alpha, expand, sigma, sigma2
from tests.strategies import (
    cases,
    close,
    normal,
    seeds,
)

F64 = torch.float64
single = ("single",)


def diffusion(case, bound=None):
    """The library's diffusion term at the case's own t and noise, of infinite depth unless said otherwise."""
    return dc.elbo(case.model, case.x, bound, draws=dc.Draws(case.t, case.noise)).diffusion


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
    close(diffusion(case, dc.InfiniteDepth(case.noise_level)), expected)


@given(cases(heads=single, kinds=("nontrainable", "trainable", "user")))
def test_x_form(case):
    """The paper's: 1/2 gamma' SNR || x_t + x_t' - (1 + sigma^2) x_hat ||^2."""
    point, encoding = case.model.schedule(case.t), case.encoding
    x_hat = case.model.predict(case.z_t, point.gamma).x_hat
    error = encoding.value + encoding.rate - (1 + expand(point.sigma2, x_hat)) * x_hat
    close(diffusion(case), 0.5 * point.rate * point.snr * square(error))


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
    close(diffusion(case), 0.5 * point.rate * point.alpha2 * square(error))


@given(cases(heads=single, kinds=("nontrainable",)))
def test_v_form_of_the_nontrainable_encoder(case):
    """1/2 gamma' alpha^2 || v - v_hat + sigma (x_hat - x_t) ||^2."""
    point = case.model.schedule(case.t)
    v, v_hat, x_hat, s = v_and_prediction(case)
    error = v - v_hat + s * (x_hat - case.encoding.value)
    close(diffusion(case), 0.5 * point.rate * point.alpha2 * square(error))


@given(cases(heads=single, kinds=("identity",)))
def test_vdm_forms(case):
    """1/2 gamma' alpha^2 ||v - v_hat||^2 = 1/2 gamma' ||eps - eps_hat||^2."""
    point = case.model.schedule(case.t)
    v, v_hat, x_hat, s = v_and_prediction(case)
    close(diffusion(case), 0.5 * point.rate * point.alpha2 * square(v - v_hat))
    eps_hat = (case.z_t - expand(point.alpha, x_hat) * x_hat) / s
    close(diffusion(case), 0.5 * point.rate * square(case.noise - eps_hat))


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
    draws = dc.Draws(t=t.expand(len(z)), noise=case.noise)
    terms = dc.elbo(model, case.x, dc.InfiniteDepth(level), draws=draws)
    close(terms.diffusion, 0.5 * difference.square().sum(1), 1e-9)


# Finite depth -------------------------------------------------------------------------------------


def difference(case):
    model, encoding = case.model, case.encoding
    errors = model.errors(case.z_t, case.noise, encoding, case.gamma_t)
    return mean_difference(errors, encoding, case.x_s, case.gamma_s, case.gamma_t, case.noise_level)


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
    close(diffusion(case, dc.FiniteDepth(depth)), expected, 1e-9)


def test_step_kl_near_ratio_one_keeps_its_digits():
    """float32: 1/w - 1 + ln w is h^2/2 at w = 1 + h."""
    zero, level = torch.zeros(1, 1), ConstantNoiseLevel()
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
    bound = dc.FiniteDepth(nodes if uneven else depth, ratio=table, noise_level=level)
    for share in (1e-9, 0.5, 1.0):
        at = (torch.full((len(case.x),), (i + share) / depth, dtype=F64) for i in range(depth))
        found = [
            dc.elbo(model, case.x, bound, draws=dc.Draws(t=t, noise=case.noise)).diffusion
            for t in at
        ]
        close(torch.stack(found).mean(0), total, 1e-8)
