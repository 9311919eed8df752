"""Posterior heads: Bayes' rule by brute force, limits, derivatives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck

import diffenc_ct as dc
from diffenc_ct.model import (
    MixturePosterior,
    Posterior,
    regression_loss,
)
from diffenc_ct.networks.level_functions import level_functions
from diffenc_ct.process import marginal
from diffenc_ct.schedules import alpha, sigma, sigma2
from diffenc_ct.worlds import GaussianWorld
from tests.conformance import check_heads
from tests.parts import LEVELS
from tests.strategies import (
    Fixed,
    close,
    make_encoder,
    normal,
    posterior_heads,
    seeds,
)

F64 = torch.float64
X = 2 * (torch.arange(LEVELS, dtype=F64) + 0.5) / LEVELS - 1
ENCODERS = ["identity", "nontrainable", "trainable", "residual"]
KINDS = ["levels", "mixture"]
encoders = pytest.mark.parametrize("encoder", ENCODERS)
kinds = pytest.mark.parametrize("kind", KINDS)
gammas = st.floats(-12, 7)


def blind(kind, shape, seed, **options):
    """Heads whose network is Fixed, and its outputs a value: (*shape, outputs)."""
    heads = posterior_heads(kind, shape, seed, **options)
    out = 0.5 * normal(seed, heads.outputs * shape[0], *shape[1:])
    heads.network = Fixed(out)
    return heads, out.unflatten(0, (heads.outputs, shape[0])).movedim(0, -1)


def rate_of_noise(encoder, gamma):
    """a, and the observation's variance e^gamma/a^2."""
    a = encoder.scale(gamma)
    return a, gamma.exp() / a**2


def grid_moments(kind, heads, out, y, variance):
    """E x, Var x of each value's prior times N(y; x, variance), by the definitions; all of shape y's."""
    if kind == "levels":
        phi = level_functions(LEVELS, 2).double()
        log_prior, x = heads.prior + out[..., : len(phi)] @ phi, X
    else:
        logits, shift, log_width = out[..., : 3 * 3].chunk(3, -1)
        mean = torch.tensor([-2.0, 0.0, 2.0], dtype=F64) / 3 + shift
        width = log_width.exp() / 3
        x = torch.arange(-9, 9, 0.01, dtype=F64)
        normals = torch.distributions.Normal(mean[..., None], width[..., None]).log_prob(x)
        log_prior = (logits.log_softmax(-1)[..., None] + normals).logsumexp(-2)
    likelihood = -((y[..., None] - x) ** 2) / (2 * variance)
    p = (log_prior + likelihood).softmax(-1)
    mean = (p * x).sum(-1)
    return mean, (p * (x - mean[..., None]) ** 2).sum(-1)


@kinds
@encoders
@given(gamma=st.floats(-5, 5), seed=seeds, free=st.booleans(), paired=st.booleans())
@settings(max_examples=8)
def test_bayes_rule(kind, encoder, gamma, seed, free, paired):
    """x_hat = a E[x | z] + sigma^2 u and r_hat = c x_hat + sigma^2 w, for an observation of variance e^gamma/a^2; its
    derivative at fixed outputs is alpha/sigma^2 times the posterior variance of a x."""
    shape, depth = (2, 3), torch.tensor([gamma], dtype=F64)
    encoder = make_encoder(encoder, shape, seed)
    heads, out = blind(kind, shape, seed, free=free, paired=paired)
    a, variance = rate_of_noise(encoder, depth)
    z = (alpha(depth) * a * normal(seed + 7, 1, *shape) * 0.7).requires_grad_()
    found = heads(z, depth, encoder)
    mean, spread = grid_moments(kind, heads, out, z.detach() / (alpha(depth) * a), variance)
    noise = sigma2(depth)
    x_hat = a * mean
    if free:
        x_hat = x_hat + noise * out[..., heads.parameters_of_value]
    close(found.x_hat, x_hat, 1e-7)
    r_hat = encoder.rate_factor(depth) * x_hat
    close(found.r_hat, r_hat + noise * out[..., -1] if paired else r_hat, 1e-7)
    (slope,) = torch.autograd.grad(found.x_hat.sum(), z)
    close(slope, alpha(depth) / noise * a**2 * spread, 1e-6)


@encoders
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("free", [False, True])
@kinds
def test_conformance(kind, encoder, paired, free):
    """Errors are what the estimates leave, examples do not see each other, and r_hat = c x_hat where not paired."""
    for seed, shape in enumerate([(3,), (2, 1, 3)]):
        heads = posterior_heads(kind, shape, seed, paired=paired, free=free)
        x = normal(seed, 2, *shape).clamp(-1.5, 1.5)
        check_heads(heads, make_encoder(encoder, shape, seed), x, gammas=(-12.0, -3.0, 4.0))
        assert heads.tells_apart == paired


