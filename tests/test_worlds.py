"""Closed-form worlds: heads and densities against definitions, Tweedie, the continuity equation and quadrature."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.dynamics import ProbabilityFlow
from diffenc_ct.elbo import infinite_depth_integrand, mean_difference
from diffenc_ct.process import as_noise_level, marginal
from diffenc_ct.schedules import alpha, expand, sigma2, snr
from diffenc_ct.worlds import GaussianWorld, LinearEncoder, MixtureWorld, World, quadrature
from tests.conformance import check_encoder
from tests.strategies import (
    close,
    dtypes,
    gaussian_worlds,
    generator,
    make_gaussian_world,
    mixture_worlds,
    noise_levels,
    normal,
    random_matrix_encoder,
    seeds,
    world_points,
    worlds,
)

F64 = torch.float64
depths = st.floats(-6, 4)


def latents(world, value, seed, n=3):
    """z (n, *data) at the world's own scale and gamma (n,), which differs between the examples."""
    x = world.sample(n, generator(seed))
    gamma = value + 0.2 * torch.arange(n, dtype=F64)
    encoded = world.encoder.encode(x, gamma)
    return marginal(encoded, gamma).sample(generator(seed + 1)), gamma


def divergence(field, z):
    """sum_i d field_i / d z_i of every example."""
    z = z.detach().requires_grad_()
    out = field(z).flatten(1)
    rows = [
        torch.autograd.grad(out[:, i].sum(), z, retain_graph=True)[0].flatten(1)[:, i]
        for i in range(out.shape[1])
    ]
    return torch.stack(rows, 1).sum(1).detach()


# Every world --------------------------------------------------------------------------------------


@given(worlds, depths, seeds)
def test_tweedie(world, value, seed):
    """alpha E[x_t | z] = z + sigma^2 grad log q_t(z)."""
    z, gamma = latents(world, value, seed)
    z.requires_grad_()
    (score,) = torch.autograd.grad(world.log_q(z, gamma).sum(), z)
    x_hat = world.heads(z, gamma).x_hat
    close(expand(alpha(gamma), z) * x_hat, z + expand(sigma2(gamma), z) * score, 1e-9)


@given(worlds, depths, seeds)
def test_continuity(world, value, seed):
    """d log q/dgamma + div u + u . grad log q = 0 along the probability flow u = dz/dgamma: right only with
    r_hat = E[x_t' | z]."""
    z, gamma = latents(world, value, seed)
    flow = ProbabilityFlow(world.model(dc.LinearSchedule()))
    z, moving = z.requires_grad_(), gamma.clone().requires_grad_()
    score, rate = torch.autograd.grad(world.log_q(z, moving).sum(), [z, moving])
    u = flow.velocity(z, gamma)
    spread = divergence(lambda y: flow.velocity(y, gamma), z)
    close(rate + spread + (u * score).flatten(1).sum(1), torch.zeros(len(z), dtype=F64), 1e-7)


@settings(max_examples=10)
@given(st.one_of(gaussian_worlds(d=st.just(1)), mixture_worlds(shape=(1,))), st.floats(-3, 4), seeds)
def test_marginals_are_the_datas(world, value, seed):
    """d = 1, by quadrature over x: q_t(z) = int q(z | x) p(x) dx, E[x_t | z] and E[x_t' | z] by Bayes; p and q have
    mass 1."""
    z, gamma = latents(world, value, seed)
    x, weight = quadrature(-14, 14, panels=120, nodes=10)
    x = x[:, None]
    p = world.log_prob(x).exp()
    close((weight * p).sum(), torch.tensor(1.0, dtype=F64), 1e-9)
    for i in range(len(z)):
        g = gamma[i].expand(len(x))
        encoding = world.encoder(x, g)
        joint = weight * p * marginal(encoding.value, g).log_prob(z[i].expand(len(x), 1)).exp()
        close(world.log_q(z[i : i + 1], gamma[i : i + 1])[0], joint.sum().log(), 1e-8)
        posterior = (joint / joint.sum())[:, None]
        heads = world.heads(z[i : i + 1], gamma[i : i + 1])
        close(heads.x_hat[0], (posterior * encoding.value).sum(0), 1e-8)
        close(heads.r_hat[0], (posterior * encoding.rate).sum(0), 1e-8)
    mass = (weight * world.log_q(x, gamma[:1].expand(len(x))).exp()).sum()
    close(mass, torch.tensor(1.0, dtype=F64), 1e-8)


