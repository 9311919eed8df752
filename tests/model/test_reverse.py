"""The reverse step, its limit and the drift of the reverse SDE."""

import torch
from hypothesis import given

import diffenc_ct as dc
from diffenc_ct.model import Direct, reverse_drift
from diffenc_ct.process import (
    ConstantNoiseLevel,
    Gaussian,
    forward_drift,
    kl_divergence,
    marginal,
    posterior,
)
from diffenc_ct.schedules import alpha, expand, sigma, sigma2
from tests.model.test_heads import Oracle
from tests.strategies import (
    HEADS,
    batches,
    cases,
    close,
    dtypes,
    generator,
    make_encoder,
    make_model,
    normal,
    predictions,
    seeds,
    shapes,
)

F64 = torch.float64


@given(cases())
def test_the_papers_reverse_step(case):
    """mu_P and the variance in the paper's form at eta = 1, its ratio scaling the variance."""
    model, z, g_s, g_t = case.model, case.z_t, case.gamma_s, case.gamma_t
    heads = model.predict(z, g_t)
    a_s, a_t = expand(alpha(g_s), z), expand(alpha(g_t), z)
    v_s, v_t = expand(sigma2(g_s), z), expand(sigma2(g_t), z)
    a_ts = a_t / a_s
    v_ts = v_t - a_ts**2 * v_s
    mean = a_ts * v_s / v_t * z + a_s * v_ts / v_t * heads.x_hat
    # lambda_s - lambda_t = gamma_t - gamma_s
    mean = mean + a_s * expand(g_t - g_s, z) * heads.r_hat
    step = model.reverse(z, g_s, g_t)
    close(step.mean, mean)
    close(step.std**2, v_ts * v_s / v_t)
    close(model.reverse(z, g_s, g_t, ratio=1.7).std ** 2, 1.7 * step.std**2)
    close(model.reverse(z, g_s, g_t, ratio=1.7).mean, step.mean)
    table = 1 + normal(3, *z.shape[1:]).abs()
    close(model.reverse(z, g_s, g_t, ratio=table).std ** 2, table * step.std**2)


@given(cases())
def test_the_reverse_step_at_any_noise_level(case):
    model, z, g_s, g_t, level = case.model, case.z_t, case.gamma_s, case.gamma_t, case.noise_level
    heads, rho = model.predict(z, g_t), level.rho(g_s, g_t)
    x_hat_s = heads.x_hat + expand(g_t - g_s, z) * heads.r_hat
    mean = expand(alpha(g_s), z) * x_hat_s
    noise_hat = (z - expand(alpha(g_t), z) * heads.x_hat) / expand(sigma(g_t), z)
    mean = mean + expand(rho * sigma(g_s), z) * noise_hat
    step = model.reverse(z, g_s, g_t, noise_level=level)
    close(step.mean, mean)
    close(step.std**2, expand(sigma2(g_s) * (1 - rho**2), z))


@given(cases())
def test_with_perfect_heads_the_step_is_the_posterior_of_a_straight_encoder(case):
    """With x_t and x_t' known, p's mean differs from q's by alpha_s (x_s - x_t - (lambda_s - lambda_t) x_t')."""
    z, g_s, g_t, encoding = case.z_t, case.gamma_s, case.gamma_t, case.encoding
    network = Oracle(dc.Estimates(encoding.value, encoding.rate))
    model = dc.DiffEnc(case.model.schedule, case.model.encoder, Direct(network), dc.Reals())
    step = model.reverse(z, g_s, g_t, noise_level=case.noise_level)
    exact = posterior(z, case.x_s, encoding.value, g_s, g_t, case.noise_level)
    bend = case.x_s - encoding.value - expand(g_t - g_s, z) * encoding.rate
    close(exact.mean - step.mean, expand(alpha(g_s), z) * bend, 1e-9)
    if isinstance(case.model.encoder, dc.IdentityEncoder):
        close(kl_divergence(exact, step), torch.zeros(len(z), dtype=F64))


