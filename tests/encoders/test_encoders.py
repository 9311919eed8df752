"""Encoders: value and rate against finite differences, closed forms and double differentiation."""

import pytest
import torch
from hypothesis import given
from torch import nn

import diffenc_ct as dc
from diffenc_ct.encoders import with_rate
from diffenc_ct.schedules import alpha2, sigma2
from tests.conformance import check_encoder
from tests.strategies import (
    ENCODERS,
    SHAPES,
    ScaleEncoder,
    close,
    dtypes,
    encoders,
    generator,
    make_encoder,
    normal,
    seed_of,
    seeded,
    seeds,
    shapes,
)


@seeded
def inputs(pick, kinds=ENCODERS):
    """encoder, x (batch, *data), gamma (batch,)."""
    shape, batch, seed = pick.choice(SHAPES), pick.randint(1, 4), seed_of(pick)
    gamma = 18 * torch.rand(batch, dtype=torch.float64, generator=generator(seed)) - 12
    return encoders.build(pick, shape, kinds), normal(seed, batch, *shape), gamma


def columns(gamma, x):
    return gamma.reshape(-1, *[1] * (x.ndim - 1))


@given(inputs())
def test_conformance(case):
    encoder, x, _ = case
    check_encoder(encoder, x)


@pytest.mark.parametrize("wrong", ["sign", "factor", "value", "coupled", "shape", "limit", "claim"])
def test_conformance_refuses(wrong):
    class Wrong(ScaleEncoder):
        flow_is_exact_with_one_head = wrong == "claim"

        def encode(self, x, gamma):
            x_t = super().encode(x, gamma)
            if wrong == "coupled":
                return x_t + sigma2(gamma).mean() * x.mean()
            return x_t + 0.01 if wrong == "limit" else x_t

        def forward(self, x, gamma):
            right = super().forward(x, gamma)
            if wrong == "shape":  # past the types of the fields, which only tests check
                object.__setattr__(right, "rate", right.rate.flatten(1))
                return right
            return {
                "sign": dc.Encoding(right.value, -right.rate),
                "factor": dc.Encoding(right.value, 1.0001 * right.rate),
                "value": dc.Encoding(1.0001 * right.value, right.rate),
            }.get(wrong, right)

    x = normal(0, 3, 1, 2, 2)
    check_encoder(ScaleEncoder(), x)
    with pytest.raises(AssertionError):
        check_encoder(Wrong(), x)


@given(inputs())
def test_identity(case):
    _, x, gamma = case
    encoding = dc.IdentityEncoder()(x, gamma)
    assert torch.equal(encoding.value, x) and not encoding.rate.any()
    assert torch.equal(dc.IdentityEncoder().encode(x, gamma), x)
    factor = dc.IdentityEncoder().rate_factor(gamma)
    assert factor.shape == gamma.shape and not factor.any()


@given(inputs())
def test_nontrainable(case):
    """x_t = alpha^2 x; rate alpha^2 sigma^2 x = sigma^2 x_t; the general forward mode agrees."""
    _, x, gamma = case
    encoder = dc.NonTrainableEncoder()
    signal, noise = 1 / (1 + gamma.exp()), gamma.exp() / (1 + gamma.exp())
    encoding = encoder(x, gamma)
    close(encoding.value, columns(signal, x) * x)
    close(encoding.rate, columns(signal * noise, x) * x)
    close(encoding.rate, columns(encoder.rate_factor(gamma), x) * encoding.value)
    close(dc.Encoder.forward(encoder, x, gamma).rate, encoding.rate)


