"""The closed-form worlds compute the theorems: textbook form with 60 digits against float64."""

import math
from collections.abc import Sequence

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import diffenc_ct as dc
import theory
from diffenc_ct.calibration import optimal_eta_squared
from diffenc_ct.dynamics import ProbabilityFlow
from diffenc_ct.likelihood.dequantisation import truncated_normal_constant
from diffenc_ct.worlds import GaussianWorld, LinearEncoder, MixtureWorld
from tests.strategies import ScaleEncoder, generator, noise_levels, normal, seeds

TOLERANCE = 1e-10


def value(name: str, *point: float | Tensor) -> mpmath.mpf | tuple[mpmath.mpf, ...]:
    formula = theory.theorem(name).formula
    assert formula is not None
    return formula()(*map(float, point))


def agree(actual: Tensor, expected: mpmath.mpf, scale: float = 0.0) -> None:
    """Relative to the value, or to the size `scale` of what it is a difference of."""
    size = max(abs(float(expected)), scale)
    assert abs(float(actual) - float(expected)) <= TOLERANCE * size, (
        float(actual),
        float(expected),
    )


def total(parts: Sequence[mpmath.mpf]) -> mpmath.mpf:
    return mpmath.fsum(parts)


class Aligned:
    """A Gaussian world whose covariance and encoder are diagonal, direction by direction."""

    def __init__(self, d: int, seed: int, gamma: float) -> None:
        tilt, bend = normal(seed, d), normal(seed + 1, d)

        def matrix(level: Tensor) -> Tensor:
            s2 = torch.sigmoid(level)[:, None]
            return torch.diag_embed(
                torch.exp(s2 * (0.6 * tilt + 0.4 * bend * torch.sin(level / 2)[:, None]))
            )

        self.mean, self.variance = normal(seed + 2, d), 0.1 + normal(seed + 3, d).abs()
        self.world = GaussianWorld(self.mean, self.variance, LinearEncoder(matrix))
        self.gamma = torch.tensor([gamma], dtype=torch.float64)
        self.z = normal(seed + 4, 1, d)
        self.scale, self.rate = (m[0].diagonal() for m in self.world.maps(self.gamma))

    def each(self, name: str, symbols: str, *more: float) -> list:
        """The formula in every direction, at (z, m, S, A, r = A') as `symbols` list them, then what else it takes."""
        own = {"z": self.z[0], "m": self.mean, "S": self.variance, "A": self.scale, "r": self.rate}
        columns = zip(*(own[letter] for letter in symbols), strict=True)
        return [value(name, *column, *more) for column in columns]


@st.composite
def aligned(draw) -> Aligned:
    return Aligned(draw(st.integers(1, 3)), draw(seeds), draw(st.floats(-13.3, 5)))


@given(aligned())
def test_density(case: Aligned) -> None:
    expected = total(case.each("worlds.gaussian_density", "zmSA", case.gamma))
    agree(case.world.log_q(case.z, case.gamma)[0], expected, scale=1)


@given(aligned())
def test_heads(case: Aligned) -> None:
    heads = case.world.estimates(case.z, case.gamma)
    for i, (x_hat, r_hat) in enumerate(case.each("worlds.gaussian_posterior", "zmSAr", case.gamma)):
        agree(heads.x_hat[0, i], x_hat, scale=1)
        agree(heads.r_hat[0, i], r_hat, scale=1)


@given(aligned())
def test_covariances(case: Aligned) -> None:
    expected = zip(*case.each("worlds.gaussian_covariances", "SAr", case.gamma), strict=True)
    for actual, parts in zip(case.world.covariances(case.gamma), expected, strict=True):
        agree(actual[0], total(parts), scale=float(total([abs(p) for p in parts])))


@given(aligned(), noise_levels())
def test_rates(case: Aligned, level: dc.NoiseLevel) -> None:
    squared = level.squared(case.gamma)
    expected = total(case.each("worlds.gaussian_integrand", "SAr", squared, case.gamma))
    agree(case.world.infinite_depth_rate(case.gamma, level)[0], expected)
    a, b, c = (
        total(p)
        for p in zip(*case.each("worlds.gaussian_covariances", "SAr", case.gamma), strict=True)
    )
    gap = value("calibration.gap", math.exp(-case.gamma), a, b, c, squared)
    agree(case.world.gap_rate(case.gamma, level)[0], gap, scale=float(expected))
    star, _ = value("calibration.optimal_noise_level", math.exp(-case.gamma), a, b, c)
    agree(case.world.optimal_noise_level_squared(case.gamma)[0], star)


