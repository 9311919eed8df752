r"""An encoder gives $x_t = x_\phi(x, \lambda_t)$, a function of the data and of depth, and its rate
$x_t' = dx_t/d\lambda$. The rate is taken along $\lambda = -\gamma$, so that it does not depend on the schedule:
$dx_t/dt = -\gamma' x_t'$.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._notation import alpha, alpha2, eps, g, gamma, lam, sigma, sigma2, t, x, y, z

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


_v, _e = sp.symbols("vhat epshat", real=True)

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
)
