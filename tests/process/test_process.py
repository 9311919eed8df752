"""The forward process: composition of kernels, Bayes, moments of the SDE, noise levels against quadrature."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.process import (
    ConstantNoiseLevel,
    FunctionNoiseLevel,
    Gaussian,
    forward_drift,
    kl_divergence,
    marginal,
    normal_like,
    posterior,
    posterior_std,
    transition,
)
from diffenc_ct.schedules import alpha, alpha2, expand, sigma, sigma2
from tests.strategies import (
    cases,
    close,
    dtypes,
    generator,
    noise_levels,
    normal,
    seeds,
)

F64 = torch.float64


def push(kernel, start: Gaussian) -> Gaussian:
    """The law of kernel(z).sample(), z ~ start, for a kernel whose mean is affine in z with a scalar slope."""
    at_mean, moved = kernel(start.mean), kernel(start.mean + 1)
    slope = moved.mean - at_mean.mean
    close(kernel(start.mean - 2).mean, at_mean.mean - 2 * slope)  # affine indeed
    return Gaussian(at_mean.mean, torch.sqrt(slope**2 * start.std**2 + at_mean.std**2))


def same(a: Gaussian, b: Gaussian, tolerance: float | None = None) -> None:
    close(a.mean, b.mean, tolerance)
    close((a.std**2).expand_as(a.mean), (b.std**2).expand_as(a.mean), tolerance)


@given(cases())
def test_marginal(case):
    """z_t = alpha x_t + sigma eps."""
    x_t, gamma = case.encoding.value, case.gamma_t
    expected = expand(alpha(gamma), x_t) * x_t + expand(sigma(gamma), x_t) * case.noise
    close(marginal(x_t, gamma).sample(noise=case.noise), expected)


@given(cases())
def test_transition_carries_the_marginal_forward(case):
    """int q(z_t | z_s, x) q(z_s | x) dz_s = q(z_t | x), also from the data end s = 0."""
    x_t, gamma_t = case.encoding.value, case.gamma_t
    for s in (case.s, torch.zeros_like(case.s)):
        gamma_s = case.model.schedule(s).gamma
        x_s = case.model.encoder.encode(case.x, gamma_s)
        reached = push(
            lambda z, x_s=x_s, gamma_s=gamma_s: transition(z, x_s, x_t, gamma_s, gamma_t),
            marginal(x_s, gamma_s),
        )
        same(reached, marginal(x_t, gamma_t))


@given(cases())
def test_transition_at_zero_length_stays(case):
    gamma = case.gamma_t
    step = transition(case.z_t, case.encoding.value, case.encoding.value, gamma, gamma)
    close(step.mean, case.z_t)
    assert not step.std.any()


@given(cases(), st.floats(0.05, 0.95))
def test_chapman_kolmogorov(case, share):
    """q(z_t | z_r) = int q(z_t | z_s) q(z_s | z_r) dz_s for r < s < t."""
    r = share * case.s
    gamma_r = case.model.schedule(r).gamma
    x_r = case.model.encoder.encode(case.x, gamma_r)
    z_r = marginal(x_r, gamma_r).sample(noise=case.noise)
    first = transition(z_r, x_r, case.x_s, gamma_r, case.gamma_s)
    second = push(
        lambda z: transition(z, case.x_s, case.encoding.value, case.gamma_s, case.gamma_t), first
    )
    same(second, transition(z_r, x_r, case.encoding.value, gamma_r, case.gamma_t))


@given(cases())
def test_posterior_carries_the_marginal_back(case):
    """int q_eta(z_s | z_t, x) q(z_t | x) dz_t = q(z_s | x) at any noise level, eta = 0 included."""
    x_t, gamma_t = case.encoding.value, case.gamma_t
    for level in (case.noise_level, ConstantNoiseLevel(0.0)):
        back = push(
            lambda z, level=level: posterior(z, case.x_s, x_t, case.gamma_s, gamma_t, level),
            marginal(x_t, gamma_t),
        )
        same(back, marginal(case.x_s, case.gamma_s))


@given(cases(), st.floats(0.05, 0.95))
def test_posteriors_compose(case, share):
    """q_eta(z_r | z_t) = int q_eta(z_r | z_s) q_eta(z_s | z_t) dz_s for r < s < t."""
    r, level, x_t = share * case.s, case.noise_level, case.encoding.value
    gamma_r = case.model.schedule(r).gamma
    x_r = case.model.encoder.encode(case.x, gamma_r)
    first = posterior(case.z_t, case.x_s, x_t, case.gamma_s, case.gamma_t, level)
    second = push(lambda z: posterior(z, x_r, case.x_s, gamma_r, case.gamma_s, level), first)
    direct = posterior(case.z_t, x_r, x_t, gamma_r, case.gamma_t, level)
    # A noise level given as a function has its integral by quadrature, exact to 1e-8 or so.
    same(second, direct, 1e-6 if isinstance(level, FunctionNoiseLevel) else None)


@given(cases(), seeds)
def test_bayes(case, seed):
    """At eta = 1: q(z_s | z_t, x) q(z_t | x) = q(z_t | z_s, x) q(z_s | x), as densities."""
    x_s, x_t, gamma_s, gamma_t = case.x_s, case.encoding.value, case.gamma_s, case.gamma_t
    z_s, z_t = normal(seed, *case.x.shape), normal(seed + 1, *case.x.shape)
    one = posterior(z_t, x_s, x_t, gamma_s, gamma_t).log_prob(z_s)
    one = one + marginal(x_t, gamma_t).log_prob(z_t)
    other = transition(z_s, x_s, x_t, gamma_s, gamma_t).log_prob(z_t)
    other = other + marginal(x_s, gamma_s).log_prob(z_s)
    close(one, other, 1e-9)


@given(cases())
def test_the_papers_posterior(case):
    """mu_Q and sigma_Q^2 in the paper's form, eta = 1 being the default."""
    x_s, x_t, z_t = case.x_s, case.encoding.value, case.z_t
    a_s, a_t = expand(alpha(case.gamma_s), z_t), expand(alpha(case.gamma_t), z_t)
    v_s, v_t = expand(sigma2(case.gamma_s), z_t), expand(sigma2(case.gamma_t), z_t)
    a_ts = a_t / a_s
    v_ts = v_t - a_ts**2 * v_s
    mean = a_ts * v_s / v_t * z_t + a_s * v_ts / v_t * x_t + a_s * (x_s - x_t)
    for level in ([], [1.0], [1], [lambda gamma: torch.ones_like(gamma)]):
        same(
            posterior(z_t, x_s, x_t, case.gamma_s, case.gamma_t, *level),
            Gaussian(mean, torch.sqrt(v_ts * v_s / v_t)),
        )


