"""From T steps to infinitely many: the limit, its first correction, the path measure, the schedule."""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._notation import (
    alpha,
    eta2,
    g,
    gamma,
    rate,
    rhat,
    s,
    sigma2,
    t,
    xhat,
    xrate,
    xt,
    z,
)

_h = sp.Symbol("delta", positive=True)
_level = sp.Function("e", positive=True)  # eta^2 as a function of gamma
_encoded = sp.Function("x_phi", real=True)
_any = sp.Function("F")


def _taylor(value: Expr, order: int) -> Expr:
    """The Taylor polynomial in delta at 0 of a smooth function of depth t - delta."""
    total, derivative = sp.Integer(0), value
    for power in range(order + 1):
        total += derivative.subs(_h, 0).doit() * _h**power / sp.factorial(power)
        derivative = derivative.diff(_h)
    return total


def _step_coefficients(trend: int = 1) -> tuple[Expr, Expr]:
    """f_1, f_2 in KL = delta f_1 + delta^2 f_2 + O(delta^3) for the step from t to t - delta, w = 1.

    KL = SNR_s D^2 / (2 (1 - rho^2)) with D = O(delta) and 1 - rho^2 = O(delta); each is replaced by its Taylor
    polynomial, the remainders contribute at third order.
    """
    here, there = gamma(t), gamma(t - _h)
    integral = sp.Integral(_level(g), (g, there, here))
    error = _encoded(-there) - xhat - trend * (here - there) * rhat
    error -= sp.exp(-(integral + here - there) / 2) * (_encoded(-here) - xhat)
    polynomial = _taylor(error, 2)
    noise = _taylor(1 - sp.exp(-integral), 2)
    quotient = _taylor(sp.exp(-there), 1) * sp.expand(polynomial / _h) ** 2
    quotient /= 2 * sp.expand(noise / _h)
    return quotient.subs(_h, 0), quotient.diff(_h).subs(_h, 0)


def _claimed(slope_of_noise: Expr = sp.S.One, kappa_of_one: bool = False) -> tuple[Expr, Expr]:
    """The integrand f_1 = gamma' k_1 and f_2 = gamma'^2 k_2 - gamma'' k_1 / 2, in a = x_t - x_hat, b = x_t' - r_hat."""
    lam = sp.Symbol("lambda", real=True)
    here = gamma(t)

    def along(order: int) -> Expr:
        return _encoded(lam).diff(lam, order).subs(lam, -here).doit()

    noise = _level(here)
    noise_slope = _level(g).diff(g).subs(g, here).doit()
    kappa = sp.Integer(1) if kappa_of_one else (1 + noise) / 2
    a, b = _encoded(-here) - xhat, along(1) - rhat
    u = kappa * a + b
    k_1 = sp.exp(-here) * u**2 / (2 * noise)
    bracket = along(2) - (kappa**2 + noise_slope / 2) * a
    bracket += (1 + noise / 2 + slope_of_noise * noise_slope / (2 * noise)) * u
    k_2 = sp.exp(-here) * u / (2 * noise) * bracket
    speed = here.diff(t)
    return speed * k_1, speed**2 * k_2 - speed.diff(t) * k_1 / 2


def _limit_residuals(trend: int = 1, **wrong: Expr | bool) -> tuple[Expr, Expr]:
    found, claimed = _step_coefficients(trend), _claimed(**wrong)
    return found[0] - claimed[0], found[1] - claimed[1]


def _riemann(correction: Expr) -> tuple[Expr, Expr, Expr]:
    """delta f(t) - int_{t - delta}^t f = correction delta^2 f'(t) + O(delta^3), through derivatives at delta = 0."""
    cell = (
        _h * _any(t) - sp.Integral(_any(s), (s, t - _h, t)) - correction * _h**2 * _any(t).diff(t)
    )
    return tuple(cell.diff(_h, order).subs(_h, 0).doit() for order in range(3))


def _drift(kappa: Expr, noise_free: Expr, rate_: Expr) -> Expr:
    beta = sigma2(g) * rate
    pull = alpha(g) / sigma2(g) * (kappa * noise_free + rate_)
    return beta * (-z / 2 + kappa * z / sigma2(g) - pull)


def _integrand(kappa: Expr = (1 + eta2) / 2, noise: Expr = eta2) -> Expr:
    error = kappa * (xt - xhat) + (xrate - rhat)
    return rate * sp.exp(-g) * error**2 / (2 * noise)


def _girsanov(claimed: Expr, diffusion: Expr = eta2) -> Expr:
    kappa = (1 + eta2) / 2
    gap = _drift(kappa, xhat, rhat) - _drift(kappa, xt, xrate)
    return gap**2 / (2 * diffusion * sigma2(g) * rate) - claimed


def _invariance(power: int = 1) -> tuple[Expr, Expr]:
    """int_0^t gamma' F(gamma) less int_{gamma(0)}^{gamma(t)} F: zero at t = 0, and its derivative in t."""
    along = sp.Integral(gamma(s).diff(s) ** power * _any(gamma(s)), (s, 0, t))
    difference = along - sp.Integral(_any(g), (g, gamma(0), gamma(t)))
    return difference.subs(t, 0).doit(), difference.diff(t).doit()


def _euler_lagrange(integrand: Expr) -> Expr:
    speed = sp.Symbol("v")
    lagrangian = speed * integrand
    here = {g: gamma(t), speed: gamma(t).diff(t)}
    return lagrangian.diff(g).subs(here).doit() - lagrangian.diff(speed).subs(here).doit().diff(t)


