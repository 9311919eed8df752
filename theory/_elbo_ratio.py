"""The variance ratio w: its optimum, its limit, and what a fixed one costs."""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._notation import d, w

_best, _share, _mean = sp.symbols("w_star u m", positive=True)
_error = sp.Symbol("D2", positive=True)  # E||Delta||^2 / S^2
_weight = sp.Symbol("omega", positive=True)
_h = sp.Symbol("delta", positive=True)
_f1, _f2, _limit, _slope = sp.symbols("f_1 f_2 L_inf A", positive=True)
_TWO = sp.Integer(2)
_steps = sp.Symbol("T", positive=True)


def _mismatch(ratio: Expr) -> Expr:
    return 1 / ratio - 1 + sp.log(ratio)


def _cost(ratio: Expr, error: Expr = _error) -> Expr:
    return d / 2 * _mismatch(ratio) + error / (2 * ratio)


def _excess(ratio: Expr) -> Expr:
    """u - 1 - ln u, 0 at 1 and positive elsewhere."""
    return ratio - 1 - sp.log(ratio)


def _optimal(best: Expr, value: Expr, slope: Expr | None = None) -> tuple[Expr, ...]:
    """Stationary at best; the derivative's only sign change; the cost over the minimum; the minimum."""
    claimed = d * (w - best) / (2 * w**2) if slope is None else slope
    above = d / 2 * (best / w - 1 - sp.log(best) + sp.log(w))
    return (
        _cost(w).diff(w).subs(w, best),
        _cost(w).diff(w) - claimed,
        _expanded(_cost(w) - _cost(best) - above),
        _expanded(_cost(best) - value),
        _excess(_share).diff(_share) - (_share - 1) / _share,
        _excess(sp.Integer(1)),
    )


def _expanded(expression: Expr) -> Expr:
    return sp.expand_log(expression.subs(_error, d * (_best - 1)), force=False)


def _series(value: Expr, order: int) -> Expr:
    return value.diff(_h, order).subs(_h, 0) / sp.factorial(order)


def _ratio_limit(second: Expr, factor: Expr = _TWO) -> tuple[Expr, ...]:
    """Coefficients in delta = 1/T of w* - 1 and of the step's cost d/2 ln w*."""
    ratio = 1 + 2 * (_h * _f1 + _h**2 * _f2) / d
    cost = d / 2 * sp.log(ratio)
    return (
        _series(ratio - 1, 0),
        _series(ratio - 1, 1) - factor * _f1 / d,
        _series(cost, 0),
        _series(cost, 1) - _f1,
        _series(cost, 2) - second,
    )


def _divergence_rate(rate: Expr, remainder: Expr) -> tuple[Expr, ...]:
    """L_T = T d/2 c(w) + (1/w)(L_inf + A/T + o(1/T)): its growth, what is left, and c > 0 but at 1."""
    loss = _steps * d / 2 * _mismatch(w) + (_limit + _slope / _steps) / w
    return (
        sp.limit(loss / _steps, _steps, sp.oo) - rate,
        sp.limit(sp.expand(loss - _steps * rate), _steps, sp.oo) - remainder,
        _mismatch(w).diff(w) - (w - 1) / w**2,
        _mismatch(sp.Integer(1)),
    )


def _per_dimension(mean_of_share: Expr) -> tuple[Expr, ...]:
    """One dimension's optimum, and ln m - ln w_i as its excess less a term of mean zero."""
    return (
        _cost(w).diff(w).subs(d, 1).subs(w, 1 + _error),
        sp.expand_log(sp.log(_mean) - sp.log(_best) - (_best / _mean - 1 - sp.log(_best / _mean)))
        + (_best / _mean - mean_of_share),
    )


def _of_the_state(weight: Expr | None = None, other: int = 0) -> tuple[Expr, ...]:
    """Two values of a statistic with probabilities p, 1 - p: each ratio's optimum, and what knowing the value saves."""
    p, m = sp.symbols("p m", positive=True)
    errors, best = sp.symbols("D2_1 D2_2", positive=True), sp.symbols("w_1 w_2", positive=True)
    chances = (p, 1 - p)
    total = sum(c * _cost(w, e).subs(d, 1) for c, w, e in zip(chances, best, errors, strict=True))
    stationary = [
        total.diff(ratio).subs(ratio, 1 + errors[i - other]) for i, ratio in enumerate(best)
    ]
    share = p if weight is None else weight
    mean = share * best[0] + (1 - share) * best[1]
    saved = sp.log(m) - sum(c * sp.log(w) for c, w in zip(chances, best, strict=True))
    above = sum(c * _excess(w / m) for c, w in zip(chances, best, strict=True))
    gap = sp.expand_log(saved - above, force=True).expand()
    at_optimum = _cost(w, w - 1).subs(d, 1) - sp.log(w) / 2
    return (*stationary, sp.simplify(gap.subs(m, mean)), at_optimum)


