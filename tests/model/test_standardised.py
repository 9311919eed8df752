"""Reals of any scale: the same model, whose numbers are those of the data as they are given."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.model import Standardised
from diffenc_ct.schedules import alpha, sigma2
from tests.refusals import refused
from tests.strategies import close, gaussian_worlds, generator, normal, seeds, shapes

F64 = torch.float64
GAMMA_0, GAMMA_1 = -13.3, 5.0


def scaling(channels, seed):
    return 100 * normal(seed, channels), torch.exp(3 * normal(seed + 1, channels))


@given(shapes, seeds)
def test_the_jacobian_is_the_scales_own(shape, seed):
    decoder = Standardised(*scaling(shape[0], seed)).double()
    x = normal(seed + 2, 2, *shape)
    found = torch.autograd.functional.jacobian(lambda one: decoder.scale(one[None], F64), x[0])
    side = x[0].numel()
    close(decoder.log_jacobian(x), torch.linalg.slogdet(found.reshape(side, side))[1], 1e-10)
    back = decoder.most_probable(decoder.scale(x, F64))
    close(back, x, 1e-10)


@given(shapes, seeds, st.floats(-14, 2))
def test_its_density_integrates_to_that_of_reals(shape, seed, gamma):
    """p(x | z_0) dx = p(y | z_0) dy."""
    mean, deviation = scaling(shape[0], seed)
    decoder, x, u = Standardised(mean, deviation).double(), normal(seed, 3, *shape), None
    u, gamma_0 = x + 0.1 * normal(seed + 3, 3, *shape), torch.tensor(gamma, dtype=F64)
    along = [-1, *[1] * (len(shape) - 1)]
    data = mean.reshape(along) + deviation.reshape(along) * x
    each = math.prod(shape[1:])
    expected = dc.Reals().log_prob(x, u, gamma_0) - each * deviation.log().sum()
    close(decoder.log_prob(data, u, gamma_0), expected, 1e-7)
    one, other = (d.draw(u, gamma_0, generator(seed)) for d in (decoder, dc.Reals()))
    close(one, mean.reshape(along) + deviation.reshape(along) * other, 1e-10)


@given(gaussian_worlds(kinds=("identity", "nontrainable")), seeds)
@settings(max_examples=8)
def test_a_scaled_world_has_its_own_law(world, seed):
    """Bounds and densities of y = mean + deviation x are those of x less sum ln deviation, and N(y; ...) itself."""
    d = world.dimensions
    mean, deviation = scaling(d, seed)
    plain = world.model(dc.LinearSchedule(GAMMA_0, GAMMA_1))
    scaled = dc.DiffEnc(
        plain.schedule, plain.encoder, plain.heads, Standardised(mean, deviation).double()
    )
    x = world.sample(3, generator(seed))
    y, lost = mean + deviation * x, deviation.log().sum()
    for bound in (dc.InfiniteDepth(), dc.FiniteDepth(7)):
        ours, theirs = (
            dc.elbo(model, data, bound, generator=generator(1)).total
            for model, data in ((scaled, y), (plain, x))
        )
        close(ours, theirs + lost, 1e-6)

    def prior(z):
        return world.log_q(z, torch.tensor(GAMMA_1, dtype=F64))

    found = dc.log_likelihood(scaled, y, solver=dc.Adams(atol=1e-8), prior=prior).nats
    # z_0/alpha_0 of the data: the law itself with noise of exp(gamma_0).
    gamma_0 = torch.tensor(GAMMA_0, dtype=F64)
    noise = deviation**2 * (sigma2(gamma_0) / alpha(gamma_0) ** 2)
    covariance = deviation[:, None] * world.covariance * deviation + noise.diag()
    law = torch.distributions.MultivariateNormal(mean + deviation * world.mean, covariance)
    if isinstance(world.encoder, dc.IdentityEncoder):
        close(found, law.log_prob(y), 1e-4)


@pytest.mark.parametrize(
    ("mean", "deviation", "words"),
    [
        ([0.0, 0.0], [1.0, 0.0], "channel 1 has deviation 0: what is constant has no density"),
        ([0.0, 0.0], [1.0, math.nan], "channel 1 has deviation nan"),
        ([0.0], [1.0, 1.0], "give one of each"),
    ],
)
def test_what_has_no_density_is_refused(mean, deviation, words):
    with refused(ValueError, words):
        Standardised(torch.tensor(mean), torch.tensor(deviation))
    with pytest.raises(TypeError, match="real data"):
        Standardised(torch.zeros(2), torch.ones(2)).check(torch.zeros(3, 2).long())
