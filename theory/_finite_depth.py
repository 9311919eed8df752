r"""A finite number of steps: what a step costs beyond its share of $L_\infty$, and where to put the steps.

One step goes from $\lambda$ to $\lambda + \delta$, with $e(\lambda) = \eta^2$, residuals $r, r'$ of the heads and the
encoder's second derivative $x_t'' = d^2x_t/d\lambda^2$. Conditional covariances given $z_t$ are matrices:
$V = \operatorname{Cov}(y|z)$ and $C = \operatorname{Cov}(y, x_t|z)$ for $y = \kappa x_t + x_t'$. Part of the section on
calibration.
"""

from __future__ import annotations

from itertools import combinations

import sympy as sp
from sympy import Expr, Matrix

from ._core import Theorem
from ._gaussian_depth import THEOREMS as GAUSSIAN
from ._grids import THEOREMS as GRIDS
from ._notation import lam
from ._prior import Prior

delta, e, snr, d = sp.symbols("delta e SNR d", positive=True)
e1, Q, Q1 = sp.symbols("e1 Q Q1", real=True)
kappa = (1 + e) / 2


def _step_ratio(order: int = 3) -> tuple[Expr, Expr, Expr]:
    """||Delta||^2/S^2 of one component up to delta^2, with the residual y = kappa r + r' and its parts."""
    r, r1, x2 = sp.symbols("r r1 x2", real=True)
    half = sp.exp(delta / 2)
    kept = sp.exp(-(e * delta + e1 * delta**2 / 2) / 2)
    move = sp.series(half * (r + delta * r1 + delta**2 * x2 / 2) - kept * r, delta, 0, order)
    noise = sp.series(1 - kept**2, delta, 0, order + 1)
    move, noise = sp.expand(move.removeO() / delta), sp.expand(noise.removeO() / delta)
    ratio = sp.expand(sp.series(move**2 / noise, delta, 0, 2).removeO()) * snr
    y = kappa * r + r1
    return sp.expand(ratio), y * r, y * (r1 + x2)


def general_coefficient(along: Expr, across: Expr, spread: Expr, change: Expr) -> Expr:
    """K for any heads, from E y.r, E y.(r' + x''), Q = E||y||^2 and dQ/dlambda."""
    first = (1 + 2 * e1 - e**2) / 4 * along + across
    return snr / (2 * e) * (first + (e - 1) / 2 * spread - change / 2)


def _expansion(shift: Expr = sp.S.Half) -> tuple[Expr, ...]:
    ratio, along, across = _step_ratio()
    y2 = ratio.coeff(delta, 0) * e / snr  # what the ratio's first order says Q is
    r, r1 = sp.symbols("r r1", real=True)
    local = snr / (2 * e) * (Q + Q1 - Q * e1 / e)  # d/dlambda of SNR Q/(2e)
    claim = general_coefficient(along, across, Q, Q1)
    second = ratio.coeff(delta, 1) / 2 - shift * local - claim
    return (
        sp.expand(y2 - (kappa * r + r1) ** 2),
        sp.expand(second.subs(Q, (kappa * r + r1) ** 2)),
    )


def _ratio_saving(share: int = 4) -> Expr:
    """d/2 ln(1 + X/d) for X = p delta + q delta^2."""
    p, q = sp.symbols("p q", real=True)
    cost = sp.series(d / 2 * sp.log(1 + (p * delta + q * delta**2) / d), delta, 0, 3).removeO()
    return sp.expand(cost) - p * delta / 2 - (q / 2 - p**2 / (share * d)) * delta**2


def _covariance_rate(share: int = 1) -> Expr:
    signal, one, two = (sp.Function(n, real=True)(lam) for n in ("f", "F", "G"))
    u = sp.Symbol("u", real=True)
    prior, rate = Prior(-((u - signal) ** 2) / 2), signal.diff(lam)
    mean, cov, p = prior.mean, prior.cov, prior.mass
    moved = cov(one.diff(lam), two) + cov(one, two.diff(lam))
    learned = cov(one, rate) * cov(two, signal) + cov(two, rate) * cov(one, signal)
    flux = prior(one * rate) * mean(two) + prior(two * rate) * mean(one)
    flux -= mean(one) * mean(two) * prior(rate) + prior(one * two * rate)
    return prior.diff(p * cov(one, two), lam) - p * (moved - share * learned) - prior.diff(flux, u)


def _matrix(name: str, symmetric: bool = False) -> Matrix:
    corner = sp.Symbol(f"{name}12", real=True)
    other = corner if symmetric else sp.Symbol(f"{name}21", real=True)
    one, two = sp.symbols(f"{name}11 {name}22", real=True)
    return Matrix([[one, corner], [other, two]])


