"""Slopes and errors of posterior heads: textbook form with 60 digits against float64.

Slopes are covariances, which lose digits where one level has all the probability; they must hold to `TOLERANCE` of the
second moments that they are differences of.
"""

from functools import cache, partial

import mpmath
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

import theory
from diffenc_ct import encoders
from diffenc_ct.model import Heads
from diffenc_ct.networks.level_mean import level_mean
from diffenc_ct.process import Errors, marginal
from diffenc_ct.schedules import alpha, expand, sigma2
from tests.strategies import close, normal, seeds
from tests.theory_cases.heads import four_encoders, three_levels, two_gaussians

F64 = torch.float64
TOLERANCE = 1e-10
PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))


@cache
def formula(name: str) -> theory.Formula:
    found = theory.theorem(name).formula
    assert found is not None
    return found()


# The mean over levels -----------------------------------------------------------------------------


class Observed:
    """Two examples of two values on three levels, through two functions: level_mean's arguments."""

    def __init__(self, seed: int, precision: float) -> None:
        self.c, self.s, self.r = (
            normal(seed, 2, 2, 2),
            normal(seed + 1, 2, 2),
            normal(seed + 2, 2, 2),
        )
        self.g = precision * torch.tensor([1.0, 1.7], dtype=F64)
        self.prior, self.phi = normal(seed + 3, 2, 3), normal(seed + 4, 2, 3)
        self.x = normal(seed + 5, 3)

    def mean(self, c: Tensor, s: Tensor, g: Tensor) -> Tensor:
        return level_mean(c, s, g, self.r, self.prior, self.x, self.phi)

    def exact(self) -> Tensor:
        """The mean and its derivatives by c_1, c_2, s and g of every value: (5, 2, 2)."""
        found, rows = formula("encoders.posterior_mean"), []
        for i, j in PLACES:
            own = (self.c[i, j], self.s[i, j], self.g[i], self.r[i, j])
            every = torch.cat(
                [each.reshape(-1) for each in (*own, self.prior[j], self.x, self.phi)]
            )
            rows.append([float(each) for each in found(*every.tolist())])
        return torch.tensor(rows, dtype=F64).T.reshape(5, 2, 2)

    def sizes(self) -> Tensor:
        """What the five are differences of, at most."""
        far = (self.x - self.r[..., None]).abs().amax(-1)
        functions = self.phi.abs().amax(-1)[:, None, None] * far
        by_s = self.g[:, None] * far**2
        by_g = self.s.abs() * far**2 + self.g[:, None] * far**3
        return torch.stack([far, *functions, by_s, by_g])


@given(seeds, st.floats(0.1, 20))
def test_the_mean_over_levels_and_its_slopes(seed, precision):
    """Forward and reverse mode, value by value."""
    case = Observed(seed, precision)
    wanted, sizes = case.exact(), TOLERANCE * case.sizes()

    def along(dc: Tensor, ds: Tensor, dg: Tensor) -> Tensor:
        with forward_ad.dual_level():
            dual = (
                forward_ad.make_dual(value, tangent)
                for value, tangent in ((case.c, dc), (case.s, ds), (case.g, dg))
            )
            return forward_ad.unpack_dual(case.mean(*dual)).tangent

    nothing = [torch.zeros_like(each) for each in (case.c, case.s, case.g)]
    of_c = torch.stack([along(e.expand(2, 2, 2), *nothing[1:]) for e in torch.eye(2, dtype=F64)])
    of_s = along(nothing[0], torch.ones_like(case.s), nothing[2])
    of_g = along(*nothing[:2], torch.ones_like(case.g))
    found = torch.stack([case.mean(case.c, case.s, case.g), *of_c, of_s, of_g])
    assert ((found - wanted).abs() <= sizes).all()

    leaves = [each.clone().requires_grad_() for each in (case.c, case.s, case.g)]
    weight = normal(seed + 6, 2, 2)
    by_c, by_s, by_g = torch.autograd.grad(case.mean(*leaves), leaves, weight)
    for i in (0, 1):
        assert ((by_c[..., i] - weight * wanted[1 + i]).abs() <= weight.abs() * sizes[1 + i]).all()
    assert ((by_s - weight * wanted[3]).abs() <= weight.abs() * sizes[3]).all()
    assert ((by_g - (weight * wanted[4]).sum(1)).abs() <= (weight.abs() * sizes[4]).sum(1)).all()


