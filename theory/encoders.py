r"""An encoder gives $x_t = x_\phi(x, \lambda_t)$, a function of the data and of depth, and its rate
$x_t' = dx_t/d\lambda$. The rate is taken along $\lambda = -\gamma$, so that it does not depend on the schedule:
$dx_t/dt = -\gamma' x_t'$. What an encoder makes of an observation is here, too: the section goes on in `_level_mean`
and `_posterior_heads`.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._level_mean import THEOREMS as LEVEL_MEAN
from ._notation import alpha, alpha2, eps, g, gamma, lam, sigma, sigma2, t, x, y, z
from ._posterior_heads import THEOREMS as POSTERIOR_HEADS
from ._tightness import INFORMATION, STAR, a, b, c, rate_at_optimum, snr

_a2, _s2 = alpha2(-lam), sigma2(-lam)
_y = sp.Function("y", real=True)
_trained = _a2 * x + _s2 * _y(lam)
_yrate = sp.Symbol("y'", real=True)
_rate_of_y = _y(lam).diff(lam)


def _time_rate(sign: int) -> Expr:
    encoded = sp.Function("x_phi", real=True)
    rate = encoded(lam).diff(lam).subs(lam, -gamma(t)).doit()
    return encoded(-gamma(t)).diff(t).doit() + sign * gamma(t).diff(t) * rate


def _limits(value: Expr, end: Expr) -> tuple[Expr, ...]:
    bound = sp.Symbol("y", real=True)
    encoded = _a2 * x + _s2 * bound
    change = _s2 * (encoded - bound + _yrate)
    return (
        encoded - x - _s2 * (bound - x),
        sp.limit(encoded, lam, end) - value,
        sp.limit(change, lam, end),
        sp.limit(_a2 * x, lam, end) - value,
    )


def _conversions(sign: int = 1) -> tuple[Expr, ...]:
    """z = alpha x + sigma eps and v = alpha eps - sigma x, solved for x and eps."""
    a, b = alpha(g), sigma(g)
    noisy, velocity = a * x + b * eps, a * eps - sign * b * x
    return (
        a * noisy - b * velocity - x,
        b * noisy + a * velocity - eps,
        (noisy - b * eps) / a - x,
        a * (noisy - a * x) / b - b * x - velocity,
    )


def _residual(back: Expr = _a2, sign: int = 1) -> tuple[Expr, ...]:
    """Its rate; the trainable encoder at y = x + u, and that one's rate."""
    u = sp.Function("u", real=True)(lam)
    encoded, bound = x + _s2 * u, x + sign * u
    rate = _s2 * (u.diff(lam) - back * u)
    trained = _a2 * x + _s2 * bound
    return (
        encoded.diff(lam) - rate,
        trained - encoded,
        _s2 * (trained - bound + bound.diff(lam)) - rate,
    )


def _begins(factor: Expr = sp.S.Zero) -> tuple[Expr, ...]:
    """The best noise level and the excess at eta = 1 of x_t' = factor x_t, against those of the identity; then what
    y = 0 costs."""
    at_zero, at_nontrainable = ({b: f**2 * a, c: f * a} for f in (factor, _s2))
    excess = rate_at_optimum(sp.S.One) - INFORMATION
    return (
        STAR.subs(at_zero) - 1,
        excess.subs(at_zero),
        excess.subs(at_nontrainable) - snr * _s2**2 * a / 2,
        sp.factor(STAR.subs(at_nontrainable) ** 2) - (1 + 2 * _s2) ** 2,
    )


_v, _e = sp.symbols("vhat epshat", real=True)
_u, _urate = sp.symbols("u u'", real=True)

