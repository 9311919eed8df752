r"""Finite depth in Gaussian worlds, where everything is closed-form. Part of the section on calibration."""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._notation import lam

delta, e, snr = sp.symbols("delta e SNR", positive=True)
kappa = (1 + e) / 2
_gap_of_level = sp.symbols("a star", positive=True)


def _exact_at_every_depth(level: int = 1, pooled: bool = False) -> tuple[Expr, ...]:
    """Identity encoder: L_inf of the step is 1/2 ln((1 + S SNR_s)/(1 + S SNR_t)) in each direction."""
    S, one, two, low, root = sp.symbols("S S1 S2 q_t q", positive=True)
    snr_t, snr_s = low**2, (low * root) ** 2  # rho = (1/root)^level
    kept = root**-level

    def ratio(variance: Expr) -> Expr:
        spread = variance / (1 + variance * snr_t)
        return 1 + (low * root - kept * low) ** 2 * spread / (1 - kept**2)

    def gained(variance: Expr) -> Expr:
        return (1 + variance * snr_s) / (1 + variance * snr_t)

    integrand = sp.exp(lam) / 2 * S / (1 + S * sp.exp(lam))
    residual = (
        ratio(S) - gained(S),
        integrand - sp.diff(sp.log(1 + S * sp.exp(lam)) / 2, lam),
    )
    common = (ratio(one) + ratio(two)) / 2
    loss = 0 if pooled else (ratio(one) - ratio(two)) ** 2 / 4
    return (*residual, common**2 - gained(one) * gained(two) - loss)


def _gaussian(power: int = 2) -> tuple[Expr, ...]:
    """V - eC for scalar covariances, by eta*^2: (b + c) = a (star^2 - 1)/4."""
    a, star = _gap_of_level
    c = sp.Symbol("c", real=True)
    b = a * (star**2 - 1) / 4 - c
    off = kappa**2 * a + 2 * kappa * c + b - e * (kappa * a + c)
    paper = off.subs(e, 1) - (b + c)
    return off - a * (star**power - e**power) / 4, paper


def _linear_head(mean_square: int = 1) -> tuple[Expr, ...]:
    """The cost of extrapolating A by its tangent, at eta*: rho = sqrt(SNR_t/SNR_s) A_t/A_s makes the step Markov."""
    A, slope, bend, m2, start, end = sp.symbols("A A1 A2 m2 u v", positive=True)
    kept = start / end  # u, v: sqrt(SNR) A at the two ends
    exact = (end - kept * start) ** 2 / (1 - kept**2) - (end**2 - start**2)
    truth = sp.exp(delta / 2) * (A + slope * delta + bend * delta**2 / 2)
    bias = snr * sp.exp(delta) * (bend * delta**2 / 2) ** 2 * m2
    excess = sp.series((1 - (A / truth) ** 2) / delta, delta, 0, 1).removeO()
    leading = sp.limit(bias / delta**4, delta, 0) / (2 * excess)
    claim = mean_square * snr * bend**2 * m2 / (8 * (1 + 2 * slope / A))
    return exact, leading - claim


def _gaussian_step(extra: bool = True, correlate: bool = True) -> tuple[Expr, ...]:
    """x ~ N(m, S), x_t = A_t x; P = alpha_s A_s, R = alpha_t A_t, n = noise variances."""
    S, P, R, ns, nt, rho = sp.symbols("S P R n_s n_t rho", positive=True)
    carried = rho * sp.sqrt(ns / nt)  # of z_t in the reverse step
    noise = ns * (1 - rho**2)
    left = P - carried * R if correlate else P
    ratio = 1 + left**2 * (S * nt / (nt + R**2 * S)) / noise
    memory = R - rho * sp.sqrt(nt / ns) * P
    kept = 1 + memory**2 * (S * ns / (ns + P**2 * S)) / (nt * (1 - rho**2))
    gained = (1 + P**2 * S / ns) / (1 + R**2 * S / nt)
    return (ratio - gained * (kept if extra else 1),)


