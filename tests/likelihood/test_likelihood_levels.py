"""From densities to probabilities of levels, in one dimension where everything can be summed and integrated."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.likelihood import log_density, log_likelihood
from diffenc_ct.likelihood.dequantisation import dequantise, truncated_normal_constant
from diffenc_ct.schedules import alpha
from diffenc_ct.worlds import MixtureWorld
from tests.strategies import close, generator, make_encoder, make_model

LEVELS = 4
KINDS = ("model", "uniform", "truncated_normal")


def one_dimension(kind: str) -> tuple[dc.DiffEnc, Tensor]:
    """A bimodal model of levels -0.75, -0.25, 0.25, 0.75.

    For bins: narrow enough to leave no mass beyond (-1, 1). For the decoder: z_0 noisy enough to reach the next level.
    """
    means = torch.tensor([[-0.5], [0.3]], dtype=torch.float64)
    world = MixtureWorld(means, 0.1, dc.NonTrainableEncoder(), torch.tensor([0.4, 0.6]))
    model = dc.DiffEnc(
        dc.LinearSchedule(-2.5 if kind == "model" else -7.0, 6.0),
        world.encoder,
        world,
        levels=LEVELS,
        prediction="heads",
    )
    return model.double(), torch.arange(LEVELS)[:, None]


def legendre(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights on (0, 1)."""
    u, w = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(n))
    return (1 + u) / 2, w / 2


