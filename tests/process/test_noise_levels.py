"""Noise levels: values and integrals of every class, against quadrature."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

import diffenc_ct as dc
from diffenc_ct.process import ConstantNoiseLevel, FunctionNoiseLevel, as_noise_level
from diffenc_ct.schedules import sigma2
from tests.conformance import check_noise_level
from tests.refusals import refused
from tests.strategies import close, generator, noise_levels, normal, seeds

F64 = torch.float64


@given(noise_levels(), seeds)
def test_noise_level_integrals(level, seed):
    """The integral against adaptive quadrature of `squared`, both ends inside or beyond a table; additive."""
    low, middle, high = (20 * torch.rand(3, dtype=F64, generator=generator(seed)) - 13).sort()[0]
    kinks = [g for g in getattr(level, "gamma", torch.tensor([])).tolist() if low < g < high]
    expected, _ = quad(
        lambda g: float(level.squared(torch.tensor(g, dtype=F64))),
        float(low),
        float(high),
        points=kinks or None,
        epsabs=1e-12,
        limit=200,
    )
    loose = 1e-5 if isinstance(level, FunctionNoiseLevel) else 1e-9
    close(level.integral(low, high), torch.tensor(expected, dtype=F64), loose)
    parts = level.integral(low, middle) + level.integral(middle, high)
    close(parts, level.integral(low, high), loose)
    batch = torch.stack([low, middle])
    close(level.integral(batch, batch + 1)[1], level.integral(middle, middle + 1))


@given(st.floats(0, 3), st.floats(-12, 6))
def test_noise_level_values(eta, value):
    gamma = torch.tensor([value], dtype=F64)
    close(ConstantNoiseLevel(eta).squared(gamma), torch.full_like(gamma, eta**2))
    close(as_noise_level(eta).squared(gamma), torch.full_like(gamma, eta**2))
    close(dc.NonTrainableNoiseLevel().squared(gamma), 1 + 2 * sigma2(gamma))
    close(as_noise_level(lambda g: g * eta).squared(gamma), eta**2 * gamma**2)
    assert ConstantNoiseLevel().eta == 1


@given(seeds)
def test_tabulated_noise_level_interpolates(seed):
    """Its nodes exactly, halfway the mean, constant outside; the gradient of the integral is eta^2."""
    table, squared = torch.tensor([-6.0, -1.0, 0.5, 3.0]), normal(seed, 4).abs()
    squared[1] = 0  # no noise at a depth is allowed
    level = dc.TabulatedNoiseLevel(table, squared)
    nodes = table.double()
    close(level.squared(nodes), squared)
    close(level.squared((nodes[1:] + nodes[:-1]) / 2), (squared[1:] + squared[:-1]) / 2)
    outside = torch.tensor([-9.0, 7.0], dtype=F64)
    close(level.squared(outside), squared[[0, -1]])
    for value in (-8.0, -3.0, 0.0, 2.0, 5.0):
        start = torch.tensor(-0.3, dtype=F64, requires_grad=True)
        end = torch.tensor(value, dtype=F64, requires_grad=True)
        first, last = torch.autograd.grad(level.integral(start, end), [start, end])
        close(last, level.squared(end).detach())
        close(-first, level.squared(start).detach())
    assert level.integral(table[:1], table[1:2]).dtype == torch.float32
    assert level.squared(table).dtype == torch.float32


@pytest.mark.parametrize("eta", [-0.1, math.inf, math.nan])
def test_a_bad_number_is_refused(eta):
    with pytest.raises(ValueError, match="noise_level"):
        as_noise_level(eta)


@pytest.mark.parametrize("level", [None, "one", torch.ones(3)])
def test_a_bad_noise_level_is_refused(level):
    with refused(TypeError, "noise_level.*must be a number"):
        as_noise_level(level)


@given(noise_levels())
def test_conformance(level):
    check_noise_level(level)
    check_noise_level(ConstantNoiseLevel(0.0))


@pytest.mark.parametrize("wrong", ["half", "negative", "shape", "still", "start"])
def test_conformance_refuses(wrong):
    class Wrong(dc.NonTrainableNoiseLevel):
        deterministic = wrong == "still"

        def squared(self, gamma):
            right = super().squared(gamma)
            return right - 2 if wrong == "negative" else right

        def integral(self, gamma_s, gamma_t):
            right = super().integral(gamma_s, gamma_t)
            if wrong == "negative":
                return right - 2 * (gamma_t - gamma_s)
            if wrong == "start":
                return right - gamma_s
            return {"half": right / 2, "shape": right.sum()}.get(wrong, right)

    with refused(AssertionError, "."):
        check_noise_level(Wrong())


def test_which_noise_levels_are_deterministic():
    assert ConstantNoiseLevel(0.0).deterministic
    table = dc.TabulatedNoiseLevel(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    for level in (0.1, dc.NonTrainableNoiseLevel(), table, torch.exp):
        assert not as_noise_level(level).deterministic


def test_noise_levels_as_text():
    assert str(as_noise_level(0.25)) == "0.25"
    assert str(as_noise_level(torch.exp)) == "a function of gamma"


@given(seeds)
def test_an_unchecked_table_is_the_checked_one(seed):
    table, squared = normal(seed, 6).sort().values, normal(seed + 1, 6).abs()
    one, other = (
        dc.TabulatedNoiseLevel(table, squared),
        dc.TabulatedNoiseLevel.unchecked(table, squared),
    )
    s, t = 3 * normal(seed + 2, 2, 8)
    assert torch.equal(one.squared(s), other.squared(s))
    assert torch.equal(one.integral(s, t), other.integral(s, t))
    assert isinstance(other, dc.TabulatedNoiseLevel) and not other.deterministic


def test_an_unchecked_table_is_not_looked_at():
    """On a device a look at values is a wait; values on the `meta` device cannot be looked at."""
    table, squared = (torch.ones(3, device="meta") for _ in range(2))
    level = dc.TabulatedNoiseLevel.unchecked(table, squared)
    assert level.cumulative.shape == (3,)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        dc.TabulatedNoiseLevel(table, squared)


@pytest.mark.parametrize(
    "gamma, squared",
    [
        ([0.0], [1.0]),
        ([0.0, 1.0], [1.0]),
        ([[0.0, 1.0]], [[1.0, 1.0]]),
        ([0.0, 0.0], [1.0, 1.0]),
        ([1.0, 0.0], [1.0, 1.0]),
        ([0.0, 1.0], [1.0, -1.0]),
        ([0.0, 1.0], [1.0, math.nan]),
    ],
)
def test_a_bad_table_is_refused(gamma, squared):
    with pytest.raises(ValueError, match="gamma|eta_squared"):
        dc.TabulatedNoiseLevel(torch.tensor(gamma), torch.tensor(squared))


def test_the_base_class_says_what_to_implement():
    level, gamma = dc.NoiseLevel(), torch.zeros(1)
    for call in (lambda: level.squared(gamma), lambda: level.integral(gamma, gamma)):
        with pytest.raises(NotImplementedError, match="squared"):
            call()
