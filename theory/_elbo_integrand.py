"""The integrand at infinite depth in the forms in which it is trained."""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._notation import (
    alpha,
    alpha2,
    eps,
    g,
    rate,
    sigma,
    sigma2,
    x,
    xhat,
    xrate,
    xt,
    y,
)

_vhat, _epshat = sp.symbols("vhat epshat", real=True)
_yrate = sp.Symbol("y'", real=True)
_snr = sp.exp(-g)
_SIGMA, _ALPHA2 = sigma(g), alpha2(g)


def _noisy(encoded: Expr) -> Expr:
    return alpha(g) * encoded + sigma(g) * eps


def _velocity(encoded: Expr) -> Expr:
    return alpha(g) * eps - sigma(g) * encoded


def _from_v(encoded: Expr) -> Expr:
    """x_hat = alpha z - sigma v_hat."""
    return alpha(g) * _noisy(encoded) - sigma(g) * _vhat


def _paper(encoded: Expr, slope: Expr, factor: Expr, estimate: Expr) -> Expr:
    return rate * _snr / 2 * (encoded + slope - factor * estimate) ** 2


def _general(encoded: Expr, slope: Expr, estimate: Expr, trend: Expr) -> Expr:
    """The integrand of any noise level at eta = 1."""
    return rate * _snr / 2 * ((encoded - estimate) + (slope - trend)) ** 2


def _vdm_forms(weight: Expr, v_weight: Expr = _ALPHA2) -> tuple[Expr, Expr]:
    v_form = rate * v_weight / 2 * (_velocity(x) - _vhat) ** 2
    x_form = rate * _snr / 2 * (x - _from_v(x)) ** 2
    noise = (_noisy(x) - alpha(g) * _from_v(x)) / sigma(g)
    eps_form = rate / 2 * weight * (eps - noise) ** 2
    return v_form - x_form, eps_form - x_form


def _diffenc(correction: Expr, encoded: Expr, slope: Expr) -> Expr:
    """The paper's integrand with v-prediction less its v-form with a correction inside the norm."""
    v_form = rate * alpha2(g) / 2 * (_velocity(encoded) - _vhat + correction) ** 2
    return _paper(encoded, slope, 1 + sigma2(g), _from_v(encoded)) - v_form


_mixed = alpha2(g) * x + sigma2(g) * y
_mixed_rate = sigma2(g) * (_mixed - y + _yrate)
_shrunk = alpha2(g) * x


def _trainable(sign: int = 1, scale: Expr = _SIGMA) -> Expr:
    correction = scale * (_from_v(_mixed) - _mixed + y - sign * _yrate)
    return _diffenc(correction, _mixed, _mixed_rate)


def _nontrainable(sign: int = 1, scale: Expr = _SIGMA) -> Expr:
    correction = sign * scale * (_from_v(_shrunk) - _shrunk)
    return _diffenc(correction, _shrunk, sigma2(g) * _shrunk)


def _errors(sign: int = 1) -> tuple[Expr, Expr]:
    """x_t - x_hat through the errors of v_hat and of eps_hat."""
    from_eps = (_noisy(xt) - sigma(g) * _epshat) / alpha(g)
    return (
        xt - _from_v(xt) - sign * sigma(g) * (_vhat - _velocity(xt)),
        xt - from_eps - sign * sigma(g) / alpha(g) * (_epshat - eps),
    )


def _split(factor: Expr) -> Expr:
    """The error of the sum at eta = 1, with a separate head s_hat less without."""
    head = sp.Symbol("shat", real=True)
    c = sp.Symbol("c", nonnegative=True)
    trend = factor * xhat - head
    return _general(xt, xrate, head, trend) - _general(xt, xrate, xhat, c * xhat)


