"""The code computes the theorems, from schedules to the ELBO: textbook form with 60 digits against the stable form.

A result may be off by what a relative error of `TOLERANCE` in each of its arguments would do (a backward error), and
no more; the results in `STRICT` must hold that relative tolerance themselves, over all of gamma in [-20, 20].
"""

from functools import cache

import mpmath
import pytest
import sympy as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import theory
from diffenc_ct import encoders, schedules
from diffenc_ct.elbo import latent_loss, step_kl
from diffenc_ct.model import DiffEnc, Levels, Single
from tests.theory_cases import CASES, Points, points
from tests.theory_cases.registry import Fixed
from theory import Formula

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
STRICT = {
    "schedules.beta",
    "schedules.drift",
    "schedules.snr",
    "schedules.stable_forms",
    "encoders.identity",
    "encoders.nontrainable",
    "process.transition_variance",
    "process.posterior_variance",
    "elbo.discrete_vdm",
    "elbo.vdm_forms",
}
SECTIONS = ("schedules", "encoders", "process", "model", "dynamics", "elbo", "sampling")


# How the two are compared -----------------------------------------------------------------------------

_eta = sp.Symbol("eta", positive=True)


@cache
def exact(name: str) -> Formula:
    """The theorem's formula, rho written through eta, and beside each value the size of its backward error."""
    formula = theory.theorem(name).formula
    assert formula is not None
    found = formula()
    symbol = {each.name: each for each in found.symbols}
    through_eta: dict[sp.Symbol, sp.Expr] = {}
    if "rho" in symbol:
        through_eta[symbol["rho"]] = sp.exp(
            -(_eta**2) * (symbol["gamma_t"] - symbol["gamma_s"]) / 2
        )
    elif name == "elbo.girsanov":
        through_eta[symbol["eta2"]] = _eta**2
    symbols = tuple(_eta if each in through_eta else each for each in found.symbols)
    several = isinstance(found.expression, sp.Tuple)
    values = [
        each.subs(through_eta) for each in (found.expression if several else (found.expression,))
    ]
    sizes = [
        sum((sp.Abs(each * value.diff(each)) for each in symbols), sp.Abs(value))
        for value in values
    ]
    return Formula(symbols, sp.Tuple(*values, *sizes))


def compare(name: str, p: Points) -> None:
    results, arguments = CASES[name](p)
    dtype = p.gamma_t.dtype
    columns = [_spread(each) for each in arguments]
    rows = [exact(name)(*values) for values in zip(*columns, strict=True)]
    for number, result in enumerate(results):
        assert result.dtype == dtype, (name, result.dtype)
        value = [row[number] for row in rows]
        size = [
            abs(v) if name in STRICT else row[number + len(results)]
            for v, row in zip(value, rows, strict=True)
        ]
        if name.startswith(("elbo", "model.continuous")) and result.shape == (2,):
            # A loss: the sum over an example's two dimensions.
            value = [value[0] + value[1], value[2] + value[3]]
            size = [size[0] + size[1], size[2] + size[3]]
            found = [mpmath.mpf(float(each)) for each in result]
        else:
            found = _spread(result)
        for got, wanted, allowed in zip(found, value, size, strict=True):
            assert abs(got - wanted) <= TOLERANCE[dtype] * allowed + mpmath.mpf(10) ** -37, (
                f"{name}, result {number} in {dtype}: code {got}, theorem {wanted}"
            )


def _spread(value: Tensor | float) -> list[mpmath.mpf]:
    """Four exact numbers: (2, 2) as it is, (2,) and (2, 1) one an example, a scalar everywhere."""
    tensor = torch.as_tensor(value, dtype=torch.float64)
    tensor = tensor[:, None] if tensor.ndim == 1 else tensor
    return [mpmath.mpf(each) for each in tensor.expand(2, 2).flatten().tolist()]


@pytest.mark.parametrize("name", CASES)
@given(p=points(torch.float64))
def test_float64_to_ten_digits(name, p):
    compare(name, p)


@pytest.mark.parametrize("name", CASES)
@given(p=points(torch.float32))
def test_float32_to_five_digits_at_the_extremes(name, p):
    compare(name, p)


# Those that are not a plain formula; that nothing is left out; that the tolerance bites ---------------


@given(points(torch.float64))
def test_latent_loss_is_the_kl_up_to_rounding(p: Points) -> None:
    (stable,), (x, gamma) = CASES["elbo.latent_kl"](p)
    for dtype, digits in ((torch.float64, 2.0**-52), (torch.float32, 2.0**-23)):
        found = latent_loss(x.to(dtype), gamma.to(dtype)).double()
        size = x[0].numel() * (1 + x.abs().max() ** 2 + gamma.abs().max())
        assert (found - stable).abs().max() <= 4 * digits * size


