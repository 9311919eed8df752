"""Closed-form worlds: heads and densities against definitions, Tweedie, the continuity equation and quadrature."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.dynamics import ProbabilityFlow
from diffenc_ct.process import marginal
from diffenc_ct.schedules import alpha, expand, sigma2
from diffenc_ct.worlds import GaussianWorld, LinearEncoder, MixtureWorld, World, quadrature
from tests.conformance import check_heads
from tests.strategies import (
    close,
    dtypes,
    generator,
    make_gaussian_world,
    mixture_worlds,
    normal,
    seeds,
    worlds,
    worlds_1d,
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
    x_hat = world.estimates(z, gamma).x_hat
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
@given(worlds_1d, st.floats(-3, 4), seeds)
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
        heads = world.estimates(z[i : i + 1], gamma[i : i + 1])
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
    assert paired.decoder == single.decoder == dc.Reals()
    assert paired.heads.tells_apart and not single.heads.tells_apart
    assert paired.encoder is world.encoder and paired.schedule is schedule
    close(paired.predict(z, gamma).x_hat, heads.x_hat)
    close(paired.predict(z, gamma).r_hat, heads.r_hat)
    factor = expand(world.encoder.rate_factor(gamma), z)
    close(single.predict(z, gamma).x_hat * (1 + factor), heads.x_hat + heads.r_hat)
    close(single.predict(z, gamma).r_hat, factor * single.predict(z, gamma).x_hat)


@given(worlds, seeds)
def test_a_worlds_heads_pass_their_conformance(world, seed):
    """Both models of it: estimates one example at a time, errors that they leave, traces of the Jacobian."""
    x, noise = world.sample(3, generator(seed)), normal(seed + 1, 3, *world.sample(1).shape[1:])
    for heads in ("paired", "single"):
        model = world.model(dc.LinearSchedule(), heads=heads)
        check_heads(model.heads, model.encoder, x, noise=noise, gammas=(-5.0, 0.5, 3.0))
    z, gamma = latents(world, 0.5, seed)
    known, own = world.model(dc.LinearSchedule()).heads.traces(z, gamma), world.traces(z, gamma)
    assert all(torch.equal(a, b) for a, b in zip(known, own, strict=True))


@given(worlds, depths, seeds)
def test_one_depth_for_a_batch(world, value, seed):
    """A scalar gamma is every example's."""
    z, _ = latents(world, value, seed)
    scalar = torch.tensor(value, dtype=F64)
    close(world.log_q(z, scalar), world.log_q(z, scalar.expand(len(z))))
    close(world.estimates(z, scalar).x_hat, world.estimates(z, scalar.expand(len(z))).x_hat)
    close(world.estimates(z, scalar).r_hat, world.estimates(z, scalar.expand(len(z))).r_hat)


@given(worlds, depths, seeds)
def test_traces(world, value, seed):
    """tr dx_hat/dz and tr dr_hat/dz against reverse mode."""
    z, gamma = latents(world, value, seed)
    of_x, of_r = world.traces(z, gamma)
    close(of_x, divergence(lambda y: world.estimates(y, gamma).x_hat, z), 1e-8)
    close(of_r, divergence(lambda y: world.estimates(y, gamma).r_hat, z), 1e-8)


@given(dtypes, seeds)
def test_dtype(dtype, seed):
    """Everything is computed in the dtype of its arguments, from tables in float64."""
    gaussian = make_gaussian_world(2, "nontrainable", seed)
    mixture = MixtureWorld(normal(seed, 3, 2), 0.5, dc.NonTrainableEncoder())
    for world in (gaussian, mixture):
        z, gamma = latents(world, -1.0, seed)
        heads = world.estimates(z.to(dtype), gamma.to(dtype))
        close(heads.x_hat, world.estimates(z, gamma).x_hat.to(dtype), 1e-4)
        close(heads.r_hat, world.estimates(z, gamma).r_hat.to(dtype), 1e-4)
        close(world.log_q(z.to(dtype), gamma.to(dtype)), world.log_q(z, gamma).to(dtype), 1e-4)


def test_the_base_class_says_what_to_implement():
    with pytest.raises(NotImplementedError):
        World(dc.IdentityEncoder()).estimates(torch.zeros(1, 1), torch.zeros(1))


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
    close(mixture.estimates(z, gamma).r_hat, gaussian.estimates(z, gamma).r_hat, 1e-9)
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