THEOREMS = (
    Theorem(
        name="elbo.infinite_depth_limit",
        statement=(
            r"\mathrm{KL}_{t \to t - 1/T} = \frac{f_1(t)}{T} + \frac{f_2(t)}{T^2} + O(T^{-3}),"
            r" \qquad f_1 = \gamma' k_1, \qquad f_2 = \gamma'^2 k_2 - \tfrac12\gamma'' k_1"
            "\n\n"
            r"L_T = L_\infty + \frac1T\left( \int_0^1 E[f_2]\,dt + \tfrac12\big[E[f_1]\big]_0^1"
            r" \right) + O(T^{-2}), \qquad L_\infty = \int_0^1 E[f_1]\,dt"
            "\n\n"
            r"k_1 = \frac{\mathrm{SNR}}{2\eta^2}\,\|u\|^2, \qquad u = \kappa a + b, \qquad k_2 ="
            r" \frac{\mathrm{SNR}}{2\eta^2}\, u \cdot \left[ x_t'' - \left(\kappa^2 +"
            r" \frac{d\kappa}{d\gamma}\right) a + \left(1 + \frac{\eta^2}{2} +"
            r" \frac{1}{2\eta^2}\frac{d\eta^2}{d\gamma}\right) u \right]"
        ),
        assumptions=(
            r"General smooth $\gamma(t)$, $\eta^2(\gamma)$ and $x_\phi(\lambda)$; any heads at"
            " $(z_t, t)$; $w = 1$; the uniform grid. For fixed $(x, z_t)$ and componentwise; the"
            " expectation over $q(z_t|x)$ at the same $t$ stays outside."
        ),
        proof=(
            r"Taylor polynomials of $\Delta$, $S^2$ and SNR in the step, coefficient by"
            r" coefficient. Then the sum over the grid against the integral: $\delta f(t) -"
            r" \int_{t-\delta}^t f = \tfrac12\delta^2 f'(t) + O(\delta^3)$, which adds up to"
            r" $\tfrac{1}{2T}[f]_0^1$."
        ),
        residual=lambda: (*_limit_residuals(), *_riemann(sp.Rational(1, 2))),
        controls={
            "sign of lambda_s - lambda_t": lambda: _limit_residuals(trend=-1),
            "kappa of eta = 1": lambda: _limit_residuals(kappa_of_one=True),
            "slope of eta^2 missing in the correction": lambda: _limit_residuals(
                slope_of_noise=sp.Integer(0)
            ),
            "the sum's correction with the other sign": lambda: _riemann(-sp.Rational(1, 2)),
        },
        computed_by=("diffenc_ct.elbo.infinite_depth_integrand", "diffenc_ct.elbo.FiniteDepth"),
    ),
    Theorem(
        name="elbo.girsanov",
        statement=(
            r"\frac{\|b_\eta - b_{Q,\eta}\|^2}{2\,\eta^2\beta} ="
            r" \frac{\gamma'\,\mathrm{SNR}}{2\,\eta^2}\,\left\|\kappa\,(x_t - \hat x) + (x_t' -"
            r" \hat r)\right\|^2"
        ),
        assumptions=(
            r"Any $\eta > 0$ and heads; componentwise. By Girsanov the integral of the left side"
            r" is the divergence of the two path measures, which share the noise $\eta\sqrt\beta$."
        ),
        proof=(
            r"$b_\eta - b_{Q,\eta} = \beta\,(\alpha/\sigma^2)(\kappa a + b)$ and"
            r" $\beta\,\alpha^2/\sigma^4 = \gamma'\,\mathrm{SNR}$: the limit of the steps'"
            " divergences."
        ),
        residual=lambda: _girsanov(_integrand()),
        controls={
            "eta missing in the diffusion": lambda: _girsanov(_integrand(), sp.Integer(1)),
            "kappa of eta = 1": lambda: _girsanov(_integrand(sp.Integer(1))),
            "kappa = eta^2/2": lambda: _girsanov(_integrand(eta2 / 2)),
        },
        computed_by=("diffenc_ct.elbo.infinite_depth_integrand",),
        formula=lambda: Formula((xt, xrate, xhat, rhat, g, rate, eta2), _integrand()),
    ),
    Theorem(
        name="elbo.schedule_invariance",
        statement=(
            r"\int_0^1 \gamma'(t)\,F(\gamma(t))\,dt = \int_{\gamma(0)}^{\gamma(1)}"
            r" F(\gamma)\,d\gamma"
        ),
        assumptions=(
            r"$F(\gamma) = \tfrac12\,\mathrm{SNR}\,\eta^{-2}\,E\|\kappa a + b\|^2$ for an encoder,"
            r" heads and $\eta$ that see depth only through $\gamma$; any differentiable"
            r" $\gamma(t)$."
        ),
        proof=(
            "Both sides vanish for the empty interval and have the same derivative in its end."
            r" Equivalently the Euler-Lagrange expression of $\gamma' F(\gamma)$ vanishes: no"
            " schedule between the same ends is better."
        ),
        residual=lambda: (*_invariance(), _euler_lagrange(_any(g))),
        controls={
            "an encoder that depends on t besides gamma": lambda: _euler_lagrange(_any(g, t)),
            "gamma' missing": lambda: _invariance(0),
        },
        computed_by=("diffenc_ct.elbo.infinite_depth_integrand",),
    ),
)
