"""Whatever knows where levels lie asks the decoder: with the ends among the levels, heads and fits follow."""

import torch

import diffenc_ct as dc
from diffenc_ct.model.fingerprint import fingerprint


def test_a_fit_to_levels_elsewhere_is_to_another_model():
    network = torch.nn.Linear(2, 2)

    def mark(decoder):
        heads = dc.Single(network)
        return fingerprint(dc.DiffEnc(dc.LinearSchedule(), dc.IdentityEncoder(), heads, decoder))

    assert mark(dc.Levels(4)) == mark(dc.Levels(4)) == mark(dc.Reals())
    assert mark(dc.Levels(4)) != mark(dc.Levels(4, ends=True))