THEOREMS = (
    Theorem(
        name="elbo.single_head",
        statement=(
            r"\eta = 1,\; \hat r = c\,\hat x: \qquad \|(x_t - \hat x) + (x_t' - \hat r)\|^2 ="
            r" \|x_t + x_t' - (1 + c)\,\hat x\|^2, \qquad c = \sigma^2 \text{ (DiffEnc)},\; 0"
            r" \text{ (VDM)}"
        ),
        assumptions="Componentwise.",
        proof="Collect the estimate.",
        residual=lambda: (
            _paper(xt, xrate, 1 + sigma2(g), xhat) - _general(xt, xrate, xhat, sigma2(g) * xhat)
        ),
        controls={
            "sign of sigma^2": lambda: (
                _paper(xt, xrate, 1 - sigma2(g), xhat) - _general(xt, xrate, xhat, sigma2(g) * xhat)
            ),
            "alpha^2 for sigma^2": lambda: (
                _paper(xt, xrate, 1 + alpha2(g), xhat) - _general(xt, xrate, xhat, sigma2(g) * xhat)
            ),
        },
        computed_by=("diffenc_ct.elbo.infinite_depth_integrand",),
        formula=lambda: Formula((xt, xrate, xhat, g, rate), _paper(xt, xrate, 1 + sigma2(g), xhat)),
    ),
    Theorem(
        name="elbo.separate_head",
        statement=(
            r"\hat s \text{ for } \hat x,\;\; \hat r = (1 + c)\,\hat x - \hat s: \qquad (x_t -"
            r" \hat s) + (x_t' - \hat r) = x_t + x_t' - (1 + c)\,\hat x"
        ),
        assumptions=(
            r"Any second head $\hat s$, $\eta = 1$; componentwise. The paper's ELBO of a"
            " checkpoint does not change when a head for $E[x_t|z_t]$ is added."
        ),
        proof=r"$\hat s$ cancels.",
        residual=lambda: _split(1 + sp.Symbol("c", nonnegative=True)),
        controls={"1 + c forgotten": lambda: _split(sp.Integer(1))},
        computed_by=("diffenc_ct.model.Separate",),
    ),
    Theorem(
        name="elbo.prediction_errors",
        statement=r"x_t - \hat x = \sigma\,(\hat v - v) = \frac\sigma\alpha\,(\hat\epsilon - \epsilon)",
        assumptions=(
            r"$z = \alpha x_t + \sigma\epsilon$ and $\hat x$ read from $\hat v$ or $\hat\epsilon$"
            " at that $z$; componentwise."
        ),
        proof=r"Subtract $x_t = \alpha z - \sigma v = (z - \sigma\epsilon)/\alpha$.",
        residual=_errors,
        controls={"sign": lambda: _errors(-1)},
        computed_by=("diffenc_ct.model.read_error",),
        formula=lambda: Formula(
            (xt, eps, _vhat, _epshat, g),
            sp.Tuple(sigma(g) * (_vhat - _velocity(xt)), sigma(g) / alpha(g) * (_epshat - eps)),
        ),
    ),
    Theorem(
        name="elbo.vdm_forms",
        statement=(
            r"\gamma'\,\mathrm{SNR}\,\|x - \hat x\|^2 = \gamma'\,\|\epsilon - \hat\epsilon\|^2 ="
            r" \gamma'\alpha^2\,\|v - \hat v\|^2"
        ),
        assumptions="Identity encoder; componentwise.",
        proof=(
            r"$x - \hat x = \sigma(\hat v - v) = (\sigma/\alpha)(\hat\epsilon - \epsilon)$ and"
            r" $\mathrm{SNR} = \alpha^2/\sigma^2$."
        ),
        residual=lambda: _vdm_forms(sp.Integer(1)),
        controls={
            "alpha^2 on the noise's form": lambda: _vdm_forms(alpha2(g)),
            "sigma^2 on the velocity's form": lambda: _vdm_forms(sp.Integer(1), sigma2(g)),
        },
        computed_by=("diffenc_ct.elbo.infinite_depth_integrand",),
        formula=lambda: Formula(
            (x, eps, _vhat, g, rate), rate * alpha2(g) / 2 * (_velocity(x) - _vhat) ** 2
        ),
    ),
    Theorem(
        name="elbo.v_form_trainable",
        statement=(
            r"\gamma'\,\mathrm{SNR}\,\|x_t + x_t' - (1 + \sigma^2)\hat x\|^2 ="
            r" \gamma'\alpha^2\left\|v - \hat v + \sigma\left(\hat x - x_t + y -"
            r" \frac{dy}{d\lambda}\right)\right\|^2"
        ),
        assumptions=(
            r"$x_t = \alpha^2 x + \sigma^2 y$, any $y$ and $dy/d\lambda = -dy/d\gamma$;"
            " componentwise."
        ),
        proof=r"Insert the rate: the norm's inside is $-\sigma$ times that on the right.",
        residual=_trainable,
        controls={
            "sign of dy/dlambda": lambda: _trainable(-1),
            "sigma^2 for sigma": lambda: _trainable(scale=sigma2(g)),
        },
        computed_by=("diffenc_ct.elbo.infinite_depth_integrand",),
        formula=lambda: Formula(
            (x, y, _yrate, eps, _vhat, g, rate),
            rate
            * alpha2(g)
            / 2
            * (_velocity(_mixed) - _vhat + sigma(g) * (_from_v(_mixed) - _mixed + y - _yrate)) ** 2,
        ),
    ),
    Theorem(
        name="elbo.v_form_nontrainable",
        statement=(
            r"\gamma'\,\mathrm{SNR}\,\|(1 + \sigma^2)(x_t - \hat x)\|^2 = \gamma'\alpha^2\left\|v"
            r" - \hat v + \sigma\,(\hat x - x_t)\right\|^2"
        ),
        assumptions=r"$x_t = \alpha^2 x$, so $x_t' = \sigma^2 x_t$; componentwise.",
        proof="The trainable form with $y = 0$.",
        residual=lambda: (
            _nontrainable(),
            _paper(_shrunk, sigma2(g) * _shrunk, 1 + sigma2(g), xhat)
            - rate * _snr / 2 * ((1 + sigma2(g)) * (_shrunk - xhat)) ** 2,
        ),
        controls={
            "sign of x_hat - x_t": lambda: _nontrainable(-1),
            "sigma missing": lambda: _nontrainable(scale=sp.Integer(1)),
        },
        computed_by=("diffenc_ct.elbo.infinite_depth_integrand",),
        formula=lambda: Formula(
            (x, eps, _vhat, g, rate),
            rate
            * alpha2(g)
            / 2
            * (_velocity(_shrunk) - _vhat + sigma(g) * (_from_v(_shrunk) - _shrunk)) ** 2,
        ),
    ),
)