def _depth(sign: int = -1, learned: int = 2) -> tuple[Expr, ...]:
    """Conditional covariances of x, x', x'' given z, pointwise in z; two dimensions."""
    xx, pp = _matrix("xx", True), _matrix("pp", True)
    xp, xq, pq = _matrix("xp"), _matrix("xq"), _matrix("pq")
    yx, yp, yq = kappa * xx + xp.T, kappa * xp + pp, kappa * xq + pq
    v = kappa**2 * xx + kappa * (xp + xp.T) + pp
    moved = 2 * (e1 / 2 * yx + kappa * yp + yq).trace()
    signal = snr * ((yx / 2 + yp) * yx.T).trace()  # Cov(y, f') . Cov(y, f)
    change = moved - learned * signal
    found = general_coefficient(yx.trace(), (yp + yq).trace(), v.trace(), change)
    claim = snr**2 / (2 * e) * ((v - e / 2 * yx) * yx.T).trace()
    off = v - e * yx
    square = snr**2 / (4 * e**2) * ((v * v.T).trace() + sign * (off * off.T).trace())
    return sp.expand(found - claim), sp.expand(claim - square)


def _information(swap: bool = False) -> Expr:
    """Pointwise: log of densities of z_s, z_t given x and not."""
    pair_x, pair, one_x, one, two_x, two, p = sp.symbols(
        "q_st|x q_st q_s|x q_s q_t|x q_t p", positive=True
    )
    step = sp.log(pair_x / two_x / p)
    gained = sp.log(one_x / one) - sp.log(two_x / two)
    memory = sp.log((pair_x / one_x) / (pair / one))
    if swap:
        memory = -memory
    return sp.expand_log(step - gained - memory - sp.log(pair / two / p), force=True)


def _min_plus(size: int = 5, steps: int = 3, skip: bool = False) -> Expr:
    """Paths through a table of depths, in weights exp(-cost): the recursion against all paths."""
    weight = Matrix(
        size, size, lambda i, j: sp.Symbol(f"w{i}{j}", positive=True) if j > i else sp.S.Zero
    )
    value = sp.eye(size)[0, :]
    for _ in range(steps):
        value = (value * weight).applyfunc(sp.expand)
    paths = sp.S.Zero
    for inner in combinations(range(1, size - 1), steps - 1):
        points = (0, *inner, size - 1)
        paths += sp.prod(weight[i, j] for i, j in zip(points, points[1:], strict=False))
        if skip:
            break
    return value[size - 1] - paths


def _additive(skip: bool = False) -> tuple[Expr, ...]:
    ns, nt, rho = sp.symbols("n_s n_t rho", positive=True)
    first, second = sp.symbols("w1 w2", positive=True)
    x1, x2 = sp.symbols("X1 X2", positive=True)
    total = sum(
        d / 2 * (1 / w - 1 + sp.log(w)) + x / (2 * w) for w, x in ((first, x1), (second, x2))
    )
    best = {first: 1 + x1 / d, second: 1 + x2 / d}
    return (
        rho**2 * ns / nt * nt + ns * (1 - rho**2) - ns,
        sp.diff(total, first, second),
        sp.diff(total, first).subs(best),
        total.subs(best) - d / 2 * sum(map(sp.log, best.values())),
        _min_plus(skip=skip),
    )


