"""Theorems on the ELBO, and what the code gives for each."""

import torch
from torch import Tensor

from diffenc_ct import encoders, process, schedules
from diffenc_ct.elbo import infinite_depth_integrand, mean_difference, step_kl
from diffenc_ct.model import read_error
from diffenc_ct.process import Errors
from tests.theory_cases.registry import Fixed, Points, Result, case, single


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


def _difference(p: Points, level: process.NoiseLevel) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Delta/alpha_s as the code finds it from an encoding with a rate of its own."""
    x_s, x_t, x_hat, r_hat, slope = (p.data(number) for number in range(1, 6))
    errors = Errors(x_t - x_hat, slope - r_hat)
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
    errors = single(guess, identity, "eps").errors(z, noise, encoding, p.gamma_t)
    found = mean_difference(errors, encoding, x, p.gamma_s, p.gamma_t, one)
    kl = step_kl(found, p.gamma_s, p.gamma_t, one)
    return (kl,), (noise, guess, p.gamma_s, p.gamma_t)


def _integrand(p: Points, errors: Errors, eta: float = 1.0) -> tuple[Tensor, ...]:
    level = process.ConstantNoiseLevel(eta)
    return (infinite_depth_integrand(errors, p.point, level),)


@case("elbo.girsanov")
def _(p: Points) -> Result:
    x_t, slope, x_hat, r_hat = (p.data(number) for number in range(1, 5))
    found = _integrand(p, Errors(x_t - x_hat, slope - r_hat), p.eta)
    return found, (x_t, slope, x_hat, r_hat, p.gamma_t, p.rate, p.eta)


@case("elbo.single_head")
def _(p: Points) -> Result:
    x_t, slope, x_hat = p.data(1), p.data(2), p.data(3)
    says_x = single(x_hat, encoders.NonTrainableEncoder(), "x")
    encoding = encoders.Encoding(x_t, slope)
    errors = says_x.errors(p.data(4), p.data(5), encoding, p.gamma_t)
    return _integrand(p, errors), (x_t, slope, x_hat, p.gamma_t, p.rate)


@case("elbo.prediction_errors")
def _(p: Points) -> Result:
    x_t, noise, v, e = (p.data(number) for number in range(1, 5))
    encoding = encoders.Encoding(x_t, p.data(5))
    z = process.marginal(x_t, p.gamma_t).sample(noise=noise)
    found = []
    for u, kind in ((v, "v"), (e, "eps")):
        whole = single(u, encoders.NonTrainableEncoder(), kind).errors(
            z, noise, encoding, p.gamma_t
        )
        found.append(read_error(kind, u, noise, x_t, p.gamma_t))
        assert torch.equal(whole.x, found[-1])
    return tuple(found), (x_t, noise, v, e, p.gamma_t)


def _v_form(p: Points, encoder: encoders.Encoder) -> tuple[Tensor, ...]:
    """The integrand of a single v-predicting head that says data(5), at x = data(1) and noise = data(2)."""
    encoding = encoder(p.data(1), p.gamma_t)
    z = process.marginal(encoding.value, p.gamma_t).sample(noise=p.data(2))
    errors = single(p.data(5), encoder, "v").errors(z, p.data(2), encoding, p.gamma_t)
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