@given(worlds, depths, seeds)
def test_models_of_a_world(world, value, seed):
    """Paired: the two conditional expectations. Single: their sum over 1 + c, r_hat its c-fold."""
    z, gamma = latents(world, value, seed)
    heads, schedule = world(z, gamma), dc.LinearSchedule()
    paired, single = world.model(schedule), world.model(schedule, heads="single")
    assert paired.levels is None and paired.paired and not single.paired
    assert paired.encoder is world.encoder and paired.schedule is schedule
    close(paired.predict(z, gamma).x_hat, heads.x_hat)
    close(paired.predict(z, gamma).r_hat, heads.r_hat)
    factor = expand(world.encoder.rate_factor(gamma), z)
    close(single.predict(z, gamma).x_hat * (1 + factor), heads.x_hat + heads.r_hat)
    close(single.predict(z, gamma).r_hat, factor * single.predict(z, gamma).x_hat)


@given(worlds, depths, seeds)
def test_one_depth_for_a_batch(world, value, seed):
    """A scalar gamma is every example's."""
    z, _ = latents(world, value, seed)
    scalar = torch.tensor(value, dtype=F64)
    close(world.log_q(z, scalar), world.log_q(z, scalar.expand(len(z))))
    close(world.heads(z, scalar).x_hat, world.heads(z, scalar.expand(len(z))).x_hat)
    close(world.heads(z, scalar).r_hat, world.heads(z, scalar.expand(len(z))).r_hat)


@given(dtypes, seeds)
def test_dtype(dtype, seed):
    """Everything is computed in the dtype of its arguments, from tables in float64."""
    gaussian = make_gaussian_world(2, "nontrainable", seed)
    mixture = MixtureWorld(normal(seed, 3, 2), 0.5, dc.NonTrainableEncoder())
    for world in (gaussian, mixture):
        z, gamma = latents(world, -1.0, seed)
        heads = world.heads(z.to(dtype), gamma.to(dtype))
        close(heads.x_hat, world.heads(z, gamma).x_hat.to(dtype), 1e-4)
        close(heads.r_hat, world.heads(z, gamma).r_hat.to(dtype), 1e-4)
        close(world.log_q(z.to(dtype), gamma.to(dtype)), world.log_q(z, gamma).to(dtype), 1e-4)


def test_the_base_class_says_what_to_implement():
    with pytest.raises(NotImplementedError):
        World(dc.IdentityEncoder()).heads(torch.zeros(1, 1), torch.zeros(1))


# The Gaussian world -------------------------------------------------------------------------------


@given(st.integers(1, 3), seeds)
def test_linear_encoder(d, seed):
    """Any user's matrix passes the conformance of encoders; its maps are A and dA/dlambda."""
    encoder = random_matrix_encoder(d, seed)
    check_encoder(encoder, normal(seed, 2, d))
    world = make_gaussian_world(d, "matrix", seed)
    gamma = normal(seed, 3)
    A, rate = world.maps(gamma)
    close(A, world.encoder.matrix(gamma))
    h = 1e-4
    close(rate, (world.encoder.matrix(gamma - h) - world.encoder.matrix(gamma + h)) / (2 * h), 1e-7)


