r"""The best places for T steps: exactly in a Gaussian world, asymptotically in any.

Part of the section on calibration.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem

S, low, high, T, i = sp.symbols("S SNR_1 SNR_0 T i", positive=True)


def placement(index: Expr, scale: Expr = S) -> Expr:
    """SNR of the grid point i of T, from the noise end: 1 + S SNR is geometric."""
    share = index / T
    return ((1 + scale * low) ** (1 - share) * (1 + scale * high) ** share - 1) / scale


def _step(start: Expr, end: Expr, variance: Expr = S) -> Expr:
    """Cost of one step with w = 1: half the SNR gained times the error at its noisy end."""
    return (end - start) * variance / (1 + variance * start) / 2


def _best_grid(scale: Expr = S) -> tuple[Expr, ...]:
    before, here, after = sp.symbols("v_0 v v_2", positive=True)
    pair = _step(before, here) + _step(here, after)
    points = {name: placement(i + k, scale) for name, k in ((before, -1), (here, 0), (after, 1))}
    stationary = sp.diff(pair, here).subs(points)
    ends, start, stop = sp.symbols("R u w", positive=True)  # u, w: 1 + S SNR_1 and its ratio
    growth = _step(placement(i, scale), placement(i + 1, scale))
    known = {low: (start - 1) / S, high: (start * stop**T - 1) / S}
    y = sp.symbols("y0 y1 y2", real=True)
    convex = (sp.exp(y[1] - y[0]) - 1 + sp.exp(y[2] - y[1]) - 1) / 2
    logs = {before: (sp.exp(y[0]) - 1) / S, here: (sp.exp(y[1]) - 1) / S}
    logs[after] = (sp.exp(y[2]) - 1) / S
    number = 1 / ends
    total = number / 2 * (sp.exp(2 * start * ends) - 1)  # I = start, 1/T = ends
    return (
        sp.simplify(sp.powsimp(sp.expand(stationary.subs(known)), force=True)),
        sp.simplify(growth.subs(known) - (stop - 1) / 2),
        sp.expand(pair.subs(logs) - convex),
        sp.diff(convex, y[1], 2) - (sp.exp(y[1] - y[0]) + sp.exp(y[2] - y[1])) / 2,
        sp.series(total, ends, 0, 2).removeO() - start - start**2 * ends,
    )


def _density(power: Expr = sp.S.Half) -> tuple[Expr, ...]:
    """Pointwise: D/psi - 2 Z sqrt(D) + Z^2 psi is a square over psi, and psi = sqrt(D)/Z makes it zero."""
    D, psi, Z = sp.symbols("D psi Z", positive=True)
    excess = D / psi - 2 * Z * sp.sqrt(D) + Z**2 * psi
    return excess - (sp.sqrt(D) - Z * psi) ** 2 / psi, excess.subs(psi, D**power / Z)


def _equivalent(share: int = 2) -> tuple[Expr, ...]:
    """x_t = A x with its tight noise level, against the identity at exp(2 l) = SNR A^2: E||Delta||^2/S^2 agree."""
    snr_s, snr_t, a_s, a_t = sp.symbols("SNR_s SNR_t A_s A_t", positive=True)
    there, here = snr_s * a_s**2, snr_t * a_t**share
    kept = sp.sqrt(here / there)
    step = (sp.sqrt(snr_s) * a_s - kept * sp.sqrt(snr_t) * a_t) ** 2 / (1 - kept**2)
    return (step - (snr_s * a_s**2 - snr_t * a_t**2),)


THEOREMS = (
    Theorem(
        name="calibration.best_grid",
        statement=r"1 + S\,\mathrm{SNR}(t_i) = (1 + S\,\mathrm{SNR}_1)^{1 - i/T} (1 + S\,\mathrm{SNR}_0)^{i/T},"
        r" \qquad L_T = \frac T2 \left(e^{2\Delta I/T} - 1\right) = \Delta I + \frac{(\Delta I)^2}{T} +"
        r" O(T^{-2})",
        assumptions=r"Gaussian data of variance $S$, identity encoder, $\eta = 1$, $w = 1$; $\Delta I = \frac12 \ln"
        r" \frac{1 + S\,\mathrm{SNR}_0}{1 + S\,\mathrm{SNR}_1}$. With $w_*$ every grid is as good as any other.",
        proof=r"In $y = \ln(1 + S\,\mathrm{SNR})$ the cost is $\frac12\sum (e^{y_{i+1} - y_i} - 1)$, strictly"
        r" convex, so equal steps of $y$ are the one minimum: each step gains the same information.",
        residual=_best_grid,
        controls={"steps for another variance": lambda: _best_grid(scale=2 * S)},
        formula=lambda: Formula((S, low, high, T, i), placement(i)),
    ),
    Theorem(
        name="calibration.grid_density",
        statement=r"\int \frac{D}{\psi}\, d\lambda - \left(\int \sqrt D\, d\lambda\right)^2 = \int \frac{(\sqrt D -"
        r" Z\psi)^2}{\psi}\, d\lambda \ge 0, \qquad \psi_* = \frac{\sqrt D}{Z},\quad Z = \int \sqrt D\, d\lambda",
        assumptions=r"$D(\lambda) > 0$ the coefficient $K$ of `calibration.depth_coefficient` in any world, $\psi$"
        r" the density of the grid points in $\lambda$, $\int\psi = 1$: $L_T - L_\infty \approx \frac1T \int"
        r" D/\psi$.",
        proof=r"Complete the square. The best grid spends $\sqrt D$ equally, and the excess is $Z^2/T$; in a"
        r" Gaussian world with identity encoder $\sqrt D = \frac12 \mathrm{SNR} \sqrt{\sum_j a_j^2}$, the"
        r" information's rate if $d = 1$.",
        residual=_density,
        controls={"density by D": lambda: _density(power=sp.S.One)},
    ),
    Theorem(
        name="calibration.encoder_is_grid",
        statement=r"\frac{(e^{\lambda_s/2} A_s - \rho e^{\lambda_t/2} A_t)^2}{1 - \rho^2} = e^{\tilde\lambda_s} -"
        r" e^{\tilde\lambda_t}, \qquad \tilde\lambda = \lambda + 2\ln A,\quad \rho^2 = e^{\tilde\lambda_t -"
        r" \tilde\lambda_s}",
        assumptions=r"$x_t = A(\lambda) x$, $\eta^2 = 1 + 2\,d\ln A/d\lambda$, any data, any two depths, heads that"
        r" carry $x_s$ exactly.",
        proof=r"The step costs what VDM's step between $\tilde\lambda_t$ and $\tilde\lambda_s$ costs. So on a grid"
        r" fixed in $\lambda$ the identity encoder is not the best one unless the grid is already: the best $A$"
        r" moves the points to where `best_grid` or `grid_density` wants them, and moving the grid does the"
        r" same.",
        residual=_equivalent,
        controls={"A for A^2": lambda: _equivalent(share=1)},
    ),
)