@given(inputs(kinds=("trainable",)))
def test_trainable(case):
    """x_t = alpha^2 x + sigma^2 y, rate sigma^2 (x_t - y + dy/dlambda), with dy/dlambda by reverse mode."""
    encoder, x, gamma = case
    gamma = gamma.requires_grad_()
    y = encoder.network(x, gamma)
    parts = [
        torch.autograd.grad(y.flatten(1)[:, i].sum(), gamma, retain_graph=True)[0]
        for i in range(x[0].numel())
    ]
    y_rate = -torch.stack(parts, 1).reshape(x.shape)
    x_t = columns(alpha2(gamma), x) * x + columns(sigma2(gamma), x) * y
    encoding = encoder(x, gamma)
    close(encoding.value, x_t)
    close(encoding.rate, columns(sigma2(gamma), x) * (x_t - y + y_rate))
    close(encoder.rate_factor(gamma), sigma2(gamma))


class Silent(nn.Module):
    def forward(self, x, gamma):
        return torch.zeros_like(x)


class Moved(nn.Module):
    """y = x + u, with whose values the trainable encoder is the residual one."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, gamma):
        return x + self.network(x, gamma)


@given(inputs(kinds=("residual",)), seeds)
def test_residual(case, seed):
    """x_t = x + sigma^2 u: the trainable encoder with y = x + u, in values, rates and gradients of both."""
    encoder, x, gamma = case
    other = dc.TrainableEncoder(Moved(encoder.network))
    wanted = [x.requires_grad_(), *encoder.parameters()]
    weights, found = normal(seed, 2, *x.shape), []
    for one in (encoder, other):
        encoding = one(x, gamma)
        loss = (weights[0] * encoding.value + weights[1] * encoding.rate.sin()).sum()
        gradients = torch.autograd.grad(loss, wanted)
        found.append((one.encode(x, gamma), encoding.value, encoding.rate, *gradients))
    for ours, theirs in zip(*found, strict=True):
        close(ours, theirs, 1e-12)
    close(encoder.encode(x, gamma), x + columns(sigma2(gamma), x) * encoder.network(x, gamma))


@given(inputs(kinds=("residual",)))
def test_a_residual_encoder_begins_at_vdm(case):
    """Its network silent it is the identity, to the last bit; what is read of it without the network is VDM's, too."""
    encoder, x, gamma = case
    silent, identity = dc.ResidualEncoder(Silent()), dc.IdentityEncoder()
    for one, other in (
        (silent.encode(x, gamma), x),
        (silent(x, gamma).value, x),
        (silent(x, gamma).rate, torch.zeros_like(x)),
        (encoder.rate_factor(gamma), identity.rate_factor(gamma)),
        (encoder.scale(gamma), torch.ones_like(gamma)),
    ):
        assert torch.equal(one, other)


@given(inputs(kinds=tuple(kind for kind in ENCODERS if kind != "user")), seeds)
def test_scale_is_the_share_of_the_data(case, seed):
    """x_t - a x is sigma^2 times something bounded: posterior heads read z/(alpha a) as an observation of x."""
    encoder, x, gamma = case
    a = encoder.scale(gamma)
    assert a.shape == gamma.shape and ((a > 0) & (a <= 1)).all()
    for depths in (gamma, torch.full_like(gamma, -18.0)):
        rest = encoder.encode(x, depths) - columns(encoder.scale(depths), x) * x
        assert (rest.abs() <= columns(sigma2(depths), x) * 1.001 + 1e-15).all()


@given(inputs(kinds=("trainable",)), seeds)
def test_gradients_through_the_rate(case, seed):
    """Closed form (its network alone in forward mode), general forward mode and double reverse mode agree."""
    encoder, x, gamma = case
    weights = normal(seed, 2, *x.shape)
    wanted = [x.requires_grad_(), *encoder.parameters()]

    def gradients(value, rate):
        return torch.autograd.grad((weights[0] * value + weights[1] * rate.sin()).sum(), wanted)

    closed, general = encoder(x, gamma), dc.Encoder.forward(encoder, x, gamma)
    moving = gamma.clone().requires_grad_()
    x_t = encoder.encode(x, moving)
    rows = [
        torch.autograd.grad(x_t.flatten(1)[:, i].sum(), moving, create_graph=True)[0]
        for i in range(x[0].numel())
    ]
    reverse = gradients(x_t, -torch.stack(rows, 1).reshape(x.shape))
    for a, b, c in zip(
        gradients(closed.value, closed.rate),
        gradients(general.value, general.rate),
        reverse,
        strict=True,
    ):
        close(a, c)
        close(b, c)


