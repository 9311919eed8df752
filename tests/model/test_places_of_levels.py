"""Whatever knows where levels lie asks the decoder: with the ends among the levels, heads and fits follow."""

import pytest
import torch

import diffenc_ct as dc
from diffenc_ct.model import Posterior
from diffenc_ct.model.fingerprint import fingerprint
from diffenc_ct.schedules import alpha
from tests.strategies import Fixed, close

F64 = torch.float64


@pytest.mark.parametrize("ends", [False, True])
def test_levels_lie_where_the_decoders_do(ends):
    """Of a head that knows nothing, at a latent beside each level and in little noise, x_hat is that level."""
    decoder = dc.Levels(5, ends=ends)
    network = Fixed(torch.zeros(Posterior.outputs_for(5, free=False), dtype=F64))
    heads = Posterior(network, decoder, free=False)
    levels = decoder.scale(torch.arange(5)[:, None], F64)
    depth = torch.full((5,), -9.0, dtype=F64)
    x_hat = heads(alpha(depth)[:, None] * (levels + 0.02), depth, dc.IdentityEncoder()).x_hat
    close(x_hat, levels, 1e-9)


def test_a_fit_to_levels_elsewhere_is_to_another_model():
    network = torch.nn.Linear(2, 2)

    def mark(decoder):
        heads = dc.Single(network)
        return fingerprint(dc.DiffEnc(dc.LinearSchedule(), dc.IdentityEncoder(), heads, decoder))

    assert mark(dc.Levels(4)) == mark(dc.Levels(4)) == mark(dc.Reals())
    assert mark(dc.Levels(4)) != mark(dc.Levels(4, ends=True))
