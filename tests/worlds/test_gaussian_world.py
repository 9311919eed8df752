"""The Gaussian world: conditioning, information, rates, noise levels, steps and samples against their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.elbo import infinite_depth_integrand, mean_difference
from diffenc_ct.process import as_noise_level, marginal
from diffenc_ct.schedules import sigma2, snr
from diffenc_ct.worlds import GaussianWorld, quadrature
from tests.conformance import check_encoder
from tests.strategies import (
    close,
    gaussian_worlds,
    generator,
    make_gaussian_world,
    noise_levels,
    normal,
    random_matrix_encoder,
    seeds,
    world_points,
)

F64 = torch.float64
depths = st.floats(-6, 4)


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
    close(world.infinite_depth_rate(one), world.infinite_depth_rate(one, 1.0))
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
    close(world.gap(-6.0, 4.0), world.gap(-6.0, 4.0, 1.0))
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


@pytest.mark.parametrize(
    "mean, covariance", [((2,), (3,)), ((2,), (2, 3)), ((1, 2), (2, 2)), ((2,), (3, 3))]
)
def test_a_bad_gaussian_is_refused(mean, covariance):
    with pytest.raises(ValueError, match="covariance"):
        GaussianWorld(torch.zeros(mean), torch.ones(covariance))


def test_quadrature_is_exact_for_polynomials():
    u, w = quadrature(-2.0, 3.0, panels=3, nodes=4)
    for power in range(8):
        exact = (3.0 ** (power + 1) - (-2.0) ** (power + 1)) / (power + 1)
        close((w * u**power).sum(), torch.tensor(exact, dtype=F64), 1e-12)
    assert len(u) == 12
