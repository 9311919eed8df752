"""The ELBO's limits and closed forms: order in 1/T, invariance to the schedule, totals of the Gaussian world, ratios.

Expectations over Gaussian data and noise are exact: every loss of a world with optimal heads is quadratic in (x, eps),
and `world_points` integrates quadratics exactly. Integrals over t are by quadrature of the library's own `elbo`.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.elbo import step_kl
from diffenc_ct.schedules import alpha, snr
from diffenc_ct.worlds import GaussianWorld, MixtureWorld, quadrature
from tests.strategies import (
    cases,
    close,
    gaussian_worlds,
    make_encoder,
    make_gaussian_world,
    make_model,
    monotone,
    noise_levels,
    normal,
    schedules,
    world_points,
)

F64 = torch.float64


def integral_over_t(model, x, noise, level=1.0, *, panels=24, nodes=8):
    """int_0^1 of the diffusion term of infinite depth at one x and noise (1, *data), by quadrature over t."""
    t, weight = quadrature(0, 1, panels=panels, nodes=nodes)
    x, noise = (a.expand(len(t), *a.shape[1:]) for a in (x, noise))
    bound = dc.InfiniteDepth(level, ends_fraction=1e-9)
    terms = dc.elbo(model, x, bound, draws=dc.Draws(t=t, noise=noise))
    return (weight * terms.diffusion).sum().detach()


def sum_over_steps(model, x, noise, depth, level=1.0):
    """L_T at one x and one noise shared by all steps."""
    t = (torch.arange(depth, dtype=F64) + 0.5) / depth
    x, noise = (a.expand(depth, *a.shape[1:]) for a in (x, noise))
    bound = dc.FiniteDepth(depth, noise_level=level)
    return dc.elbo(model, x, bound, draws=dc.Draws(t=t, noise=noise)).diffusion.mean().detach()


def slope(errors):
    """The exponent of the errors' decay from each doubling of T to the next."""
    return [math.log2(a / b) for a, b in zip(errors[:-1], errors[1:], strict=True)]


@pytest.mark.parametrize("kind", ["identity", "nontrainable", "trainable", "user"])
@pytest.mark.parametrize("level", [1.0, 0.6, dc.NonTrainableNoiseLevel()], ids=str)
def test_finite_depth_converges_at_first_order(kind, level):
    """|L_T - L_inf| halves as T doubles, for random nonlinear networks and encoders."""
    shape = (2,)
    model = make_model(
        dc.LinearSchedule(-4.0, 3.0), make_encoder(kind, shape, 3), shape, 7, heads="paired"
    )
    x, noise = normal(1, 1, 2), normal(2, 1, 2)
    limit = integral_over_t(model, x, noise, level)
    errors = [
        float((sum_over_steps(model, x, noise, T, level) - limit).abs()) for T in (128, 256, 512)
    ]
    assert all(abs(k - 1) < 0.2 for k in slope(errors)), (errors, float(limit))


@pytest.mark.parametrize("heads", ["paired", "single"])
def test_first_order_in_the_mixture_world(heads):
    """Optimal heads of a multi-modal world, with an encoder and the tight noise level."""
    means = torch.tensor([[-1.0, 0.2], [0.8, 0.9], [0.3, -1.1]], dtype=F64)
    world = MixtureWorld(means, 0.3, dc.NonTrainableEncoder())
    model = world.model(dc.PolynomialSchedule(-4.0, 3.0, degree=3, weight=0.4), heads=heads)
    x, noise = torch.tensor([[0.7, 0.4]], dtype=F64), torch.tensor([[0.5, -0.8]], dtype=F64)
    for level in (1.0, dc.NonTrainableNoiseLevel()):
        limit = integral_over_t(model, x, noise, level)
        errors = [
            float((sum_over_steps(model, x, noise, T, level) - limit).abs())
            for T in (128, 256, 512)
        ]
        assert all(abs(k - 1) < 0.2 for k in slope(errors)), errors


