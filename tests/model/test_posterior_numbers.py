"""Posterior heads: the prior of each value, what is refused, float32 and other formats of numbers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import diffenc_ct as dc
from diffenc_ct.model import MixturePosterior, Posterior, log_histogram, posterior
from diffenc_ct.process import marginal
from diffenc_ct.schedules import alpha, expand
from tests.parts import LEVELS
from tests.refusals import refused
from tests.strategies import (
    Fixed,
    RandomNetwork,
    close,
    generator,
    make_encoder,
    normal,
    posterior_heads,
    seeds,
)

F64 = torch.float64
X = 2 * (torch.arange(LEVELS, dtype=F64) + 0.5) / LEVELS - 1
KINDS = ["levels", "mixture"]
kinds = pytest.mark.parametrize("kind", KINDS)


# The prior ------------------------------------------------------------------------------------------


@given(seeds, st.sampled_from([(3,), (1, 2, 4), (3, 2, 2), (3, 3, 1)]))
def test_the_histogram(seed, shape):
    """Counts and one of each level, of each value or of each channel's values."""
    data = torch.randint(0, LEVELS, (7, *shape), generator=generator(seed), dtype=torch.uint8)
    one = torch.nn.functional.one_hot(data.long(), LEVELS).double()
    counts = one.sum(0) + 1
    close(log_histogram(data, LEVELS), (counts / (7 + LEVELS)).log().float())
    pooled = one.flatten(2, -2).sum((0, 2)) + 1 if len(shape) > 1 else counts
    found = log_histogram(data, LEVELS, each="channel")
    assert found.shape == (shape[0], *[1] * (len(shape) - 1), LEVELS)
    share = (pooled / pooled.sum(-1, keepdim=True)).log().float()
    close(found.reshape(shape[0], LEVELS), share)
    assert torch.equal(log_histogram(data, LEVELS, each="none"), torch.zeros(LEVELS))


def test_a_histogram_of_many_examples(monkeypatch):
    """More than are counted at a time, and less than one."""
    data = torch.randint(0, 3, (9, 6), generator=generator(0), dtype=torch.uint8)
    whole = log_histogram(data, 3)
    for size in (1, 13):
        monkeypatch.setattr(posterior, "_COUNTED", size)
        assert torch.equal(log_histogram(data, 3), whole)


@pytest.mark.parametrize("shape", [(3, 2, 2), (3, 4, 3), (1, 2, 5), (3,)])
@pytest.mark.parametrize("each", ["value", "channel", "none"])
def test_every_value_has_its_own_prior(each, shape):
    """A silent network's x_hat at each place of an image is that of the place's histogram."""
    data = torch.randint(0, LEVELS, (9, *shape), generator=generator(1))
    prior = log_histogram(data, LEVELS, each=each)
    outputs = Posterior.outputs_for(LEVELS)
    network = Fixed(torch.zeros(outputs * shape[0], *shape[1:], dtype=F64))
    heads = Posterior(network, LEVELS, prior=prior).double()
    z, gamma = 0.5 * normal(3, 2, *shape), torch.tensor([-2.0, 1.0], dtype=F64)
    log_prior = prior.double().expand(*shape, LEVELS) if each != "none" else prior.double()
    y, variance = z / expand(alpha(gamma), z), expand(gamma.exp(), z)[..., None]
    p = (log_prior - (y[..., None] - X) ** 2 / (2 * variance)).softmax(-1)
    close(heads(z, gamma, dc.IdentityEncoder()).x_hat, p @ X)


def test_a_prior_is_loaded_with_the_weights():
    heads = posterior_heads("levels", (2,), 1)
    assert "prior" in heads.state_dict() and heads.prior.shape == (2, LEVELS)
    assert not {"x", "phi", "centres"} & set(heads.state_dict())


# What is refused ------------------------------------------------------------------------------------


def test_impossible_options_are_refused():
    network = nn.Identity()
    with pytest.raises(ValueError, match="prior has 4 levels, the data have 5"):
        Posterior(network, 5, prior=torch.zeros(4))
    with refused(ValueError, "basis='steps'; choose one of"):
        Posterior(network, 5, basis="steps")
    with pytest.raises(ValueError, match="functions=0"):
        Posterior(network, 5, functions=0)
    with pytest.raises(ValueError, match="components=0"):
        MixturePosterior(network, components=0)
    with pytest.raises(ValueError, match='each=.pixel.; choose "value", "channel" or "none"'):
        log_histogram(torch.zeros(2, 2, dtype=torch.long), 3, each="pixel")


