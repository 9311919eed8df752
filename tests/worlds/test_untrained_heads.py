"""Posterior heads whose network says nothing are the exact heads of independent values: their ELBO, averaged over noise
and depth by quadrature, is -log p(x) of every single x, up to what the two ends cost.

    L_0 + L_1 + L_inf = -ln p(x) + E[ ln q(x|z_0)/p(x|z_0) + ln q(z_1)/p(z_1) ]          (calibration.pointwise_gap)
"""

import math

import pytest
import torch
from torch import Tensor, nn

import diffenc_ct as dc
from diffenc_ct.encoders import ResidualEncoder
from diffenc_ct.model import MixturePosterior, Posterior, log_histogram
from diffenc_ct.process import normal_like
from diffenc_ct.schedules import alpha, expand, sigma, sigma2
from diffenc_ct.worlds import MixtureWorld, quadrature
from tests.strategies import close, generator, normal

F64 = torch.float64
V = 4
CENTRES = torch.tensor([-0.75, -0.25, 0.25, 0.75], dtype=F64)

# The trapezium rule, which errs by exp(-1/step) on smooth functions beside a Gaussian.
NOISES = torch.arange(-8.0, 8.0, 0.04, dtype=F64)
OF_NOISE = 0.04 * torch.exp(-0.5 * NOISES**2) / math.sqrt(2 * math.pi)


