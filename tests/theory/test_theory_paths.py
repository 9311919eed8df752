"""KL of marginals and of paths, of the library's SDE and flow, in worlds where all that happens is linear."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import diffenc_ct as dc
from diffenc_ct.dynamics import ReverseSDE
from diffenc_ct.likelihood import log_density
from diffenc_ct.model import Direct
from diffenc_ct.process import Estimates
from diffenc_ct.schedules import alpha, sigma2
from diffenc_ct.worlds import GaussianWorld
from tests.erring_worlds import mean_elbo
from tests.parts import close, cubature, normal, world_points
from tests.strategies import make_gaussian_world

F64 = torch.float64
EYE = torch.eye(2, dtype=F64)
SCHEDULE = dc.LinearSchedule(-4.0, 3.0)
PACE = 7.0
STEPS = 60  # even, for Simpson's rule


class Linear(nn.Module):
    """The best estimates and sigma^2 E z, sigma^2 F z."""

    def __init__(self, world: GaussianWorld, seed: int) -> None:
        super().__init__()
        self.world = world
        self.of_x, self.of_r = 0.3 * normal(seed, 2, 2), 0.3 * normal(seed + 1, 2, 2)

    def forward(self, z: Tensor, gamma: Tensor) -> Estimates:
        best, noise = self.world.estimates(z, gamma), sigma2(gamma)[:, None]
        return Estimates(
            best.x_hat + noise * z @ self.of_x.mT, best.r_hat + noise * z @ self.of_r.mT
        )


@dataclass
class Case:
    """Covariances of data and model and what is missed, at STEPS + 1 depths from noise to data."""

    world: GaussianWorld
    model: dc.DiffEnc
    eta: float

    def __post_init__(self) -> None:
        self.gamma = torch.linspace(3.0, -4.0, STEPS + 1, dtype=F64)
        self.data = self.world.marginal(self.gamma).covariance_matrix
        self.own = torch.stack(self.covariances())
        heads = self.model.heads.network
        kappa = (1 + self.eta**2) / 2
        # kappa a + b = -missed z
        self.missed = sigma2(self.gamma)[:, None, None] * (kappa * heads.of_x + heads.of_r)
        # grad ln(q/p) = apart z
        self.apart = self.own.inverse() - self.data.inverse()

    def covariances(self) -> list[Tensor]:
        """dP/dtau = M P + P M^T + g^2 I by RK4, with drift and noise of the library's SDE."""
        sde, h = ReverseSDE(self.model, noise_level=self.eta), 1 / STEPS

        def change(tau: float, P: Tensor) -> Tensor:
            at = torch.tensor(tau, dtype=F64)
            moved = sde.f(at, EYE).mT @ P
            return moved + moved.mT + sde.g(at, EYE)[0, 0] ** 2 * EYE

        found = [EYE]
        for i in range(STEPS):
            P, tau = found[-1], i * h
            first = change(tau, P)
            second = change(tau + h / 2, P + h / 2 * first)
            third = change(tau + h / 2, P + h / 2 * second)
            fourth = change(tau + h, P + h * third)
            found.append(P + h / 6 * (first + 2 * second + 2 * third + fourth))
        return found

    def kl(self) -> Tensor:
        """KL(q_t || p_t) at every depth."""
        ratio = torch.linalg.solve(self.own, self.data)
        return (trace(ratio) - 2 - torch.linalg.slogdet(ratio).logabsdet) / 2

    def of_paths_with_a_given_end(self, sign: int = 1) -> Tensor:
        """1/2 int eta^2 beta E||u - alpha (kappa a + b)/(eta^2 sigma^2)||^2 dt."""
        noise = self.eta**2 * sigma2(self.gamma)
        rest = self.apart + sign * (alpha(self.gamma) / noise)[:, None, None] * self.missed
        return simpson(noise * PACE / 2 * trace(rest @ self.data @ rest.mT))

    def of_marginals(self) -> Tensor:
        """-int E[(v - w) . u] dt, v - w = -alpha gamma' (kappa a + b)."""
        return -simpson(alpha(self.gamma) * PACE * trace(self.missed.mT @ self.apart @ self.data))


def trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=-2, dim2=-1).sum(-1)


def simpson(values: Tensor) -> Tensor:
    """Over the unit interval, from equidistant values."""
    return (values[0] + 4 * values[1::2].sum() + 2 * values[2:-1:2].sum() + values[-1]) / (
        3 * STEPS
    )


def make_case(kind: str, eta: float) -> Case:
    drawn = make_gaussian_world(2, kind, 5)
    world = GaussianWorld(torch.zeros(2, dtype=F64), drawn.covariance, drawn.encoder)
    model = dc.DiffEnc(SCHEDULE, world.encoder, Direct(Linear(world, 11)), dc.Reals())
    return Case(world, model, eta)


@pytest.mark.parametrize(("kind", "eta"), [("identity", 1.0), ("matrix", 1.4)])
def test_the_bound_is_charged_for_marginals_and_for_paths_with_a_given_end(kind, eta):
    """likelihood.path_kl: the sampler's own marginals, and the library's ELBO."""
    case = make_case(kind, eta)
    points, bound = world_points(case.world), dc.InfiniteDepth(eta)
    excess = mean_elbo(case.model, points, bound) - mean_elbo(
        case.world.model(SCHEDULE), points, bound
    )
    marginal, given = case.kl(), case.of_paths_with_a_given_end()
    close(marginal[-1] + given, marginal[0] + excess, 1e-5)
    assert 0.01 < marginal[-1] < marginal[0] + excess - 0.01
    assert (case.of_paths_with_a_given_end(sign=-1) - given).abs() > 1e-2


def test_the_flow_is_charged_for_what_moves_its_marginals():
    """likelihood.marginal_kl_rate at nu = 0, and the library's density of the flow."""
    case = make_case("matrix", 0.0)
    z = cubature(2) @ torch.linalg.cholesky(case.data[-1]).mT
    own = log_density(case.model, z, solver=dc.Adams(atol=1e-7)).log_prob
    kl = (case.world.log_q(z, case.gamma[-1]) - own).mean()
    marginal = case.kl()
    close(kl, marginal[-1], 1e-5)
    close(kl, marginal[0] + case.of_marginals(), 1e-5)
    assert case.of_marginals().abs() > 0.01