@settings(max_examples=10)
@given(cases(), schedules(low=-6.0, high=4.0, pinned=True))
def test_the_schedule_between_its_ends_does_not_matter(case, schedule):
    """L_inf at a fixed x and noise, any encoder, heads and noise level that see t only through gamma."""
    straight = dc.LinearSchedule(-6.0, 4.0)
    # A tabulated noise level has kinks, at which the quadrature of another schedule is less exact.
    level = case.noise_level
    smooth = not isinstance(level, dc.TabulatedNoiseLevel)
    values = []
    for one in (straight, schedule):
        model = dc.DiffEnc(one, case.model.encoder, case.model.heads, case.model.decoder)
        values.append(integral_over_t(model, case.x[:1], case.noise[:1], level, panels=48))
    close(values[1], values[0], 1e-6 if smooth else 1e-3)


# The Gaussian world -------------------------------------------------------------------------------


def expected_terms(model, world, bound=None, *, panels=16, nodes=8):
    """E of every term over data and noises: (L_0, L_inf or L_T, L_1) by exact expectations and quadrature over t."""
    x, eps = world_points(world)
    if isinstance(bound, dc.FiniteDepth):
        t = (torch.arange(bound.depth, dtype=F64) + 0.5) / bound.depth
        weight = torch.full_like(t, 1 / bound.depth)
    else:
        t, weight = quadrature(0, 1, panels=panels, nodes=nodes)
    x_, eps_ = (a.repeat(len(t), 1) for a in (x, eps))
    terms = dc.elbo(model, x_, bound, draws=dc.Draws(t.repeat_interleave(len(x)), eps_, eps_))
    diffusion = (weight * terms.diffusion.view(len(t), len(x)).mean(1)).sum()
    return terms.reconstruction.mean(), diffusion, terms.latent.mean()


@settings(max_examples=12)
@given(gaussian_worlds(), schedules(low=-5.0, high=4.0), noise_levels())
def test_totals_of_the_gaussian_world(world, schedule, level):
    """L_0 + L_1 + L_inf = L_0 + I(x; z_0) - I(x; z_1) + L_1 + gap, to 1e-6."""
    gamma_0, gamma_1 = (schedule(torch.tensor(e, dtype=F64)).gamma for e in (0.0, 1.0))
    smooth = not isinstance(level, dc.TabulatedNoiseLevel)
    panels = 24 if smooth else 96
    reconstruction, diffusion, latent = expected_terms(
        world.model(schedule), world, dc.InfiniteDepth(level), panels=panels
    )
    close(reconstruction, world.reconstruction_loss(gamma_0), 1e-9)
    close(latent, world.latent_loss(gamma_1), 1e-9)
    information = world.mutual_information(torch.stack([gamma_0, gamma_1]))
    ends = gamma_0.item(), gamma_1.item()
    gap = world.gap(*ends, level)
    close(diffusion, information[0] - information[1] + gap, 1e-6 if smooth else 1e-4)
    close(diffusion, world.infinite_depth_loss(*ends, level), 1e-6 if smooth else 1e-4)
    assert gap > -1e-9


@given(st.floats(-1, 1), st.floats(0.05, 2), schedules(low=-7.0, high=4.0))
def test_the_bound_on_the_likelihood(mean, variance, schedule):
    """Identity encoder, d = 1: total = -E log p(x) + KL(q(z_1) || N(0, 1)) + E KL(q(x|z_0) || p(x|z_0))."""
    world = GaussianWorld(torch.tensor([mean], dtype=F64), torch.tensor([variance], dtype=F64))
    total = sum(expected_terms(world.model(schedule), world))
    gamma_0, gamma_1 = (schedule(torch.tensor(e, dtype=F64)).gamma for e in (0.0, 1.0))
    entropy = 0.5 * math.log(2 * math.pi * math.e * variance)

    def kl(mean_square, ratio):
        return 0.5 * (ratio - 1 - torch.log(ratio) + mean_square)

    a1 = alpha(gamma_1)
    prior = kl((a1 * mean) ** 2, a1**2 * variance + 1 - a1**2)
    a, noise = alpha(gamma_0), torch.sigmoid(gamma_0)
    C = a**2 * variance + noise
    gain = a * variance / C
    posterior_variance = variance * noise / C
    # E (E[x|z_0] - z_0/alpha_0)^2, with z_0 ~ N(alpha_0 m, C)
    shift = (gain - 1 / a) ** 2 * C
    width = torch.exp(gamma_0)
    decoder = kl(shift / width, posterior_variance / width)
    close(total, entropy + prior + decoder, 1e-6)
    assert total > entropy