@given(cases())
def test_no_noise_is_deterministic(case):
    """eta = 0 keeps the noise: z_s = alpha_s x_s + sigma_s eps."""
    step = posterior(
        case.z_t, case.x_s, case.encoding.value, case.gamma_s, case.gamma_t, noise_level=0.0
    )
    assert not step.std.any()
    close(step.mean, marginal(case.x_s, case.gamma_s).sample(noise=case.noise))


@given(cases())
def test_rho_is_the_correlation_of_the_noises(case):
    """z_s = alpha_s x_s + sigma_s (rho eps_t + sqrt(1 - rho^2) eps'), rho = exp(-int eta^2 / 2)."""
    level = case.noise_level
    rho = level.rho(case.gamma_s, case.gamma_t)
    close(rho, torch.exp(-level.integral(case.gamma_s, case.gamma_t) / 2))
    assert ((rho > 0) & (rho < 1)).all()
    step = posterior(case.z_t, case.x_s, case.encoding.value, case.gamma_s, case.gamma_t, level)
    still = marginal(case.x_s, case.gamma_s).mean
    scale = expand(sigma(case.gamma_s), case.z_t)
    close((step.mean - still) / scale, expand(rho, case.z_t) * case.noise, 1e-8)
    close((step.std / scale) ** 2, expand(1 - rho**2, scale))
    close(posterior_std(case.gamma_s, case.gamma_t, level), step.std.flatten())


@given(cases(), seeds)
def test_forward_drift_moves_the_moments(case, seed):
    """d/dt E[z] = E[drift] and d/dt Var = 2 (slope) Var + beta, for the marginal's mean and variance."""
    t = case.t.clone().requires_grad_()
    point = case.model.schedule(t)
    x_t = case.model.encoder.encode(case.x, point.gamma)
    mean = marginal(x_t, point.gamma).mean.flatten(1)
    velocity = torch.stack(
        [torch.autograd.grad(m.sum(), t, retain_graph=True)[0] for m in mean.unbind(1)], 1
    )
    (variance_rate,) = torch.autograd.grad(sigma2(point.gamma).sum(), t, retain_graph=True)
    encoding = case.model.encoder(case.x, point.gamma)
    drift = forward_drift(mean.view_as(case.x), encoding, point)
    close(drift.flatten(1), velocity, 1e-9)
    moved = forward_drift(mean.view_as(case.x) + 1, encoding, point) - drift
    slope = moved.flatten(1)[:, 0]
    close(2 * slope * point.sigma2 + point.beta, variance_rate)