@kinds
@encoders
@pytest.mark.parametrize("paired", [False, True])
def test_derivatives(kind, encoder, paired):
    """With respect to latents, depths (a learned schedule's; the encoder's scale is a function of them) and parameters,
    forwards and backwards; of errors, through the encoder, too."""
    shape = (2,)
    encoder, heads = (
        make_encoder(encoder, shape, 3),
        posterior_heads(kind, shape, 5, paired=paired),
    )
    z, noise, x = (normal(i, 2, *shape) * 0.6 for i in range(3))
    weight = heads.network.second.weight

    def estimates(z, gamma, weight):
        with torch.no_grad():
            heads.network.second.weight.data = weight.detach()
        parameters = {"network.second.weight": weight}
        found = torch.func.functional_call(heads, parameters, (z, gamma, encoder))
        return found.x_hat, found.r_hat

    def errors(x, noise, gamma):
        encoding = encoder(x, gamma)
        z = marginal(encoding.value, gamma).sample(noise=noise)
        found = heads.errors(z, noise, encoding, gamma, encoder)
        return found.x, found.r

    for depths in ([-1.0, 0.8], [-3.0, -2.0]):
        gamma = torch.tensor(depths, dtype=F64).requires_grad_()
        leaves = [a.detach().clone().requires_grad_() for a in (z, gamma, weight)]
        assert gradcheck(estimates, leaves, check_forward_ad=True, fast_mode=True)
        inputs = [a.detach().clone().requires_grad_() for a in (x, noise, gamma)]
        assert gradcheck(errors, inputs, fast_mode=True)


@encoders
@given(seed=seeds, gamma=gammas)
@settings(max_examples=6)
def test_estimates_stay_among_the_levels(encoder, seed, gamma):
    """Without a free output, whatever the latent: within a times the levels' hull."""
    encoder, depth = make_encoder(encoder, (3,), 0), torch.full((4,), gamma, dtype=F64)
    heads, _ = blind("levels", (3,), seed, free=False)
    found = heads(30 * normal(seed, 4, 3), depth, encoder).x_hat
    assert (found.abs() <= encoder.scale(depth)[:, None] * X.max() * (1 + 1e-12)).all()


@encoders
def test_limits(encoder):
    """Beside the data the nearest level, beside the noise the mean of the prior; mixtures: the observation, their
    mean."""
    shape, seed = (4,), 2
    encoder = make_encoder(encoder, shape, seed)
    for kind in KINDS:
        heads, out = blind(kind, shape, seed, free=False)
        for gamma in (-16.0, 16.0):
            depth = torch.tensor([gamma], dtype=F64)
            a, variance = rate_of_noise(encoder, depth)
            y = torch.tensor([[-0.78, -0.42, 0.05, 0.39]], dtype=F64)
            x_hat = heads(alpha(depth) * a * y, depth, encoder).x_hat / a
            if gamma > 0:
                prior, _ = grid_moments(kind, heads, out, torch.zeros(1, 4, dtype=F64), 1e9)
                close(x_hat, prior, 1e-3)
            elif kind == "levels":
                close(x_hat, torch.tensor([[-0.8, -0.4, 0.0, 0.4]], dtype=F64), 1e-9)
            else:
                close(x_hat, y, 1e-5)


@given(seeds, gammas, st.sampled_from(["identity", "nontrainable"]))
def test_one_gaussian_is_the_gaussian_world(seed, gamma, kind):
    """K = 1: E[x_t | z] of independent N(mu, s^2)."""
    encoder, depth = make_encoder(kind, (2,), 0), torch.tensor([gamma], dtype=F64)
    heads, out = blind("mixture", (2,), seed, components=1, free=False)
    _, mean, log_width = out.unbind(-1)
    world = GaussianWorld(mean, (2 * log_width).exp(), encoder)
    z = normal(seed, 1, 2)
    found, exact = heads(z, depth, encoder), world.estimates(z, depth)
    close(found.x_hat, exact.x_hat, 1e-9)
    close(found.r_hat, exact.r_hat, 1e-9)


@kinds
@given(seed=seeds)
@settings(max_examples=5)
def test_a_regression_only_where_two_outputs_are_to_be_told_apart(kind, seed):
    z, gamma, encoder = normal(seed, 3, 2), normal(seed, 3), make_encoder("trainable", (2,), seed)
    for paired in (False, True):
        heads = posterior_heads(kind, (2,), seed, paired=paired)
        errors = heads.errors(z, z, encoder(z, gamma), gamma, encoder)
        found = heads.regression(errors, gamma)
        if paired:
            close(found, errors.x.square().mean(1) / sigma2(gamma))
            close(found, regression_loss(errors.x, gamma, "x"))
        else:
            assert found is None


@given(st.integers(2, 9), st.integers(1, 5), st.booleans(), st.booleans())
def test_outputs_for(levels, count, free, paired):
    for basis in ("cosines", "hats", "free"):
        options = {"functions": count, "basis": basis, "free": free, "paired": paired}
        heads = Posterior(nn.Identity(), levels, **options)
        functions = levels if basis == "free" or count + 16 >= levels else count + 16
        assert heads.outputs == Posterior.outputs_for(levels, **options)
        assert heads.outputs == functions + free + paired
    options = {"components": count, "free": free, "paired": paired}
    heads = MixturePosterior(nn.Identity(), **options)
    assert heads.outputs == MixturePosterior.outputs_for(**options) == 3 * count + free + paired


def test_noise_is_that_of_the_latent():
    """A control of `test_bayes_rule`: the observation's deviation is sigma/(alpha a), not sigma/alpha."""
    encoder, depth = dc.NonTrainableEncoder(), torch.tensor([0.5], dtype=F64)
    heads, out = blind("levels", (2,), 1, free=False)
    a, variance = rate_of_noise(encoder, depth)
    z = alpha(depth) * a * torch.tensor([[0.3, -0.4]], dtype=F64)
    y = z / (alpha(depth) * a)
    wrong, _ = grid_moments("levels", heads, out, y, sigma(depth) ** 2 / alpha(depth) ** 2)
    right, _ = grid_moments("levels", heads, out, y, variance)
    found = heads(z, depth, encoder).x_hat / a
    close(found, right, 1e-9)
    assert (found - wrong).abs().min() > 1e-3