@given(gaussian_worlds(), depths)
def test_conditioning(world, value):
    """Cov(x | z) and the traces a, b, c from the joint covariance of (x, z), in numpy."""
    gamma = torch.tensor([value], dtype=F64)
    A, rate = (m[0].numpy() for m in world.maps(gamma))
    S, d = world.covariance.numpy(), world.dimensions
    signal = math.sqrt(1 / (1 + math.exp(value)))
    cross = signal * S @ A.T
    total = signal**2 * A @ S @ A.T + (1 - signal**2) * np.eye(d)
    P = S - cross @ np.linalg.inv(total) @ cross.T
    close(world.posterior_covariance(gamma)[0], torch.from_numpy(P), 1e-9)
    a, b, c = world.covariances(gamma)
    for found, left, right in ((a, A, A), (b, rate, rate), (c, rate, A)):
        close(found[0], torch.tensor(np.trace(left @ P @ right.T)), 1e-9)
    close(world.marginal(gamma).covariance_matrix[0], torch.from_numpy(total), 1e-9)
    close(world.marginal(gamma).mean[0], signal * torch.from_numpy(A) @ world.mean, 1e-9)


@given(gaussian_worlds(), depths)
def test_information_falls_as_the_channel_says(world, value):
    """I(x; z_t) = h(z_t) - h(z_t | x); dI/dlambda = SNR (a/2 + c)."""
    gamma = torch.tensor([value], dtype=F64, requires_grad=True)
    information = world.mutual_information(gamma)
    C, d = world.marginal(gamma).covariance_matrix, world.dimensions
    close(information, 0.5 * (torch.logdet(C) - d * torch.log(sigma2(gamma))), 1e-9)
    a, _, c = world.covariances(gamma)
    (slope,) = torch.autograd.grad(information.sum(), gamma)
    close(-slope, snr(gamma) * (a / 2 + c), 1e-9)


@given(gaussian_worlds(), depths, noise_levels())
def test_rates_are_those_of_the_librarys_integrand(world, value, level):
    """infinite_depth_rate = E[integrand]/gamma' with the optimal heads; gap_rate = it less dI/dlambda, at least 0."""
    x, eps = world_points(world)
    gamma = torch.full((len(x),), value, dtype=F64)
    model = world.model(dc.LinearSchedule())
    encoding = world.encoder(x, gamma)
    z = marginal(encoding.value, gamma).sample(noise=eps)
    errors = model.errors(z, eps, encoding, gamma)
    point = dc.SchedulePoint(gamma, torch.full_like(gamma, 3.0))
    expected = infinite_depth_integrand(errors, point, level).mean() / 3
    one = gamma[:1]
    close(world.infinite_depth_rate(one, level)[0], expected, 1e-9)
    a, _, c = world.covariances(one)
    gap = world.gap_rate(one, level)
    close(gap, world.infinite_depth_rate(one, level) - snr(one) * (a / 2 + c), 1e-9)
    assert gap > -1e-9


@given(gaussian_worlds(), depths)
def test_the_optimal_noise_level(world, value):
    """eta*^2 is where the rate is stationary; there the gap is SNR (a (eta*^2 - 1)/4 - c/2); eta = 1 leaves SNR b/2."""
    gamma = torch.tensor([value], dtype=F64)
    a, b, c = world.covariances(gamma)
    best = world.optimal_noise_level_squared(gamma)
    eta2 = best.clone().requires_grad_()
    level = as_noise_level(lambda g: eta2.sqrt())
    rate = world.infinite_depth_rate(gamma, level)
    (slope,) = torch.autograd.grad(rate.sum(), eta2)
    close(slope / rate.detach(), torch.zeros_like(slope), 1e-9)
    close(world.gap_rate(gamma, level), snr(gamma) * (a * (best - 1) / 4 - c / 2), 1e-9)
    close(world.gap_rate(gamma), snr(gamma) * b / 2, 1e-9)
    for factor in (0.8, 1.25):
        other = as_noise_level(lambda g, factor=factor: (factor * best).sqrt())
        assert world.infinite_depth_rate(gamma, other) > rate


