r"""Gaussian mixtures with an encoder $x_t = A x$. Part of the section on worlds."""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._notation import Density, alpha, g, log_normal, sigma, x, z

A = sp.Symbol("A", positive=True)
_a, _s = sp.symbols("alpha sigma", positive=True)
_BOTH = {_a: alpha(g), _s: sigma(g)}
_w = sp.symbols("w1 w2", positive=True)
_ms, _Ss = sp.symbols("m1 m2", real=True), sp.symbols("S1 S2", positive=True)


def component(mean: Expr, spread: Expr) -> tuple[Expr, Expr, Expr]:
    """log q_t(z), its score, and E[x|z], of one Gaussian of a mixture."""
    variance = _a**2 * A**2 * spread + _s**2
    off = z - _a * A * mean
    gain = _a * A * spread / variance
    return log_normal(z, _a * A * mean, variance), -off / variance, mean + gain * off


def mixture(shared: bool = False) -> tuple[Expr, Expr, Expr]:
    """q_t(z), its score, and E[x|z], of a mixture of two Gaussians."""
    each = [component(mean, spread) for mean, spread in zip(_ms, _Ss, strict=True)]
    parts = [w * sp.exp(density) for w, (density, _, _) in zip(_w, each, strict=True)]
    shares = _w if shared else [p / sum(parts) for p in parts]
    score = sum(share * one for share, (_, one, _) in zip(shares, each, strict=True))
    known = sum(share * one for share, (_, _, one) in zip(shares, each, strict=True))
    return sum(parts), score, known


def _mixture_score(shared: bool = False) -> tuple[Expr, ...]:
    total, score, _ = mixture(shared)
    return (total.diff(z) - total * score,)


def _mixture_posterior(shared: bool = False, power: int = 2) -> tuple[Expr, ...]:
    """With w_i N(z; alpha A m_i, V_i) as symbols p_i: Bayes' rule in each component, then for the sum."""
    source, parts = sp.Symbol("k", real=True), sp.symbols("p1 p2", positive=True)
    shares = _w if shared else [p / sum(parts) for p in parts]
    residuals: list[Expr] = []
    bayes, tweedie = sp.S.Zero, sp.S.Zero
    for part, share, mean, spread in zip(parts, shares, _ms, _Ss, strict=True):
        density, score, known = component(mean, spread)
        plain = Density.normal(x, mean, spread) * Density.normal(z, _a * A * x, _s**2)
        variance = _a**2 * A**2 * spread + _s**2
        residuals += plain.integrate(x).minus(Density.normal(z, _a * A * mean, variance))
        residuals.append(density.diff(z) - score)
        log_joint = Density(plain.exponent + source * x, plain.weight).integrate(x).exponent
        spread_here = log_joint.diff(source, 2).subs(source, 0)
        residuals.append(spread_here - spread * _s**2 / variance)
        bayes += part * log_joint.diff(source).subs(source, 0) / sum(parts) - share * known
        tweedie += _a * A * share * known - part / sum(parts) * (z + _s**power * score)
    return (*residuals, bayes, tweedie, _mixture_variance())


def mixture_variance(between: int = 2) -> tuple[Expr, tuple[Expr, ...]]:
    """Var(x|z) of components of one variance S1, in their posterior weights p_i/(p1 + p2)."""
    parts = sp.symbols("p1 p2", positive=True)
    shares = [p / sum(parts) for p in parts]
    variance = _a**2 * A**2 * _Ss[0] + _s**2
    centre = sum(share * mean for share, mean in zip(shares, _ms, strict=True))
    square = sum(share * mean**2 for share, mean in zip(shares, _ms, strict=True))
    within = _Ss[0] * _s**2 / variance
    return within + (_s**2 / variance) ** between * (square - centre**2), parts


def _mixture_variance(between: int = 2) -> Expr:
    """The law of total variance against the closed form."""
    claim, parts = mixture_variance(between)
    known = [component(mean, _Ss[0])[2] for mean in _ms]
    shares = [p / sum(parts) for p in parts]
    within = _Ss[0] * _s**2 / (_a**2 * A**2 * _Ss[0] + _s**2)
    square = sum(share * (each**2 + within) for share, each in zip(shares, known, strict=True))
    centre = sum(share * each for share, each in zip(shares, known, strict=True))
    return square - centre**2 - claim


def _posterior_formula() -> Expr:
    claim, parts = mixture_variance()
    densities = [w * sp.exp(component(mean, _Ss[0])[0]) for w, mean in zip(_w, _ms, strict=True)]
    spread = claim.subs(dict(zip(parts, densities, strict=True)))
    return sp.Tuple(mixture()[2].subs(_Ss[1], _Ss[0]), spread).subs(_BOTH)


THEOREMS = (
    Theorem(
        name="worlds.mixture_score",
        statement=r"q_t(z) = \sum_i w_i N(z; \alpha A m_i, V_i), \qquad \nabla \log q_t = \sum_i \pi_i(z)"
        r" \frac{\alpha A m_i - z}{V_i}, \qquad \pi_i \propto w_i N(z; \alpha A m_i, V_i)",
        assumptions=r"Two components written out, one direction; $A = 1$ (identity) or $\alpha^2$ (non-trainable)"
        r" or any other.",
        proof="Derivative of a logarithm of a sum.",
        residual=_mixture_score,
        controls={"prior weights for responsibilities": lambda: _mixture_score(shared=True)},
        computed_by=("diffenc_ct.worlds.MixtureWorld.log_q",),
        formula=lambda: Formula(
            (z, *_w, *_ms, *_Ss, A, g),
            sp.Tuple(sp.log(mixture()[0]).subs(_BOTH), mixture()[1].subs(_BOTH)),
        ),
    ),
    Theorem(
        name="worlds.mixture_posterior",
        statement=r"E[x|z] = \sum_i \pi_i(z) \left[m_i + \frac{\alpha A S_i}{V_i} (z - \alpha A m_i)\right] = \frac{z +"
        r" \sigma^2 \nabla\log q_t}{\alpha A}",
        assumptions=r"Two components written out, one direction.",
        proof=r"Bayes' rule with a source $e^{kx}$, differentiated at $k = 0$; and Tweedie's formula.",
        residual=_mixture_posterior,
        controls={
            "prior weights for responsibilities": lambda: _mixture_posterior(shared=True),
            "variances between components added in full": lambda: _mixture_variance(between=0),
            "sigma for sigma^2": lambda: _mixture_posterior(power=1),
        },
        computed_by=(
            "diffenc_ct.worlds.MixtureWorld.posterior_mean",
            "diffenc_ct.worlds.MixtureWorld.posterior_variance",
            "diffenc_ct.worlds.MixtureWorld.estimates",
        ),
        formula=lambda: Formula((z, *_w, *_ms, _Ss[0], A, g), _posterior_formula()),
    ),
)
