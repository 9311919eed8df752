"""Estimators of the integral over depth: how t may be drawn, and best is."""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Theorem

_u, _v = sp.symbols("u v", real=True)
_c = sp.Symbol("c", positive=True)
_f = sp.Function("f")
_TWO = sp.Integer(2)
_p, _root, _mass = sp.symbols("p F C", positive=True)


def _wrapped(turns: int) -> tuple[Expr, Expr]:
    """E f((u + c) mod 1) over u ~ U(0, 1), split where it wraps: its value at c = 0, and its derivative in c."""
    before = sp.Integral(_f(_u + _c), (_u, 0, 1 - _c)).transform(_u + _c, _v)
    after = sp.Integral(_f(_u + _c - turns), (_u, 1 - _c, 1)).transform(_u + _c - turns, _v)
    mean, straight = before + after, sp.Integral(_f(_v), (_v, 0, 1))
    return (mean.subs(_c, 0).doit() - straight).doit(), mean.diff(_c).doit()


def _importance(density: Expr, weight: Expr = _TWO) -> tuple[Expr, Expr]:
    """The second moment's integrand by completing the square; the square gone at p = F/C."""
    square = (_root - _mass * _p) ** 2 / _p
    rest = weight * _mass * _root - _mass**2 * _p
    return _root**2 / _p - rest - square, square.subs(_p, density)


THEOREMS = (
    Theorem(
        name="elbo.low_discrepancy",
        statement=(
            r"t_i = (u + i/B) \bmod 1,\; u \sim U(0, 1): \qquad E\left[\frac1B\sum_{i=0}^{B-1}"
            r" f(t_i)\right] = \int_0^1 f(t)\,dt"
        ),
        assumptions=(
            "Any integrable $f$, any offset $c = i/B$ in $[0, 1)$; by linearity of the"
            " expectation each term alone."
        ),
        proof=r"Split at the wrap: $\int_c^1 f + \int_0^c f$, whose derivative in $c$ vanishes.",
        residual=lambda: _wrapped(1),
        controls={"not wrapped": lambda: _wrapped(0)},
        computed_by=("diffenc_ct.elbo.LowDiscrepancyDepths",),
    ),
    Theorem(
        name="elbo.importance_sampling",
        statement=(
            r"\int_0^1 \frac{F^2}{p}\,dt = C^2 + \int_0^1 \frac{(F - C p)^2}{p}\,dt \ge C^2, \quad"
            r" C = \int_0^1 F\,dt, \quad F = \sqrt{E[f^2 \mid t]}"
        ),
        assumptions=(
            r"$f$ the integrand at depth $t$, estimated by $f/p$ with $t \sim p$; any density $p >"
            r" 0$, $\int p = 1$."
        ),
        proof=(
            "Complete the square and integrate: $F^2/p = 2CF - C^2 p + (F - Cp)^2/p$. Equality,"
            " and so the least variance, exactly at $p = F/C$."
        ),
        residual=lambda: _importance(_root / _mass),
        controls={
            "density F^2": lambda: _importance(_root**2 / _mass),
            "cross term without its 2": lambda: _importance(_root / _mass, sp.Integer(1)),
        },
        computed_by=("diffenc_ct.elbo.ImportanceDepths",),
    ),
)
