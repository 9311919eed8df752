r"""The probability flow of a Gaussian world, and what a solver makes of it. Part of the section on worlds."""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._moments import mean_over
from ._notation import alpha, alpha2, g, gamma, lam, log_normal, sigma, sigma2, t, z

S = sp.Symbol("S", positive=True)
m = sp.Symbol("m", real=True)


def _flow_pieces() -> tuple[Expr, Expr, Expr, Expr]:
    """Mean and variance of z_t along the schedule, and the optimal heads at z."""
    scale = sp.Function("A", positive=True)
    here, a, s = scale(-gamma(t)), alpha(gamma(t)), sigma(gamma(t))
    slope = scale(lam).diff(lam).subs(lam, -gamma(t)).doit()
    variance = a**2 * here**2 * S + s**2
    known = m + a * here * S / variance * (z - a * here * m)
    return a * here * m, variance, here * known, slope * known


def _linear_flow(sign: int = -1) -> tuple[Expr, ...]:
    centre, variance, x_hat, r_hat = _flow_pieces()
    a, s2 = alpha(gamma(t)), sigma2(gamma(t))
    drift = -z / 2 + (z - a * x_hat) / (2 * s2) + sign * a / s2 * r_hat
    drift = s2 * gamma(t).diff(t) * drift
    growth = variance.diff(t) / (2 * variance)
    return (
        drift.diff(z) - growth,
        drift.subs(z, centre) - centre.diff(t),
        drift.diff(z, 2),
        growth - sp.log(variance).diff(t) / 2,
    )


def _flow_formula() -> Formula:
    """dz/dt from the change of the centre and the variance, by lambda."""
    A, slope, pace = sp.symbols("A A' gamma'", real=True)
    a, a2, s2 = alpha(g), alpha2(g), sigma2(g)
    variance = a2 * A**2 * S + s2
    growth = (a2 * s2 * (A**2 * S - 1) + 2 * a2 * A * slope * S) / (2 * variance)
    centre = a * m * (s2 * A / 2 + slope)
    drift = -pace * (growth * (z - a * A * m) + centre)
    return Formula((z, m, S, A, slope, g, pace), drift)


def _euler(power: int = 2) -> tuple[Expr, ...]:
    """One Euler step of dz = (F z + c) dt, and the KL of what it made from the exact Gaussian."""
    F, c, h, mean = sp.symbols("F c h mu", real=True)
    start, spread, target, width = sp.symbols("v s n r", positive=True)
    noise = sp.Symbol("n1", real=True)
    moved = (1 + h * F) * (mean + sp.sqrt(start) * noise) + h * c
    average = mean_over(moved, (noise,))
    point = m + spread * noise
    logs = log_normal(point, m, spread**2) - log_normal(point, target, width**2)
    kl = sp.log(width / spread) + (spread**2 + (m - target) ** 2) / (2 * width**power) - sp.S.Half
    return (
        average - ((1 + h * F) * mean + h * c),
        mean_over((moved - average) ** 2, (noise,)) - (1 + h * F) ** 2 * start,
        sp.expand_log(mean_over(sp.expand_log(logs), (noise,)) - kl),
    )


THEOREMS = (
    Theorem(
        name="worlds.linear_flow",
        statement=r"z_t = \alpha_t A_t m + \sqrt{V_t/V_s}\,(z_s - \alpha_s A_s m), \qquad \int_s^t \nabla\cdot"
        r" f\,du = \tfrac12 \ln \frac{V_t}{V_s}",
        assumptions=r"Gaussian data, $x_t = A(\lambda) x$ with any $A$, any $\gamma(t)$, optimal paired heads; one"
        r" direction.",
        proof=r"The probability flow is affine in $z$: its slope is $\dot V/(2V)$, and the mean moves with it. So"
        r" the ODE's likelihood is the analytic density of $z_0$.",
        residual=_linear_flow,
        controls={
            "sign of r_hat": lambda: _linear_flow(sign=1),
            "no r_hat": lambda: _linear_flow(0),
        },
        computed_by=("diffenc_ct.dynamics.ProbabilityFlow",),
        formula=_flow_formula,
    ),
    Theorem(
        name="worlds.linear_solver",
        statement=r"\mu \to (1 + hF)\mu + hc, \quad v \to (1 + hF)^2 v; \qquad KL(N(m, s^2)\|N(n, r^2)) = \ln\frac rs +"
        r" \frac{s^2 + (m - n)^2}{2r^2} - \tfrac12",
        assumptions=r"One direction, one Euler step of $dz = (Fz + c)\,dt$; any Runge-Kutta step is affine too.",
        proof="Moments of an affine image; expected log ratio.",
        residual=_euler,
        controls={"r for r^2": lambda: _euler(power=1)},
    ),
)
