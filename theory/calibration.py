r"""What the heads learn, how tight the ELBO is, and the noise level that makes it tightest.

Residuals of optimal heads: $r = x_t - E[x_t|z]$ and $r' = x_t' - E[x_t'|z]$, with $a = E\|r\|^2$, $c = E\,r\cdot r'$
and $b = E\|r'\|^2$; $R(\eta^2)$ is the rate of $L_{\infty,\eta}$ per unit of $\lambda$ with these heads,
$e = \eta^2$ and $\kappa = (1+e)/2$. The section goes on in `_pointwise`, `_tight_encoders`, `_directions`
(noise levels that differ by direction), `_finite_depth`, `_gaussian_depth` and `_grids`.

![The ELBO's gap and the noise level that closes it, along lambda, for three encoders](figures/tightness.png)

![L_T against T in a Gaussian world, with the slopes the theorems give](figures/depth.png)
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._directions import THEOREMS as DIRECTIONS
from ._finite_depth import THEOREMS as FINITE_DEPTH
from ._notation import alpha, eta2, lam, sigma
from ._pointwise import THEOREMS as POINTWISE
from ._prior import Prior
from ._tight_encoders import THEOREMS as TIGHT_ENCODERS
from ._tightness import INFORMATION, REMAINING, STAR, a, b, c, k, rate_at_optimum, snr

_A, _S = alpha(-lam), sigma(-lam)
_X = tuple(sp.Function(f"X{i}", real=True)(lam) for i in (1, 2))
_Z = sp.symbols("z1 z2", real=True)
_PRIOR = r"Any prior with the moments used and any encoder; "


def _observed() -> Prior:
    """z = alpha x_t + sigma eps in two dimensions, up to a constant factor."""
    square = sum((z - _A * x) ** 2 for z, x in zip(_Z, _X, strict=True))
    return Prior(-square / (2 * _S**2) - 2 * sp.log(_S))


def optimal_head(rate: int = 1, share: Expr | int = 1) -> tuple[Expr, ...]:
    prior, x = _observed(), _X[0]
    s2 = _S**2
    target = x + rate * x.diff(lam)
    best = prior.mean(target) / (1 + share * s2)
    head = sp.Symbol("h", real=True)
    true = x + x.diff(lam)
    loss = prior.mean((true - (1 + s2) * head) ** 2)
    return (
        loss - prior.cov(true, true) - (1 + s2) ** 2 * (head - best) ** 2,
        sp.diff(loss, head).subs(head, best),
    )


def _tweedie(sign: int = 1, power: int = 2) -> tuple[Expr, ...]:
    prior = _observed()
    score = [prior.diff(sp.log(prior.mass), z) for z in _Z]
    first = tuple(
        each - (_A * prior.mean(x) - sign * z) / _S**power
        for each, z, x in zip(score, _Z, _X, strict=True)
    )
    curvature = prior.diff(score[0], _Z[1]) - _A**2 * prior.cov(_X[0], _X[1]) / _S ** (2 * power)
    return (*first, curvature)


def time_reversal(level: Expr = eta2, kappa: Expr | None = None) -> Expr:
    r"""The Fokker-Planck equation of the reverse SDE, by lambda: $\partial_t = -\gamma' \partial_\lambda$."""
    prior = _observed()
    kappa = (1 + level) / 2 if kappa is None else kappa
    s2 = _S**2
    total = -prior.diff(prior.mass, lam)
    for z, x in zip(_Z, _X, strict=True):
        heads = kappa * prior.mean(x) + prior.mean(x.diff(lam))
        drift = s2 * (-z / 2 + kappa * z / s2 - _A / s2 * heads)
        total += prior.diff(drift * prior.mass, z)
        total += eta2 * s2 / 2 * prior.diff(prior.mass, z, 2)
    return total


def _information(half: Expr, cross: int = 1) -> tuple[Expr, ...]:
    """z/sigma = f + eps with f = sqrt(SNR) x_t: the entropy's rate, pointwise, up to a divergence."""
    u = sp.symbols("u1 u2", real=True)
    signal = [sp.exp(lam / 2) * x for x in _X]
    prior = Prior(-sum((each - f) ** 2 for each, f in zip(u, signal, strict=True)) / 2)
    p = prior.mass
    total = -prior.diff(p, lam) * (1 + sp.log(p))
    for each, x, f in zip(u, _X, signal, strict=True):
        rate = half * prior.cov(x, x) + cross * prior.cov(x, x.diff(lam))
        total -= sp.exp(lam) * p * rate + prior.diff(prior(f.diff(lam)) * sp.log(p), each)
    point, bound = sp.symbols("u f", positive=True)
    decay = sp.limit(point**2 * sp.exp(-((point - bound) ** 2) / 2), point, sp.oo)
    return total, decay


