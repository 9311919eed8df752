r"""Exponential integrators solve the linear part of the reverse process exactly, in $u = z/\alpha$ and
$\lambda$, where it reads $du = [-\kappa (u - \hat x) + \hat r]\,d\lambda + \eta\,e^{-\lambda/2} dw$. With $K(a, b) =
\int_a^b \kappa\,d\lambda$ a step goes from $\lambda = a$ to $b > a$.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._notation import sigma2

_a, _b, _l = sp.symbols("a b l", real=True)
_start = sp.Symbol("u_a", real=True)
_xhat, _rhat, _path = (sp.Function(name) for name in ("xhat", "rhat", "u"))
# Primitives: of kappa, of eta^2, and of what an integral over the path integrates.
_kappa_primitive, _noise_primitive = sp.Function("K", real=True), sp.Function("E", real=True)
_along = sp.Function("J")
_h, _eta = sp.symbols("h eta", positive=True)


def _growth(low: Expr, high: Expr) -> Expr:
    return _kappa_primitive(high) - _kappa_primitive(low)


def _kappa(at: Expr) -> Expr:
    return _kappa_primitive(at).diff(at)


def _flow(u: Expr) -> Expr:
    return -_kappa(_b) * (u - _xhat(_b)) + _rhat(_b)


def _equation(end: Expr, integrand: Expr, u: Expr) -> tuple[Expr, Expr]:
    """A claimed solution: its value at b = a, and its equation in b; J is the integrand's primitive."""
    slope = end.diff(_b).subs(_along(_b).diff(_b), integrand)
    return end.subs(_b, _a) - _start, slope - _flow(u)


def _data_frame(sign: int = 1, pull: Expr = sp.S.One) -> tuple[Expr, Expr]:
    # e^{-K(l, b)} = e^{-K(b)} e^{K(l)}, so that only e^{K(l)} is integrated.
    source = sp.exp(_kappa_primitive(_b)) * (pull * _kappa(_b) * _xhat(_b) + sign * _rhat(_b))
    end = sp.exp(-_growth(_a, _b)) * _start
    end += sp.exp(-_kappa_primitive(_b)) * (_along(_b) - _along(_a))
    return _equation(end, source, end)


def _noise_frame(sign: int = 1) -> tuple[Expr, Expr]:
    """With n = e^{K(a, l)} (u - x_hat) known along the path."""
    noise = sp.exp(_growth(_a, _b)) * (_path(_b) - _xhat(_b))
    integrand = -sign * sp.exp(-_growth(_a, _b)) * _kappa(_b) * noise + _rhat(_b)
    return _equation(_start + _along(_b) - _along(_a), integrand, _path(_b))


def _noise(power: int = 2, scale: Expr = sp.S.One) -> tuple[Expr, Expr]:
    """Variance of a step: 0 at b = a, and its equation V' = -2 kappa V + eta^2 e^{-b}."""
    rho = sp.exp(-(_noise_primitive(_b) - _noise_primitive(_a)) / 2)
    squared = _noise_primitive(_b).diff(_b)
    variance = scale * sp.exp(-_b) * (1 - rho**power)
    growth = -(1 + squared) * variance + squared * sp.exp(-_b)
    return variance.subs(_b, _a), variance.diff(_b) - growth


def _frozen(shrink: Expr) -> tuple[Expr, ...]:
    """Constant eta, x_hat and r_hat/sigma^2: the weight of x_hat, and at eta = 1 that of r_hat/sigma^2."""
    kappa = (1 + _eta**2) / 2
    weight = sp.integrate(sp.exp(-kappa * (_h - _l)) * kappa, (_l, 0, _h)) - 1
    closed = sp.exp(-_b) * (sp.log(1 + sp.exp(_b)) - sp.log(1 + sp.exp(_a)))
    integrand = shrink.subs({_eta: 1, _h: _b - _l}) * sigma2(-_l)
    # The closed form's derivatives in both ends are those of the integral of e^{-(b - l)} sigma^2(l).
    return (
        weight + shrink,
        closed.diff(_a) + integrand.subs(_l, _a),
        closed.diff(_b) - integrand.subs(_l, _b) + closed,
        closed.subs(_b, _a),
    )