def hermite(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of a standard normal."""
    u, w = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(n))
    return u, w / w.sum()


def log_weights(kind: str, n: int = 96, tau: float = 3.0) -> tuple[Tensor, Tensor]:
    """w at quadrature nodes of the dequantisation noise, (levels, n), and the nodes' weights."""
    model, x = one_dimension(kind)
    nodes, weight = hermite(n) if kind == "model" else legendre(n)
    if (
        kind == "truncated_normal"
    ):  # nodes of eps in (-tau, tau), as the uniform numbers that give them
        eps, density = tau * (2 * nodes - 1), tau * 2 / math.sqrt(2 * math.pi)
        mass = math.erf(tau / math.sqrt(2))
        nodes = (torch.erf(eps / math.sqrt(2)) / mass + 1) / 2
        weight = weight * density * torch.exp(-(eps**2) / 2) / mass
    gamma_0 = model.schedule.at(0.0, nodes).gamma
    many = x.repeat_interleave(n, 0)
    noise = nodes.repeat(LEVELS)[:, None]
    latent = dequantise(model, many, gamma_0, kind, lambda law: noise, tau=tau)
    density = log_density(model, latent.z_0, atol=1e-8)
    return (latent.log_weight + density.log_prob).reshape(LEVELS, n), weight


def bounds(kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """log P(x), the bound of one sample and of two, (levels,) each, by quadrature."""
    w, weight = log_weights(kind)
    truth = (w.exp() * weight).sum(1).log()
    one = (w * weight).sum(1)
    pair = torch.logaddexp(w[:, :, None], w[:, None, :]) - math.log(2)
    return truth, one, (pair * weight[:, None] * weight).sum((1, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_of_all_levels_sum_to_one_and_bounds_to_less(kind):
    truth, one, two = bounds(kind)
    assert abs(truth.exp().sum() - 1) < 1e-4
    assert (one < two).all() and (two < truth).all()
    assert one.exp().sum() < two.exp().sum() < 1


def test_bins_have_the_mass_of_the_density():
    """uniform and truncated normal, at any tau: P(x) = int over the bin of the density of z_0/alpha_0."""
    model, x = one_dimension("uniform")
    u, weight = legendre(64)
    y = (2 * (x + u) / LEVELS - 1).reshape(-1, 1)
    scale = alpha(model.schedule.at(0.0, u).gamma)
    log_p = log_density(model, scale * y, atol=1e-8).log_prob + scale.log()
    mass = (log_p.reshape(LEVELS, -1).exp() * weight).sum(1) * 2 / LEVELS
    for kind, tau in (("uniform", 3.0), ("truncated_normal", 2.0), ("truncated_normal", 3.5)):
        w, weight = log_weights(kind, tau=tau)
        assert ((w.exp() * weight).sum(1) - mass).abs().max() < 1e-5


def test_truncated_normal_constant():
    for tau in (0.5, 1.0, 3.0):
        grid = torch.linspace(-tau, tau, 20001, dtype=torch.float64)
        normal = torch.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
        assert abs(torch.trapezoid(normal, grid).item() - truncated_normal_constant(tau)) < 1e-8


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [1, 2])
def test_estimates_are_of_the_bound_they_name(kind, samples):
    """The mean over many copies is L_K, within its standard error; K is inside the logarithm."""
    model, x = one_dimension(kind)
    copies, truth = 600, bounds(kind)
    found = log_likelihood(
        model,
        x.repeat_interleave(copies, 0),
        dequantisation=kind,
        importance_samples=samples,
        batch_size=10**4,
        generator=generator(samples),
    )
    values = found.nats.reshape(LEVELS, copies)
    error = values.std(1) / math.sqrt(copies)
    assert ((values.mean(1) - truth[samples]).abs() < 4 * error + 1e-3).all()
    assert f"{samples} sample" in found.bound and found.paired


def test_standard_error_of_dequantisation():
    """Told from K samples, it is the spread that other seeds show; nan from one sample."""
    model, x = one_dimension("model")
    images, runs, options = (
        x.repeat(3, 1),
        [],
        {"importance_samples": 64, "atol": 1e-4, "batch_size": 1000},
    )
    for seed in range(12):
        runs.append(log_likelihood(model, images, generator=generator(seed), **options))
    spread = torch.stack([run.bits_per_dimension.mean() for run in runs]).std()
    told = sum(run.standard_errors["dequantisation"] for run in runs) / len(runs)
    assert 0.5 < told / spread < 2
    one = log_likelihood(model, images, generator=generator(0))
    assert math.isnan(one.standard_errors["dequantisation"])
    expected = one.bits_per_dimension.std() / math.sqrt(len(images))
    assert abs(one.standard_errors["images"] - expected) < 1e-12


def test_standard_error_of_probes():
    encoder = make_encoder("trainable", (3,), 1)
    model = make_model(dc.LinearSchedule(-5.0, 4.0), encoder, (3,), 1, heads="paired", levels=9)
    x = torch.randint(0, 9, (4, 3), generator=generator(0))
    options = {"divergence": "gaussian", "probes": 16, "solver": "rk4", "steps": 12}
    exact = log_likelihood(model, x, solver="rk4", steps=12, generator=generator(5))
    assert exact.standard_errors["probes"] == 0
    told, off = [], []
    for seed in range(12):
        noisy = log_likelihood(model, x, generator=generator(seed), **options)
        same = log_likelihood(model, x, solver="rk4", steps=12, generator=generator(seed))
        told.append(noisy.standard_errors["probes"])
        off.append((noisy.bits_per_dimension - same.bits_per_dimension).mean().item())
    spread = math.sqrt(sum(v**2 for v in off) / len(off))
    assert 0.5 < (sum(told) / len(told)) / spread < 2


def test_real_data():
    """ "none" is the density of z_0/alpha_0, Jacobian and all; bits per dimension are nats over d ln 2."""
    world = MixtureWorld(torch.tensor([[0.2, -0.3]], dtype=torch.float64), 0.5)
    model, x = (
        world.model(dc.LinearSchedule(-3.0, 4.0)),
        torch.tensor([[0.1, 0.4], [0.5, -0.2]]).double(),
    )
    found = log_likelihood(model, x, atol=1e-9)
    gamma_0 = model.schedule.at(0.0, x).gamma
    direct = log_density(model, alpha(gamma_0) * x, atol=1e-9).log_prob
    close(found.nats, direct + 2 * alpha(gamma_0).log(), 1e-9)
    close(found.bits_per_dimension, -found.nats / (2 * math.log(2)))
    # the decoder's density is the flow's, blurred: bound and density agree where gamma_0 is small
    sharp = world.model(dc.LinearSchedule(-12.0, 4.0))
    bound = log_likelihood(sharp, x, dequantisation="model", importance_samples=8)
    assert (bound.nats - log_likelihood(sharp, x).nats).abs().max() < 1e-2