@given(seeds, st.floats(0.1, 20))
def test_the_reference_of_the_mean_is_free(seed, precision):
    """r + m does not depend on r: its derivative at fixed s is g^2 Var - 1, and that through s is -g dm/ds."""
    case = Observed(seed, precision)
    before = case.r + case.mean(case.c, case.s, case.g)
    move = normal(seed + 7, 2, 2)
    case.r = case.r + move
    after = case.r + case.mean(case.c, case.s - case.g[:, None] * move, case.g)
    assert ((after - before).abs() <= TOLERANCE * (1 + precision**2)).all()


# Heads ----------------------------------------------------------------------------------------------


LEVELS = torch.tensor([[-2 / 3, 0.0], [2 / 3, 0.0]], dtype=F64)
two_gammas = st.lists(st.floats(-20, 20), min_size=2, max_size=2)


@given(seeds, two_gammas)
def test_the_slope_of_an_estimate_is_a_posterior_variance(seed, value):
    gamma, outputs = torch.tensor(value, dtype=F64), [normal(seed + i, 2, 2) for i in range(4)]
    heads = three_levels(*outputs[:3], torch.zeros(2, 2, dtype=F64), outputs[3])
    for number, encoder in enumerate(four_encoders()[:2]):
        a = expand(encoder.scale(gamma), LEVELS)
        z = marginal(a * LEVELS, gamma).sample(noise=normal(seed + 5, 2, 2)).requires_grad_()
        x_hat = heads(z, gamma, encoder).x_hat
        (slope,) = torch.autograd.grad(x_hat.sum(), z)
        signal = expand(alpha(gamma), z) * a
        off = (x_hat / a - (z / signal).clamp(-1, 1)).detach()
        cancelled = signal * a / expand(sigma2(gamma), z) * off**2
        for i, j in PLACES:
            point = (z.detach()[i, j], *(each[i, j] for each in outputs[:3]), gamma[i])
            wanted = formula("encoders.posterior_variance")(*map(float, point))[number]
            allowed = TOLERANCE * (abs(wanted) + float(cancelled[i, j])) + mpmath.mpf(10) ** -37
            assert abs(float(slope[i, j]) - wanted) <= allowed


def exactly(x_t: Tensor, noise: Tensor, gamma: Tensor) -> mpmath.mpf:
    """z = alpha x_t + sigma noise with 60 digits."""
    e = mpmath.exp(mpmath.mpf(float(gamma)))
    return (float(x_t) + mpmath.sqrt(e) * float(noise)) / mpmath.sqrt(1 + e)


def agree_beside_the_noise(
    found: Tensor, wanted: mpmath.mpf, gamma: Tensor, noise: Tensor, rounding: float = 0.0
) -> None:
    """To `TOLERANCE` of the noise in z/alpha: nothing cancelled."""
    scale = mpmath.exp(mpmath.mpf(float(gamma)) / 2) * (1 + abs(float(noise)))
    allowed = TOLERANCE * min(scale, 10) + rounding
    assert abs(float(found) - wanted) <= allowed, (float(found), wanted, float(gamma))


@given(seeds, two_gammas)
def test_errors_of_heads_of_levels_keep_their_digits(seed, value):
    """x_t - x_hat and x_t' - r_hat at data on the levels, for all four encoders' scales and rate factors."""
    gamma, outputs = torch.tensor(value, dtype=F64), [normal(seed + i, 2, 2) for i in range(5)]
    heads, noise, rate = three_levels(*outputs), normal(seed + 6, 2, 2), normal(seed + 7, 2, 2)
    rate = expand(sigma2(gamma), rate) * rate
    for number, encoder in enumerate(four_encoders()):
        x_t = expand(encoder.scale(gamma), LEVELS) * LEVELS
        x_t = x_t + expand(sigma2(gamma), x_t) * normal(seed + 8, 2, 2) * (number > 1)
        z, encoding = marginal(x_t, gamma).sample(noise=noise), encoders.Encoding(x_t, rate)
        found = heads.errors(z, noise, encoding, gamma, encoder)
        for i, j in PLACES:
            at = exactly(x_t[i, j], noise[i, j], gamma[i])
            with mpmath.workdps(60):
                point = (at, *(float(each[i, j]) for each in outputs), float(gamma[i]))
                x_hat, r_hat = formula("encoders.posterior_head")(*point)[2 * number :][:2]
                wanted = float(x_t[i, j]) - x_hat, float(rate[i, j]) - r_hat
            # Levels of thirds are no numbers of float64.
            for one, exact in zip((found.x, found.r), wanted, strict=True):
                agree_beside_the_noise(one[i, j], exact, gamma[i], noise[i, j], 2.0**-52)


