r"""The same drifts as objects that solver libraries take. A reverse process runs in its own time $\tau =
1 - t$, so that time increases; the probability flow is the reverse process without noise. In the
variable $u = z/\alpha$ and the time $\lambda$ both lose their schedule.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._notation import alpha, eta2, g, gamma, rate, rhat, sigma2, t, xhat, z

_tau = sp.Symbol("tau", real=True)
_u, _diffusion = sp.symbols("u g", real=True)
_density = sp.Function("q", positive=True)
_drift, _squared = sp.Function("b"), sp.Function("g2", positive=True)


def _reversed(sign: int) -> Expr:
    """The forward Fokker-Planck residual in tau of q(z, 1 - tau), where q solves the reverse one in t."""
    in_t = _density(z, t)
    slope_in_t = -(_drift(z, t) * in_t).diff(z) - _squared(t) / 2 * in_t.diff(z, 2)
    slope_in_tau = -slope_in_t.subs(t, 1 - _tau)
    now = _density(z, 1 - _tau)
    drift = sign * _drift(z, 1 - _tau)
    return slope_in_tau + (drift * now).diff(z) - _squared(1 - _tau) / 2 * now.diff(z, 2)


def _reverse(noise: Expr, speed: Expr) -> Expr:
    kappa = (1 + noise) / 2
    pull = kappa * z / sigma2(g) - alpha(g) / sigma2(g) * (kappa * xhat + rhat)
    return sigma2(g) * speed * (-z / 2 + pull)


def _flow(share: Expr = sp.S.Half) -> Expr:
    pull = share * (z - alpha(g) * xhat) / sigma2(g) - alpha(g) / sigma2(g) * rhat
    return sigma2(g) * rate * (-z / 2 + pull)


def _log_snr(sign: int, noise: Expr) -> tuple[Expr, Expr]:
    """Drift and squared diffusion per unit of lambda of u = z/alpha, from those of z per unit of t."""
    here = gamma(t)
    scale = alpha(here)
    speed = here.diff(t)
    in_t = _reverse(eta2, rate).subs({g: here, rate: speed, z: scale * _u})
    # d(z/alpha) = dz/alpha - z alpha'/alpha^2 dt: alpha is deterministic, so Ito adds nothing.
    of_u = in_t / scale - scale * _u * scale.diff(t) / scale**2
    kappa = (1 + eta2) / 2
    claimed = -kappa * (_u - xhat) + sign * rhat
    diffusion = eta2 * sigma2(here) * speed / scale**2
    return of_u / (-speed) - claimed, diffusion / speed - noise * sp.exp(here)


def _correction(coefficient: Expr) -> Expr:
    """Stratonovich's drift less Ito's, 1/2 g dg/dz."""
    return coefficient * coefficient.diff(z) / 2


THEOREMS: tuple[Theorem, ...] = (
    Theorem(
        name="dynamics.reverse_time",
        statement=(
            r"\partial_t q = -\partial_z (b\,q) - \tfrac{g^2}{2}\,\partial_z^2 q"
            r" \;\Longrightarrow\; dz = -b\,d\tau + g\,dw \;\text{ has the density }\; q(z, 1 -"
            r" \tau)"
        ),
        assumptions=(
            "Any drift $b(z, t)$, noise $g(t)$ and density $q$; scalar, in more dimensions sum"
            " over them."
        ),
        proof=(
            r"$\partial_\tau = -\partial_t$ turns the reverse Fokker-Planck equation into the"
            " forward one with drift $-b$."
        ),
        residual=lambda: _reversed(-1),
        controls={"drift b in the solver's time": lambda: _reversed(1)},
        computed_by=("diffenc_ct.dynamics.ReverseSDE", "diffenc_ct.dynamics.ConditionalReverseSDE"),
    ),
    Theorem(
        name="dynamics.ito_stratonovich",
        statement=r"\tfrac12\,g\,\partial_z g = 0 \quad\text{for}\quad g = \eta\sqrt\beta",
        assumptions="The noise depends on $t$ alone, in each dimension.",
        proof=(
            "The correction between the two readings vanishes, so one object may be typed as"
            " either."
        ),
        residual=lambda: _correction(sp.sqrt(eta2 * sigma2(gamma(t)) * gamma(t).diff(t))),
        controls={"noise that depends on z": lambda: _correction(sp.Function("g")(z, t))},
        computed_by=("diffenc_ct.dynamics.ReverseSDE", "diffenc_ct.dynamics.ForwardSDE"),
    ),
    Theorem(
        name="dynamics.probability_flow",
        statement=(
            r"b_0 = \beta\left[-\frac z2 + \frac{z - \alpha\hat x}{2\sigma^2} -"
            r" \frac{\alpha}{\sigma^2}\,\hat r\right]"
        ),
        assumptions="Any heads; componentwise. What it keeps is in section *likelihood*.",
        proof=r"$b_\eta$ at $\eta = 0$, where $\kappa = \tfrac12$.",
        residual=lambda: _flow() - _reverse(sp.S.Zero, rate),
        controls={
            "score with factor 1": lambda: _flow(sp.S.One) - _reverse(sp.S.Zero, rate),
            "noise of eta = 1": lambda: _flow() - _reverse(sp.S.One, rate),
        },
        computed_by=("diffenc_ct.dynamics.ProbabilityFlow",),
        formula=lambda: Formula((z, xhat, rhat, g, rate), _flow()),
    ),
    Theorem(
        name="dynamics.log_snr",
        statement=(
            r"u = \frac z\alpha = x_t + e^{-\lambda/2}\epsilon: \qquad du = \left[-\kappa\,(u -"
            r" \hat x) + \hat r\right] d\lambda + \eta\,e^{-\lambda/2}\,dw"
        ),
        assumptions=(
            r"General $\gamma(t)$, any heads and $\eta$, run towards larger $\lambda$;"
            " componentwise."
        ),
        proof=(
            r"$du = dz/\alpha - z\,\alpha'/\alpha^2\,dt$ (no Ito term, $\alpha$ is deterministic),"
            r" divide by $d\lambda = -\gamma'\,dt$; $\beta/\alpha^2 = \gamma' e^\gamma$. The"
            " schedule is gone."
        ),
        residual=lambda: _log_snr(1, eta2),
        controls={
            "sign of the rate": lambda: _log_snr(-1, eta2),
            "eta for eta^2": lambda: _log_snr(1, sp.sqrt(eta2)),
        },
        computed_by=("diffenc_ct.dynamics.ReverseSDE",),
    ),
)
