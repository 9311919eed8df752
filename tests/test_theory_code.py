"""The code computes the theorems, from schedules to the ELBO: textbook form with 60 digits against the stable form.

A result may be off by what a relative error of `TOLERANCE` in each of its arguments would do (a backward error), and
no more; the results in `STRICT` must hold that relative tolerance themselves, over all of gamma in [-20, 20].
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import mpmath
import pytest
import sympy as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import theory
from diffenc_ct import encoders, process, schedules
from diffenc_ct.dynamics import ProbabilityFlow
from diffenc_ct.elbo import infinite_depth_integrand, latent_loss, mean_difference, step_kl
from diffenc_ct.model import DiffEnc, Heads, reverse_drift
from diffenc_ct.schedules import SchedulePoint
from diffenc_ct.solvers.exponential import data_frame
from tests.strategies import normal, seeds
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


@dataclass(frozen=True)
class Points:
    """Two examples of two dimensions: depths and scalars (2,), data-like tensors (2, 2) by number."""

    gamma_s: Tensor
    gamma_t: Tensor
    rate: Tensor
    eta: float
    ratio: float
    seed: int

    def data(self, number: int) -> Tensor:
        return normal(self.seed + number, 2, 2, dtype=self.gamma_t.dtype)

    @property
    def point(self) -> SchedulePoint:
        return SchedulePoint(self.gamma_t, self.rate)

    @property
    def level(self) -> process.ConstantNoiseLevel:
        return process.ConstantNoiseLevel(self.eta)


@st.composite
def points(draw, dtype: torch.dtype) -> Points:
    low = [draw(st.floats(-20, 19.875, width=32)) for _ in range(2)]
    step = [(20 - each) * 10 ** draw(st.floats(-3, 0)) for each in low]
    seed = draw(seeds)
    return Points(
        torch.tensor(low, dtype=dtype),
        torch.tensor([a + b for a, b in zip(low, step, strict=True)], dtype=dtype),
        normal(seed, 2, dtype=dtype).exp(),
        draw(st.floats(0.25, 2, width=32)),
        draw(st.floats(0.25, 4, width=32)),
        seed,
    )


# Code's results, and the arguments for which the theorem's formula must give the same ----------------

Result = tuple[tuple[Tensor, ...], tuple[Tensor | float, ...]]
CASES: dict[str, Callable[[Points], Result]] = {}


def case(name: str) -> Callable[[Callable[[Points], Result]], Callable[[Points], Result]]:
    def register(function: Callable[[Points], Result]) -> Callable[[Points], Result]:
        CASES[name] = function
        return function

    return register


class Fixed(nn.Module):
    """A network with the same output everywhere; `slope` is its derivative by lambda = -gamma."""

    def __init__(self, value: Tensor, slope: Tensor | None = None, gamma: Tensor | None = None):
        super().__init__()
        self.value, self.slope, self.gamma = value, slope, gamma

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        if self.slope is None or self.gamma is None:
            return self.value
        return self.value + self.slope * (self.gamma - gamma)[:, None]


def fixed_heads(x_hat: Tensor, r_hat: Tensor) -> nn.Module:
    module = nn.Module()
    module.forward = lambda z, gamma: Heads(x_hat, r_hat)  # type: ignore[method-assign]
    return module


def model(network: nn.Module, encoder: encoders.Encoder, prediction: str) -> DiffEnc:
    return DiffEnc(schedules.LinearSchedule(), encoder, network, levels=None, prediction=prediction)


@case("schedules.drift")
def _(p: Points) -> Result:
    return (-p.point.beta / 2,), (p.gamma_t, p.rate)


@case("schedules.beta")
def _(p: Points) -> Result:
    return (p.point.beta,), (p.gamma_t, p.rate)


@case("schedules.snr")
def _(p: Points) -> Result:
    assert torch.equal(p.point.snr, schedules.snr(p.gamma_t))
    return (p.point.snr,), (p.gamma_t,)


@case("schedules.stable_forms")
def _(p: Points) -> Result:
    four = p.point.alpha, p.point.sigma, p.point.alpha2, p.point.sigma2
    return four, (p.gamma_t,)


@case("encoders.identity")
def _(p: Points) -> Result:
    found = encoders.IdentityEncoder()(p.data(1), p.gamma_t)
    return (found.value, found.rate), (p.data(1), p.gamma_t)


@case("encoders.nontrainable")
def _(p: Points) -> Result:
    found = encoders.NonTrainableEncoder()(p.data(1), p.gamma_t)
    return (found.value, found.rate), (p.data(1), p.gamma_t)


@case("encoders.rate")
def _(p: Points) -> Result:
    x, y, slope = p.data(1), p.data(2), p.data(3)
    found = encoders.TrainableEncoder(Fixed(y, slope, p.gamma_t))(x, p.gamma_t)
    return (found.value, found.rate), (x, y, slope, p.gamma_t)


@case("encoders.v_identity")
def _(p: Points) -> Result:
    z, v, e = p.data(1), p.data(2), p.data(3)
    same = encoders.IdentityEncoder()
    heads = [
        model(Fixed(u), same, kind).predict(z, p.gamma_t) for u, kind in ((v, "v"), (e, "eps"))
    ]
    return tuple(each.x_hat for each in heads), (z, v, e, p.gamma_t)


@case("process.forward_sde")
def _(p: Points) -> Result:
    encoding = encoders.Encoding(p.data(3), p.data(2))
    drift = process.forward_drift(p.data(1), encoding, p.point)
    return (drift,), (p.data(1), p.data(2), p.gamma_t, p.rate)


@case("process.marginal")
def _(p: Points) -> Result:
    found = process.marginal(p.data(1), p.gamma_t)
    return (found.mean, found.std), (p.data(1), p.gamma_t)


@case("process.transition")
def _(p: Points) -> Result:
    data = p.data(1), p.data(2), p.data(3)
    found = process.transition(*data, p.gamma_s, p.gamma_t)
    return (found.mean, found.std), (*data, p.gamma_s, p.gamma_t)


@case("process.transition_variance")
def _(p: Points) -> Result:
    found = process.transition(p.data(1), p.data(2), p.data(3), p.gamma_s, p.gamma_t)
    return (found.std**2,), (p.gamma_s, p.gamma_t)


def _posterior(p: Points, level: float | process.NoiseLevel) -> process.Gaussian:
    return process.posterior(p.data(1), p.data(2), p.data(3), p.gamma_s, p.gamma_t, level)


@case("process.posterior")
@case("process.noise_level_ends")
def _(p: Points) -> Result:
    found = _posterior(p, 1.0)
    return (found.mean, found.std), (p.data(1), p.data(2), p.data(3), p.gamma_s, p.gamma_t)


@case("process.posterior_variance")
def _(p: Points) -> Result:
    return (_posterior(p, 1.0).std ** 2,), (p.gamma_s, p.gamma_t)


@case("process.noise_level")
def _(p: Points) -> Result:
    found = _posterior(p, p.level)
    data = p.data(1), p.data(2), p.data(3)
    return (found.mean, found.std), (*data, p.gamma_s, p.gamma_t, p.eta)


@case("process.noise_level_rho")
def _(p: Points) -> Result:
    levels = p.level, process.NonTrainableNoiseLevel()
    return tuple(each.rho(p.gamma_s, p.gamma_t) for each in levels), (p.eta, p.gamma_s, p.gamma_t)


@case("model.reverse_mean")
def _(p: Points) -> Result:
    z, x_hat, r_hat = p.data(1), p.data(2), p.data(3)
    both = model(fixed_heads(x_hat, r_hat), encoders.IdentityEncoder(), "heads")
    found = both.reverse(z, p.gamma_s, p.gamma_t, noise_level=p.level, ratio=p.ratio)
    arguments = (z, x_hat, r_hat, p.gamma_s, p.gamma_t, p.eta, p.ratio)
    return (found.mean, found.std), arguments


def _drift(p: Points, eta2: Tensor) -> tuple[Tensor, ...]:
    return (reverse_drift(p.data(1), Heads(p.data(2), p.data(3)), p.point, eta2),)


@case("model.reverse_limit")
@case("model.time_reversal")
def _(p: Points) -> Result:
    eta2 = p.rate.flip(0)
    return _drift(p, eta2), (p.data(1), p.data(2), p.data(3), p.gamma_t, p.rate, eta2)


@case("model.paper_drift")
def _(p: Points) -> Result:
    z, x_hat = p.data(1), p.data(2)
    nontrainable = encoders.NonTrainableEncoder()
    heads = model(Fixed(x_hat), nontrainable, "x").predict(z, p.gamma_t)
    drift = reverse_drift(z, heads, p.point, torch.ones_like(p.gamma_t))
    return (drift,), (z, x_hat, p.gamma_t, p.rate)


@case("dynamics.probability_flow")
def _(p: Points) -> Result:
    both = model(fixed_heads(p.data(2), p.data(3)), encoders.IdentityEncoder(), "heads")
    speed = ProbabilityFlow(both).velocity(p.data(1), p.gamma_t)
    return (speed,), (p.data(1), p.data(2), p.data(3), p.gamma_t, 1.0)


@case("sampling.frozen_heads")
def _(p: Points) -> Result:
    # One known value, at the start of a step of at most 4: the heads are taken for constant over it.
    start = -p.gamma_t[0].double()
    end = torch.minimum(-p.gamma_s[0].double(), start + 4)
    found = data_frame(start, end, start[None], p.level)
    return tuple(each.reshape(()).to(p.gamma_t) for each in found), (start, end, p.eta)


@case("model.continuous_decoder")
def _(p: Points) -> Result:
    reals = model(Fixed(p.data(1)), encoders.IdentityEncoder(), "v")
    gamma = p.gamma_t[0]
    return (reals.decode_log_prob(p.data(2), p.data(1), gamma),), (p.data(1), p.data(2), gamma)


@case("elbo.gaussian_kl")
def _(p: Points) -> Result:
    q = process.Gaussian(p.data(1), p.data(2).exp())
    other = process.Gaussian(p.data(3), p.data(4).exp())
    return (process.kl_divergence(q, other),), (q.mean, q.std, other.mean, other.std)


@case("elbo.latent_kl")
def _(p: Points) -> Result:
    # The stable form. `latent_loss` keeps the authors' order of operations, which rounds at d 2^-24 in float32.
    x, zero, one = p.data(1), torch.zeros_like(p.data(1)), torch.ones_like(p.gamma_t)
    prior = process.Gaussian(zero, schedules.expand(one, x))
    return (process.kl_divergence(process.marginal(x, p.gamma_t), prior),), (x, p.gamma_t)


@given(points(torch.float64))
def test_latent_loss_is_the_kl_up_to_rounding(p: Points) -> None:
    (stable,), (x, gamma) = CASES["elbo.latent_kl"](p)
    for dtype, digits in ((torch.float64, 2.0**-52), (torch.float32, 2.0**-23)):
        found = latent_loss(x.to(dtype), gamma.to(dtype)).double()
        size = x[0].numel() * (1 + x.abs().max() ** 2 + gamma.abs().max())
        assert (found - stable).abs().max() <= 4 * digits * size


def _difference(p: Points, level: process.NoiseLevel) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Delta/alpha_s as the code finds it from an encoding with a rate of its own."""
    x_s, x_t, x_hat, r_hat, slope = (p.data(number) for number in range(1, 6))
    errors = Heads(x_t - x_hat, slope - r_hat)
    encoding = encoders.Encoding(x_t, slope)
    found = mean_difference(errors, encoding, x_s, p.gamma_s, p.gamma_t, level)
    return found, (x_s, x_t, x_hat, r_hat, p.gamma_s, p.gamma_t)


