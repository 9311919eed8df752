"""Conditional models: everything that is computed of an example is computed with its own condition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import diffenc_ct as dc
from diffenc_ct.calibration.ratios import step_excess
from diffenc_ct.calibration.tables import Measurement, measure_steps
from diffenc_ct.model import Direct, Separate
from diffenc_ct.process import Estimates
from diffenc_ct.training.evaluation import evaluate
from diffenc_ct.training.heads import HeadFitting, fit_head
from tests.refusals import refused
from tests.strategies import RandomNetwork, close, generator, normal, seeds

SHIFT = 0.7


class Shifted(nn.Module):
    """A network whose output a condition moves."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z, gamma, condition=None):
        out = self.inner(z, gamma)
        if condition is None:
            return out
        return out + SHIFT * condition.reshape(-1, *[1] * (z.ndim - 1)).to(out)


def network(seed=1, multiple=1):
    return Shifted(RandomNetwork((3,), seed, multiple=multiple))


def posterior(seed):
    outputs = dc.Posterior.outputs_for(17)
    return dc.Posterior(network(seed, outputs), 17)


HEADS = {
    "single": lambda seed: dc.Single(network(seed)),
    "paired": lambda seed: dc.Paired(network(seed, 2)),
    "separate": lambda seed: Separate(network(seed), network(seed + 1)),
    "posterior": posterior,
}
LABELS = torch.tensor([0, 2, 1, 1, 0])


def model_of(kind="single", seed=1, levels=17):
    decoder = dc.Reals() if levels is None else dc.Levels(levels)
    schedule = dc.LinearSchedule(-6.0, 4.0)
    return dc.DiffEnc(
        schedule, dc.IdentityEncoder(), HEADS[kind](seed), decoder, shape=(3,)
    ).double()


def data(n=5, seed=0):
    return torch.randint(0, 17, (n, 3), generator=generator(seed))


@pytest.mark.parametrize("kind", HEADS)
@given(seed=seeds)
@settings(max_examples=3)
def test_bounds_are_those_of_each_example_and_its_condition(kind, seed):
    model, x = model_of(kind, seed), data(seed=seed)
    for bound in (dc.InfiniteDepth(noise_level=0.8), dc.FiniteDepth(3, noise_level=0.8)):
        whole = dc.elbo(model.given(LABELS), x, bound, generator=generator(seed)).total
        for label in range(3):
            alone = dc.elbo(
                model.given(torch.full((5,), label)), x, bound, generator=generator(seed)
            ).total
            close(whole[LABELS == label], alone[LABELS == label], 1e-12)
        free = dc.elbo(model, x, bound, generator=generator(seed)).total
        assert torch.equal(
            free, dc.elbo(model.given(None), x, bound, generator=generator(seed)).total
        )
        close(free[LABELS == 0], whole[LABELS == 0], 1e-12)  # which moves nothing
        assert (free - whole)[LABELS > 0].abs().min() > 1e-9
    z, gamma = normal(seed, 5, 3), normal(seed + 1, 5)
    moved = model.given(LABELS).predict(z, gamma).x_hat - model.predict(z, gamma).x_hat
    assert moved[LABELS > 0].abs().amax(1).min() > 1e-9 and not moved[LABELS == 0].any()
    infinite = dc.elbo(model.given(LABELS), x, generator=generator(seed)).total
    assert torch.equal(model(x, condition=LABELS, generator=generator(seed)).total, infinite)


@pytest.mark.parametrize("kind", HEADS)
def test_a_given_model_shares_its_weights_and_leaves_the_other_as_it_was(kind):
    model = model_of(kind)
    given_ = model.given(LABELS)
    assert (
        model.condition is None
        and given_.condition is LABELS
        and given_.given(None).condition is None
    )
    mine, theirs = (dict(m.named_parameters()) for m in (model, given_))
    assert mine.keys() == theirs.keys() and all(mine[name] is theirs[name] for name in mine)
    given_(data()).total.sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())
    assert model.rows([0]) is model and given_.rows(slice(1, 3)).condition.tolist() == [2, 1]


FLOWS = [
    dc.Adams(atol=1e-4),
    dc.TorchDiffEqFixed("rk4", steps=12, estimate_error=False),
    dc.SciPy("RK45", rtol=1e-6, atol=1e-6, estimate_error=False),
]


@pytest.mark.parametrize("solver", FLOWS, ids=lambda s: s.name)
def test_likelihoods_are_those_of_each_example_and_its_condition(solver):
    """Where examples end at different steps, and are dealt to batches."""
    model, x = (
        model_of("paired", levels=None),
        normal(3, 5, 3) * torch.tensor([0.1, 1, 3, 1, 0.3])[:, None],
    )
    options = {"solver": solver, "divergence": dc.Rademacher(probes=2)}
    whole = dc.log_likelihood(
        model.given(LABELS), x, **options, generator=generator(1), work=dc.Work(2)
    )
    for label in range(3):
        told = model.given(torch.full((5,), label))
        alone = dc.log_likelihood(told, x, **options, generator=generator(1))
        close(whole.nats[LABELS == label], alone.nats[LABELS == label], 1e-4)
    free = dc.log_likelihood(model, x, **options, generator=generator(1)).nats
    assert (free - whole.nats)[LABELS > 0].abs().min() > 1e-3


