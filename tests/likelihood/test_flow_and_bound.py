"""Why the flow's exact likelihood may lie below the ELBO, and above it: errors whose price is known for both."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import diffenc_ct as dc
import theory
from diffenc_ct.dynamics import ReverseSDE
from diffenc_ct.likelihood import log_density
from diffenc_ct.schedules import alpha, sigma2
from diffenc_ct.worlds import GaussianWorld, MixtureWorld, World
from diffenc_ct.worlds.gaussian import quadrature
from tests.erring_worlds import diffused, erring_model, mean_elbo
from tests.parts import close, normal, world_points

F64 = torch.float64
TIGHT = dc.Adams(atol=1e-8)
SCHEDULE = dc.LinearSchedule(-13.3, 5.0)
GAMMA_0, GAMMA_1 = (torch.tensor(end, dtype=F64) for end in (-13.3, 5.0))
U = float(diffused(GAMMA_1, SCHEDULE))
SIZE = 0.1
PAGE = Path(__file__).parents[2] / "docs" / "likelihood.md"


def gaussian(*variances: float) -> GaussianWorld:
    return GaussianWorld(torch.zeros(len(variances), dtype=F64), torch.tensor(variances, dtype=F64))


def exact_log_prob(world: World, x: Tensor) -> Tensor:
    """What the flow of the right heads gives: the density of z_0/alpha_0."""
    a = alpha(GAMMA_0)
    return world.log_q(a * x, GAMMA_0) + x[0].numel() * a.log()


# A turned score: every marginal stays -------------------------------------------------------------------


def turned(z: Tensor, gamma: Tensor, score: Tensor) -> Tensor:
    return SIZE * torch.stack([-score[:, 1], score[:, 0]], 1)


WORLDS = {
    "isotropic": gaussian(1.0, 1.0),
    "anisotropic": gaussian(0.5, 2.0),
    "mixture": MixtureWorld(normal(1, 3, 2), 0.6),
}


@pytest.mark.parametrize("kind", WORLDS)
def test_a_turned_score_leaves_the_flows_likelihood_exact(kind):
    world, x = WORLDS[kind], normal(2, 4, 2)
    model = erring_model(world, SCHEDULE, turned)
    found = dc.log_likelihood(model, x, solver=TIGHT, prior=lambda z: world.log_q(z, GAMMA_1))
    assert (found.nats - exact_log_prob(world, x)).abs().max() < 1e-6
    # which is no accident of a small error: the paths lead elsewhere
    z_1 = log_density(world.model(SCHEDULE), alpha(GAMMA_0) * x, solver=TIGHT).z_1
    assert (found.latent - z_1).norm(dim=1).min() > 0.05


def test_a_stretched_score_does_not():
    world, x = WORLDS["anisotropic"], normal(2, 4, 2)
    model = erring_model(world, SCHEDULE, lambda z, gamma, score: SIZE * score.flip(1))
    found = dc.log_likelihood(
        model, x, solver=dc.Adams(atol=1e-5), prior=lambda z: world.log_q(z, GAMMA_1)
    )
    assert (found.nats - exact_log_prob(world, x)).abs().min() > 1e-2


@pytest.mark.parametrize("kind", ["isotropic", "anisotropic"])
@pytest.mark.parametrize("eta", [1.0, 0.7])
def test_the_bound_is_charged_for_the_turn(kind, eta):
    """1/2 int kappa^2/eta^2 beta omega^2 E||s||^2 dt, E||s||^2 the trace of C^-1."""
    world, bound = WORLDS[kind], dc.InfiniteDepth(eta)
    points = world_points(world)
    excess = mean_elbo(erring_model(world, SCHEDULE, turned), points, bound) - mean_elbo(
        world.model(SCHEDULE), points, bound
    )
    gamma, weight = quadrature(-13.3, 5.0)
    of_score = (1 / world.marginal(gamma).covariance_matrix.diagonal(dim1=1, dim2=2)).sum(1)
    price = ((1 + eta**2) / 2 / eta) ** 2 * SIZE**2 / 2 * (weight * sigma2(gamma) * of_score).sum()
    close(excess, price, 1e-9)


def test_the_flow_lies_below_the_bound():
    """Isotropic data of unit variance: the prior is exact, and what separates the two is the turn's price."""
    world = WORLDS["isotropic"]
    model, (x, noise) = erring_model(world, SCHEDULE, turned), world_points(world)
    flow = -dc.log_likelihood(model, x, solver=TIGHT).nats.mean()
    excess = mean_elbo(model, (x, noise)) - flow
    assert abs(float(excess) - SIZE**2 * U) < 1e-5  # sigma_0^2, which the decoder costs


# The score's slope: the flow above the bound, or below it --------------------------------------------------