def _of_rate() -> Expr:
    decay = sp.exp(-(1 + _eta**2) / 2 * (_b - _l))
    return sp.Integral(decay * sigma2(-_l), (_l, _a, _b)) / sigma2(-_a)


_SHRINK = sp.exp(-(1 + _eta**2) / 2 * _h)

THEOREMS: tuple[Theorem, ...] = (
    Theorem(
        name="sampling.data_frame",
        statement=(
            r"u_b = e^{-K(a, b)}\,u_a + \int_a^b e^{-K(\ell, b)}\left(\kappa\,\hat x + \hat"
            r" r\right) d\ell"
        ),
        assumptions=(
            r"Any $\eta(\lambda)$ and heads as functions of $\lambda$ along the path; the mean,"
            " the noise being additive; componentwise."
        ),
        proof="It is $u_a$ at $b = a$ and satisfies the equation in $b$, by Leibniz.",
        residual=_data_frame,
        controls={
            "sign of the rate": lambda: _data_frame(sign=-1),
            "x_hat weighted twice": lambda: _data_frame(pull=sp.Integer(2)),
        },
        computed_by=("diffenc_ct.sampling.exponential.data_frame",),
    ),
    Theorem(
        name="sampling.noise_frame",
        statement=(
            r"u_b = u_a - \int_a^b e^{-K(a, \ell)}\,\kappa\,n\,d\ell + \int_a^b \hat r\,d\ell,"
            r" \qquad n = e^{K(a, \ell)}\,(u - \hat x)"
        ),
        assumptions="As for the data frame, with $u$ on the path as well.",
        proof="The two exponentials cancel: the equation, integrated.",
        residual=_noise_frame,
        controls={"sign of the pull": lambda: _noise_frame(-1)},
        computed_by=("diffenc_ct.sampling.exponential.noise_frame",),
    ),
    Theorem(
        name="sampling.step_noise",
        statement=(
            r"\mathrm{Var}[u_b \mid u_a] = e^{-b}\,(1 - \rho^2), \qquad \rho = e^{-\frac12\int_a^b"
            r" \eta^2 d\lambda}"
        ),
        assumptions=r"Any $\eta(\lambda)$, heads known along the path; componentwise.",
        proof=(
            r"$V(a) = 0$ and $V' = -2\kappa V + \eta^2 e^{-b}$: the posterior's variance over"
            r" $\alpha_s^2$."
        ),
        residual=_noise,
        controls={
            "rho for rho^2": lambda: _noise(power=1),
            "noise times two": lambda: _noise(scale=sp.Integer(2)),
        },
        computed_by=("diffenc_ct.process.posterior_std",),
    ),
    Theorem(
        name="sampling.frozen_heads",
        statement=(
            r"\hat x,\; \hat r/\sigma^2,\; \eta \text{ constant}: \qquad u_b = e^{-\kappa h}\,u_a + \left(1 -"
            r" e^{-\kappa h}\right)\hat x + \frac{\hat r(a)}{\sigma_a^2}\int_a^b e^{-\kappa (b - \ell)}\,\sigma^2"
            r"\,d\ell, \qquad h = b - a"
        ),
        assumptions=(
            r"Componentwise. At $\eta = 1$ the last integral is $e^{-b}\,[\mathrm{softplus}(b) -"
            r" \mathrm{softplus}(a)]$."
        ),
        proof="The integrals of the data frame; the closed form by its derivatives in both ends.",
        residual=lambda: _frozen(_SHRINK),
        controls={
            "kappa = eta^2/2": lambda: _frozen(sp.exp(-(_eta**2) / 2 * _h)),
            "kappa = 1": lambda: _frozen(sp.exp(-_h)),
        },
        computed_by=("diffenc_ct.sampling.exponential.data_frame",),
        formula=lambda: Formula(
            (_a, _b, _eta),
            sp.Tuple(_SHRINK, 1 - _SHRINK, _of_rate()).subs(_h, _b - _a),
        ),
    ),
)