@given(inputs())
def test_without_gradients_the_rate_is_the_same(case):
    """no_grad and inference_mode switch off gradients, not the rate."""
    encoder, x, gamma = case
    expected = encoder(x, gamma).rate.detach()
    with torch.no_grad():
        close(encoder(x, gamma).rate, expected)
    with torch.inference_mode():
        close(encoder(x, gamma).rate, expected)
        close(encoder(x.clone(), gamma.clone()).rate, expected)
        assert not encoder(x, gamma).rate.requires_grad


def test_a_function_that_ignores_gamma_has_rate_zero():
    x, gamma = normal(1, 2, 3), normal(2, 2)
    encoding = with_rate(lambda x, gamma: x.sin(), x, gamma)
    close(encoding.value, x.sin())
    assert encoding.rate.shape == x.shape and not encoding.rate.any()


@given(seeds)
def test_rate_is_with_respect_to_log_snr_example_by_example(seed):
    """d/dlambda = -d/dgamma, each example by its own gamma."""
    x, gamma = normal(seed, 3, 2), normal(seed + 1, 3)
    encoding = with_rate(lambda x, gamma: x * gamma[:, None] ** 3, x, gamma)
    close(encoding.rate, -3 * gamma[:, None] ** 2 * x)


@given(dtypes, shapes, seeds)
def test_dtype(dtype, shape, seed):
    x, gamma = normal(seed, 3, *shape, dtype=dtype), normal(seed, 3, dtype=dtype)
    for kind in ENCODERS:
        encoder = make_encoder(kind, shape, seed)
        exact = encoder(x.double(), gamma.double())
        encoding = encoder.to(dtype)(x, gamma)
        close(encoding.value, exact.value.to(dtype))
        close(encoding.rate, exact.rate.to(dtype))


def test_float32_at_the_extremes():
    """No digits are lost where sigma or alpha is tiny."""
    gamma = torch.linspace(-20, 20, 9)
    x, encoder = torch.full((9, 2), 0.7), dc.NonTrainableEncoder()
    exact, encoding = encoder(x.double(), gamma.double()), encoder(x, gamma)
    for name in ("value", "rate"):
        a, b = getattr(encoding, name).double(), getattr(exact, name)
        assert ((a - b) / b).abs().max() < 2e-6


@pytest.mark.parametrize("kind", ENCODERS)
def test_with_which_encoders_one_head_gives_the_flow(kind):
    """Those whose rate is a number times x_t, which the conformance check holds them to."""
    encoder = make_encoder(kind, (2,), 1)
    assert encoder.flow_is_exact_with_one_head == (kind in ("identity", "nontrainable"))


def test_the_base_class_says_what_to_implement():
    with pytest.raises(NotImplementedError, match="encode"):
        dc.Encoder()(torch.zeros(1, 1), torch.zeros(1))


def test_one_evaluation_gives_value_and_rate():
    class Counting(nn.Module):
        calls = 0

        def forward(self, x, gamma):
            self.calls += 1
            return x * torch.sin(gamma)[:, None]

    for kind in (dc.TrainableEncoder, dc.ResidualEncoder):
        network = Counting()
        kind(network)(normal(1, 2, 3), normal(2, 2))
        assert network.calls == 1


def test_which_encoders_flow_needs_one_head_only():
    """Where x_t' is a multiple of x_t, E[x_t + x_t' | z_t] says both; of a learned encoder it does not."""
    net = nn.Identity()
    exact = [dc.IdentityEncoder(), dc.NonTrainableEncoder()]
    learned = [dc.TrainableEncoder(net), dc.ResidualEncoder(net), dc.Encoder()]
    assert [each.flow_is_exact_with_one_head for each in (*exact, *learned)] == [True] * 2 + [
        False
    ] * 3
