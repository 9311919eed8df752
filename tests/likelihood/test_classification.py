"""p(c | x) from bounds: against a world whose answer is known, with errors that are the spread of repetitions."""

import math

import pytest
import torch
from hypothesis import given, settings

import diffenc_ct as dc
from diffenc_ct.elbo import ImportanceDepths
from diffenc_ct.likelihood.classification import Classification, _draws, telling_depths
from diffenc_ct.model import Direct
from tests.model.test_conditions import Known
from tests.refusals import refused
from tests.strategies import close, generator, normal, seeds

VARIANCE = 0.5


def world(seed, classes=3):
    means = 0.6 * normal(seed, classes, 2)
    model = dc.DiffEnc(
        dc.LinearSchedule(-9.0, 6.0),
        dc.IdentityEncoder(),
        Direct(Known(means, VARIANCE)),
        dc.Reals(),
    )
    return model, means


def truth(means, x):
    return (-(x[:, None] - means).square().sum(2) / (2 * VARIANCE)).softmax(1)


@given(seeds)
@settings(max_examples=4)
def test_probabilities_are_bayes_rule_of_the_world(seed):
    """Where heads are exact the bounds are tight at eta = 1, so that they classify as the densities do."""
    model, means = world(seed)
    x = means[[0, 1, 2, 0]] + math.sqrt(VARIANCE) * normal(seed + 1, 4, 2)
    found = dc.classify(model, x, torch.arange(3), draws=256, generator=generator(seed))
    apart = (found.probabilities - truth(means, x)).abs()
    assert (apart < 4.5 * found.standard_errors + 0.01).all()
    prior = torch.tensor([0.5, 0.3, 0.2]).double()
    told = dc.classify(
        model, x, torch.arange(3), draws=8, generator=generator(seed), log_prior=prior.log()
    )
    plain = dc.classify(model, x, torch.arange(3), draws=8, generator=generator(seed))
    expected = prior * plain.probabilities
    close(told.probabilities, expected / expected.sum(1, keepdim=True), 1e-10)


def test_standard_errors_are_the_spread_of_repeated_estimates():
    model, means = world(3)
    x = means[[0, 1, 2]] + 0.5 * normal(4, 3, 2)
    for draws in (32,):
        repeated = [
            dc.classify(model, x, torch.arange(3), draws=draws, generator=generator(i))
            for i in range(40)
        ]
        spread = torch.stack([r.probabilities for r in repeated]).std(0)
        said = torch.stack([r.standard_errors for r in repeated]).square().mean(0).sqrt()
        assert ((said / spread).log().abs() < math.log(1.8)).all()
        assert abs((said / spread).log().mean()) < math.log(1.3)


def test_an_example_does_not_depend_on_its_batch_and_every_condition_has_its_noise():
    model, means = world(1)
    x = normal(2, 5, 2)
    one, other = (
        dc.classify(model, x, torch.arange(3), draws=3, generator=generator(1), work=dc.Work(size))
        for size in (2, 5)
    )
    close(one.losses, other.losses, 1e-10)
    twice = dc.classify(model, x, torch.tensor([1, 1]), draws=3, generator=generator(1))
    assert torch.equal(twice.losses[:, 0], twice.losses[:, 1])
    close(twice.losses[:, 0], one.losses[:, 1], 1e-10)
    assert dc.classify(model, x, torch.arange(3), draws=1).standard_errors.isnan().all()


def test_the_bound_is_the_given_one_and_dropout_is_off():
    model, _ = world(1)
    x = normal(2, 2, 2)
    finite = dc.classify(
        model, x, torch.arange(3), dc.FiniteDepth(2), draws=64, generator=generator(0)
    )
    infinite = dc.classify(model, x, torch.arange(3), draws=64, generator=generator(0))
    assert (finite.bits_per_dimension - infinite.bits_per_dimension).min() > 0.05
    model.train()
    dc.classify(model, x, torch.arange(3), draws=1)
    assert model.training


def test_numbers_of_a_table():
    p = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]], dtype=torch.float64)
    found = Classification(-p.log()[:, :, None], dimensions=2, log_prior=torch.zeros(2).double())
    close(found.probabilities, p, 1e-12)
    labels = torch.tensor([0, 1, 1, 0])
    accuracy, error = found.accuracy(labels)
    assert accuracy == 0.75 and math.isclose(error, math.sqrt(0.75 * 0.25 / 4))
    close(found.bits_per_dimension, -p.log2() / 2, 1e-12)
    assert math.isclose(
        found.cross_entropy(labels), -sum(map(math.log, (0.9, 0.4, 0.8, 0.7))) / 4, rel_tol=1e-9
    )
    # two bins: all four are above 1/2: |3/4 - mean(.9, .6, .8, .7)|; ten bins: each its own
    assert math.isclose(found.calibration_error(labels, bins=2), 0.0, abs_tol=1e-9)
    each = (0.1 + 0.6 + 0.2 + 0.3) / 4
    assert math.isclose(found.calibration_error(labels, bins=10), each, rel_tol=1e-9)