THEOREMS = (
    Theorem(
        name="calibration.gaussian_depth_exact",
        statement=r"x \sim N(m, S),\ x_t = x,\ \eta = 1: \qquad w_* = \frac{1 + S\,\mathrm{SNR}_s}{1 +"
        r" S\,\mathrm{SNR}_t},\quad L_T = \sum \tfrac12 \ln w_* = L_\infty \text{ at every } T;\qquad \bar w^2"
        r" - w_1 w_2 = \tfrac14 (w_1 - w_2)^2",
        assumptions=r"One dimension, or isotropic $S$, or one ratio per eigendirection of $S$. A single ratio $\bar"
        r" w$ for directions of different variance costs more at every finite $T$ (last formula, $d = 2$).",
        proof=r"$(e^{\lambda_s/2} - \rho e^{\lambda_t/2})^2/(1 - \rho^2) = \mathrm{SNR}_s - \mathrm{SNR}_t$ at"
        r" $\eta = 1$, and the logarithms telescope to the mutual information.",
        residual=_exact_at_every_depth,
        controls={
            "another noise level": lambda: _exact_at_every_depth(level=2),
            "one ratio for an anisotropic Gaussian": lambda: _exact_at_every_depth(pooled=True),
        },
    ),
    Theorem(
        name="calibration.depth_gaussian",
        statement=r"V - eC = \frac a4 (\eta_*^4 - \eta^4): \qquad K_{w_*} = -\frac{\mathrm{SNR}^2 a^2}{64\,\eta^4}"
        r" (\eta_*^4 - \eta^4)^2, \qquad \eta = 1:\ -\tfrac14 \mathrm{SNR}^2 (b + c)^2",
        assumptions=r"Gaussian data and a linear encoder in one dimension (or one ratio and noise level per"
        r" eigendirection).",
        proof=r"Conditional covariances do not depend on $z$. So the $1/T$ term vanishes iff $\eta = \eta_*$, and"
        r" is negative otherwise: at finite depth the ELBO of an encoder with $b + c \ne 0$ lies below"
        r" $L_\infty$.",
        residual=_gaussian,
        controls={"eta^2 for eta^4": lambda: _gaussian(power=1)},
        formula=lambda: Formula(
            (snr, *_gap_of_level, e),
            -((snr * _gap_of_level[0] * (_gap_of_level[1] ** 2 - e**2)) ** 2) / (64 * e**2),
        ),
    ),
    Theorem(
        name="calibration.depth_gaussian_tight",
        statement=r"\eta = \eta_*: \qquad \tfrac12 \ln w_* = \Delta I + \frac{\mathrm{SNR}\,(A'')^2\, E\,\hat x_0^2}"
        r"{8\,\eta_*^2}\, \delta^3 + O(\delta^4), \qquad \hat x_0 = E[x|z_t]",
        assumptions=r"Gaussian data, $x_t = A(\lambda) x$, one dimension. So $L_T - L_\infty = O(T^{-2})$, and it"
        r" is zero at every $T$ if $A'' = 0$ or if the heads carry $x_s$ exactly, $\hat x_s = (A_s/A_t)\hat x$.",
        proof=r"The step is Markov and costs the information; to it comes the squared bias of the tangent $A_t +"
        r" \delta A_t'$ taken for $A_s$, over $S^2 \approx \sigma_s^2\eta_*^2\delta$.",
        residual=_linear_head,
        controls={"twice the bias": lambda: _linear_head(mean_square=2)},
    ),
    Theorem(
        name="calibration.finite_depth_encoder",
        statement=r"w_* = \frac{1 + P^2 S/\sigma_s^2}{1 + R^2 S/\sigma_t^2} \left(1 + \frac{(R - \rho"
        r" \frac{\sigma_t}{\sigma_s} P)^2 \operatorname{Var}(x|z_s)}{\sigma_t^2 (1 - \rho^2)}\right), \qquad P"
        r" = \alpha_s A_s,\ R = \alpha_t A_t",
        assumptions=r"Gaussian data in one dimension, $x_t = A(\lambda)x$, heads that carry $x_s$ exactly.",
        proof=r"The bracket is $\exp 2I(x; z_t|z_s)$. So at every depth the encoders that minimise the ELBO with"
        r" $w_*$ between given end points are those with $\rho\sigma_t P = \sigma_s R$, that is $\eta^2 = 1 +"
        r" 2\,d\ln A/d\lambda$: the identity at $\eta = 1$ is one of them, and no encoder is better.",
        residual=_gaussian_step,
        controls={
            "always Markov": lambda: _gaussian_step(extra=False),
            "deterministic part forgotten": lambda: _gaussian_step(correlate=False),
        },
    ),
)