@case("elbo.mean_difference")
def _(p: Points) -> Result:
    found, arguments = _difference(p, p.level)
    return (found,), (*arguments, p.eta)


@case("elbo.step_kl")
def _(p: Points) -> Result:
    found, arguments = _difference(p, p.level)
    kl = step_kl(found, p.gamma_s, p.gamma_t, p.level, p.ratio)
    return (kl,), (*arguments, p.eta, p.ratio)


@case("elbo.discrete_vdm")
def _(p: Points) -> Result:
    x, noise, guess = p.data(1), p.data(2), p.data(3)
    identity, one = encoders.IdentityEncoder(), process.ConstantNoiseLevel(1.0)
    encoding = identity(x, p.gamma_t)
    z = process.marginal(x, p.gamma_t).sample(noise=noise)
    errors = model(Fixed(guess), identity, "eps").errors(z, noise, encoding, p.gamma_t)
    found = mean_difference(errors, encoding, x, p.gamma_s, p.gamma_t, one)
    kl = step_kl(found, p.gamma_s, p.gamma_t, one)
    return (kl,), (noise, guess, p.gamma_s, p.gamma_t)


def _integrand(p: Points, errors: Heads, eta: float = 1.0) -> tuple[Tensor, ...]:
    level = process.ConstantNoiseLevel(eta)
    return (infinite_depth_integrand(errors, p.point, level),)


