"""Encoders of others' parts: PyTorch's attention, and operations that have no forward derivative."""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import diffenc_ct as dc
from diffenc_ct.encoders import with_rate
from tests.conformance import check_encoder
from tests.strategies import close, normal, randomise, seeds

X = normal(1, 3, 4, 8)


class Attending(nn.Module):
    """Self-attention over four tokens, whose queries move with gamma."""

    def __init__(self, kind: str, seed: int) -> None:
        super().__init__()
        self.kind, self.depth = kind, nn.Linear(1, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(
            8, 2, 16, dropout=0.0, activation="gelu", batch_first=True
        )
        randomise(self, seed)

    def forward(self, x: Tensor, gamma: Tensor) -> Tensor:
        h = x + torch.sin(self.depth(gamma[:, None] / 6))[:, None]
        if self.kind == "layer":
            return torch.tanh(self.layer(h))
        if self.kind == "kernel":
            split = h.unflatten(-1, (2, 4)).transpose(1, 2)
            found = nn.functional.scaled_dot_product_attention(split, split, split)
            return torch.tanh(found.transpose(1, 2).flatten(2))
        weights = self.kind == "weights"
        return torch.tanh(self.attention(h, h, h, need_weights=weights)[0])


class _Sine(torch.autograd.Function):
    """A user's operation with a backward pass, and no more."""

    @staticmethod
    def forward(ctx, h):
        ctx.save_for_backward(h)
        return h.sin()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0].cos()


class Sine(Attending):
    def forward(self, x: Tensor, gamma: Tensor) -> Tensor:
        return _Sine.apply(x + torch.tanh(self.depth(gamma[:, None] / 6))[:, None])


def network(kind: str, seed: int) -> nn.Module:
    return Sine(kind, seed) if kind == "operation" else Attending(kind, seed)


KINDS = ("kernel", "weights", "plain", "layer", "operation")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
def test_rates_agree_with_finite_differences(kind, training, gradients):
    encoder = dc.TrainableEncoder(network(kind, 3)).train(training)
    fast = torch.backends.mha.get_fastpath_enabled()
    with torch.set_grad_enabled(gradients):
        check_encoder(encoder, X, gammas=(-3.0, 0.7), tolerance=1e-6)
    assert torch.backends.mha.get_fastpath_enabled() == fast


@pytest.mark.parametrize("kind", KINDS)
@given(seeds)
@settings(max_examples=3)
def test_gradients_of_the_rate_are_its_derivatives(kind, seed):
    """In data, and through a depth that is learned itself."""
    net, direction = network(kind, seed), normal(seed, *X.shape)
    x, depth = X.clone().requires_grad_(), torch.full((3,), 0.3, dtype=X.dtype).requires_grad_()
    found = with_rate(net, x, depth)
    total = (found.rate.square() + found.value).sum()
    in_x, in_depth = torch.autograd.grad(total, [x, depth])

    def at(step: float, deeper: float) -> Tensor:
        moved = with_rate(net, X + step * direction, depth.detach() + deeper)
        return (moved.rate.square() + moved.value).sum().detach()

    h = 1e-5
    close((at(h, 0) - at(-h, 0)) / (2 * h), (in_x * direction).sum(), 1e-6)
    close((at(0, h) - at(0, -h)) / (2 * h), in_depth.sum(), 1e-6)


def test_a_mistake_of_the_users_own_is_not_hidden():
    """An error that is not about forward mode reaches the user as it is, the first time."""
    calls = []

    def wrong(x: Tensor, gamma: Tensor) -> Tensor:
        calls.append(gamma)
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        with_rate(wrong, X, torch.zeros(3, dtype=X.dtype))
    assert len(calls) == 1