THEOREMS = (
    Theorem(
        name="elbo.optimal_ratio",
        statement=(
            r"w^* = 1 + \frac{E\|\Delta\|^2}{d\,S^2} \ge 1: \qquad \mathrm{cost}(w) -"
            r" \mathrm{cost}(w^*) = \frac d2 \left(u - 1 - \ln u\right)\Big|_{u = w^*/w} \ge 0,"
            r" \qquad \mathrm{cost}(w^*) = \frac d2 \ln w^*"
        ),
        assumptions=(
            r"General $d$ and $E\|\Delta\|^2 > 0$; $\mathrm{cost}(w) = \frac d2(1/w - 1 + \ln w) +"
            r" E\|\Delta\|^2/(2wS^2)$."
        ),
        proof=(
            r"$\mathrm{cost}'(w) = d (w - w^*)/(2w^2)$: one stationary point, a minimum. $u - 1 -"
            r" \ln u$ has derivative $(u - 1)/u$ and is 0 at 1, so it is positive elsewhere."
        ),
        residual=lambda: _optimal(1 + _error / d, d * sp.log(_best) / 2),
        controls={
            "w* without its 1": lambda: _optimal(_error / d, d * sp.log(_best) / 2),
            "d missing": lambda: _optimal(1 + _error, d * sp.log(_best) / 2),
            "value d/2 (w* - 1)": lambda: _optimal(1 + _error / d, d * (_best - 1) / 2),
            "slope (w* - w): a maximum": lambda: _optimal(
                1 + _error / d,
                d * sp.log(_best) / 2,
                d * (1 + _error / d - w) / (2 * w**2),
            ),
        },
        computed_by=(
            "diffenc_ct.calibration.tables.StepTables.excess",
            "diffenc_ct.calibration.fit.plan",
        ),
        formula=lambda: Formula(
            (_error, d), sp.Tuple(1 + _error / d, d / 2 * sp.log(1 + _error / d))
        ),
    ),
    Theorem(
        name="elbo.optimal_ratio_per_dimension",
        statement=(
            r"w_i^* = 1 + \frac{E[\Delta_i^2]}{S^2}, \qquad \frac12\sum_i \ln w_i^* \le \frac d2"
            r" \ln w^*, \qquad w^* = \frac1d\sum_i w_i^*"
        ),
        assumptions="A ratio for each of $d$ dimensions, which decouple; $m = w^*$ is their mean.",
        proof=(
            r"The optimum with $d = 1$. With $u_i = w_i^*/m$: $\ln m - \ln w_i^* = (u_i - 1 - \ln"
            " u_i) - (u_i - 1)$; the last term has mean 0 and the first is not negative."
        ),
        residual=lambda: _per_dimension(sp.Integer(1)),
        controls={"mean of u_i taken for 0": lambda: _per_dimension(sp.Integer(0))},
        computed_by=("diffenc_ct.calibration.ratios.step_excess",),
        formula=lambda: Formula((_error,), sp.Tuple(1 + _error, sp.log(1 + _error) / 2)),
    ),
    Theorem(
        name="elbo.optimal_ratio_of_the_state",
        statement=(
            r"w^*(f) = 1 + \frac{E[\Delta_i^2 \mid f(z_t) = f]}{S^2}, \qquad \ln w_i^* - E \ln w^*(f) ="
            r" E\left[u - 1 - \ln u\right] \ge 0, \qquad u = \frac{w^*(f)}{w_i^*}, \quad w_i^* = E\,w^*(f)"
        ),
        assumptions=(
            r"One dimension, whose ratio is a function of a statistic $f$ of $z_t$: $p(z_s | z_t)$ has the variance"
            r" $S^2 w(f(z_t))$. Two values of $f$, with probabilities $p$ and $1 - p$, are written out; more are sums."
        ),
        proof=(
            r"Given $z_t$ the divergence is the step's with that $w$. Its mean is a sum over the values of $f$, each"
            r" with its own optimum. As $E\,u = 1$, the difference of logarithms is the mean of $u - 1 -"
            r" \ln u$: a finer statistic never costs more."
        ),
        residual=_of_the_state,
        controls={
            "errors of the other value": lambda: _of_the_state(other=1),
            "mean without probabilities": lambda: _of_the_state(weight=sp.S.Half),
        },
        computed_by=("diffenc_ct.calibration.ratios.fit_values",),
    ),
    Theorem(
        name="elbo.optimal_ratio_limit",
        statement=(
            r"w^* = 1 + \frac{2 E[f_1]}{d\,T} + O(T^{-2}), \qquad \frac d2 \ln w^* ="
            r" \frac{E[f_1]}{T} + \frac{1}{T^2}\left(E[f_2] - \frac{E[f_1]^2}{d}\right) +"
            " O(T^{-3})"
        ),
        assumptions=(
            r"$E\|\Delta\|^2/(2S^2) = E[f_1]/T + E[f_2]/T^2 + O(T^{-3})$, the step's divergence at"
            " $w = 1$ (elbo.infinite_depth_limit); general $d$."
        ),
        proof=(
            "Series of the logarithm. So $L_T$ at $w^*$ has the same limit, and its $1/T$"
            r" coefficient is lower by $\int E[f_1]^2 dt/d$."
        ),
        residual=lambda: _ratio_limit(_f2 - _f1**2 / d),
        controls={
            "second order as at w = 1": lambda: _ratio_limit(_f2),
            "w* - 1 without its 2": lambda: _ratio_limit(_f2 - _f1**2 / d, sp.Integer(1)),
        },
        computed_by=("diffenc_ct.calibration.fit.plan",),
    ),
    Theorem(
        name="elbo.fixed_ratio_divergence",
        statement=(
            r"\lim_{T \to \infty} \frac{L_T}{T} = \frac d2\left(\frac1w - 1 + \ln w\right) > 0"
            r" \;\text{ for every fixed }\; w \ne 1, \qquad L_T - T\,\frac d2\left(\frac1w - 1 +"
            r" \ln w\right) \to \frac{L_\infty}{w}"
        ),
        assumptions=r"$L_T$ at $w = 1$ is $L_\infty + A/T + o(1/T)$ (elbo.infinite_depth_limit).",
        proof=(
            "The first term of the step's divergence does not shrink with the step. $c(w) = 1/w -"
            r" 1 + \ln w$ has $c(1) = 0$ and $c' = (w - 1)/w^2$, so it is positive elsewhere."
        ),
        residual=lambda: _divergence_rate(d * _mismatch(w) / 2, _limit / w),
        controls={
            "rate d c(w)": lambda: _divergence_rate(d * _mismatch(w), _limit / w),
            "remainder L_inf": lambda: _divergence_rate(d * _mismatch(w) / 2, _limit),
        },
        computed_by=("diffenc_ct.elbo.step_kl",),
    ),
    Theorem(
        name="elbo.weighted_loss",
        statement=(
            r"w = \frac1\omega: \qquad \mathrm{KL}_w = \omega\,\frac{\|\Delta\|^2}{2 S^2} + \frac"
            r" d2\left(\omega - 1 - \ln \omega\right)"
        ),
        assumptions=(
            r"Any weight $\omega(t) > 0$, general $d$. The last term holds no parameter of the"
            " network: minimising a weighted loss at finite depth minimises an ELBO, of a model"
            " with another variance."
        ),
        proof=r"Insert $w = 1/\omega$ in the step's divergence.",
        residual=lambda: (
            sp.expand_log(_cost(1 / _weight))
            - _weight * _error / 2
            - d / 2 * (_weight - 1 - sp.log(_weight))
        ),
        controls={
            "w = omega": lambda: (
                sp.expand_log(_cost(_weight))
                - _weight * _error / 2
                - d / 2 * (_weight - 1 - sp.log(_weight))
            ),
            "last term dropped": lambda: sp.expand_log(_cost(1 / _weight)) - _weight * _error / 2,
        },
        computed_by=("diffenc_ct.elbo.step_kl",),
        formula=lambda: Formula(
            (_error, _weight), _weight * _error / 2 + (_weight - 1 - sp.log(_weight)) / 2
        ),
    ),
)
