"""What terms hold beside the losses: where the diffusion loss was estimated, and the errors it is made of."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import diffenc_ct as dc
from diffenc_ct.elbo import Terms
from diffenc_ct.schedules import expand
from tests.strategies import cases, close, make_encoder, make_model, normal

F64 = torch.float64
REAL = make_model(dc.LinearSchedule(-5.0, 5.0), dc.NonTrainableEncoder(), (2,), 1)
X = normal(1, 3, 2)


@given(cases())
def test_residuals_are_the_errors_behind_the_loss_of_infinite_depth(case):
    """1/2 gamma' SNR eta^-2 || kappa errors.x + errors.r ||^2 at residuals.point."""
    bound = dc.InfiniteDepth(case.noise_level)
    terms = dc.elbo(case.model, case.x, bound, draws=dc.Draws(case.t, case.noise))
    point, errors = terms.residuals.point, terms.residuals.errors
    close(point.gamma, case.gamma_t)
    eta2 = case.noise_level.squared(point.gamma)
    total = expand((1 + eta2) / 2, case.x) * errors.x + errors.r
    half = 0.5 * point.rate * torch.exp(-point.gamma) / eta2
    close(terms.diffusion, half * total.square().flatten(1).sum(1))
    assert terms.bits_per_dimension().residuals is None


@given(cases(), st.integers(1, 5), st.floats(0.5, 2))
def test_residuals_are_the_errors_behind_the_loss_of_finite_depth(case, depth, w):
    """T KL with Delta = k errors.x + (x_s - x_t) + D errors.r, errors.r = -r_hat, at residuals.point."""
    level, step = case.noise_level, (case.t * depth).ceil()
    bound = dc.FiniteDepth(depth, ratio=w, noise_level=level)
    terms = dc.elbo(case.model, case.x, bound, draws=dc.Draws(case.t, case.noise))
    g_s, g_t = (case.model.schedule(u / depth).gamma for u in (step - 1, step))
    errors = terms.residuals.errors
    close(terms.residuals.point.gamma, g_t)
    D, integral = g_t - g_s, level.integral(g_s, g_t)
    x_s, x_t = (case.model.encoder.encode(case.x, g) for g in (g_s, g_t))
    k = expand(1 - torch.exp(-(integral + D) / 2), case.x)
    delta = k * errors.x + x_s - x_t + expand(D, case.x) * errors.r
    variance = torch.exp(g_s) * (1 - torch.exp(-integral))
    kl = case.x[0].numel() / 2 * (1 / w - 1 + math.log(w))
    kl = kl + delta.square().flatten(1).sum(1) / (2 * w * variance)
    close(terms.diffusion, depth * kl, 1e-7)


def test_residuals_of_a_part_are_without_the_derivative():
    """They are those of the encoding's rate alpha^2 (x - x_t), of which the loss is corrected on the part."""
    encoder = make_encoder("trainable", (2,), 3)
    model = make_model(dc.LinearSchedule(-5.0, 5.0), encoder, (2,), 1)
    draws = dc.Draws(torch.tensor([0.2, 0.5, 0.8], dtype=F64), normal(2, 3, 2), normal(3, 3, 2))
    part = model(X, dc.InfiniteDepth(rate_fraction=0.3), draws=draws).residuals
    whole = model(X, dc.InfiniteDepth(), draws=draws).residuals
    encoding = encoder(X, part.point.gamma)
    first = expand(part.point.alpha2, X) * (X - encoding.value)
    close(part.errors.x, whole.errors.x)
    close(part.errors.r - whole.errors.r, first - encoding.rate)


class Loss(nn.Module):
    """What torch.export takes: tensors in, a tree of tensors out."""

    def __init__(self, model, bound):
        super().__init__()
        self.model, self.bound = model, bound

    def forward(self, x, t, noise, noise_0):
        return self.bound.terms(self.model, x, dc.Draws(t, noise, noise_0))


@pytest.mark.parametrize(
    "bound", [dc.InfiniteDepth(), dc.FiniteDepth(4)], ids=["infinite", "finite"]
)
def test_terms_are_trees_of_tensors(bound):
    """So that hooks which look for tensors in a forward's result find them: torch.export takes a result apart and puts
    the same one together, with all eleven of its leaves."""
    loss = Loss(REAL, bound)
    one, two = (
        (normal(i, 3, 2), torch.rand(3, dtype=F64), normal(i + 1, 3, 2), normal(i + 2, 3, 2))
        for i in (1, 5)
    )
    program = torch.export.export(loss, one)
    assert len(program.graph_signature.user_outputs) == 11
    found, wanted = program.module()(*two), loss(*two)
    assert isinstance(found, Terms) and found.dimensions == 2
    for name in ("reconstruction", "diffusion", "latent", "total"):
        close(getattr(found, name), getattr(wanted, name))
    close(found.residuals.errors.x, wanted.residuals.errors.x)
    close(found.residuals.errors.r, wanted.residuals.errors.r)
    close(found.residuals.point.gamma, wanted.residuals.point.gamma)
    close(found.residuals.point.rate, wanted.residuals.point.rate)