@settings(max_examples=12)
@given(gaussian_worlds(), noise_levels(), st.integers(1, 6))
def test_finite_depth_in_the_gaussian_world(world, level, depth):
    """E[L_T] with no ratio, a number, w* a step, w* a step and dimension, against the world's formulas."""
    schedule = dc.LinearSchedule(-4.0, 3.0)
    model, gamma = world.model(schedule), schedule(torch.linspace(0, 1, depth + 1, dtype=F64)).gamma
    excess = world.step_excess(gamma[:-1], gamma[1:], level)
    close(world.finite_depth_loss(gamma), world.finite_depth_loss(gamma, 1.0, 1.0))
    for ratio, name in (
        (1.0, 1.0),
        (torch.tensor(1.4, dtype=F64), 1.4),
        (1 + excess.mean(1), "optimal"),
        (1 + excess, "per dimension"),
    ):
        bound = dc.FiniteDepth(depth, ratio=ratio, noise_level=level)
        found = expected_terms(model, world, bound)[1]
        close(found, world.finite_depth_loss(gamma, level, name), 1e-9)


@pytest.mark.parametrize("kind", ["nontrainable", "matrix"])
def test_first_order_in_the_gaussian_world(kind):
    """E[L_T] - L_inf with optimal heads: slope -1 in T."""
    world, schedule = make_gaussian_world(2, kind, 4), dc.LinearSchedule(-4.0, 3.0)
    limit = expected_terms(world.model(schedule), world)[1]
    errors = [
        float((expected_terms(world.model(schedule), world, dc.FiniteDepth(T))[1] - limit).abs())
        for T in (64, 128, 256)
    ]
    assert all(abs(k - 1) < 0.2 for k in slope(errors)), errors


@settings(max_examples=10)
@given(gaussian_worlds(kinds=("identity",), d=1), st.integers(1, 40))
def test_the_optimal_ratio_removes_the_grid_without_an_encoder(world, depth):
    """Identity encoder, d = 1, eta = 1: L_T with w* equals L_inf at every T, 1 included."""
    schedule = dc.PolynomialSchedule(-6.0, 4.0, degree=3, weight=0.3)
    grid = torch.linspace(0, 1, depth + 1, dtype=F64)
    gamma = schedule(grid).gamma
    w = 1 + world.step_excess(gamma[:-1], gamma[1:]).mean(1)
    found = expected_terms(world.model(schedule), world, dc.FiniteDepth(depth, ratio=w))[1]
    close(found, world.infinite_depth_loss(-6.0, 4.0), 1e-9)


def test_in_more_dimensions_it_takes_a_ratio_a_direction():
    """d = 3 with different variances: w* a dimension equals L_inf, the best scalar w* stays above it."""
    variances = torch.tensor([0.1, 0.7, 2.0], dtype=F64)
    world = GaussianWorld(torch.zeros(3, dtype=F64), variances)
    limit = world.infinite_depth_loss(-6.0, 4.0)
    for depth in (1, 2, 7):
        gamma = torch.linspace(-6, 4, depth + 1, dtype=F64)
        close(world.finite_depth_loss(gamma, ratio="per dimension"), limit, 1e-9)
        assert world.finite_depth_loss(gamma, ratio="optimal") > limit + 1e-3
        bound = dc.FiniteDepth(depth, ratio=1 + world.step_excess(gamma[:-1], gamma[1:]))
        found = expected_terms(world.model(dc.LinearSchedule(-6.0, 4.0)), world, bound)[1]
        close(found, limit, 1e-9)
        assert world.finite_depth_loss(gamma, ratio="optimal") < world.finite_depth_loss(gamma)


