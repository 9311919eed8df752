"""The field's derivatives: reverse mode where it is right, else forward mode; one pass for all directions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import diffenc_ct as dc
from diffenc_ct.likelihood import GaussianProbes, log_density
from diffenc_ct.likelihood.field import FlowField
from tests.strategies import close, generator, make_encoder, normal

F64 = torch.float64
SCHEDULE = dc.LinearSchedule(-4.0, 3.0)


class Network(nn.Module):
    """Of three values, coupled; `inner` has the last word on how its first estimate enters the second."""

    def __init__(self, inner, seed=1) -> None:
        super().__init__()
        self.inner, self.weight = inner, nn.Parameter(0.5 * normal(seed, 3, 3))
        self.calls: list[int] = []

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        self.calls.append(len(z))
        return torch.tanh(z @ self.weight + 0.8 * self.inner(z, self.weight)) + gamma[:, None] / 9


def as_it_is(z, weight):
    return torch.sin(z @ weight)


def under_no_grad(z, weight):
    with torch.no_grad():
        return torch.sin(z @ weight)


class ByHand(torch.autograd.Function):
    """sin, with a derivative in reverse mode only, of which no batch can be made."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z.sin()

    @staticmethod
    def backward(ctx, gradient):
        (z,) = ctx.saved_tensors
        assert gradient.shape == z.shape
        if torch._C._functorch.is_batchedtensor(gradient):
            raise RuntimeError("no batching rule")
        return gradient * z.cos()


def one_way_only(z, weight):
    return ByHand.apply(z @ weight)


def model_of(inner, encoder="identity", heads=dc.Single):
    return dc.DiffEnc(SCHEDULE, make_encoder(encoder, (3,), 2), heads(Network(inner)), dc.Reals())


def points(n):
    return normal(3, n, 3), torch.linspace(-3.0, 2.0, n, dtype=F64)


@given(
    encoder=st.sampled_from(["identity", "trainable", "residual"]),
    n=st.integers(1, 3),
    k=st.integers(1, 4),
    seed=st.integers(0, 99),
)
@settings(max_examples=10)
def test_slopes_are_the_jacobians(encoder, n, k, seed):
    """v^T J v of every example and direction, and the trace, by the whole Jacobian."""
    model, (z, gamma), v = model_of(as_it_is, encoder), points(n), normal(seed, n, k, 3)
    whole = torch.autograd.functional.jacobian(lambda z: FlowField(model)(z, gamma).velocity, z)
    jacobian = torch.stack([whole[i, :, i] for i in range(n)])
    with torch.no_grad():
        fields = FlowField(model, probes=v), FlowField(model), FlowField(model, chunk=2)
        along, exact, pieces = (field(z, gamma) for field in fields)
    assert all(field._agreed for field in fields)
    close(along.divergence, torch.einsum("nka,nab,nkb->nk", v, jacobian, v), 1e-10)
    trace = jacobian.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    for found in (exact, pieces):
        close(found.divergence, trace, 1e-10)
    for found in (along, exact):
        assert not found.divergence.requires_grad and not found.velocity.requires_grad
        velocity = FlowField(model)(z, gamma)
        close(found.velocity, velocity.velocity, 1e-12)
        close(found.score, velocity.score, 1e-12)


@pytest.mark.parametrize("divergence", [dc.Exact(), GaussianProbes(2)])
def test_what_reverse_mode_does_not_see_counts(divergence):
    """A network that conditions on its own first estimate, under no_grad as in training: that is a part of the flow."""
    z = points(3)[0]
    found, right = (
        log_density(
            model_of(inner), z, solver=dc.TorchDiffEqFixed("rk4", steps=4, estimate_error=False),
            divergence=divergence, generator=generator(1),
        )
        for inner in (under_no_grad, as_it_is)
    )  # fmt: skip
    close(found.per_probe, right.per_probe, 1e-10)
    field = FlowField(model_of(under_no_grad))
    with torch.no_grad():
        gamma = points(3)[1]
        wrong = field._reverse_derivative(field.model, z, gamma, normal(1, 3, 1, 3))[2]
        seen = field._forward_derivative(field.model, z, gamma, normal(1, 3, 1, 3))[2]
    assert (wrong - seen).abs().max() > 1e-2  # there is something to see


@pytest.mark.parametrize("probes", [None, normal(1, 2, 3, 3)])
def test_inference_mode_changes_nothing(probes):
    model, (z, gamma) = model_of(as_it_is), points(2)
    with torch.no_grad():
        right = FlowField(model, probes=probes)(z, gamma)
    with torch.inference_mode():
        found = FlowField(model, probes=probes)(z, gamma)
        total = log_density(model, z, solver=dc.Adams(atol=1e-3)).log_prob.clone()
    close(found.divergence, right.divergence, 1e-12)
    close(found.velocity, right.velocity, 1e-12)
    close(total, log_density(model, z, solver=dc.Adams(atol=1e-3)).log_prob, 1e-8)


def test_the_two_are_compared_once_and_then_a_step_is_one_evaluation():
    model, (z, gamma) = model_of(as_it_is), points(2)
    field, calls = FlowField(model, probes=normal(1, 2, 5, 3)), model.heads.network.calls
    with torch.no_grad():
        for _ in range(3):
            field(z, gamma)
    assert calls == [3, 3, 2, 2, 2]


@pytest.mark.parametrize("name", ["digits-vdm", "digits-diffenc"])
def test_of_the_packaged_models_reverse_mode_is_believed(name):
    """Rounding of float32, at whatever depth, is no disagreement: it would cost these models most of their speed."""
    model = dc.load(name)
    field = FlowField(model, probes=normal(1, 2, 2, *model.shape).float())
    with torch.no_grad():
        field(normal(2, 2, *model.shape).float(), torch.tensor([-13.0, 4.0]))
    assert field._agreed and field._forward_mode


def test_a_network_without_forward_mode_or_batches_of_gradients():
    (z, gamma), v = points(2), normal(1, 2, 3, 3)
    with torch.no_grad():
        found = FlowField(model_of(one_way_only), probes=v)(z, gamma).divergence
        right = FlowField(model_of(as_it_is), probes=v)(z, gamma).divergence
    close(found, right, 1e-12)


def test_an_error_of_the_network_is_its_own():
    def broken(z, weight):
        raise RuntimeError("out of cheese")

    z, gamma = points(2)
    with pytest.raises(RuntimeError, match="out of cheese"), torch.no_grad():
        FlowField(model_of(broken))(z, gamma)