class Silent(nn.Module):
    """A network that returns 0, in float64."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        self.outputs, self.bias = outputs, nn.Parameter(torch.zeros((), dtype=F64))

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        return self.bias.expand(len(z), self.outputs * z.shape[1], *z.shape[2:])


def encoder_of(kind: str) -> dc.Encoder:
    return {
        "identity": dc.IdentityEncoder,
        "nontrainable": dc.NonTrainableEncoder,
        "trainable": lambda: dc.TrainableEncoder(Silent()),
        "residual": lambda: ResidualEncoder(Silent()),
    }[kind]()


def mean_over_noise(values: Tensor) -> Tensor:
    """E over eps of values that were computed at every noise, (..., noises)."""
    return values @ OF_NOISE


@torch.no_grad()
def expected_bound(model: dc.DiffEnc, x: Tensor, level: dc.NoiseLevel | float = 1.0) -> Tensor:
    """E of the infinite-depth ELBO of one example x, whose values do not know of one another: one noise serves all."""
    t, of_depth = quadrature(0.0, 1.0, panels=24, nodes=8)
    depths, noises = t.repeat_interleave(len(NOISES)), NOISES.repeat(len(t))
    noise = expand(noises, x[None]).expand(-1, *x.shape)
    draws = dc.Draws(t=depths, noise=noise, noise_0=noise)
    batch = x.expand(len(depths), *x.shape)
    total = dc.elbo(model, batch, dc.InfiniteDepth(level), draws=draws).total
    return of_depth @ mean_over_noise(total.view(len(t), -1))


def ends(model: dc.DiffEnc, log_prior: Tensor, k: Tensor) -> Tensor:
    """What the ends cost a value at level k of prior log_prior, (V,), by the definitions."""
    costs = []
    for t in (0.0, 1.0):
        gamma = model.schedule(torch.tensor([t], dtype=F64)).gamma
        signal = alpha(gamma) * model.encoder.scale(gamma)
        z = signal * CENTRES[k] + sigma(gamma) * NOISES
        log_joint = log_prior - (z[:, None] - signal * CENTRES) ** 2 / (2 * sigma2(gamma))
        if t == 0:
            decoder = -((z[:, None] / alpha(gamma) - CENTRES) ** 2) / (2 * gamma.exp())
            costs.append(log_joint.log_softmax(1)[:, k] - decoder.log_softmax(1)[:, k])
        else:
            costs.append(log_joint.logsumexp(1) - sigma2(gamma).log() / 2 + z**2 / 2)
    return mean_over_noise(sum(costs))


TIGHT = [
    ("identity", 1.0),
    ("residual", 1.0),
    ("nontrainable", dc.NonTrainableNoiseLevel()),
    ("trainable", dc.NonTrainableNoiseLevel()),
]


def model_of_levels(
    kind: str, prior: Tensor, low: float, high: float, **options: object
) -> dc.DiffEnc:
    outputs = Posterior.outputs_for(V, **options)
    heads = Posterior(Silent(outputs), V, prior=prior, **options)
    return dc.DiffEnc(dc.LinearSchedule(low, high), encoder_of(kind), heads, dc.Levels(V))


@pytest.mark.parametrize("options", [{"basis": "free"}, {"functions": 1, "paired": True}])
@pytest.mark.parametrize("low, high", [(-7.0, 18.0), (-3.0, 1.0)])
@pytest.mark.parametrize("kind, level", TIGHT)
def test_the_bound_of_every_example_is_its_probability(kind, level, low, high, options):
    """Of independent values, each of its own distribution."""
    prior = normal(3, 2, V)
    model = model_of_levels(kind, prior, low, high, **options)
    exact = model.heads.prior.double().log_softmax(-1)
    for x in torch.tensor([[0, 3], [1, 1], [2, 0]]):
        surprise = -exact.gather(1, x[:, None]).sum()
        extra = sum(ends(model, p, k) for p, k in zip(exact, x, strict=True))
        close(expected_bound(model, x, level), surprise + extra, 1e-9)
        assert (abs(float(extra)) < 1e-6) == (low < -5)


@pytest.mark.parametrize("kind", ["nontrainable", "trainable"])
def test_at_another_noise_level_it_is_not(kind):
    """1/2 int SNR E|r'|^2 dlambda more at eta = 1, with r' = sigma^2 r."""
    prior = normal(3, 1, V)
    model = model_of_levels(kind, prior, -7.0, 18.0)
    exact = model.heads.prior.double().log_softmax(-1)[0]
    for k in torch.arange(V):
        more = torch.zeros((), dtype=F64)
        for gamma, weight in zip(*quadrature(-7.0, 18.0, panels=24, nodes=8), strict=True):
            signal = alpha(gamma) ** 3
            z = signal * CENTRES[k] + sigma(gamma) * NOISES
            weights = (exact - (z[:, None] - signal * CENTRES) ** 2 / (2 * sigma2(gamma))).softmax(
                1
            )
            r = alpha(gamma) ** 2 * (CENTRES[k] - weights @ CENTRES)
            more += weight / 2 * mean_over_noise(sigma2(gamma) ** 2 * r**2) / gamma.exp()
        found = expected_bound(model, k[None]) + exact[k] - ends(model, exact, k)
        close(found, more, 1e-9)
        assert found > 0.001


@pytest.mark.parametrize("each", ["value", "channel", "none"])
def test_with_a_histogram_it_is_the_model_of_independent_values(each):
    """(channels, side) values, one distribution a value or a channel: the mean bound is a cross-entropy."""
    data = torch.randint(0, V, (50, 2, 3), generator=generator(1)) * torch.tensor([[1], [0]])
    data = data + (torch.rand(50, 2, 3, generator=generator(2)) < 0.3).long() * (V - 1 - data)
    prior = log_histogram(data, V, each=each)
    model = model_of_levels("identity", prior, -7.0, 18.0)
    counts = torch.nn.functional.one_hot(data, V).double().sum(0)
    if each == "channel":
        counts = counts.sum(1, keepdim=True).expand(2, 3, V)
    share = (counts + 1) / (counts + 1).sum(-1, keepdim=True)
    share = torch.full_like(share, 1 / V) if each == "none" else share
    x = data[7]
    surprise = -share.log().gather(-1, x[..., None]).sum()
    close(expected_bound(model, x), surprise, 1e-5)


# Reals ----------------------------------------------------------------------------------------------


K = 4


def mixture_of(kind: str) -> MixtureWorld:
    """What K Gaussians that a silent network leaves where they are stand for."""
    return MixtureWorld(CENTRES[:, None], 1 / K, encoder_of(kind))


def mixture_heads(**options: bool) -> MixturePosterior:
    network = Silent(MixturePosterior.outputs_for(components=K, **options))
    return MixturePosterior(network, components=K, **options).double()


@pytest.mark.parametrize("kind", ["identity", "nontrainable", "trainable", "residual"])
@pytest.mark.parametrize("options", [{}, {"free": False}, {"paired": True}])
def test_silent_mixtures_are_the_mixture_world(kind, options):
    """x_hat and r_hat, at depths from the data to the noise, and their errors."""
    world, gamma = mixture_of(kind), torch.linspace(-12, 12, 25, dtype=F64)
    x = world.sample(25, generator(1))
    encoding, noise = world.encoder(x, gamma), normal_like(x, generator(2))
    z = expand(alpha(gamma), x) * encoding.value + expand(sigma(gamma), x) * noise
    heads, exact = mixture_heads(**options), world.estimates(z, gamma)
    found = heads(z, gamma, world.encoder)
    close(found.x_hat, exact.x_hat)
    close(found.r_hat, exact.r_hat)
    errors = heads.errors(z, noise, encoding, gamma, world.encoder)
    close(errors.x, encoding.value - exact.x_hat)
    close(errors.r, encoding.rate - exact.r_hat)


@pytest.mark.parametrize("low, high", [(-12.0, 18.0), (-3.0, 1.0)])
@pytest.mark.parametrize("kind, level", TIGHT)
def test_the_bound_of_every_real_is_its_density(kind, level, low, high):
    world = mixture_of(kind)
    schedule = dc.LinearSchedule(low, high)
    model = dc.DiffEnc(schedule, encoder_of(kind), mixture_heads(), dc.Reals())
    for value in (-1.2, 0.1, 0.8):
        x = torch.tensor([value], dtype=F64)
        extra = torch.zeros((), dtype=F64)
        for t in (0.0, 1.0):
            gamma = schedule(torch.tensor([t], dtype=F64)).gamma
            mean = alpha(gamma) * world.encoder.scale(gamma) * x
            z = (mean + sigma(gamma) * NOISES)[:, None]
            own = torch.distributions.Normal(mean, sigma(gamma)).log_prob(z[:, 0])
            if t == 0:
                posterior = world.log_prob(x[None]) + own - world.log_q(z, gamma[0])
                decoder = torch.distributions.Normal(z[:, 0] / alpha(gamma), (gamma / 2).exp())
                extra += mean_over_noise(posterior - decoder.log_prob(x))
            else:
                standard = -(z[:, 0] ** 2) / 2 - math.log(2 * math.pi) / 2
                extra += mean_over_noise(world.log_q(z, gamma[0]) - standard)
        surprise, extra = -world.log_prob(x[None])[0], extra.detach()
        close(expected_bound(model, x, level), surprise + extra, 1e-9)
        assert (abs(float(extra)) < 1e-4) == (low < -5)
