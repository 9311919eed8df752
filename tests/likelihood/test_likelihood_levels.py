"""From densities to probabilities of levels, in one dimension where everything can be summed and integrated."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.likelihood import (
    Dequantisation,
    Dequantised,
    GaussianProbes,
    NoDequantisation,
    UniformNoise,
    log_density,
    log_likelihood,
)
from diffenc_ct.likelihood.dequantisation import truncated_normal_constant
from diffenc_ct.model import Direct
from diffenc_ct.schedules import alpha
from diffenc_ct.worlds import MixtureWorld
from tests.strategies import close, generator, make_encoder, make_model

LEVELS = 4
KINDS = (dc.ModelNoise, UniformNoise, dc.TruncatedNormal)


def one_dimension(kind: type = dc.ModelNoise, *, ends: bool = False) -> tuple[dc.DiffEnc, Tensor]:
    """A bimodal model of levels -0.75, -0.25, 0.25, 0.75, or -1, -1/3, 1/3, 1.

    For bins: narrow enough to leave no mass beyond (-1, 1). For the decoder: z_0 noisy enough to reach the next level.
    """
    means = torch.tensor([[-0.5], [0.3]], dtype=torch.float64)
    world = MixtureWorld(means, 0.1, dc.NonTrainableEncoder(), torch.tensor([0.4, 0.6]))
    model = dc.DiffEnc(
        dc.LinearSchedule(-2.5 if kind is dc.ModelNoise else -7.0, 6.0),
        world.encoder,
        Direct(world),
        dc.Levels(LEVELS, ends=ends),
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


def log_weights(law: Dequantisation, n: int = 96, *, ends: bool = False) -> tuple[Tensor, Tensor]:
    """w at quadrature nodes of the dequantisation noise, (levels, n), and the nodes' weights."""
    model, x = one_dimension(type(law), ends=ends)
    nodes, weight = hermite(n) if isinstance(law, dc.ModelNoise) else legendre(n)
    if isinstance(law, dc.TruncatedNormal):
        # nodes of eps in (-tau, tau), as the uniform numbers that give them
        tau = law.tau
        eps, density = tau * (2 * nodes - 1), tau * 2 / math.sqrt(2 * math.pi)
        mass = math.erf(tau / math.sqrt(2))
        nodes = (torch.erf(eps / math.sqrt(2)) / mass + 1) / 2
        weight = weight * density * torch.exp(-(eps**2) / 2) / mass
    gamma_0 = model.schedule.at(0.0, nodes).gamma
    many = x.repeat_interleave(n, 0)
    noise = nodes.repeat(LEVELS)[:, None]
    latent = law.draw(model, many, gamma_0, lambda _: noise)
    density = log_density(model, latent.z_0, solver=dc.Adams(atol=1e-8))
    return (latent.log_weight + density.log_prob).reshape(LEVELS, n), weight