def slope(z: Tensor, gamma: Tensor, size: float, kind: str) -> Tensor:
    """k(u) z: of one sign, or of two that cancel, with the same int k^2."""
    u = diffused(gamma, SCHEDULE)[:, None]
    wave = torch.ones_like(u) if kind == "lasting" else math.sqrt(2) * torch.cos(math.pi * u / U)
    return size * wave * z


@pytest.mark.parametrize(
    ("kind", "size"), [("lasting", SIZE), ("lasting", -SIZE), ("passing", SIZE)]
)
def test_a_wrong_slope_costs_what_the_theorem_says(kind, size):
    world = gaussian(1.0)
    model = erring_model(world, SCHEDULE, lambda z, gamma, _: slope(z, gamma, size, kind))
    K = size * U if kind == "lasting" else 0.0
    x, noise = world_points(world)
    log_p = dc.log_likelihood(model, x, solver=TIGHT).nats
    a = alpha(GAMMA_0)
    close(log_p, gaussian(math.exp(K)).log_prob(a * x) + a.log(), 1e-6)

    of_flow, of_paths, of_sde = map(
        float, theory.theorem("likelihood.kl_linear").formula()(size, U)
    )
    of_flow = of_flow if kind == "lasting" else 0.0
    best = world.model(SCHEDULE)
    flow_excess = float((exact_log_prob(world, x) - log_p).mean())
    excess = float(mean_elbo(model, (x, noise)) - mean_elbo(best, (x, noise)))
    assert abs(flow_excess - of_flow) < 1e-5
    assert abs(excess - of_paths) < 1e-9
    # no inequality between flow and bound; the bound bounds the SDE
    assert (flow_excess > 2 * excess) if kind == "lasting" else (excess > flow_excess + 0.02)
    variance = sde_variance(model)
    sde = (1 / variance + math.log(variance) - 1) / 2
    assert 0 < sde < of_paths
    if kind == "lasting":
        assert abs(sde - of_sde) < 1e-6
    # the numbers of the page
    row = "cancels over depth" if kind == "passing" else f"| {size} z at every depth"
    (line,) = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if row in line]
    shown = [float(cell) for cell in line.split("|")[2:5]]
    assert shown == [round(each, 4) for each in (of_flow, of_paths, sde)]


def sde_variance(model: dc.DiffEnc, steps: int = 100) -> float:
    """Of z_0 under the reverse SDE of the library, whose drift is linear here: d/dtau P = 2 f P + g^2, by RK4."""
    sde, one = ReverseSDE(model), torch.ones(1, 1, dtype=F64)

    def change(tau: float, p: Tensor) -> Tensor:
        at = torch.tensor(tau, dtype=F64)
        return 2 * sde.f(at, one) * p + sde.g(at, one) ** 2

    p, h = one, 1 / steps
    for i in range(steps):
        tau = i * h
        first = change(tau, p)
        second = change(tau + h / 2, p + h / 2 * first)
        third = change(tau + h / 2, p + h / 2 * second)
        fourth = change(tau + h, p + h * third)
        p = p + h / 6 * (first + 2 * second + 2 * third + fourth)
    return float(p)


# Any error, to second order ------------------------------------------------------------------------------


HERMITE = {0: torch.ones_like, 2: lambda z: z**2 - 1, 3: lambda z: z**3 - 3 * z}


def gauss_hermite(n: int) -> tuple[Tensor, Tensor]:
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(n))
    return nodes, weights / weights.sum()


@pytest.mark.parametrize("n", HERMITE)
def test_rough_errors_cost_the_flow_more_than_the_bound(n):
    """KL of the flow (n+1)!/8 (int k)^2, charge of the bound n!/2 int k^2, for the score's error k He_n.

    Two dimensions with k of both signs, so that what is of third order cancels.
    """
    size = 2e-3 / math.factorial(n)
    signs = torch.tensor([size, -size], dtype=F64)
    world = gaussian(1.0, 1.0)
    model = erring_model(world, SCHEDULE, lambda z, gamma, _: signs * HERMITE[n](z))
    nodes, share = gauss_hermite(12)
    x = nodes[:, None].expand(-1, 2)
    log_p = dc.log_likelihood(model, x, solver=dc.Adams(atol=1e-9)).nats
    flow = float((share * (exact_log_prob(world, x) - log_p)).sum())
    nodes, share = gauss_hermite(6)
    grid, weights = torch.cartesian_prod(nodes, nodes), torch.outer(share, share).flatten()
    points = grid[:, :1].expand(-1, 2), grid[:, 1:].expand(-1, 2)
    best = mean_elbo(world.model(SCHEDULE), points, weights=weights)
    paths = float(mean_elbo(model, points, weights=weights) - best)
    assert abs(paths / (math.factorial(n) * size**2 * U) - 1) < 1e-5
    assert abs(flow / (math.factorial(n + 1) / 4 * (size * U) ** 2) - 1) < 1e-2
    assert abs(flow / paths / ((n + 1) * U / 4) - 1) < 1e-2
