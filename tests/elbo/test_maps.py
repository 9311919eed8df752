"""The bound's terms of every dimension: sums are the terms, and each is what its dimension alone would have."""

import math

import pytest
import torch
from hypothesis import given, settings
from torch import nn

import diffenc_ct as dc
from diffenc_ct.report.maps import bit_maps
from tests.refusals import refused
from tests.strategies import cases, close, generator, normal, seeds

BOUNDS = [
    dc.InfiniteDepth(noise_level=0.8),
    dc.InfiniteDepth(ends_fraction=0.5, rate_fraction=0.5),
    dc.FiniteDepth(3, ratio=1.3, noise_level=0.7),
]


@pytest.mark.parametrize("bound", BOUNDS, ids=["infinite", "parts", "finite"])
@given(cases())
@settings(max_examples=4)
def test_sums_over_dimensions_are_the_terms(bound, case):
    levels = bound.terms(case.model, case.x, dc.Draws(), generator(0))
    for terms, total in ((levels, 1.0), (levels.bits_per_dimension(), 1 / levels.dimensions)):
        for name in ("reconstruction", "diffusion", "latent", "total"):
            each = getattr(terms.per_dimension, name)
            assert each.shape == case.x.shape
            close(total * each.flatten(1).sum(1), getattr(terms, name), 1e-10)
    close(
        levels.bits_per_dimension().per_dimension.total,
        levels.per_dimension.total / math.log(2),
        1e-12,
    )


class EachAlone(nn.Module):
    """A posterior head's network whose outputs for a value know that value alone."""

    def forward(self, z, gamma):
        outputs = torch.arange(dc.Posterior.outputs_for(5), dtype=z.dtype)
        return torch.cat([torch.sin(z * k + gamma[:, None]) for k in outputs + 1], 1)


@given(seeds)
@settings(max_examples=2)
def test_each_dimension_has_what_it_would_have_alone(seed):
    """Independent values, encoder included: also of mixture steps by quadrature."""
    heads = dc.Posterior(EachAlone(), 5)
    model = dc.DiffEnc(
        dc.LinearSchedule(-5.0, 4.0), dc.NonTrainableEncoder(), heads, dc.Levels(5)
    ).double()
    x = torch.randint(0, 5, (4, 3), generator=generator(seed))
    t, noise, noise_0 = (
        torch.rand(4, generator=generator(seed)).double(),
        normal(seed, 4, 3),
        normal(seed + 1, 4, 3),
    )
    for bound in (*BOUNDS[::2], dc.FiniteDepth(3, step="mixture", nodes=16)):
        whole = dc.elbo(model, x, bound, draws=dc.Draws(t, noise, noise_0)).per_dimension
        for i in range(3):
            one = slice(i, i + 1)
            alone = dc.elbo(
                model, x[:, one], bound, draws=dc.Draws(t, noise[:, one], noise_0[:, one])
            )
            for name in ("reconstruction", "diffusion", "latent"):
                close(getattr(whole, name)[:, i], getattr(alone, name), 1e-10)


def test_a_map_is_the_mean_of_its_draws_by_depth():
    """Bins are those of the draws' depths, and their sum is the bound; whatever the batches."""
    model = dc.DiffEnc(
        dc.LinearSchedule(-5.0, 4.0),
        dc.IdentityEncoder(),
        dc.Posterior(EachAlone(), 5),
        dc.Levels(5),
    ).double()
    x = torch.randint(0, 5, (300, 3), generator=generator(0))
    found = bit_maps(model, x, bins=4, draws=128, seed=1)
    close(found.gamma.double(), torch.linspace(-5, 4, 5).double(), 1e-6)
    assert found.total.shape == (300, 3) and found.diffusion.shape == (300, 4, 3)
    close(found.by_depth, found.diffusion.mean(2), 1e-6)
    exact = torch.zeros(4)
    for b in range(4):
        for k in range(64):
            t = torch.full((300,), (b + (k + 0.5) / 64) / 4, dtype=torch.float64)
            terms = dc.elbo(model, x, draws=dc.Draws(t), generator=generator(100 * b + k))
            exact[b] += terms.bits_per_dimension().diffusion.mean() / 64 / 4
    assert ((found.by_depth.mean(0) / exact).log().abs() < 0.1).all(), (
        found.by_depth.mean(0),
        exact,
    )
    few = bit_maps(
        model, x, bins=8, draws=8, seed=1
    )  # an image's own draws are spread over all depths
    assert (few.diffusion.sum(2) > 0).all()
    one = bit_maps(model, x, bins=1, draws=128, seed=1)
    close(one.diffusion[:, 0], found.diffusion.sum(1), 1e-5)


@pytest.mark.parametrize("options", [{"bins": 0}, {"bins": 9, "draws": 8}, {"n": 0}])
def test_impossible_maps_are_refused(options):
    model = dc.DiffEnc(
        dc.LinearSchedule(), dc.IdentityEncoder(), dc.Posterior(EachAlone(), 5), dc.Levels(5)
    )
    n = options.pop("n", 2)
    with refused(ValueError, "as many draws as bins"):
        bit_maps(model, torch.zeros(n, 3).long(), **options)


def test_maps_take_the_conditions_of_their_batches():
    from tests.model.test_conditions import LABELS, data, model_of

    model, x = model_of(), data()
    maps = [bit_maps(m, x, bins=1, draws=2).total for m in (model.given(LABELS), model)]
    close(maps[0][LABELS == 0], maps[1][LABELS == 0], 1e-12)
    assert (maps[0] - maps[1])[LABELS > 0].abs().amax(1).min() > 1e-6
    bit_maps(model.given(LABELS), x, bins=1, draws=1, work=dc.Work(2))