@case("elbo.girsanov")
def _(p: Points) -> Result:
    x_t, slope, x_hat, r_hat = (p.data(number) for number in range(1, 5))
    found = _integrand(p, Heads(x_t - x_hat, slope - r_hat), p.eta)
    return found, (x_t, slope, x_hat, r_hat, p.gamma_t, p.rate, p.eta)


@case("elbo.single_head")
def _(p: Points) -> Result:
    x_t, slope, x_hat = p.data(1), p.data(2), p.data(3)
    single = model(Fixed(x_hat), encoders.NonTrainableEncoder(), "x")
    encoding = encoders.Encoding(x_t, slope)
    errors = single.errors(p.data(4), p.data(5), encoding, p.gamma_t)
    return _integrand(p, errors), (x_t, slope, x_hat, p.gamma_t, p.rate)


@case("elbo.prediction_errors")
def _(p: Points) -> Result:
    x_t, noise, v, e = (p.data(number) for number in range(1, 5))
    encoding = encoders.Encoding(x_t, p.data(5))
    z = process.marginal(x_t, p.gamma_t).sample(noise=noise)
    found = tuple(
        model(Fixed(u), encoders.NonTrainableEncoder(), kind)
        .errors(z, noise, encoding, p.gamma_t)
        .x_hat
        for u, kind in ((v, "v"), (e, "eps"))
    )
    return found, (x_t, noise, v, e, p.gamma_t)