def test_importance_samples_keep_their_conditions():
    model, x = model_of("paired"), data()
    kind, solver = dc.ModelNoise(samples=3), dc.Adams(atol=1e-3)
    found, zero = (
        dc.log_likelihood(
            model.given(labels),
            x,
            solver=solver,
            dequantisation=kind,
            generator=generator(1),
            work=dc.Work(4),
        ).nats
        for labels in (LABELS, torch.zeros(5, dtype=torch.long))
    )
    close(found[LABELS == 0], zero[LABELS == 0], 1e-6)
    assert (found - zero)[LABELS > 0].abs().min() > 1e-4


class NoForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 1 * x

    @staticmethod
    def backward(ctx, grad):
        return grad


class Reverse(Shifted):
    def forward(self, z, gamma, condition=None):
        return NoForwardMode.apply(super().forward(z, gamma, condition).tanh())


def test_a_network_of_one_mode_of_derivatives_keeps_its_conditions():
    both = []
    for kind in (Reverse, Shifted):
        inner = kind(RandomNetwork((3,), 4))
        model = dc.DiffEnc(
            dc.LinearSchedule(-4.0, 3.0), dc.IdentityEncoder(), dc.Single(inner), dc.Reals()
        ).double()
        both.append(model)
    both[1].heads.network.register_forward_hook(lambda module, given_, out: out.tanh())
    solver = dc.TorchDiffEqFixed("rk4", steps=6, estimate_error=False)
    one, other = (
        dc.log_likelihood(m.given(LABELS), normal(1, 5, 3), solver=solver).nats for m in both
    )
    close(one, other, 1e-8)


@pytest.mark.parametrize(
    "solver",
    [
        dc.Exponential(steps=6),
        dc.Ancestral(steps=6),
        dc.Adams(atol=1e-3),
        dc.TorchDiffEqFixed("rk4", steps=6),
    ],
    ids=lambda s: s.name,
)
def test_samples_are_those_of_their_conditions(solver):
    model = model_of("paired", levels=None)
    drawn = dc.sample(
        model.given(LABELS), solver=solver, generator=generator(2), work=dc.Work(2)
    ).z_0
    assert len(drawn) == 5  # as many as conditions
    for label in range(3):
        told = model.given(torch.full((5,), label))
        alone = dc.sample(told, solver=solver, generator=generator(2)).z_0
        close(drawn[LABELS == label], alone[LABELS == label], 1e-8)
    free = dc.sample(model, 5, solver=solver, generator=generator(2)).z_0
    assert (free - drawn)[LABELS > 0].abs().amax(1).min() > 1e-3
    with refused(ValueError, "given 5 conditions, but n=4"):
        dc.sample(model.given(LABELS), 4)


def test_fits_and_evaluations_take_the_conditions_of_their_batches():
    """In batches, groups and parts of any size, the moments are those of each example's own condition."""
    model, x = model_of(levels=None), normal(1, 5, 3)
    told = model.given(LABELS)

    def everything(m, size):
        work = dc.Work(size)
        found = dc.tightness(m, x, depths=3, generator=generator(1), work=work)
        seen = evaluate(m, x, draws=2, seed=1, work=work).terms["total"]
        return found.a.sum(), seen

    gap, seen = everything(told, 5)
    zero = everything(model, 5)
    close(seen[LABELS == 0], zero[1][LABELS == 0], 1e-12)
    assert (seen - zero[1])[LABELS > 0].abs().min() > 1e-9 and abs(gap - zero[0]) > 1e-9
    apart = [evaluate(m, x, work=dc.Work(2)).terms["total"] for m in (told, model)]
    assert torch.equal((apart[0] != apart[1]), LABELS > 0)  # label 0 moves nothing
    dc.tightness(told, x, depths=3, work=dc.Work(2))
    tables = [
        measure_steps(m, x, Measurement(candidates=3, groups=2, examples_at_once=1, batch_size=3, keep=0),
                      generator=generator(1)).ee
        for m in (told, told.given(LABELS.flip(0)), model)
    ]  # fmt: skip
    assert (tables[0] - tables[1]).abs().max() > 1e-6 and (tables[0] - tables[2]).abs().max() > 1e-6
    grid = torch.linspace(0, 1, 4, dtype=torch.float64)
    for size in (2, 5):
        step_excess(told, x, grid, batch_size=size)