@given(aligned())
def test_information(case: Aligned) -> None:
    expected = total(case.each("worlds.gaussian_mutual_information", "SA", case.gamma))
    agree(case.world.mutual_information(case.gamma)[0], expected)


@given(aligned(), noise_levels(), st.floats(0.05, 3))
def test_step(case: Aligned, level: dc.NoiseLevel, width: float) -> None:
    gamma_s = case.gamma - width
    scale_s = case.world.maps(gamma_s)[0][0].diagonal()
    rho = level.rho(gamma_s, case.gamma)
    actual = case.world.step_excess(gamma_s, case.gamma, level)[0]
    for i, excess in enumerate(actual):
        point = case.mean[i], case.variance[i], scale_s[i], case.scale[i], case.rate[i], rho
        agree(excess, value("worlds.gaussian_step", *point, gamma_s, case.gamma))


@given(aligned())
def test_ends(case: Aligned) -> None:
    start, end = zip(*case.each("worlds.gaussian_ends", "mSA", case.gamma), strict=True)
    agree(case.world.reconstruction_loss(case.gamma[0]), total(start), scale=1)
    agree(case.world.latent_loss(case.gamma[0]), total(end), scale=1)


@given(aligned())
def test_flow(case: Aligned) -> None:
    flow = ProbabilityFlow(case.world.model(dc.LinearSchedule(-13.3, 5.0)))
    t = (case.gamma[0] + 13.3) / 18.3
    expected = case.each("worlds.linear_flow", "zmSAr", case.gamma, 18.3)
    for actual, drift in zip(flow(t, case.z)[0], expected, strict=True):
        agree(actual, drift, scale=18.3)