def _v_form(p: Points, encoder: encoders.Encoder) -> tuple[Tensor, ...]:
    """The integrand of a single v-predicting head that says data(5), at x = data(1) and noise = data(2)."""
    encoding = encoder(p.data(1), p.gamma_t)
    z = process.marginal(encoding.value, p.gamma_t).sample(noise=p.data(2))
    errors = model(Fixed(p.data(5)), encoder, "v").errors(z, p.data(2), encoding, p.gamma_t)
    return _integrand(p, errors)


@case("elbo.vdm_forms")
def _(p: Points) -> Result:
    found = _v_form(p, encoders.IdentityEncoder())
    return found, (p.data(1), p.data(2), p.data(5), p.gamma_t, p.rate)


@case("elbo.v_form_nontrainable")
def _(p: Points) -> Result:
    found = _v_form(p, encoders.NonTrainableEncoder())
    return found, (p.data(1), p.data(2), p.data(5), p.gamma_t, p.rate)


@case("elbo.v_form_trainable")
def _(p: Points) -> Result:
    found = _v_form(p, encoders.TrainableEncoder(Fixed(p.data(3), p.data(4), p.gamma_t)))
    return found, (p.data(1), p.data(3), p.data(4), p.data(2), p.data(5), p.gamma_t, p.rate)


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


# The two that are not a plain formula; that nothing is left out; that the tolerance bites ---------------


@given(p=points(torch.float64), levels=st.integers(2, 9))
def test_decoder_of_levels_is_the_softmax_of_the_logits(p, levels):
    logit = theory.theorem("model.decoder").formula()
    z, gamma = p.data(1), p.gamma_t[0]
    k = torch.tensor([[0, levels - 1], [levels // 2, 1]])
    decoder = DiffEnc(
        schedules.LinearSchedule(), encoders.IdentityEncoder(), Fixed(z), levels=levels
    ).double()
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