THEOREMS = (
    Theorem(
        name="calibration.grid_cost",
        statement=r"\min_w L_T = \sum_{\text{steps}} \tfrac d2 \ln w_*(s, t), \qquad w_*(s,t) = 1 +"
        r" \frac{E\|\Delta\|^2}{d S^2}; \qquad V_n(s) = \min_t \left[V_{n-1}(t) + \tfrac d2 \ln w_*(s, t)\right]",
        assumptions=r"Any encoder, heads and noise level. The sum over paths is written out for three steps among five"
        r" depths, with weights $\exp(-\text{cost}/\epsilon)$; $\epsilon \to 0$ gives the minimum.",
        proof=r"Each $w$ occurs in its own step only, and the law of $z_t$ given $x$ does not depend on the grid"
        r" that led to it, so a step's cost depends on its two ends. Distributivity does the rest.",
        residual=_additive,
        controls={"one path for all": lambda: _additive(skip=True)},
    ),
    Theorem(
        name="calibration.step_expansion",
        statement=r"\frac{E\|\Delta\|^2}{2S^2} = \int_\lambda^{\lambda+\delta}"
        r" \frac{\mathrm{SNR}\,Q}{2e}\,d\lambda + K \delta^2 + O(\delta^3),\qquad K ="
        r" \frac{\mathrm{SNR}}{2e}\left[\frac{1 + 2e' - e^2}{4} E\,y\cdot r + E\,y\cdot (r' + x_t'') +"
        r" \frac{e-1}{2} Q - \frac{Q'}{2}\right]",
        assumptions=r"Any encoder, any heads, any $e(\lambda) = \eta^2 > 0$; $y = \kappa r + r'$, $Q = E\|y\|^2$;"
        r" one component, summed. With ratio $w_*$ subtract $(\mathrm{SNR}\,Q/2e)^2/d$. On a grid uniform in"
        r" $t$: $L_T - L_\infty = \frac1T \int \gamma' K d\lambda + O(T^{-2})$.",
        proof=r"Taylor series of $\Delta$, $\rho$ and of the integral.",
        residual=lambda: (*_expansion(), _ratio_saving()),
        controls={
            "grid taken at the other end": lambda: _expansion(shift=-sp.Rational(1, 2)),
            "saving of the ratio halved": lambda: _ratio_saving(share=8),
        },
    ),
    Theorem(
        name="calibration.covariance_rate",
        statement=r"\frac{d}{d\lambda} E\operatorname{Cov}(F, G|z) = E\left[\operatorname{Cov}(F', G|z) +"
        r" \operatorname{Cov}(F, G'|z) - \operatorname{Cov}(F, f'|z)\operatorname{Cov}(G, f|z) -"
        r" \operatorname{Cov}(G, f'|z)\operatorname{Cov}(F, f|z)\right]",
        assumptions=r"Any prior, any functions $F, G$ of $(x, \lambda)$; $f = e^{\lambda/2} x_t$; one component of"
        r" $f$, summed. For $F = G = x$, the known rate of the minimum mean square error, $-\mathrm{SNR}\,E"
        r" \operatorname{Var}(x|z)^2$.",
        proof=r"Pointwise in $z$ up to a divergence, whose flux decays.",
        residual=_covariance_rate,
        controls={
            "halved": lambda: _covariance_rate(share=sp.Rational(1, 2)),
            "sign": lambda: _covariance_rate(share=-1),
        },
    ),
    Theorem(
        name="calibration.depth_coefficient",
        statement=r"K = \frac{\mathrm{SNR}^2}{2e} E\operatorname{tr}\!\left[(V - \tfrac e2 C) C^T\right] ="
        r" \frac{\mathrm{SNR}^2}{4e^2}\, E\left[\|V\|_F^2 - \|V - eC\|_F^2\right], \quad K_{w_*} = K -"
        r" \frac{\mathrm{SNR}^2}{4e^2} \frac{(E \operatorname{tr} V)^2}{d}, \quad K_{w_*(z)} ="
        r" -\frac{\mathrm{SNR}^2}{4e^2}\, E\|V - eC\|_F^2",
        assumptions=r"Heads with $\kappa\hat x + \hat r = E[y|z]$ (a single head at $\eta = 1$ too); any prior,"
        r" encoder and $\eta(\lambda)$; $d = 2$ written out. $w_*(z)$ is a covariance that may depend on $z$;"
        r" one ratio per dimension replaces $(E\operatorname{tr}V)^2/d$ by $\sum_i (E V_{ii})^2$.",
        proof=r"Put `covariance_rate` for $Q'$ into `step_expansion`: $x_t''$ and $de/d\lambda$ cancel. With the"
        r" best covariance the $1/T$ term is never positive, and it is zero iff $V = eC$: for a tight encoder"
        r" with its noise level ($y = e x_t$), whatever the data.",
        residual=_depth,
        controls={
            "sign of the square": lambda: _depth(sign=1),
            "covariance's own rate halved": lambda: _depth(learned=1),
        },
    ),
    Theorem(
        name="calibration.information_bound",
        statement=r"L_T = I(x; z_0) - I(x; z_1) + \sum_{\text{steps}} \left[ I(x; z_t | z_s) + E\, KL(q(z_s|z_t) \|"
        r" p(z_s|z_t))\right]",
        assumptions=r"Any data, encoder, noise level, grid and generative process.",
        proof=r"Bayes' rule pointwise. So no encoder and no depth gets below $L_0 + L_1 + I(x;z_0) - I(x;z_1)$; the"
        r" excess is zero iff every step is Markov, $x \to z_s \to z_t$, and $p$ is the true reverse transition.",
        residual=_information,
        controls={"sign of the memory": lambda: _information(swap=True)},
    ),
    *GAUSSIAN,
    *GRIDS,
)