def _gap(share: Expr = sp.S.Half, level: Expr = sp.S.One) -> tuple[Expr, ...]:
    prior, x = _observed(), _X[0]
    kappa = (1 + eta2) / 2
    rate = x.diff(lam)
    heads = kappa * prior.mean(x) + prior.mean(rate)
    spread = prior.mean((kappa * x + rate - heads) ** 2)
    moments = kappa**2 * prior.cov(x, x) + 2 * kappa * prior.cov(x, rate) + prior.cov(rate, rate)
    conditional, marginal, reference = sp.symbols("q(z|x) q(z) p(z)", positive=True)
    end = sp.log(conditional / reference) - sp.log(conditional / marginal)
    return (
        spread - moments,
        rate_at_optimum(level) - INFORMATION - share * snr * b,
        sp.expand_log(end - sp.log(marginal / reference)),
    )


def _optimal_level(star: Expr = STAR, remaining: Expr = REMAINING) -> tuple[Expr, ...]:
    level = sp.Symbol("e", positive=True)
    square = snr * a * (level - star) ** 2 / (8 * level)
    return (
        sp.diff(rate_at_optimum(level), level).subs(level, star),
        rate_at_optimum(level) - INFORMATION - remaining - square,
        remaining - snr * (a * b - c**2) / (a * star + a + 2 * c),
    )


def _equality(slope: Expr, excess: Expr) -> tuple[Expr, ...]:
    """The distance of r' from its projection on r, and the case r' = slope r."""
    case = {b: slope**2 * a, c: slope * a}
    inside = sp.factor((STAR**2).subs(case))
    rest = snr * (a * (sp.sqrt(inside) - 1) / 4 - c.subs(case) / 2)
    return b - 2 * (c / a) * c + (c / a) ** 2 * a - (b - c**2 / a), rest - excess


HEADS = (
    Theorem(
        name="calibration.optimal_head",
        statement=r"E\left[\|x_t + x_t' - (1+\sigma^2)\hat x\|^2 \mid z\right] = \operatorname{tr}"
        r"\operatorname{Cov}(x_t + x_t'|z) + (1+\sigma^2)^2 \|\hat x - \hat x^*\|^2,\qquad"
        r" \hat x^* = \frac{E[x_t + x_t' \mid z_t]}{1+\sigma^2}",
        assumptions=_PRIOR + "one component, since the square is a sum over them.",
        proof=r"Complete the square under the posterior of $x$ given $z$.",
        residual=optimal_head,
        controls={
            "rate forgotten": lambda: optimal_head(rate=0),
            "sign of the rate": lambda: optimal_head(rate=-1),
            "1 for 1 + sigma^2": lambda: optimal_head(share=0),
        },
        computed_by=("diffenc_ct.worlds.World.model",),
    ),
    Theorem(
        name="calibration.tweedie",
        statement=r"\nabla_z \log q_t(z) = \frac{\alpha\, E[x_t|z] - z}{\sigma^2}, \qquad \partial_i \partial_j"
        r" \log q_t(z) = \frac{\alpha^2}{\sigma^4} \operatorname{Cov}(x_{t,i}, x_{t,j}|z) \quad (i \ne j)",
        assumptions=_PRIOR + "$d = 2$ written out.",
        proof=r"Differentiate $q_t(z) = \int \mu(dx)\, N(z; \alpha x_t, \sigma^2 I)$ under the integral.",
        residual=_tweedie,
        controls={
            "sign of z": lambda: _tweedie(sign=-1),
            "sigma for sigma^2": lambda: _tweedie(power=1),
        },
    ),
    Theorem(
        name="calibration.time_reversal",
        statement=r"\partial_t q_t = -\nabla\cdot(b_\eta q_t) - \tfrac12 \eta^2\beta\, \Delta q_t \quad\text{for}\quad"
        r" \hat x = E[x_t|z],\ \hat r = E[x_t'|z]",
        assumptions=_PRIOR + r"any $\eta \ge 0$; $d = 2$ written out.",
        proof=r"Both sides are moments of the posterior; with optimal heads they agree term by term. So the"
        r" generative SDE has the marginals of the data at every noise level, and at $\eta = 1$ only"
        r" $E[x_t + x_t'|z]$ enters.",
        residual=time_reversal,
        controls={
            "kappa = 1 at every noise level": lambda: time_reversal(kappa=sp.S.One),
            "drift of eta = 1 with noise eta": lambda: time_reversal(level=sp.S.One),
        },
        computed_by=("diffenc_ct.dynamics.ReverseSDE",),
    ),
)