@given(gaussian_worlds(kinds=("nontrainable", "identity")), depths)
def test_where_the_bound_is_tight(world, value):
    """Identity: eta*^2 = 1. DiffEnc-nt: eta*^2 = 1 + 2 sigma^2, no gap there, and a gap at eta = 1."""
    gamma = torch.tensor([value], dtype=F64)
    zero = torch.zeros(1, dtype=F64)
    best = world.optimal_noise_level_squared(gamma)
    if isinstance(world.encoder, dc.IdentityEncoder):
        close(best, 1 + zero)
        close(world.gap_rate(gamma), zero, 1e-9)
    else:
        close(best, 1 + 2 * sigma2(gamma))
        close(world.gap_rate(gamma, dc.NonTrainableNoiseLevel()), zero, 1e-9)
        assert world.gap(-6.0, 4.0) > 1e-3
        close(world.gap(-6.0, 4.0, dc.NonTrainableNoiseLevel()), zero[0], 1e-9)


@given(gaussian_worlds(), depths, st.floats(0.05, 3), noise_levels())
def test_steps_are_those_of_the_librarys_difference(world, value, width, level):
    """step_excess = E[Delta_i^2]/S^2 with the optimal heads, for two steps at once."""
    x, eps = world_points(world)
    starts = torch.tensor([value, value + 0.3], dtype=F64)
    found = world.step_excess(starts, starts + width, level)
    for i, start in enumerate(starts):
        gamma_s = start.expand(len(x))
        gamma_t = gamma_s + width
        encoding = world.encoder(x, gamma_t)
        z = marginal(encoding.value, gamma_t).sample(noise=eps)
        errors = world.model(dc.LinearSchedule()).errors(z, eps, encoding, gamma_t)
        x_s = world.encoder.encode(x, gamma_s)
        delta = mean_difference(errors, encoding, x_s, gamma_s, gamma_t, level)
        variance = (1 - level.rho(gamma_s, gamma_t) ** 2)[0] / snr(start)
        close(found[i], (delta**2).mean(0) / variance, 1e-8)


@given(gaussian_worlds(), seeds)
def test_gaussian_samples(world, seed):
    """x = m + L eps with L L^T = S: exactly, since the noise of a seed is known."""
    n, d = 4 + world.dimensions, world.dimensions
    x, noise = world.sample(n, generator(seed)), normal(seed, n, d)
    L = torch.linalg.lstsq(noise, x - world.mean).solution.mT
    close(noise @ L.mT, x - world.mean, 1e-8)
    close(L @ L.mT, world.covariance, 1e-8)


@given(gaussian_worlds(), seeds)
def test_gaussian_log_prob(world, seed):
    x, d = normal(seed, 2, world.dimensions), world.dimensions
    centred = (x - world.mean).numpy()
    S = world.covariance.numpy()
    quadratic = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(S), centred)
    expected = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * S)[1])
    close(world.log_prob(x), torch.from_numpy(expected), 1e-9)
    assert world.dimensions == d


def test_variances_make_a_diagonal_covariance():
    variances = torch.tensor([0.5, 2.0], dtype=F64)
    world = GaussianWorld(torch.zeros(2, dtype=F64), variances)
    close(world.covariance, torch.diag(variances))
    assert isinstance(world.encoder, dc.IdentityEncoder)


@pytest.mark.parametrize("mean, covariance", [((2,), (3,)), ((2,), (2, 3)), ((1, 2), (2, 2)), ((2,), (3, 3))])
def test_a_bad_gaussian_is_refused(mean, covariance):
    with pytest.raises(ValueError, match="covariance"):
        GaussianWorld(torch.zeros(mean), torch.ones(covariance))


def test_quadrature_is_exact_for_polynomials():
    u, w = quadrature(-2.0, 3.0, panels=3, nodes=4)
    for power in range(8):
        exact = (3.0 ** (power + 1) - (-2.0) ** (power + 1)) / (power + 1)
        close((w * u**power).sum(), torch.tensor(exact, dtype=F64), 1e-12)
    assert len(u) == 12


# The mixture world --------------------------------------------------------------------------------


