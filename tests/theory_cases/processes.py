"""Theorems on schedules, encoders, processes, models and dynamics, and what the code gives for each."""

import torch
from torch import Tensor

from diffenc_ct import encoders, process, schedules
from diffenc_ct.dynamics import ProbabilityFlow
from diffenc_ct.model import read_output, reverse_drift
from diffenc_ct.process import Estimates
from diffenc_ct.sampling.exponential import data_frame
from tests.theory_cases.registry import Fixed, Points, Result, case, knowing, single


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


@case("encoders.residual")
def _(p: Points) -> Result:
    x, u, slope = p.data(1), p.data(2), p.data(3)
    found = encoders.ResidualEncoder(Fixed(u, slope, p.gamma_t))(x, p.gamma_t)
    return (found.value, found.rate), (x, u, slope, p.gamma_t)


@case("encoders.v_identity")
def _(p: Points) -> Result:
    z, v, e = p.data(1), p.data(2), p.data(3)
    found = tuple(read_output(kind, u, z, p.gamma_t) for u, kind in ((v, "v"), (e, "eps")))
    for x_hat, u, kind in zip(found, (v, e), ("v", "eps"), strict=True):
        whole = single(u, encoders.IdentityEncoder(), kind).predict(z, p.gamma_t)
        assert torch.equal(whole.x_hat, x_hat)
    return found, (z, v, e, p.gamma_t)


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
    found = knowing(x_hat, r_hat).reverse(
        z, p.gamma_s, p.gamma_t, noise_level=p.level, ratio=p.ratio
    )
    arguments = (z, x_hat, r_hat, p.gamma_s, p.gamma_t, p.eta, p.ratio)
    return (found.mean, found.std), arguments


def _drift(p: Points, eta2: Tensor) -> tuple[Tensor, ...]:
    return (reverse_drift(p.data(1), Estimates(p.data(2), p.data(3)), p.point, eta2),)


@case("model.reverse_limit")
@case("model.time_reversal")
def _(p: Points) -> Result:
    eta2 = p.rate.flip(0)
    return _drift(p, eta2), (p.data(1), p.data(2), p.data(3), p.gamma_t, p.rate, eta2)


@case("model.paper_drift")
def _(p: Points) -> Result:
    z, x_hat = p.data(1), p.data(2)
    nontrainable = encoders.NonTrainableEncoder()
    estimates = single(x_hat, nontrainable, "x").predict(z, p.gamma_t)
    drift = reverse_drift(z, estimates, p.point, torch.ones_like(p.gamma_t))
    return (drift,), (z, x_hat, p.gamma_t, p.rate)


@case("dynamics.probability_flow")
def _(p: Points) -> Result:
    both = knowing(p.data(2), p.data(3))
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
    reals = single(p.data(1), encoders.IdentityEncoder(), "v")
    gamma = p.gamma_t[0]
    return (reals.decode_log_prob(p.data(2), p.data(1), gamma),), (p.data(1), p.data(2), gamma)