THEOREMS = (
    Theorem(
        name="encoders.time_rate",
        statement=(
            r"\frac{dx_t}{dt} = -\gamma'\,x_t', \qquad x_t' = \frac{dx_t}{d\lambda} ="
            r" -\frac{dx_t}{d\gamma}"
        ),
        assumptions=r"Any encoder that depends on $t$ through $\lambda_t$, any $\gamma(t)$.",
        proof="Chain rule.",
        residual=lambda: _time_rate(1),
        controls={"sign: rate by gamma taken for rate by lambda": lambda: _time_rate(-1)},
    ),
    Theorem(
        name="encoders.identity",
        statement=r"x_t = x, \qquad x_t' = 0",
        assumptions="Componentwise, as all encoders below are in $x$ and $y$.",
        proof=(
            r"The trainable encoder with $y = x$: $\alpha^2 x + \sigma^2 x = x$ and its rate"
            r" $\sigma^2 (x_t - y) = 0$."
        ),
        residual=lambda: (
            _a2 * x + _s2 * x - x,
            (_a2 * x + _s2 * x).diff(lam),
            _s2 * ((_a2 * x + _s2 * x) - x),
        ),
        controls={
            "rate of the non-trainable encoder": lambda: _s2 * x - (_a2 * x + _s2 * x).diff(lam),
        },
        computed_by=("diffenc_ct.encoders.IdentityEncoder",),
        formula=lambda: Formula((x, g), sp.Tuple(x, sp.Integer(0))),
    ),
    Theorem(
        name="encoders.nontrainable",
        statement=r"x_t = \alpha^2 x, \qquad x_t' = \sigma^2 x_t",
        assumptions="Componentwise.",
        proof=r"$d\alpha^2/d\lambda = \alpha^2\sigma^2$.",
        residual=lambda: (_a2 * x).diff(lam) - _s2 * _a2 * x,
        controls={
            "sign: rate by gamma": lambda: (_a2 * x).diff(lam) + _s2 * _a2 * x,
            "alpha^2 for sigma^2": lambda: (_a2 * x).diff(lam) - _a2 * _a2 * x,
            "x for x_t": lambda: (_a2 * x).diff(lam) - _s2 * x,
        },
        computed_by=("diffenc_ct.encoders.NonTrainableEncoder",),
        formula=lambda: Formula((x, g), sp.Tuple(alpha2(g) * x, sigma2(g) * alpha2(g) * x)),
    ),
    Theorem(
        name="encoders.rate",
        statement=(
            r"x_t = \alpha^2 x + \sigma^2 y(x, \lambda), \qquad x_t' = \sigma^2 \left( x_t - y +"
            r" \frac{dy}{d\lambda} \right)"
        ),
        assumptions=(
            r"$y(\lambda)$ any differentiable function; componentwise, since $y$ enters only by"
            " its value."
        ),
        proof=(
            r"Product rule with $d\alpha^2/d\lambda = \alpha^2\sigma^2 = -d\sigma^2/d\lambda$,"
            r" then $\alpha^2 (x - y) = x_t - y$."
        ),
        residual=lambda: _trained.diff(lam) - _s2 * (_trained - _y(lam) + _rate_of_y),
        controls={
            "sign of dy/dlambda": lambda: (
                _trained.diff(lam) - _s2 * (_trained - _y(lam) - _rate_of_y)
            ),
            "dy/dlambda missing": lambda: _trained.diff(lam) - _s2 * (_trained - _y(lam)),
            "y missing": lambda: _trained.diff(lam) - _s2 * (_trained + _rate_of_y),
            "alpha^2 for sigma^2": lambda: (
                _trained.diff(lam) - _a2 * (_trained - _y(lam) + _rate_of_y)
            ),
        },
        computed_by=("diffenc_ct.encoders.TrainableEncoder",),
        formula=lambda: Formula(
            (x, y, _yrate, g),
            sp.Tuple(
                alpha2(g) * x + sigma2(g) * y,
                sigma2(g) * (alpha2(g) * x + sigma2(g) * y - y + _yrate),
            ),
        ),
    ),
    Theorem(
        name="encoders.residual",
        statement=(
            r"x_t = x + \sigma^2 u(x, \lambda), \qquad x_t' = \sigma^2 \left(\frac{du}{d\lambda} - \alpha^2"
            r" u\right); \qquad u = 0:\ \eta_*^2 = 1,\ R(1) = \frac{dI}{d\lambda}; \qquad y = 0:\ \eta_*^2 = 1 +"
            r" 2\sigma^2,\ R(1) = \frac{dI}{d\lambda} + \tfrac12 \mathrm{SNR}\,\sigma^4 a"
        ),
        assumptions=(
            r"$u(\lambda)$ any differentiable function, componentwise. It is the trainable encoder at $y = x + u$: the"
            r" same functions. $R$, $a$ and $\eta_*$ are those of the section on calibration: optimal heads, any prior."
        ),
        proof=(
            r"Product rule with $d\sigma^2/d\lambda = -\alpha^2\sigma^2$. At $u = 0$ the rate is 0, so $b = c = 0$; at"
            r" $y = 0$ it is $\sigma^2 x_t$, so $b = \sigma^4 a$ and $c = \sigma^2 a$."
        ),
        residual=lambda: (*_residual(), *_begins()),
        controls={
            "alpha^2 forgotten": lambda: _residual(back=sp.S.One),
            "sigma^2 for alpha^2": lambda: _residual(back=_s2),
            "sign: rate by gamma": lambda: _residual(back=-_a2),
            "y = x - u": lambda: _residual(sign=-1),
            "y = 0 tight at eta = 1, too": lambda: _begins(factor=_s2),
        },
        computed_by=("diffenc_ct.encoders.ResidualEncoder",),
        formula=lambda: Formula(
            (x, _u, _urate, g),
            sp.Tuple(x + sigma2(g) * _u, sigma2(g) * (_urate - alpha2(g) * _u)),
        ),
    ),
    Theorem(
        name="encoders.limits",
        statement=(
            r"\lim_{\lambda\to\infty} x_t = x, \qquad \lim_{\lambda\to\infty} x_t' = 0, \qquad x_t"
            r" - x = \sigma^2 (y - x)"
        ),
        assumptions=(
            r"$y$ and $dy/d\lambda$ bounded (a $\tanh$ keeps $y$ in $(-1, 1)$), so they may be"
            r" held fixed in the limit: every term carries the factor $\sigma^2$."
        ),
        proof=(
            r"$\sigma^2 \to 0$ as $\lambda \to \infty$. So data can be decoded, and sampled,"
            " without the encoder."
        ),
        residual=lambda: _limits(x, sp.oo),
        controls={"the noisy end, where x_t tends to y": lambda: _limits(x, -sp.oo)},
        computed_by=("diffenc_ct.encoders.TrainableEncoder",),
    ),
    Theorem(
        name="encoders.v_identity",
        statement=(
            r"z = \alpha x_t + \sigma\epsilon,\; v = \alpha\epsilon - \sigma x_t"
            r" \quad\Longrightarrow\quad x_t = \alpha z - \sigma v, \quad \epsilon = \sigma z +"
            r" \alpha v, \quad x_t = \frac{z - \sigma\epsilon}{\alpha}"
        ),
        assumptions=(
            r"Componentwise; $\alpha^2 + \sigma^2 = 1$. The same maps turn $\hat v$ and"
            r" $\hat\epsilon$ into $\hat x$."
        ),
        proof=r"$(x_t, \epsilon) \mapsto (z, v)$ is a rotation; apply its transpose.",
        residual=_conversions,
        controls={"sign in v": lambda: _conversions(-1)},
        computed_by=("diffenc_ct.model.read_output",),
        formula=lambda: Formula(
            (z, _v, _e, g),
            sp.Tuple(alpha(g) * z - sigma(g) * _v, (z - sigma(g) * _e) / alpha(g)),
        ),
    ),
    *LEVEL_MEAN,
    *POSTERIOR_HEADS,
)