@pytest.mark.parametrize("groups", [2, 3])
def test_groups_of_a_calibration_keep_their_conditions(groups):
    """Examples dealt out to groups: what is measured of one is what is measured of it alone, noise aside."""
    model, x = model_of(levels=None), normal(1, 6, 3)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    how = Measurement(candidates=2, groups=groups, keep=0, shared_noise=True)
    seen: list[torch.Tensor] = []
    hook = model.heads.network.register_forward_hook(
        lambda module, inputs, out: seen.append(
            torch.cat([inputs[0][:, :1], inputs[2][:, None]], 1)
        )
    )
    measure_steps(model.given(labels), x, how, generator=generator(1))
    hook.remove()
    rows = torch.cat(seen)
    # Least noise comes first of each example's three depths: there z shows which example it is.
    first = rows[::3]
    whose = (first[:, :1] - x[:, 0]).abs().argmin(1)
    assert torch.equal(labels[whose].to(first), first[:, 1]) and len(set(whose.tolist())) == 6


def test_a_fitted_head_sees_the_conditions_of_its_batch():
    model, x, labels = model_of(levels=None), normal(1, 12, 3), torch.arange(12)
    wrong = []

    def look(module, inputs, out):
        wrong.append((inputs[0].shape[0], inputs[2]))

    hook = model.heads.network.register_forward_hook(look)
    fit_head(
        model.given(labels),
        x,
        HeadFitting("own network", steps=2, batch_size=7),
        generator=generator(0),
    )
    hook.remove()
    assert all(n == len(c) for n, c in wrong)


def test_guidance_is_linear_in_its_weight():
    model, z, gamma = model_of("paired", levels=None).given(LABELS), normal(1, 5, 3), normal(2, 5)
    free, told = (m.predict(z, gamma) for m in (model.given(None), model))
    for weight in (0.0, 1.0, 2.5):
        found = model.guided(weight).predict(z, gamma)
        close(found.x_hat, (1 - weight) * free.x_hat + weight * told.x_hat, 1e-12)
        close(found.r_hat, (1 - weight) * free.r_hat + weight * told.r_hat, 1e-12)
    assert (
        model.guided(2.0).heads.tells_apart
        and not model_of().given(LABELS).guided(2.0).heads.tells_apart
    )
    some = model.guided(2.5).rows([3, 1]).predict(z[[3, 1]], gamma[[3, 1]])
    close(some.x_hat, found.x_hat[[3, 1]], 1e-12)
    close(model.guided(2.5).given(LABELS.flip(0)).rows([0]).predict(z[:1], gamma[:1]).x_hat,
          found.x_hat[:1], 1e-12)  # fmt: skip
    dc.sample(model.guided(2.0), solver=dc.Ancestral(steps=3), work=dc.Work(2))


class Known(nn.Module):
    """The optimal estimate of data N(m_c, s^2): a conditional world."""

    def __init__(self, means, variance):
        super().__init__()
        self.means, self.variance = means, variance

    def forward(self, z, gamma, condition):
        alpha2, sigma2 = torch.sigmoid(-gamma)[:, None], torch.sigmoid(gamma)[:, None]
        mean, v = self.means[condition], self.variance
        gain = alpha2.sqrt() * v / (alpha2 * v + sigma2)
        x_hat = mean + gain * (z - alpha2.sqrt() * mean)
        return Estimates(x_hat, torch.zeros_like(x_hat))


@given(seed=seeds, weight=st.floats(0, 3))
@settings(max_examples=8)
def test_guidance_is_that_of_scores(seed, weight):
    """(1 - w) grad log q(z) + w grad log q(z | c): of two worlds' Gaussians, between and beyond their means."""
    means = torch.stack([torch.zeros(2).double(), normal(seed, 2)])
    model = dc.DiffEnc(
        dc.LinearSchedule(-6.0, 4.0), dc.IdentityEncoder(), Direct(Known(means, 0.5)), dc.Reals()
    )
    z, gamma = normal(seed + 1, 4, 2), normal(seed + 2, 4)
    one, zero = (model.given(torch.full((4,), c)) for c in (1, 0))

    def score(m):
        return (
            torch.sigmoid(-gamma).sqrt()[:, None] * m.predict(z, gamma).x_hat - z
        ) / torch.sigmoid(gamma)[:, None]

    class Free(Known):
        def forward(self, z, gamma, condition=None):
            return super().forward(
                z, gamma, torch.zeros(len(z)).long() if condition is None else condition
            )

    free = dc.DiffEnc(model.schedule, model.encoder, Direct(Free(means, 0.5)), dc.Reals())
    guided = free.given(torch.ones(4).long()).guided(weight)
    close(score(guided), (1 - weight) * score(zero) + weight * score(one), 1e-10)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, x: dc.elbo(m.given(LABELS[:3]), x), "conditions of 3 examples, but there are 5"),
        (lambda m, x: m.guided(2.0), "guidance needs a condition"),
        (lambda m, x: m.given(LABELS).guided(float("nan")), "guidance=nan is not finite"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with refused(ValueError, words):
        call(model_of(), data())


def test_a_network_without_a_third_argument_is_refused_by_name():
    model = dc.DiffEnc(
        dc.LinearSchedule(), dc.IdentityEncoder(), dc.Single(RandomNetwork((3,), 1)), dc.Reals()
    )
    with refused(ValueError, "the network RandomNetwork takes no condition; give it forward"):
        model.given(LABELS)
