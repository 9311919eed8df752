"""What is done with a model of posterior heads: its flow, likelihoods and their gradients, samples, calibration."""

import jaxtyping
import pytest
import torch
from torch import nn

import diffenc_ct as dc
from diffenc_ct.likelihood.field import FlowField
from diffenc_ct.schedules import alpha
from tests.strategies import close, generator, make_encoder, normal, posterior_heads

F64 = torch.float64
KINDS = ["levels", "mixture"]
kinds = pytest.mark.parametrize("kind", KINDS)
ADAMS = dc.Adams(atol=1e-3)


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """Thousands of small evaluations: checks of shapes and types would take most of the time."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def model_of(kind, encoder="identity", *, paired=True, levels=None):
    decoder = dc.Reals() if levels is None else dc.Levels(levels)
    heads = posterior_heads(kind, (2,), 3, paired=paired)
    with torch.no_grad():
        heads.network.second.weight.mul_(0.5)
    parts = (dc.LinearSchedule(-6.0, 3.0), make_encoder(encoder, (2,), 1), heads, decoder)
    return dc.DiffEnc(*parts, shape=(2,))


@kinds
@pytest.mark.parametrize("paired", [False, True])
def test_the_divergence_and_its_gradient(kind, paired):
    """Forward mode, as likelihoods take it, against reverse mode and the whole Jacobian; the gradient of the divergence
    with respect to the network's weights against finite differences."""
    model = model_of(kind, paired=paired)
    z, gamma = 0.5 * normal(1, 3, 2), torch.tensor([-3.0, -1.0, 0.5], dtype=F64)
    weights = list(model.heads.parameters())
    found = []
    for forward in (True, False):
        field = FlowField(model)
        field._forward_mode = forward
        divergence = field(z, gamma).divergence
        assert field._forward_mode == forward  # it did not fall back
        loss = (divergence**2).sum()
        found.append((divergence.detach(), *torch.autograd.grad(loss, weights)))
    for one, other in zip(*found, strict=True):
        close(one, other, 1e-8)
    jacobian = torch.autograd.functional.jacobian(lambda z: FlowField(model)(z, gamma).velocity, z)
    trace = torch.stack([jacobian[i, :, i].diagonal().sum() for i in range(3)])
    close(found[0][0], trace[:, None], 1e-9)

    def moved(step):
        with torch.no_grad():
            for i, p in enumerate(weights):
                p.add_(step * normal(i, *p.shape))
            loss = (FlowField(model)(z, gamma).divergence ** 2).sum()
            for i, p in enumerate(weights):
                p.sub_(step * normal(i, *p.shape))
        return loss

    along = sum((g * normal(i, *g.shape)).sum() for i, g in enumerate(found[0][1:]))
    close(along, (moved(1e-5) - moved(-1e-5)) / 2e-5, 1e-6)


@kinds
def test_likelihoods(kind):
    """Probes agree with the exact divergence, two solvers with one another, and a flow with the one that samples."""
    model = model_of(kind, "residual")
    x = 0.4 * normal(2, 2, 2)
    exact = dc.log_likelihood(model, x, solver=ADAMS).nats
    probes = dc.log_likelihood(
        model, x, solver=ADAMS, divergence=dc.Rademacher(probes=16), generator=generator(1)
    )
    assert ((probes.nats - exact).abs() < 5 * probes.probe_variance.sqrt() + 1e-3).all()
    other = dc.log_likelihood(model, x, solver=dc.TorchDiffEqFixed("rk4", steps=30)).nats
    assert (other - exact).abs().max() < 2e-2
    drawn = dc.sample_with_log_prob(model, (2, 2), solver=ADAMS, generator=generator(3))
    start = alpha(torch.tensor(-6.0, dtype=F64))
    again = dc.log_likelihood(model, drawn.z_0 / start, solver=ADAMS).nats
    assert (drawn.log_prob + 2 * start.log() - again).abs().max() < 2e-2


def test_a_likelihood_can_be_trained():
    """Its gradient through the solver, with respect to the network, against a finite difference."""
    model, x = model_of("levels"), 0.4 * normal(2, 2, 2)
    solver = dc.TorchDiffEqFixed("rk4", steps=6, gradient="solve")
    bias = model.heads.network.second.bias
    total = dc.log_likelihood(model, x, solver=solver).nats.sum()
    (gradient,) = torch.autograd.grad(total, bias)
    direction, found = normal(5, *bias.shape), []
    for step in (1e-4, -1e-4):
        with torch.no_grad():
            bias.add_(step * direction)
            found.append(dc.log_likelihood(model, x, solver=solver).nats.sum().detach())
            bias.sub_(step * direction)
    close((gradient * direction).sum(), (found[0] - found[1]) / 2e-4, 1e-5)


@pytest.mark.parametrize("encoder", ["identity", "residual"])
def test_samples_of_sharp_heads_are_levels(encoder):
    """A prior that knows of two levels only: samples are these, as often as it says."""
    model = model_of("levels", encoder, levels=5)
    model.heads.network = Silent(model.heads.outputs)
    log_prior = torch.tensor([-30.0, -0.5, -30.0, -30.0, 0.5], dtype=F64)
    model.heads.prior = log_prior.expand(2, 5)
    for solver in (dc.Exponential(order=2, steps=60), dc.Ancestral(steps=60)):
        found = dc.sample(model, 300, solver=solver, generator=generator(1)).samples
        # A path that ends between the two is the solver's doing.
        assert ((found == 1) | (found == 4)).double().mean() > 0.98
        share = (found == 4).double().mean().item()
        assert abs(share - torch.tensor(1.0).sigmoid().item()) < 5 * (0.2 / 600) ** 0.5 + 0.02


class Silent(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.outputs = outputs

    def forward(self, z, gamma):
        return z.new_zeros(len(z), self.outputs * z.shape[1])


@kinds
def test_calibration(kind):
    """eta* is no worse than 1 at any depth; the bound at calibrated steps is not looser than at equal ones."""
    model = model_of(kind, "trainable", levels=5)
    data = torch.randint(0, 5, (100, 2), generator=generator(4))
    found = dc.tightness(model, data, depths=5, generator=generator(5))
    assert (found.rate(found.noise_level) <= found.rate(1.0) + 1e-9).all()
    fitted = dc.calibrate(model, data, 4, generator=generator(6))
    bounds = [
        dc.elbo(model, data, bound, generator=generator(7)).total.mean().item()
        for bound in (dc.FiniteDepth(fitted), dc.FiniteDepth(4))
    ]
    assert bounds[0] < bounds[1] + 0.02
