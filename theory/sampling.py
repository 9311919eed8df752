r"""Exponential integrators solve the linear part of the reverse process exactly, in $u = z/\alpha$ and
$\lambda$, where it reads $du = [-\kappa (u - \hat x) + \hat r]\,d\lambda + \eta\,e^{-\lambda/2} dw$. With $K(a, b) =
\int_a^b \kappa\,d\lambda$ a step goes from $\lambda = a$ to $b > a$.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from theory._core import Formula, Theorem

_a, _b, _l, _m = sp.symbols("a b l m", real=True)
_start = sp.Symbol("u_a", real=True)
_eta2, _xhat, _rhat, _path = (sp.Function(name) for name in ("e", "xhat", "rhat", "u"))
_h, _eta = sp.symbols("h eta", positive=True)


def _kappa(at: Expr) -> Expr:
    return (1 + _eta2(at)) / 2


def _growth(low: Expr, high: Expr) -> Expr:
    return sp.Integral(_kappa(_m), (_m, low, high))


def _data_frame(sign: int = 1, pull: Expr = sp.S.One) -> tuple[Expr, Expr]:
    """The claimed solution's value at b = a, and its equation in b."""
    source = pull * _kappa(_l) * _xhat(_l) + sign * _rhat(_l)
    end = sp.exp(-_growth(_a, _b)) * _start
    end += sp.Integral(sp.exp(-_growth(_l, _b)) * source, (_l, _a, _b))
    flow = -_kappa(_b) * (end - _xhat(_b)) + _rhat(_b)
    return end.subs(_b, _a).doit() - _start, (end.diff(_b) - flow).doit()


def _noise_frame(sign: int = 1) -> tuple[Expr, Expr]:
    """The same with n = e^{K(a, l)} (u - x_hat) known along the path."""
    noise = sp.exp(_growth(_a, _l)) * (_path(_l) - _xhat(_l))
    moved = -sign * sp.Integral(sp.exp(-_growth(_a, _l)) * _kappa(_l) * noise, (_l, _a, _b))
    end = _start + moved + sp.Integral(_rhat(_l), (_l, _a, _b))
    flow = -_kappa(_b) * (_path(_b) - _xhat(_b)) + _rhat(_b)
    return end.subs(_b, _a).doit() - _start, sp.powsimp(sp.expand((end.diff(_b) - flow).doit()))


def _noise(power: int = 2, scale: Expr = sp.S.One) -> tuple[Expr, Expr]:
    """Variance of a step: 0 at b = a, and its equation V' = -2 kappa V + eta^2 e^{-b}."""
    rho = sp.exp(-sp.Integral(_eta2(_m), (_m, _a, _b)) / 2)
    variance = scale * sp.exp(-_b) * (1 - rho**power)
    growth = -2 * _kappa(_b) * variance + _eta2(_b) * sp.exp(-_b)
    return variance.subs(_b, _a).doit(), (variance.diff(_b) - growth).doit()


def _frozen(shrink: Expr) -> tuple[Expr, ...]:
    """Constant eta and heads: the weights of u_a, x_hat and r_hat are the integrals."""
    kappa = (1 + _eta**2) / 2
    return (
        sp.integrate(sp.exp(-kappa * (_h - _l)) * kappa, (_l, 0, _h)) - (1 - shrink),
        sp.integrate(sp.exp(-kappa * (_h - _l)), (_l, 0, _h)) - (1 - shrink) / kappa,
    )


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
        computed_by=("diffenc_ct.solvers.exponential.data_frame",),
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
        computed_by=("diffenc_ct.solvers.exponential.noise_frame",),
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
            r"\hat x, \hat r, \eta \text{ constant}: \qquad u_b = e^{-\kappa h}\,u_a + \left(1 -"
            r" e^{-\kappa h}\right)\hat x + \frac{1 - e^{-\kappa h}}{\kappa}\,\hat r, \qquad h = b"
            " - a"
        ),
        assumptions="Componentwise.",
        proof="The integrals of the data frame.",
        residual=lambda: _frozen(_SHRINK),
        controls={"kappa = eta^2/2": lambda: _frozen(sp.exp(-(_eta**2) / 2 * _h))},
        computed_by=("diffenc_ct.solvers.exponential.data_frame",),
        formula=lambda: Formula(
            (_h, _eta),
            sp.Tuple(_SHRINK, 1 - _SHRINK, (1 - _SHRINK) / ((1 + _eta**2) / 2)),
        ),
    ),
)