# Ratios -------------------------------------------------------------------------------------------


@given(cases(), st.booleans())
def test_the_optimal_ratio_is_stationary(case, per_dimension):
    """w* = 1 + E||Delta||^2/(d S^2) (or a dimension each): the step's KL is least there, at d/2 ln w*."""
    difference = normal(1, 16, *case.x.shape[1:]) * 0.3
    gamma_s, gamma_t = (g[:1].expand(16) for g in (case.gamma_s, case.gamma_t))
    level = case.noise_level
    variance = -torch.expm1(-level.integral(gamma_s, gamma_t)) / snr(gamma_s)
    excess = (difference**2).mean(0) / variance[0]
    best = 1 + (excess if per_dimension else excess.mean())
    w = best.clone().detach().requires_grad_()
    cost = step_kl(difference, gamma_s, gamma_t, level, w).mean()
    (gradient,) = torch.autograd.grad(cost, w)
    assert gradient.abs().max() < 1e-9
    close(cost, 0.5 * torch.log(best).expand(case.x.shape[1:]).sum(), 1e-9)
    for factor in (0.9, 1.1):
        assert step_kl(difference, gamma_s, gamma_t, level, factor * best).mean() > cost


@given(cases(), st.floats(0.3, 3), st.integers(1, 200))
def test_a_fixed_ratio_diverges_with_depth(case, w, depth):
    """L_T(w) = L_T(1)/w + T d/2 (1/w - 1 + ln w)."""
    draws = dc.Draws(t=case.t, noise=case.noise)
    one, other = (
        dc.elbo(case.model, case.x, bound, draws=draws).diffusion
        for bound in (
            dc.FiniteDepth(depth, noise_level=case.noise_level),
            dc.FiniteDepth(depth, ratio=w, noise_level=case.noise_level),
        )
    )
    d = case.x[0].numel()
    close(other, one / w + depth * d / 2 * (1 / w - 1 + math.log(w)), 1e-9)


@given(noise_levels())
def test_noise_levels_may_be_given_in_every_form(level):
    world = make_gaussian_world(2, "nontrainable", 1)
    model, x = world.model(dc.LinearSchedule(-4.0, 3.0)), normal(1, 3, 2)
    draws = dc.Draws(t=torch.tensor([0.1, 0.5, 0.8], dtype=F64), noise=normal(2, 3, 2))

    def as_function(gamma):
        return level.squared(gamma).sqrt()

    for bounds in (
        (dc.InfiniteDepth(level), dc.InfiniteDepth(as_function)),
        (dc.FiniteDepth(40, noise_level=level), dc.FiniteDepth(40, noise_level=as_function)),
    ):
        a, b = (dc.elbo(model, x, bound, draws=draws).diffusion for bound in bounds)
        close(a, b, 1e-2 if isinstance(level, dc.TabulatedNoiseLevel) else 1e-6)


def test_a_learned_schedule_feels_only_its_ends():
    """The gradient of L_inf with respect to the parameters of a schedule with pinned ends vanishes."""
    schedule = monotone(-6.0, 4.0, 2)
    model = make_model(schedule, make_encoder("trainable", (2,), 3), (2,), 7)
    t, weight = quadrature(0, 1, panels=48, nodes=8)
    x, noise = (normal(i, 1, 2).expand(len(t), 2) for i in (1, 2))
    bound = dc.InfiniteDepth(ends_fraction=1e-9)
    loss = (weight * dc.elbo(model, x, bound, draws=dc.Draws(t=t, noise=noise)).diffusion).sum()
    for gradient in torch.autograd.grad(loss, list(schedule.parameters())):
        assert gradient.abs().max() < 1e-6 * float(loss.detach())
