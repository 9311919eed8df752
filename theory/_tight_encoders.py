r"""Encoders for which the ELBO is tight at the right noise level, and the process that this makes of them.

Part of the section on calibration.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._notation import alpha, beta, g, gamma, lam, sigma2, t
from ._tightness import INFORMATION, STAR, a, b, c, rate_at_optimum


def _tight(level: Expr) -> tuple[Expr, ...]:
    s2 = sigma2(g)
    case = {b: s2**2 * a, c: s2 * a}
    return (
        sp.factor(STAR.subs(case) ** 2) - level**2,
        (rate_at_optimum(level) - INFORMATION).subs(case),
    )


def _linear_process(level: Expr, drift: Expr, scale: Expr) -> tuple[Expr, ...]:
    """Moments of dz = drift z dt + sqrt(level beta) dw against N(scale x, sigma^2)."""
    variance = sigma2(gamma(t))
    return (
        sp.diff(scale, t) - drift * scale,
        sp.diff(variance, t) - 2 * drift * variance - level * beta(t),
    )


def _nontrainable_process(level: int = 2, power: int = 3) -> tuple[Expr, ...]:
    early, late = sp.symbols("E_s E_t", positive=True)  # exp(gamma_s), exp(gamma_t)
    data, point = sp.symbols("x z_s", real=True)
    a2 = {early: 1 / (1 + early), late: 1 / (1 + late)}
    # rho^2 = exp(-int (1 + level sigma^2) dgamma), and int sigma^2 dgamma = ln(1 + exp gamma)
    correlation = early / late * (a2[late] / a2[early]) ** level
    noise = {e: e * a2[e] for e in a2}
    carried = sp.sqrt(correlation * noise[late] / noise[early])
    mean = {e: sp.sqrt(a2[e]) ** 3 * data for e in a2}
    step = mean[late] + carried * (point - mean[early])
    factor = sp.sqrt(a2[late] / a2[early]) ** power
    return (
        sp.diff(g + sp.log(1 + sp.exp(g)) * 2, g) - 1 - 2 * sigma2(g),
        sp.powsimp(sp.expand(step - factor * point)),
        noise[late] * (1 - correlation) - (noise[late] - factor**2 * noise[early]),
        *_linear_process(
            1 + level * sigma2(gamma(t)), -power * beta(t) / 2, alpha(gamma(t)) ** power
        ),
    )


def _scalar(level_share: int = 2) -> tuple[Expr, ...]:
    scale = sp.Function("A", positive=True)
    slope = sp.diff(sp.log(scale(lam)), lam).subs(lam, -gamma(t)).doit()
    encoded = alpha(gamma(t)) * scale(-gamma(t))
    drift = -beta(t) / 2 - gamma(t).diff(t) * slope
    equivalent = lam + 2 * sp.log(scale(lam))
    tight = 1 + level_share * sp.diff(sp.log(scale(lam)), lam)
    return (
        *_linear_process(tight.subs(lam, -gamma(t)).doit(), drift, encoded),
        sp.diff(equivalent, lam) - tight,
    )


THEOREMS = (
    Theorem(
        name="calibration.nontrainable_tight",
        statement=r"x_t = \alpha^2 x:\qquad \eta_*^2 = 1 + 2\sigma^2, \qquad R(\eta_*^2) = \frac{dI}{d\lambda}",
        assumptions="Any prior.",
        proof=r"$x_t' = \sigma^2 x_t$ gives $c = \sigma^2 a$, $b = \sigma^4 a$ and $1 + 4(b+c)/a = (1+2\sigma^2)^2$.",
        residual=lambda: _tight(1 + 2 * sigma2(g)),
        controls={
            "1 + sigma^2": lambda: _tight(1 + sigma2(g)),
            "the paper's noise level": lambda: _tight(sp.S.One),
        },
        computed_by=("diffenc_ct.process.NonTrainableNoiseLevel",),
        formula=lambda: Formula((g,), 1 + 2 * sigma2(g)),
    ),
    Theorem(
        name="calibration.nontrainable_process",
        statement=r"dz = -\tfrac32 \beta z\, dt + \sqrt{(1 + 2\sigma^2)\beta}\, dw: \qquad q(z_t|z_s) ="
        r" N\left((\alpha_t/\alpha_s)^3 z_s,\ (\sigma_t^2 - (\alpha_t/\alpha_s)^6 \sigma_s^2) I\right)",
        assumptions=r"$x_t = \alpha^2 x$, $\eta^2 = 1 + 2\sigma^2$, any prior, any $\gamma(t)$; componentwise.",
        proof=r"$\rho = \sqrt{\mathrm{SNR}_t/\mathrm{SNR}_s}\,\alpha_t^2/\alpha_s^2$, so $\rho\sigma_t/\sigma_s ="
        r" (\alpha_t/\alpha_s)^3$ and the forward transition $\alpha_t x_t + \rho(\sigma_t/\sigma_s)(z_s -"
        r" \alpha_s x_s)$ no longer needs $x$: a Markov process, the time-inhomogeneous Ornstein-Uhlenbeck"
        r" process above, which is VDM's in a schedule that does not preserve variance ($\alpha^3$, $\sigma$).",
        residual=_nontrainable_process,
        controls={
            "noise 1 + sigma^2": lambda: _nontrainable_process(level=1),
            "drift of VDM": lambda: _nontrainable_process(power=1),
        },
    ),
    Theorem(
        name="calibration.scalar_encoder",
        statement=r"x_t = A(\lambda) x,\ \ \eta^2 = 1 + 2\frac{d\ln A}{d\lambda}: \qquad dz = \left(-\tfrac\beta2 -"
        r" \gamma' \tfrac{d \ln A}{d\lambda}\right) z\, dt + \eta\sqrt\beta\, dw, \qquad \tilde\lambda ="
        r" \lambda + 2\ln A,\quad \frac{d\tilde\lambda}{d\lambda} = \eta^2",
        assumptions=r"$A > 0$ any function with $d\ln A/d\lambda \ge -\frac12$, any prior, any $\gamma(t)$.",
        proof=r"The linear SDE has mean $\alpha A x$ and variance $\sigma^2$ for every $x$: Markov, hence tight. It"
        r" is VDM at the log signal-to-noise ratio $\tilde\lambda$, so a data-independent scalar encoder is a"
        r" schedule.",
        residual=_scalar,
        controls={"k for 2k": lambda: _scalar(level_share=1), "eta = 1": lambda: _scalar(0)},
    ),
)