@given(mixture_worlds(), depths, seeds)
def test_mixture_density(world, value, seed):
    """log q_t and log p from torch's own normals and logsumexp."""
    z, gamma = latents(world, value, seed)
    a = world.encoder(torch.ones(len(z), 1, dtype=F64), gamma).value
    weights = world.log_weights
    close(weights.exp().sum(), torch.tensor(1.0, dtype=F64))
    for found, scale, variance in (
        (
            world.log_q(z, gamma),
            alpha(gamma)[:, None] * a,
            alpha(gamma)[:, None] ** 2 * a**2 * world.deviation**2 + sigma2(gamma)[:, None],
        ),
        (world.log_prob(z), torch.ones_like(a), torch.full_like(a, world.deviation**2)),
    ):
        normals = torch.distributions.Normal(
            scale[:, None] * world.means, variance.sqrt()[:, None].expand(-1, 1, world.dimensions)
        )
        each = normals.log_prob(z.flatten(1)[:, None]).sum(-1)
        close(found, (weights + each).logsumexp(1), 1e-9)


@given(mixture_worlds(), depths, seeds)
def test_mixture_variance_is_the_divergence_of_its_mean(world, value, seed):
    """tr Cov(x | z) = sigma^2/(alpha a) div E[x | z]."""
    z, gamma = latents(world, value, seed)
    a, _ = world.factor(gamma)
    spread = divergence(lambda y: world.posterior_mean(y, gamma), z)
    variance = world.posterior_variance(z, gamma)
    assert (variance > 0).all()
    close(alpha(gamma) * a / sigma2(gamma) * variance, spread, 1e-8)
    close(variance, sigma2(gamma) / (alpha(gamma) * a) * spread, 1e-8)


def test_a_mixture_of_one_is_the_gaussian_world():
    mean = normal(1, 1, 3)
    mixture = MixtureWorld(mean, 0.6, dc.NonTrainableEncoder())
    gaussian = GaussianWorld(mean[0], torch.full((3,), 0.36, dtype=F64), dc.NonTrainableEncoder())
    z, gamma = latents(mixture, -1.0, 4)
    close(mixture.log_q(z, gamma), gaussian.log_q(z, gamma), 1e-9)
    close(mixture.heads(z, gamma).r_hat, gaussian.heads(z, gamma).r_hat, 1e-9)
    trace = gaussian.posterior_covariance(gamma).diagonal(dim1=1, dim2=2).sum(1)
    close(mixture.posterior_variance(z, gamma), trace, 1e-9)


def test_mixture_samples():
    """Two far components of an image-shaped world: their frequencies and moments within five standard errors."""
    means = torch.stack([torch.full((1, 2, 2), -9.0), torch.full((1, 2, 2), 9.0)]).double()
    world = MixtureWorld(means, 0.5, weights=torch.tensor([1.0, 3.0]))
    n = 8000
    x = world.sample(n, generator(0))
    assert x.shape == (n, 1, 2, 2) and torch.equal(x, world.sample(n, generator(0)))
    high = x[:, 0, 0, 0] > 0
    assert abs(float(high.double().mean()) - 0.75) < 5 * math.sqrt(0.75 * 0.25 / n)
    rest = (x - torch.where(high, 9.0, -9.0)[:, None, None, None]).flatten()
    assert abs(float(rest.mean())) < 5 * 0.5 / math.sqrt(len(rest))
    assert abs(float(rest.var()) - 0.25) < 5 * 0.25 * math.sqrt(2 / len(rest))


def test_mixtures_are_uniform_with_the_identity_unless_given():
    world = MixtureWorld(normal(1, 4, 2), 0.3)
    close(world.log_weights.exp(), torch.full((4,), 0.25, dtype=F64))
    assert isinstance(world.encoder, dc.IdentityEncoder) and world.dimensions == 2


@pytest.mark.parametrize("means, deviation", [((3,), 1.0), ((3, 2), 0.0), ((3, 2), -1.0)])
def test_a_bad_mixture_is_refused(means, deviation):
    with pytest.raises(ValueError, match="means"):
        MixtureWorld(torch.zeros(means), deviation)


def test_linear_encoder_on_a_batch():
    encoder = LinearEncoder(lambda gamma: gamma[:, None, None] * torch.ones(2, 2, dtype=F64))
    x, gamma = normal(1, 3, 2), normal(2, 3)
    close(encoder.encode(x, gamma), gamma[:, None] * x.sum(1, keepdim=True).expand(-1, 2))