@given(aligned(), seeds)
def test_rotation(case: Aligned, seed: int) -> None:
    """A world turned by an orthogonal matrix: heads turn with it, scalars stay."""
    d = case.world.dimensions
    turn = torch.linalg.qr(normal(seed, d, d)).Q
    inner = case.world.encoder
    assert isinstance(inner, LinearEncoder)
    encoder = LinearEncoder(lambda level: turn @ inner.matrix(level) @ turn.mT)
    turned = GaussianWorld(turn @ case.mean, turn @ torch.diag(case.variance) @ turn.mT, encoder)
    heads, expected = (
        turned.estimates(case.z @ turn.mT, case.gamma),
        case.world.estimates(case.z, case.gamma),
    )
    torch.testing.assert_close(heads.x_hat @ turn, expected.x_hat, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(heads.r_hat @ turn, expected.r_hat, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(
        turned.covariances(case.gamma), case.world.covariances(case.gamma), strict=True
    ):
        size = float(case.world.covariances(case.gamma)[0].abs().max())
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * size)


@given(seeds, st.floats(-8, 5), st.floats(0.2, 0.8), st.sampled_from(["identity", "nt", "scale"]))
def test_mixture(seed: int, gamma: float, deviation: float, kind: str) -> None:
    encoder = {
        "identity": dc.IdentityEncoder(),
        "nt": dc.NonTrainableEncoder(),
        "scale": ScaleEncoder(),
    }[kind]
    means, weights = (
        normal(seed, 2, 1),
        torch.rand(2, dtype=torch.float64, generator=generator(seed + 1)) + 0.2,
    )
    weights = weights / weights.sum()
    world = MixtureWorld(means, deviation, encoder, weights)
    level, z = torch.tensor([gamma], dtype=torch.float64), normal(seed + 2, 1, 1).requires_grad_()
    scale, rate = world.factor(level)
    components = *weights, *means[:, 0]
    variance = deviation**2
    log_q, score = value(
        "worlds.mixture_score", z.detach(), *components, variance, variance, scale, level
    )
    actual = world.log_q(z, level)
    agree(actual[0].detach(), log_q, scale=1)
    agree(torch.autograd.grad(actual.sum(), z)[0][0, 0], score, scale=float(torch.exp(-level / 2)))
    mean, spread = value(
        "worlds.mixture_posterior", z.detach(), *components, variance, scale, level
    )
    agree(world.posterior_mean(z, level)[0, 0].detach(), mean, scale=1)
    agree(world.posterior_variance(z, level)[0].detach(), spread)
    agree(world.estimates(z, level).r_hat[0, 0].detach(), mean * float(rate), scale=1)


@given(st.floats(-20, 20))
def test_nontrainable_noise_level(gamma: float) -> None:
    """The tight noise level, in both precisions."""
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        level = torch.tensor(gamma, dtype=dtype)
        expected = value("calibration.nontrainable_tight", float(level))
        found = dc.NonTrainableNoiseLevel().squared(level)
        assert abs(float(found) - float(expected)) <= tolerance * float(expected)


@given(st.floats(-8, 2), st.floats(0.5, 4))
def test_nontrainable_world_is_tight(gamma: float, width: float) -> None:
    """No gap at eta^2 = 1 + 2 sigma^2, and the noise level is its own optimum."""
    world = GaussianWorld(
        normal(0, 1), torch.tensor([0.4], dtype=torch.float64), dc.NonTrainableEncoder()
    )
    level = torch.tensor([gamma], dtype=torch.float64)
    tight = dc.NonTrainableNoiseLevel()
    assert abs(float(world.gap_rate(level, tight))) < TOLERANCE
    assert float(world.gap_rate(level)) > 0
    torch.testing.assert_close(world.optimal_noise_level_squared(level), tight.squared(level))


@pytest.mark.parametrize("power", [2, 4])
@given(st.floats(0.2, 3), st.floats(-6, 2), st.floats(0.6, 1.6))
def test_depth_coefficient(power: int, variance: float, gamma: float, eta: float) -> None:
    """The curvature of a step's cost with w*, against `calibration.depth_gaussian`, by Richardson extrapolation."""
    S = torch.tensor([variance], dtype=torch.float64)
    world = GaussianWorld(torch.zeros(1, dtype=torch.float64), S, dc.NonTrainableEncoder())
    level = torch.tensor([gamma], dtype=torch.float64)
    a, _, _ = world.covariances(level)
    star = world.optimal_noise_level_squared(level)
    expected = value("calibration.depth_gaussian", math.exp(-gamma), a, star, eta**2)

    def curvature(width: float) -> float:
        grid = torch.tensor([gamma - width, gamma], dtype=torch.float64)
        step = world.finite_depth_loss(grid, eta, "optimal")
        return float(step - world.infinite_depth_loss(gamma - width, gamma, eta)) / width**2

    width = 0.02 / power
    found = 2 * curvature(width / 2) - curvature(width)
    assert abs(found - float(expected)) < 1e-3 * (abs(float(expected)) + 0.02)


@given(st.floats(0.01, 3), st.floats(0.01, 3), st.floats(-0.9, 0.9))
def test_optimal_noise_level(a: float, b: float, share: float) -> None:
    """For any residuals: |c| <= sqrt(a b)."""
    c = share * math.sqrt(a * b)
    star, _ = value("calibration.optimal_noise_level", 1.0, a, b, c)
    agree(optimal_eta_squared(*torch.tensor([a, b, c], dtype=torch.float64)), star)


@given(st.floats(0.1, 6))
def test_truncated_normal_constant(tau: float) -> None:
    mass, _ = value("likelihood.truncated_normal", tau)
    agree(torch.tensor(truncated_normal_constant(tau), dtype=torch.float64), mass)


def test_best_grid() -> None:
    """Equal information per step: the closed-form cost, and no perturbed grid is cheaper."""
    S, low, high, steps = 0.7, math.exp(-4.0), math.exp(9.0), 12
    world = GaussianWorld(torch.zeros(1).double(), torch.tensor([S], dtype=torch.float64))
    snr = [float(value("calibration.best_grid", S, low, high, steps, i)) for i in range(steps + 1)]
    grid = -torch.tensor(snr, dtype=torch.float64).log().flip(0)
    cost = float(world.finite_depth_loss(grid))
    gain = float(world.mutual_information(grid)[0] - world.mutual_information(grid)[-1])
    assert abs(cost - steps / 2 * math.expm1(2 * gain / steps)) < TOLERANCE
    for seed in range(20):
        moved = grid.clone()
        moved[1:-1] += 0.02 * normal(seed, steps - 1)
        assert float(world.finite_depth_loss(moved)) > cost
    optimal = world.finite_depth_loss(
        torch.linspace(-9, 4, 4, dtype=torch.float64), ratio="optimal"
    )
    assert abs(float(optimal) - gain) < TOLERANCE
