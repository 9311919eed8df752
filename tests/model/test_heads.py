"""Heads: what a network's output is read as, errors without cancellation, users' own heads."""

import pytest
import torch
from hypothesis import given
from torch import nn

import diffenc_ct as dc
from diffenc_ct.model import Direct, Heads, read_error, regression_loss
from diffenc_ct.process import Errors, marginal
from diffenc_ct.schedules import alpha, expand, sigma, sigma2
from tests.conformance import check_heads
from tests.refusals import refused
from tests.strategies import (
    PREDICTIONS,
    HeadsNetwork,
    RandomNetwork,
    cases,
    close,
    generator,
    make_encoder,
    make_model,
    normal,
    seeds,
)

F64 = torch.float64


class Oracle(nn.Module):
    """A network that knows the answer: returns a fixed tensor."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, z, gamma):
        return self.answer


def target(case, prediction):
    """What a perfect network of this prediction returns at z_t = alpha x_t + sigma eps."""
    x_t, a, s = case.encoding.value, alpha(case.gamma_t), sigma(case.gamma_t)
    v = expand(a, x_t) * case.noise - expand(s, x_t) * x_t
    return {"v": v, "eps": case.noise, "x": x_t}[prediction]


@pytest.mark.parametrize("prediction", PREDICTIONS)
@given(case=cases())
def test_a_perfect_network_recovers_the_encoded_data(case, prediction):
    x_t, gamma = case.encoding.value, case.gamma_t
    encoder, schedule = case.model.encoder, case.model.schedule
    answer = target(case, prediction)
    single = dc.DiffEnc(
        schedule, encoder, dc.Single(Oracle(answer), predicts=prediction), dc.Reals()
    )
    heads = single.predict(case.z_t, gamma)
    close(heads.x_hat, x_t, 1e-9)
    close(heads.r_hat, expand(encoder.rate_factor(gamma), x_t) * x_t, 1e-9)
    assert not single.heads.tells_apart
    # Paired: the second half of the channels is r_hat / sigma^2 - x_hat.
    second = case.encoding.rate / expand(sigma2(gamma), x_t) - x_t
    network = Oracle(torch.cat([answer, second], dim=1))
    paired = dc.DiffEnc(schedule, encoder, dc.Paired(network, predicts=prediction), dc.Reals())
    heads = paired.predict(case.z_t, gamma)
    close(heads.x_hat, x_t, 1e-9)
    close(heads.r_hat, case.encoding.rate, 1e-9)
    assert paired.heads.tells_apart


@given(cases(heads=("head",)))
def test_a_separate_head(case):
    """x_hat is the head's; (1 + c) x_hat_network = x_hat + r_hat is what the paper's ELBO needs."""
    model, z, gamma = case.model, case.z_t, case.gamma_t
    heads = model.predict(z, gamma)
    alone, other = (part(z, gamma, model.encoder) for part in (model.heads.tied, model.heads.head))
    close(heads.x_hat, other.x_hat)
    close(heads.x_hat + heads.r_hat, alone.x_hat + alone.r_hat)
    assert model.heads.tells_apart


def test_heads_from_the_network():
    model = make_model(dc.LinearSchedule(), dc.NonTrainableEncoder(), (3,), 5, heads="heads")
    z, gamma = normal(1, 2, 3), normal(2, 2)
    close(model.predict(z, gamma).x_hat, model.heads.network.x(z, gamma))
    close(model.predict(z, gamma).r_hat, model.heads.network.r(z, gamma))
    assert model.heads.tells_apart


@given(cases())
def test_errors_are_what_predict_leaves(case):
    """errors = (x_t - x_hat, x_t' - r_hat), for every prediction and every kind of heads."""
    z, gamma, encoding = case.z_t, case.gamma_t, case.encoding
    errors = case.model.errors(z, case.noise, encoding, gamma)
    heads = case.model.predict(z, gamma)
    close(errors.x, encoding.value - heads.x_hat)
    close(errors.r, encoding.rate - heads.r_hat)


@pytest.mark.parametrize("prediction", ["v", "eps"])
@pytest.mark.parametrize("heads", ["single", "head"])
def test_errors_keep_their_digits_at_small_sigma(prediction, heads):
    """float32, gamma down to -20: x_t - x_hat is sigma times an error of order one, relative error as such."""
    encoder = dc.NonTrainableEncoder()
    for value in (-20.0, -13.0, -5.0, 0.0):
        double = make_model(
            dc.LinearSchedule(), encoder, (4,), 3, prediction=prediction, heads=heads
        )
        # What float32 holds is the question that both are asked.
        x, noise = normal(1, 6, 4).float(), normal(2, 6, 4).float()
        gamma = torch.full((6,), value)
        exact_z = marginal(encoder.encode(x.double(), gamma.double()), gamma.double())
        exact = double.errors(
            exact_z.sample(noise=noise.double()),
            noise.double(),
            encoder(x.double(), gamma.double()),
            gamma.double(),
        )
        z = marginal(encoder.encode(x, gamma), gamma).sample(noise=noise)
        errors = double.float().errors(z, noise, encoder(x, gamma), gamma)
        scale = float(exact.x.detach().abs().max())
        assert (errors.x.double() - exact.x).abs().max() < 2e-5 * scale


@pytest.mark.parametrize("predicts", PREDICTIONS)
@given(case=cases())
def test_an_error_read_is_the_error_of_what_is_read(case, predicts):
    """read_error without a model, at a network's output that is wrong by a known amount."""
    x_t, gamma = case.encoding.value, case.gamma_t
    off = normal(7, *x_t.shape)
    error = read_error(predicts, target(case, predicts) + off, case.noise, x_t, gamma)
    scale = {"v": sigma(gamma), "eps": sigma(gamma) / alpha(gamma), "x": -torch.ones_like(gamma)}
    close(error, expand(scale[predicts], off) * off)


@given(cases())
def test_conformance(case):
    model = case.model
    check_heads(model.heads, model.encoder, case.x, noise=case.noise)


# Heads of one's own ---------------------------------------------------------------------------------


class UsersHeads(Heads):
    """Single's v-prediction as a user writes it, with `forward` alone."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, z, gamma, encoder):
        u = self.network(z, gamma)
        x_hat = expand(alpha(gamma), z) * z - expand(sigma(gamma), z) * u
        return dc.Estimates(x_hat, expand(encoder.rate_factor(gamma), z) * x_hat)


@pytest.mark.parametrize("bound", [dc.InfiniteDepth(0.8), dc.FiniteDepth(20, ratio=1.1)])
@pytest.mark.parametrize("kind", ["identity", "trainable"])
def test_heads_of_ones_own_go_through_the_bounds(bound, kind):
    """The errors that the base class takes from `forward` give the bound, and its gradients."""
    network, encoder = RandomNetwork((3,), 2), make_encoder(kind, (3,), 1)
    x, found = torch.randint(0, 8, (6, 3), generator=generator(1)), {}
    for heads in (UsersHeads(network), dc.Single(network)):
        model = dc.DiffEnc(dc.LinearSchedule(-6.0, 3.0), encoder, heads, dc.Levels(8))
        terms = dc.elbo(model, x, bound, generator=generator(4))
        gradients = torch.autograd.grad(terms.total.sum(), list(network.parameters()))
        found[type(heads)] = (terms.total, *gradients)
    for own, single in zip(*found.values(), strict=True):
        close(own, single, 1e-9)
    assert UsersHeads(network).tells_apart


def test_conformance_refuses():
    class WrongErrors(dc.Single):
        def errors(self, z, noise, encoding, gamma, encoder):
            right = super().errors(z, noise, encoding, gamma, encoder)
            return Errors(right.x, 1.001 * right.r)

    class WrongTraces(dc.Single):
        def traces(self, z, gamma):
            return torch.ones_like(gamma), torch.ones_like(gamma)

    class Coupled(UsersHeads):
        def forward(self, z, gamma, encoder):
            found = super().forward(z, gamma, encoder)
            return dc.Estimates(found.x_hat + z.mean(), found.r_hat)

    class Tied(UsersHeads):
        tells_apart = False

        def forward(self, z, gamma, encoder):
            found = super().forward(z, gamma, encoder)
            return dc.Estimates(found.x_hat, 2 * found.r_hat)

    x, encoder = normal(3, 3, 2), make_encoder("user", (2,), 1)
    check_heads(UsersHeads(RandomNetwork((2,), 1)), encoder, x)
    for wrong in (WrongErrors, WrongTraces, Coupled, Tied):
        with pytest.raises(AssertionError):
            check_heads(wrong(RandomNetwork((2,), 1)), encoder, x)


# What else heads say --------------------------------------------------------------------------------


@given(cases())
def test_the_regression_is_the_networks_own_loss(case):
    """||u - v||^2 / d, ||u - eps||^2 / d, or ||x_t - u||^2 / (sigma^2 d)."""
    x_t, gamma = case.encoding.value, case.gamma_t
    for predicts in PREDICTIONS:
        wanted = target(case, predicts)
        u = wanted + normal(5, *wanted.shape)
        error = read_error(predicts, u, case.noise, x_t, gamma)
        own = (u - wanted).square().flatten(1).mean(1)
        own = own / sigma2(gamma) if predicts == "x" else own
        close(regression_loss(error, gamma, predicts), own)


@given(cases(heads=("paired",)))
def test_only_paired_heads_have_a_regression(case):
    model, gamma = case.model, case.gamma_t
    errors = model.errors(case.z_t, case.noise, case.encoding, gamma)
    found = model.heads.regression(errors, gamma)
    close(found, regression_loss(errors.x, gamma, model.heads.predicts))
    net = RandomNetwork((2,), 0)
    for others in (dc.Single(net), dc.Separate(net, net), Direct(net), UsersHeads(net)):
        assert others.regression(errors, gamma) is None


def test_traces_are_known_where_the_network_knows_them():
    class Scaling(nn.Module):
        def forward(self, z, gamma):
            return dc.Estimates(2 * z, 3 * z)

        def traces(self, z, gamma):
            d = z[0].numel() * torch.ones_like(gamma)
            return 2 * d, 3 * d

    x = normal(1, 2, 3)
    check_heads(Direct(Scaling()), dc.IdentityEncoder(), x)
    of_x, of_r = Direct(Scaling()).traces(x, normal(2, 2))
    assert of_x.tolist() == [6, 6] and of_r.tolist() == [9, 9]
    net = RandomNetwork((3,), 1)
    for unknown in (
        Direct(HeadsNetwork((3,), 1)),
        dc.Single(net),
        dc.Paired(net),
        dc.Separate(net, net),
    ):
        assert unknown.traces(x, normal(2, 2)) is None


# What is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [dc.Single, dc.Paired, lambda net, **o: dc.Separate(net, net, **o)]
)
@pytest.mark.parametrize("predicts", ["noise", "heads", "", None])
def test_an_unknown_prediction_is_refused(kind, predicts):
    with refused(ValueError, "predicts.*'v', 'x', 'eps'"):
        kind(RandomNetwork((2,), 0), predicts=predicts)


def test_a_network_of_the_wrong_width_is_refused():
    z, gamma, encoder = normal(1, 3, 2), normal(2, 3), dc.IdentityEncoder()
    narrow, wide = RandomNetwork((2,), 0), RandomNetwork((2,), 0, multiple=2)
    for heads in (
        dc.Paired(narrow),
        dc.Single(wide),
        dc.Separate(wide, narrow),
        dc.Separate(narrow, wide),
    ):
        with pytest.raises(ValueError, match="the network returned"):
            heads(z, gamma, encoder)
        with pytest.raises(ValueError, match="the network returned"):
            heads.errors(z, z, dc.Encoding(z, z), gamma, encoder)


def test_direct_needs_a_network_that_says_both():
    z, gamma = normal(1, 3, 2), normal(2, 3)
    with pytest.raises(TypeError, match="Tensor; Direct needs Estimates"):
        Direct(RandomNetwork((2,), 0))(z, gamma, dc.IdentityEncoder())


@given(seeds)
def test_the_base_class_says_what_to_implement(seed):
    z = normal(seed, 1, 1)
    with pytest.raises(NotImplementedError, match="forward"):
        Heads()(z, z[0], dc.IdentityEncoder())