@given(cases(low=-5.0))
def test_the_limit_of_the_step_is_the_reverse_sde(case):
    """At s = t: d mean/ds = b_eta and d variance/ds = -eta^2 beta."""
    t, z, level = case.t, case.z_t, case.noise_level
    s = t.clone().requires_grad_()
    point, start = case.model.schedule(t), case.model.schedule(s)
    heads = case.model.predict(z, point.gamma)
    x_hat_s = heads.x_hat + expand(point.gamma - start.gamma, z) * heads.r_hat
    rho = level.rho(start.gamma, point.gamma)
    noise_hat = (z - expand(point.alpha, z) * heads.x_hat) / expand(point.sigma, z)
    mean = expand(start.alpha, z) * x_hat_s + expand(rho * start.sigma, z) * noise_hat
    rows = [
        torch.autograd.grad(m.sum(), s, retain_graph=True)[0] for m in mean.flatten(1).unbind(1)
    ]
    eta2 = level.squared(point.gamma)
    drift = reverse_drift(z, heads, point, eta2)
    close(torch.stack(rows, 1), drift.flatten(1).detach(), 1e-8)
    variance = start.sigma2 * -torch.expm1(-level.integral(start.gamma, point.gamma))
    close(torch.autograd.grad(variance.sum(), s)[0], (-eta2 * point.beta).detach(), 1e-8)


@given(cases())
def test_small_steps_follow_the_reverse_sde(case):
    """(mean - z)/(s - t) -> b_eta with error of first order in t - s: `reverse` itself, not its formula."""
    t, z, level = 0.2 + 0.7 * case.t, case.z_t, case.noise_level
    point = case.model.schedule(t)
    heads = case.model.predict(z, point.gamma)
    drift = reverse_drift(z, heads, point, level.squared(point.gamma))
    errors = []
    for h in (2e-4, 1e-4):
        gamma_s = case.model.schedule(t - h).gamma
        step = case.model.reverse(z, gamma_s, point.gamma, noise_level=level)
        errors.append(((step.mean - z) / -h - drift).abs().max() / (1 + drift.abs().max()))
    assert errors[1] < 0.05 and errors[1] < 0.6 * errors[0] + 1e-7


@given(cases())
def test_reverse_drift_is_the_time_reversal_of_the_forward_drift(case):
    """b_Q = forward drift - (1 + eta^2)/2 beta grad log q(z_t | x), for eta = 0 too."""
    z = (case.z_t + 0.3).requires_grad_()
    point, encoding = case.model.schedule(case.t), case.encoding
    log_q = marginal(encoding.value, point.gamma).log_prob(z).sum()
    (score,) = torch.autograd.grad(log_q, z)
    truth = dc.Estimates(encoding.value, encoding.rate)
    for level in (case.noise_level, ConstantNoiseLevel(0.0)):
        eta2 = level.squared(point.gamma)
        expected = (
            forward_drift(z, encoding, point) - expand((1 + eta2) / 2 * point.beta, z) * score
        )
        close(reverse_drift(z, truth, point, eta2), expected, 1e-9)


@given(cases())
def test_the_papers_drift(case):
    """b = beta [-z/2 + z/sigma^2 - alpha (1/sigma^2 + 1) x_hat] at eta = 1 with r_hat = sigma^2 x_hat."""
    z, point = case.z_t, case.model.schedule(case.t)
    x_hat, v = normal(4, *z.shape), expand(point.sigma2, z)
    drift = -z / 2 + z / v - expand(point.alpha, z) * (1 / v + 1) * x_hat
    close(
        reverse_drift(z, dc.Estimates(x_hat, v * x_hat), point, torch.ones_like(point.gamma)),
        expand(point.beta, z) * drift,
        1e-9,
    )


@given(dtypes, predictions, shapes, batches, seeds)
def test_dtype(dtype, prediction, shape, batch, seed):
    z = normal(seed, batch, *shape, dtype=dtype)
    gamma_t = normal(seed + 1, batch, dtype=dtype)
    gamma_s = gamma_t - 1
    for heads in HEADS:
        encoder = make_encoder("trainable", shape, seed)
        model = make_model(
            dc.LinearSchedule(), encoder, shape, seed, prediction=prediction, heads=heads
        )
        exact = model.reverse(z.double(), gamma_s.double(), gamma_t.double())
        step = model.to(dtype).reverse(z, gamma_s, gamma_t)
        close(step.mean, exact.mean.to(dtype))
        close(step.std, exact.std.to(dtype))
        assert step.sample(generator(0)).shape == z.shape
        assert isinstance(step, Gaussian)