@given(seeds, two_gammas)
def test_errors_of_mixtures_keep_their_digits(seed, value):
    gamma, outputs = torch.tensor(value, dtype=F64), [normal(seed + i, 2, 2) for i in range(6)]
    heads, noise, x = two_gaussians(*outputs), normal(seed + 6, 2, 2), normal(seed + 7, 2, 2)
    for number, encoder in enumerate(four_encoders()[:2]):
        encoding = encoder(x, gamma)
        z = marginal(encoding.value, gamma).sample(noise=noise)
        found: Errors = heads.errors(z, noise, encoding, gamma, encoder)
        for i, j in PLACES:
            at = exactly(encoding.value[i, j], noise[i, j], gamma[i])
            with mpmath.workdps(60):
                point = (at, *(float(each[i, j]) for each in outputs), float(gamma[i]))
                x_hat = formula("encoders.mixture_head")(*point)[number]
                wanted = float(encoding.value[i, j]) - x_hat
            agree_beside_the_noise(found.x[i, j], wanted, gamma[i], noise[i, j])


@settings(max_examples=8)
@given(seeds, st.lists(st.floats(-5, 5), min_size=2, max_size=2))
def test_an_estimate_follows_its_depth(seed, value):
    """d x_hat/d gamma at fixed z, as a learned schedule asks for it, against the theorem's own derivative."""
    gamma = torch.tensor(value, dtype=F64, requires_grad=True)
    z, *outputs = (normal(seed + i, 2, 2) for i in range(7))
    cases = (
        ("encoders.posterior_head", three_levels(*outputs[:5]), outputs[:5], (0, 2, 4, 6)),
        ("encoders.mixture_head", two_gaussians(*outputs), outputs, (0, 1)),
    )
    for name, heads, given_, positions in cases:
        for encoder, position in zip(four_encoders(), positions, strict=False):
            x_hat = heads(z, gamma, encoder).x_hat
            (slope,) = torch.autograd.grad(x_hat.sum(), gamma)
            for i in (0, 1):
                points = [[float(z[i, j]), *(float(each[i, j]) for each in given_)] for j in (0, 1)]
                wanted = sum(slope_by_depth(name, point, value[i])[position] for point in points)
                assert abs(float(slope[i]) - wanted) <= TOLERANCE * (1 + abs(wanted))


def slope_by_depth(name: str, point: list[float], depth: float) -> list[mpmath.mpf]:
    """A central difference of step 1e-15 with 60 digits: exact to 1e-30."""
    with mpmath.workdps(60):
        step = mpmath.mpf(10) ** -15
        below, above = (formula(name)(*point, depth + sign * step) for sign in (-1, 1))
        return [(high - low) / (2 * step) for low, high in zip(below, above, strict=True)]


@given(seeds, st.lists(st.floats(-5, 5), min_size=2, max_size=2))
def test_errors_follow_depth_and_data_as_what_they_are_the_difference_of(seed, value):
    outputs = [normal(seed + i, 2, 2) for i in range(6)]
    noise = normal(seed + 6, 2, 2)
    for heads in (three_levels(*outputs[:5]), two_gaussians(*outputs)):
        for encoder in four_encoders()[:2]:
            found = []
            for errors in (heads.errors, partial(Heads.errors, heads)):
                gamma = torch.tensor(value, dtype=F64, requires_grad=True)
                x = normal(seed + 7, 2, 2).requires_grad_()
                encoding = encoder(x, gamma)
                z = marginal(encoding.value, gamma).sample(noise=noise)
                missed = errors(z, noise, encoding, gamma, encoder)
                loss = (missed.x.sin() + 2 * missed.r.cos()).sum()
                found.append(torch.autograd.grad(loss, (x, gamma)))
            for one, other in zip(*found, strict=True):
                close(one, other, 1e-9)