TIGHTNESS = (
    Theorem(
        name="calibration.mutual_information_rate",
        statement=r"\frac{d I(x; z_t)}{d\lambda} = \mathrm{SNR} \left(\frac a2 + c\right)",
        assumptions=_PRIOR + "$d = 2$ written out. An identity encoder gives I-MMSE.",
        proof=r"$z/\sigma = f + \epsilon$ with $f = e^{\lambda/2} x_t$. The entropy's rate"
        r" $-\partial_\lambda p\,(1 + \ln p)$ equals $p\,\mathrm{SNR} \operatorname{tr}[\operatorname{Cov}(x_t,x_t)/2 +"
        r" \operatorname{Cov}(x_t,x_t')] + \nabla\cdot(p\,E[f'|z] \ln p)$ pointwise, and the flux decays.",
        residual=lambda: _information(sp.Rational(1, 2)),
        controls={
            "I-MMSE of a fixed input": lambda: _information(sp.Rational(1, 2), cross=0),
            "sign of the cross term": lambda: _information(sp.Rational(1, 2), cross=-1),
            "a for a/2": lambda: _information(sp.S.One),
        },
        formula=lambda: Formula((snr, a, c), INFORMATION),
    ),
    Theorem(
        name="calibration.gap",
        statement=r"L_0 + L_1 + L_\infty = L_0 + I(x; z_0) - I(x; z_1) + L_1 + \tfrac12 \int \mathrm{SNR}\, b\,"
        r" d\lambda,\qquad L_1 - I(x; z_1) = KL(q(z_1)\|p(z_1))",
        assumptions=_PRIOR + r"optimal heads, $\eta = 1$.",
        proof=r"$E\|\kappa r + r'\|^2 = \kappa^2 a + 2\kappa c + b$; subtract the rate of information; add and subtract"
        r" $\log q(z_1)$.",
        residual=_gap,
        controls={
            "gap without the half": lambda: _gap(share=sp.S.One),
            "another noise level": lambda: _gap(level=sp.Integer(2)),
        },
        computed_by=(
            "diffenc_ct.worlds.GaussianWorld.gap",
            "diffenc_ct.worlds.GaussianWorld.gap_rate",
        ),
        formula=lambda: Formula((snr, a, b, c, eta2), rate_at_optimum(eta2) - INFORMATION),
    ),
    Theorem(
        name="calibration.optimal_noise_level",
        statement=r"\eta_*^2 = \sqrt{1 + \frac{4(b+c)}{a}}, \qquad R(\eta^2) - \frac{dI}{d\lambda} ="
        r" \mathrm{SNR}\left(\frac{a(\eta_*^2 - 1)}{4} - \frac c2\right) + \mathrm{SNR}\,\frac{a(\eta^2 -"
        r" \eta_*^2)^2}{8\eta^2}, \qquad \frac{a(\eta_*^2 - 1)}{4} - \frac c2 = \frac{ab - c^2}{a\eta_*^2 + a + 2c}",
        assumptions=r"$a > 0$ and $b + c \ge -a/4$, which holds always, since $a/4 + b + c = E\|r/2 + r'\|^2$.",
        proof=r"Complete the square in $\eta^2$: the minimum is unique and global, for optimal or any other heads.",
        residual=_optimal_level,
        controls={
            "c for b + c": lambda: _optimal_level(star=sp.sqrt(1 + 4 * c / a)),
            "root forgotten": lambda: _optimal_level(star=1 + 4 * (b + c) / a),
            "sign of c in what remains": lambda: _optimal_level(
                remaining=snr * (a * (STAR - 1) / 4 + c / 2)
            ),
        },
        computed_by=(
            "diffenc_ct.calibration.optimal_eta_squared",
            "diffenc_ct.worlds.GaussianWorld.optimal_noise_level_squared",
        ),
        formula=lambda: Formula((snr, a, b, c), sp.Tuple(STAR, REMAINING)),
    ),
    Theorem(
        name="calibration.cauchy_schwarz",
        statement=r"ab - c^2 = a\, E\left\|r' - \tfrac ca r\right\|^2; \qquad r' = k r:\ \ \eta_*^2 = |1 +"
        r" 2k|,\quad R(\eta_*^2) - \frac{dI}{d\lambda} = \max\left(0,\ -\tfrac12 \mathrm{SNR}\, a\,(1 + 2k)\right)",
        assumptions=r"$a > 0$. The remaining rate is zero iff $r' = k r$ almost surely with $k \ge -\frac12$.",
        proof=r"Project $r'$ on $r$. For $k < -\frac12$ information falls as $\lambda$ grows, and no reverse process is"
        r" free of charge: proportional residuals alone are not enough.",
        residual=lambda: (
            *_equality((k - 1) / 2, sp.S.Zero),
            *_equality((-k - 1) / 2, snr * a * k / 2),
        ),
        controls={
            "proportional is always tight": lambda: _equality((-k - 1) / 2, sp.S.Zero),
            "sign of what remains": lambda: _equality((-k - 1) / 2, -snr * a * k / 2),
        },
    ),
)

THEOREMS = HEADS + TIGHTNESS + POINTWISE + TIGHT_ENCODERS + DIRECTIONS + FINITE_DEPTH