@given(cases())
def test_transition_tends_to_the_drift(case):
    """d/dt of the transition's mean and variance at t = s are the forward drift and beta."""
    s = case.s + 0.05
    t = s.clone().requires_grad_()
    start, end = case.model.schedule(s), case.model.schedule(t)
    encoding = case.model.encoder(case.x, start.gamma)
    z = marginal(encoding.value, start.gamma).sample(noise=case.noise)
    x_t = case.model.encoder.encode(case.x, end.gamma)
    step = transition(z, encoding.value, x_t, start.gamma, end.gamma)
    rows = [
        torch.autograd.grad(m.sum(), t, retain_graph=True)[0]
        for m in step.mean.flatten(1).unbind(1)
    ]
    drift = forward_drift(z, encoding, start)
    close(torch.stack(rows, 1), drift.flatten(1).detach(), 1e-9)


@given(cases(), seeds)
def test_gaussian_against_torch(case, seed):
    z, q, p = case.z_t, marginal(case.x_s, case.gamma_s), marginal(case.x, case.gamma_t)
    theirs_q, theirs_p = (torch.distributions.Normal(g.mean, g.std) for g in (q, p))
    close(q.log_prob(z), theirs_q.log_prob(z).flatten(1).sum(1), 1e-9)
    divergence = torch.distributions.kl_divergence(theirs_q, theirs_p).flatten(1).sum(1)
    close(kl_divergence(q, p), divergence, 1e-9)
    close(kl_divergence(q, q), torch.zeros(len(z), dtype=F64))
    first, again = q.sample(generator(seed)), q.sample(generator(seed))
    assert torch.equal(first, again)
    assert not torch.equal(first, q.sample(generator(seed + 1)))
    close((first - q.mean) / q.std, normal_like(z, generator(seed)), 1e-8)


def test_kl_of_close_gaussians_keeps_its_digits():
    """Variances in the ratio e^h: u - 1 - ln u is h^2/2, far below float32's 1 - 1."""
    zero, one = torch.zeros(1, 1), torch.ones(1, 1)
    for h in (1e-2, 1e-3):
        divergence = kl_divergence(Gaussian(zero, torch.exp(one * h / 2)), Gaussian(zero, one))
        assert abs(float(divergence) / (h**2 / 4) - 1) < 2 * h


@pytest.mark.parametrize("level", [1.0, 0.5, dc.NonTrainableNoiseLevel()])
@pytest.mark.parametrize("width", [2**-10, 0.5])
def test_float32_at_the_extremes(level, width):
    """Standard deviations of tiny and large steps, at every depth, to float32's own accuracy."""
    gamma_s = torch.arange(-20, 20, 0.5)
    zero = torch.zeros(len(gamma_s), 1)
    args = (zero, zero, zero, gamma_s, gamma_s + width)
    double = tuple(a.double() for a in args)
    for step, exact in (
        (posterior(*args, noise_level=level), posterior(*double, noise_level=level)),
        (transition(*args), transition(*double)),
    ):
        assert ((step.std.double() - exact.std) / exact.std).abs().max() < 2e-6


@given(dtypes, seeds, noise_levels())
def test_dtype(dtype, seed, level):
    x_s, x_t, z = (normal(seed + i, 2, 3, dtype=dtype) for i in range(3))
    gamma_s = normal(seed + 3, 2, dtype=dtype)
    gamma_t = gamma_s + 1
    exact = posterior(
        z.double(), x_s.double(), x_t.double(), gamma_s.double(), gamma_t.double(), level
    )
    step = posterior(z, x_s, x_t, gamma_s, gamma_t, level)
    close(step.mean, exact.mean.to(dtype))
    close(step.std, exact.std.to(dtype))
    move = transition(z, x_s, x_t, gamma_s, gamma_t)
    for tensor in (move.mean, move.std, step.sample(generator(seed)), step.log_prob(z)):
        assert tensor.dtype == dtype
    assert step.log_prob(z).shape == (2,)


@given(seeds)
def test_permuting_the_batch(seed):
    """Every kernel treats its examples apart."""
    x_s, x_t, z = (normal(seed + i, 4, 2, 2) for i in range(3))
    gamma_s = normal(seed + 3, 4)
    gamma_t, order = gamma_s + normal(seed + 4, 4).abs(), torch.tensor([2, 0, 3, 1])
    for kernel in (posterior, transition):
        whole = kernel(z, x_s, x_t, gamma_s, gamma_t)
        part = kernel(*(a[order] for a in (z, x_s, x_t, gamma_s, gamma_t)))
        close(part.mean, whole.mean[order])
        close(part.std, whole.std[order])


def test_alpha_and_sigma_are_not_swapped():
    """At the data end q(z | x) is a point at x_t, at the noise end it is N(0, I)."""
    x = torch.full((1, 2), 0.8, dtype=F64)
    data, noise = (marginal(x, torch.tensor([g], dtype=F64)) for g in (-30.0, 30.0))
    close(data.mean, x, 1e-6)
    close(noise.mean, torch.zeros_like(x), 1e-6)
    assert data.std.max() < 1e-6 and (noise.std - 1).abs().max() < 1e-6
    assert alpha2(torch.tensor(-30.0)) == 1