def bounds(kind: type, ends: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """log P(x), the bound of one sample and of two, (levels,) each, by quadrature."""
    w, weight = log_weights(kind(), ends=ends)
    truth = (w.exp() * weight).sum(1).log()
    one = (w * weight).sum(1)
    pair = torch.logaddexp(w[:, :, None], w[:, None, :]) - math.log(2)
    return truth, one, (pair * weight[:, None] * weight).sum((1, 2))


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_probabilities_of_all_levels_sum_to_one_and_bounds_to_less(kind, ends):
    truth, one, two = bounds(kind, ends)
    assert abs(truth.exp().sum() - 1) < 1e-4
    assert (one < two).all() and (two < truth).all()
    assert one.exp().sum() < two.exp().sum() < 1


@pytest.mark.parametrize("ends", [False, True])
def test_bins_have_the_mass_of_the_density(ends):
    """uniform and truncated normal, at any tau: P(x) = int over the bin of the density of z_0/alpha_0."""
    model, x = one_dimension(UniformNoise, ends=ends)
    u, weight = legendre(64)
    y = (2 * (x + u - 0.5) / 3 - 1 if ends else 2 * (x + u) / LEVELS - 1).reshape(-1, 1)
    scale = alpha(model.schedule.at(0.0, u).gamma)
    log_p = log_density(model, scale * y, solver=dc.Adams(atol=1e-8)).log_prob + scale.log()
    width = 2 / 3 if ends else 2 / LEVELS
    mass = (log_p.reshape(LEVELS, -1).exp() * weight).sum(1) * width
    for law in (UniformNoise(), dc.TruncatedNormal(tau=2.0), dc.TruncatedNormal(tau=3.5)):
        w, weight = log_weights(law, ends=ends)
        assert ((w.exp() * weight).sum(1) - mass).abs().max() < 1e-5


def test_truncated_normal_constant():
    for tau in (0.5, 1.0, 3.0):
        grid = torch.linspace(-tau, tau, 20001, dtype=torch.float64)
        normal = torch.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
        assert abs(torch.trapezoid(normal, grid).item() - truncated_normal_constant(tau)) < 1e-8


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("samples", [1, 2])
def test_estimates_are_of_the_bound_they_name(kind, samples):
    """The mean over many copies is L_K, within its standard error; K is inside the logarithm."""
    model, x = one_dimension(kind)
    copies, truth = 600, bounds(kind)
    found = log_likelihood(
        model,
        x.repeat_interleave(copies, 0),
        dequantisation=kind(samples=samples),
        work=dc.Work(10**4),
        generator=generator(samples),
    )
    values = found.nats.reshape(LEVELS, copies)
    error = values.std(1) / math.sqrt(copies)
    assert ((values.mean(1) - truth[samples]).abs() < 4 * error + 1e-3).all()
    assert f"{samples} sample" in found.bound and found.paired


def test_standard_error_of_dequantisation():
    """Told from K samples, it is the spread that other seeds show; nan from one sample."""
    model, x = one_dimension()
    images, options = x.repeat(3, 1), {"solver": dc.Adams(atol=1e-4), "work": dc.Work(1000)}
    many = dc.ModelNoise(samples=64)
    runs = [
        log_likelihood(model, images, dequantisation=many, generator=generator(seed), **options)
        for seed in range(12)
    ]
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
    solver = dc.TorchDiffEqFixed("rk4", steps=12, estimate_error=False)
    probes = GaussianProbes(probes=16)
    exact = log_likelihood(model, x, solver=solver, generator=generator(5))
    assert exact.standard_errors["probes"] == 0
    told, off = [], []
    for seed in range(12):
        noisy = log_likelihood(
            model, x, solver=solver, divergence=probes, generator=generator(seed)
        )
        same = log_likelihood(model, x, solver=solver, generator=generator(seed))
        told.append(noisy.standard_errors["probes"])
        off.append((noisy.bits_per_dimension - same.bits_per_dimension).mean().item())
    spread = math.sqrt(sum(v**2 for v in off) / len(off))
    assert 0.5 < (sum(told) / len(told)) / spread < 2


def test_real_data():
    """Undequantised it is the density of z_0/alpha_0, Jacobian and all; bits per dimension are nats over d ln 2."""
    world = MixtureWorld(torch.tensor([[0.2, -0.3]], dtype=torch.float64), 0.5)
    model, x = (
        world.model(dc.LinearSchedule(-3.0, 4.0)),
        torch.tensor([[0.1, 0.4], [0.5, -0.2]]).double(),
    )
    tight = dc.Adams(atol=1e-9)
    found = log_likelihood(model, x, solver=tight)
    assert found.bound == NoDequantisation().bound
    assert found.standard_errors["dequantisation"] == 0
    gamma_0 = model.schedule.at(0.0, x).gamma
    direct = log_density(model, alpha(gamma_0) * x, solver=tight).log_prob
    close(found.nats, direct + 2 * alpha(gamma_0).log(), 1e-9)
    close(found.bits_per_dimension, -found.nats / (2 * math.log(2)))
    # the decoder's density is the flow's, blurred: bound and density agree where gamma_0 is small
    sharp = world.model(dc.LinearSchedule(-12.0, 4.0))
    bound = log_likelihood(sharp, x, dequantisation=dc.ModelNoise(samples=8))
    assert (bound.nats - log_likelihood(sharp, x).nats).abs().max() < 1e-2


# One's own dequantisation ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Triangular(Dequantisation):
    """A user's: y = x + u with u of a triangular density on the bin, (2 - 2|2u/h|)/h for bins of width h."""

    def check(self, model: dc.DiffEnc) -> None:
        assert model.decoder.levels is not None

    def draw(self, model, x, gamma_0, noise) -> Dequantised:
        data, width, scale = model.scale(x), 2 / model.decoder.levels, alpha(gamma_0)
        u = noise("uniform")
        side = torch.where(u < 0.5, (2 * u).sqrt() - 1, 1 - (2 * (1 - u)).sqrt())
        log_q = ((2 - 2 * side.abs()) / width).log().flatten(1).sum(1)
        jacobian = data[0].numel() * scale.double().log()
        return Dequantised(scale * (data + width / 2 * side), jacobian - log_q)

    @property
    def target(self) -> str:
        return "a triangle"


def test_ones_own_dequantisation():
    """It bounds the same mass of a bin as the uniform noise does."""
    model, x = one_dimension(UniformNoise)
    truth, mine = bounds(UniformNoise)[0], Triangular(samples=500)
    found = log_likelihood(
        model, x, dequantisation=mine, work=dc.Work(10**4), generator=generator(0)
    )
    assert ((found.nats - truth).abs() < 4 * found.dequantisation_variance.sqrt()).all()
    assert found.bound == "lower bound on the log-likelihood of a triangle, 500 samples"