def test_draws_where_conditions_lie_apart_agree_with_even_ones_and_have_smaller_errors():
    model, means = world(5)
    x = means[[0, 1, 2, 0]] + math.sqrt(VARIANCE) * normal(6, 4, 2)
    train = means.repeat(8, 1) + math.sqrt(VARIANCE) * normal(7, 24, 2)
    depths = telling_depths(model, train, torch.arange(3), generator=generator(0))
    assert depths.density().max() > 2 * depths.density().min()
    nothing = telling_depths(model, train, torch.tensor([1, 1]), generator=generator(0))
    close(
        nothing.density(), torch.ones(nothing.bins).double(), 1e-12
    )  # the loss itself is no matter

    def repeated(bound):
        return [
            dc.classify(model, x, torch.arange(3), bound, draws=16, generator=generator(i))
            for i in range(30)
        ]

    even, telling = repeated(dc.InfiniteDepth()), repeated(dc.InfiniteDepth(depths=depths))
    gaps = [torch.stack([r.losses.mean(2) for r in each]) for each in (even, telling)]
    gaps = [gap[:, :, 1:] - gap[:, :, :1] for gap in gaps]  # noise that is common is no error
    error = (sum(gap.var(0) for gap in gaps) / 30).sqrt()
    assert ((gaps[0].mean(0) - gaps[1].mean(0)).abs() < 4.5 * error).all()
    assert gaps[1].std(0).mean() < 0.9 * gaps[0].std(0).mean()
    said = torch.stack([r.standard_errors for r in telling]).square().mean(0).sqrt()
    spread = torch.stack([r.probabilities for r in telling]).std(0)
    assert abs((said / spread).log().mean()) < math.log(1.3)


def test_telling_depths_are_where_the_losses_lie_apart():
    """Beside what the losses say at single depths of either end, most of whose range is without news."""
    means = 0.6 * normal(2, 3, 2)
    heads, schedule = Direct(Known(means, VARIANCE)), dc.LinearSchedule(-6.0, 14.0)
    model = dc.DiffEnc(schedule, dc.IdentityEncoder(), heads, dc.Reals())
    x = means.repeat(40, 1) + math.sqrt(VARIANCE) * normal(7, 120, 2)

    def apart(t):
        noises = [normal(seed, *x.shape) for seed in (1, 2)]
        draws = dc.Draws(torch.full((len(x),), t).to(x), *noises)
        labels = [torch.full((len(x),), c) for c in range(3)]
        found = torch.stack([model(x, draws=draws, condition=c).diffusion for c in labels])
        return found.std(0).square().mean().sqrt()

    wanted = torch.stack([apart(t) for t in (0.15, 0.3, 0.7, 0.85)])
    assert wanted[:2].min() > 3 * wanted[2:].max()
    depths = telling_depths(model, x, torch.arange(3), draws=32, generator=generator(0))
    density = depths.density()
    early, late = density[: depths.bins // 2], density[depths.bins // 2 :]
    assert early.mean() > 2 * late.mean()


def test_draws_come_in_the_order_of_their_depths():
    model, _ = world(1)
    depths = ImportanceDepths(4)
    depths.update(depths.count(torch.tensor([0.1, 0.4, 0.6, 0.9]), torch.tensor([1.0, 2, 3, 9])))
    drawn = _draws(normal(1, 2, 2), dc.InfiniteDepth(depths=depths), 9, 3)
    t, weight = drawn[0], drawn[3]
    assert (t.diff() > 0).all() and weight.unique().numel() > 1
    cell = (t * 4).long()
    close(weight, 1 / depths.density()[cell], 1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"draws": 0}, "draws=0, 2 examples"),
        ({"log_prior": torch.zeros(4)}, r"log_prior has shape \(4,\) for 3 conditions"),
    ],
)
def test_impossible_questions_are_refused(options, words):
    model, _ = world(1)
    with refused(ValueError, words):
        dc.classify(model, normal(1, 2, 2), torch.arange(3), **options)