@kinds
@pytest.mark.parametrize("more", [-1, 1])
def test_a_network_of_the_wrong_width_is_refused(kind, more):
    heads = posterior_heads(kind, (2,), 1)
    heads.network = RandomNetwork((2,), 1, multiple=heads.outputs + more)
    z, gamma, encoder = normal(1, 3, 2), normal(2, 3), dc.IdentityEncoder()
    wanted = rf"returned \(3, {2 * (heads.outputs + more)}\) for latents \(3, 2\); .* need \(3, {2 * heads.outputs}\)"
    with pytest.raises(ValueError, match=wanted):
        heads(z, gamma, encoder)
    with pytest.raises(ValueError, match=wanted):
        heads.errors(z, z, dc.Encoding(z, z), gamma, encoder)


def test_a_prior_of_other_values_is_refused():
    heads = posterior_heads("levels", (3,), 1)
    heads.network = RandomNetwork((2,), 1, multiple=heads.outputs)
    with pytest.raises(ValueError, match=r"prior has shape \(3, 5\).*broadcast.*\(2,\)"):
        heads(normal(1, 4, 2), normal(2, 4), dc.IdentityEncoder())


# Numbers --------------------------------------------------------------------------------------------


class Small(RandomNetwork):
    """A network of float32 or float64 that says a little."""

    def forward(self, z, gamma):
        return 0.3 * super().forward(z, gamma)


@pytest.mark.parametrize("encoder", ["identity", "nontrainable", "trainable", "residual"])
@pytest.mark.parametrize("paired", [False, True])
def test_float32_keeps_the_digits_of_the_loss(encoder, paired):
    """256 levels: the diffusion loss to 1e-4 at the start of the paper's schedule, and no NaN far beyond its ends."""
    shape = (6,)
    outputs = Posterior.outputs_for(256, paired=paired)
    heads = Posterior(Small(shape, 1, multiple=outputs), 256, paired=paired)
    mixture = MixturePosterior(
        Small(shape, 2, multiple=MixturePosterior.outputs_for(paired=paired)), paired=paired
    )
    encoder = make_encoder(encoder, shape, 3)
    k = torch.randint(0, 256, (16, *shape), generator=generator(4))
    k[0], k[1] = 0, 255
    x, noise = (2 * k + 1) / 256 - 1, normal(5, 16, *shape, dtype=torch.float32)

    def losses(found, dtype, gamma):
        heads_, encoder_ = found.to(dtype), encoder.to(dtype)
        depth = torch.full((16,), gamma, dtype=torch.float32).to(dtype)
        encoding = encoder_(x.to(dtype), depth)
        z = marginal(encoding.value, depth).sample(noise=noise.to(dtype))
        errors = heads_.errors(z, noise.to(dtype), encoding, depth, encoder_)
        estimates = heads_(z, depth, encoder_)
        assert estimates.x_hat.isfinite().all() and estimates.r_hat.isfinite().all()
        return (errors.x + errors.r).square().sum(1) / depth.exp()

    for found in (heads, mixture):
        for gamma in (-20.0, -13.3, -8.0, 0.0, 5.0, 20.0):
            single, double = losses(found, torch.float32, gamma), losses(found, F64, gamma)
            assert single.isfinite().all()
            if gamma >= -13.3:
                assert (single.double() - double).abs().sum() <= 1e-4 * double.sum(), gamma


@kinds
def test_half_precision_stays_inside_the_network(kind):
    """Under autocast the estimates are float32, and those of the same outputs without."""
    shape = (2,)
    heads = posterior_heads(kind, shape, 1).float()
    encoder, z, gamma = dc.NonTrainableEncoder(), normal(1, 3, 2).float(), normal(2, 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        found = heads(z, gamma, encoder)
        out = heads.network(z, gamma)
    assert out.dtype == torch.bfloat16 and found.x_hat.dtype == torch.float32
    heads.network = Wide(out.float())
    close(heads(z, gamma, encoder).x_hat, found.x_hat)


class Wide(nn.Module):
    """Outputs of these very latents."""

    def __init__(self, out):
        super().__init__()
        self.out = out

    def forward(self, z, gamma):
        return self.out


def test_memory_formats_do_not_matter():
    for kind in KINDS:
        shape = (3, 2, 4)
        heads = posterior_heads(kind, shape, 1, paired=True)
        z, gamma = normal(1, 2, *shape), normal(2, 2)
        last = z.contiguous(memory_format=torch.channels_last)
        out = heads.network(z, gamma)
        found = []
        for latents, outputs in ((z, out), (last, out.to(memory_format=torch.channels_last))):
            heads.network = Wide(outputs)
            found.append(heads(latents, gamma, dc.NonTrainableEncoder()))
        close(found[1].x_hat, found[0].x_hat)
        close(found[1].r_hat, found[0].r_hat)
