"""DDPM's own decoder: masses of bins about what the network says, far into the tails, and what it is worth."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import diffenc_ct as dc
from diffenc_ct import adapters
from diffenc_ct.adapters.last_step import LastStep
from diffenc_ct.model import Direct
from diffenc_ct.process import Estimates
from diffenc_ct.schedules import sigma
from diffenc_ct.worlds import MixtureWorld
from tests.strategies import close, generator, levels

F64 = torch.float64
pytestmark = pytest.mark.filterwarnings("ignore:the network's least noise")


class Says(nn.Module):
    """x_hat is 0.9 z, whatever the depth."""

    def forward(self, z, gamma):
        return Estimates(0.9 * z, 0 * z)


@given(levels, st.booleans(), st.floats(-9, 1), st.floats(-3, 3))
@settings(max_examples=20)
def test_masses_are_those_of_the_bins(V, ends, value, u):
    """By 40 digits, in the tails too; of all levels they sum to one."""
    decoder = LastStep(dc.Levels(V, ends=ends), Direct(Says()), value)
    gamma_0, at = torch.tensor(value, dtype=F64), torch.full((V, 1), u, dtype=F64)
    found = decoder.log_prob(torch.arange(V)[:, None], at, gamma_0)
    close(found.logsumexp(0), torch.zeros((), dtype=F64), 1e-9)
    centres, deviation = decoder.scale(torch.arange(V), F64), sigma(gamma_0).item()
    x_hat = 0.9 * math.sqrt(1 / (1 + math.exp(value))) * u
    with mpmath.workdps(40):
        for k in {0, V // 2, V - 1}:
            edges = [
                mpmath.mpf(centres[k].item()) + s * mpmath.mpf(decoder.width) / 2 for s in (-1, 1)
            ]
            low = (
                1 if k == 0 else mpmath.erfc((edges[0] - x_hat) / (deviation * mpmath.sqrt(2))) / 2
            )
            high = (
                0
                if k == V - 1
                else mpmath.erfc((edges[1] - x_hat) / (deviation * mpmath.sqrt(2))) / 2
            )
            if low - high > mpmath.mpf(10) ** -30:
                exact = float(mpmath.log(low - high))
                assert abs(found[k].item() - exact) < 1e-6 * (1 + abs(exact))


@pytest.mark.parametrize("x_hat", [-7.0, 7.0])
def test_the_middle_level_keeps_its_digits_in_either_tail(x_hat):
    """Ten deviations away, where the two distribution functions are both 0 or both 1."""
    decoder, gamma_0 = LastStep(dc.Levels(3), Direct(Says()), 0.0), torch.zeros((), dtype=F64)
    u = torch.full((1, 1), x_hat / (0.9 * math.sqrt(0.5)), dtype=F64)
    found = float(decoder.log_prob(torch.ones(1, 1, dtype=torch.long), u, gamma_0))
    with mpmath.workdps(60):
        low, high = ((7 + mpmath.mpf(s) / 3) for s in (-1, 1))  # over sigma_0 sqrt 2 = 1
        exact = float(mpmath.log((mpmath.erfc(low) - mpmath.erfc(high)) / 2))
    assert abs(found - exact) < 1e-9 * abs(exact)


def test_it_is_worth_what_noise_hides():
    """Half a nat a dimension at most: of two levels far apart in much noise the network knows which it is."""
    world = MixtureWorld(torch.tensor([[-0.8], [0.8]], dtype=F64), 0.002)
    table = adapters.Table.of_betas(torch.linspace(0.02, 0.5, 30))
    model = dc.adapt(
        lambda z, t: world.posterior_mean(z, table.gamma(t)),
        predicts="x0",
        schedule=table,
        decoder=dc.Levels(128, ends=True),
    )
    x = ((world.sample(400, generator(0)) + 1) * 127 / 2).round().long()
    own = adapters.with_last_step(model)
    bound = dc.FiniteDepth(table.depths())
    plain, better = (dc.elbo(m, x, bound, generator=generator(1)) for m in (model, own))
    assert better.reconstruction.mean() < plain.reconstruction.mean() - 0.2
    assert better.reconstruction.mean() > plain.reconstruction.mean() - 0.5
    close(better.diffusion, plain.diffusion)
    drawn = dc.sample(own, 50, shape=(1,), generator=generator(2)).samples
    assert ((drawn - 13).abs().minimum((drawn - 114).abs()) <= 1).all()
    assert model.decoder == dc.Levels(128, ends=True)


def test_reals_are_refused():
    world = MixtureWorld(torch.tensor([[-0.8], [0.8]], dtype=F64), 0.1)
    with pytest.raises(ValueError, match="last step decodes levels.*Reals"):
        adapters.with_last_step(world.model(dc.LinearSchedule()))