@given(p=points(torch.float64), levels=st.integers(2, 9))
def test_decoder_of_levels_is_the_softmax_of_the_logits(p, levels):
    logit = theory.theorem("model.decoder").formula()
    z, gamma = p.data(1), p.gamma_t[0]
    k = torch.tensor([[0, levels - 1], [levels // 2, 1]])
    decoder = DiffEnc(
        schedules.LinearSchedule(), encoders.IdentityEncoder(), Single(Fixed(z)), Levels(levels)
    )
    found = decoder.decode_log_prob(k, z, gamma)
    for example in range(2):
        wanted, size = mpmath.mpf(0), mpmath.mpf(1)
        for point, own in zip(z[example].tolist(), k[example].tolist(), strict=True):
            with mpmath.workdps(60):
                centres = [mpmath.mpf(2 * each + 1) / levels - 1 for each in range(levels)]
                logits = [logit(point, centre, float(gamma)) for centre in centres]
                partition = mpmath.log(mpmath.fsum(map(mpmath.exp, logits)))
                wanted += logits[own] - partition
                size += max(map(abs, logits)) + abs(float(gamma) * logits[own])
        assert abs(float(found[example]) - wanted) <= TOLERANCE[torch.float64] * size


@given(p=points(torch.float64))
def test_a_weighted_loss_is_the_step_at_the_inverse_ratio(p):
    value = theory.theorem("elbo.weighted_loss").formula()
    found = elbo_at(p, 1 / p.ratio)
    wanted = value(error_over_variance(p), p.ratio)
    assert abs(float(found) - wanted) <= 1e-10 * (1 + abs(wanted))


@given(p=points(torch.float64))
def test_the_step_at_the_optimal_ratio_costs_its_logarithm(p):
    scalar = theory.theorem("elbo.optimal_ratio").formula()
    single = theory.theorem("elbo.optimal_ratio_per_dimension").formula()
    best, cost = scalar(error_over_variance(p), 1)
    assert (best, cost) == single(error_over_variance(p))
    found, below, above = (elbo_at(p, float(best) * factor) for factor in (1, 0.99, 1.01))
    assert abs(float(found) - cost) <= 1e-10 * (1 + cost)
    assert found < below and found < above


def elbo_at(p: Points, ratio: float) -> Tensor:
    """The divergence of one step of one dimension in which Delta = alpha_s data(1)."""
    return step_kl(p.data(1)[:1, :1], p.gamma_s[:1], p.gamma_t[:1], p.level, ratio)


def error_over_variance(p: Points) -> mpmath.mpf:
    low, high = (mpmath.mpf(float(each[0])) for each in (p.gamma_s, p.gamma_t))
    kept = -mpmath.expm1(-(mpmath.mpf(p.eta) ** 2) * (high - low))
    return mpmath.mpf(float(p.data(1)[0, 0])) ** 2 * mpmath.exp(-low) / kept


def test_every_formula_of_these_sections_is_compared():
    apart = {
        "encoders.posterior_mean",
        "encoders.posterior_variance",
        "model.decoder",
        "elbo.weighted_loss",
        "elbo.optimal_ratio",
        "elbo.optimal_ratio_per_dimension",
    }
    wanted = {each.name for each in theory.theorems() if each.section in SECTIONS and each.formula}
    assert wanted == CASES.keys() | apart


HIGH = 15 + 2**-10
TEXTBOOK = {
    "schedules.stable_forms": lambda s, t: 1 - schedules.sigma2(t),
    "process.transition_variance": lambda s, t: (
        schedules.sigma2(t) - schedules.alpha2(t) / schedules.alpha2(s) * schedules.sigma2(s)
    ),
    "process.posterior_variance": lambda s, t: (
        (schedules.sigma2(t) - schedules.alpha2(t) / schedules.alpha2(s) * schedules.sigma2(s))
        * schedules.sigma2(s)
        / schedules.sigma2(t)
    ),
}


@pytest.mark.parametrize("name", TEXTBOOK)
def test_the_textbook_form_would_not_do(name):
    """The tolerance is one that 1 - sigma^2 and differences of variances fail in float32, and so bites."""
    low, high = torch.tensor([15.0]), torch.tensor([HIGH])
    arguments = (HIGH,) if name == "schedules.stable_forms" else (15.0, HIGH)
    wanted = exact(name)(*arguments)[2 if name == "schedules.stable_forms" else 0]
    textbook = TEXTBOOK[name](low, high)
    assert name in STRICT
    assert abs(float(textbook) - wanted) > TOLERANCE[torch.float32] * wanted
