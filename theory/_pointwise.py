r"""What the ELBO costs above $-\ln p(x)$ for a single $x$. Part of the section on calibration."""

from __future__ import annotations

import sympy as sp
from sympy import Expr, Symbol

from ._core import Theorem
from ._notation import lam
from ._prior import Prior
from ._tightness import snr


def _rate(half: Expr = sp.S.Half, cross: int = 1) -> tuple[Expr, ...]:
    """d/dlambda of q(z|x) ln(q(z|x)/q(z)), pointwise in z and up to a divergence, for two values.

    z/sigma = f + eps with f = exp(lambda/2) x_t; X are the encoded data that the prior knows, x those of the one x.
    """
    points = sp.symbols("u1 u2", real=True)
    anyone, own = (
        [sp.exp(lam / 2) * sp.Function(f"{letter}{i}", real=True)(lam) for i in (1, 2)]
        for letter in "Xx"
    )
    prior = Prior(-sum((u - f) ** 2 for u, f in zip(points, anyone, strict=True)) / 2)
    log_density = -sum((u - f) ** 2 for u, f in zip(points, own, strict=True)) / 2
    density, ratio = sp.exp(log_density), Symbol("L", real=True)  # L = ln(q(z|x)/q(z))

    def change(expression: Expr, variable: Symbol) -> Expr:
        of_ratio = sp.diff(log_density, variable) - prior.diff(prior.mass, variable) / prior.mass
        return prior.diff(expression, variable) + sp.diff(expression, ratio) * of_ratio

    total = change(density * ratio, lam)
    for u, f, other in zip(points, own, anyone, strict=True):
        mean = prior.mean(other.diff(lam))
        total -= change(density * (mean - f.diff(lam) * (ratio + 1)), u)
        x, X = f / sp.exp(lam / 2), other / sp.exp(lam / 2)
        r, r_rate = x - prior.mean(X), x.diff(lam) - prior.mean(X.diff(lam))
        total -= density * sp.exp(lam) * (half * r**2 + cross * r * r_rate)
    return (sp.expand(total / density),)


def _bound(share: Expr = sp.S.Half, tight: int = 2) -> tuple[Expr, ...]:
    """The integrand of L_inf,eta less that rate, at eta = 1 and where r' = k r; what is left at the two ends."""
    r, moved, k = sp.symbols("r r' k", positive=True)

    def integrand(level: Expr, of_rate: Expr) -> Expr:
        return snr / (2 * level) * ((1 + level) / 2 * r + of_rate) ** 2

    given, told, data = sp.symbols("q(z0|x) q(z0) p(x)", positive=True)
    decoder, end, own_end, prior = sp.symbols("p(x|z0) q(z1) q(z1|x) p(z1)", positive=True)
    inverse = given * data / told  # q(x|z0)
    left = -sp.log(decoder) + sp.log(own_end / prior) + sp.log(given / told) - sp.log(own_end / end)
    return (
        integrand(sp.S.One, moved) - snr * (r**2 / 2 + r * moved) - share * snr * moved**2,
        integrand(1 + tight * k, k * r) - snr * (r**2 / 2 + k * r**2),
        sp.expand_log(left + sp.log(data) - sp.log(inverse / decoder) - sp.log(end / prior)),
    )


THEOREMS = (
    Theorem(
        name="calibration.pointwise_gap",
        statement=r"\frac{d}{d\lambda} E\left[\ln\frac{q(z_t|x)}{q(z_t)} \,\Big|\, x\right] = \mathrm{SNR}\,"
        r" E\left[\tfrac12 \|r\|^2 + r \cdot r' \mid x\right], \qquad r = x_t - E[x_t|z],\ r' = x_t' - E[x_t'|z]"
        "\n\n"
        r"L_0 + L_1 + L_\infty = -\ln p(x) + E\left[\ln\frac{q(x|z_0)}{p(x|z_0)} + \ln\frac{q(z_1)}{p(z_1)} \,\Big|\,"
        r" x\right] + \tfrac12 \int \mathrm{SNR}\, E\left[\|r'\|^2 \mid x\right] d\lambda",
        assumptions=r"Any prior and any encoder; every single $x$, not only the mean over the data; optimal heads,"
        r" $\eta = 1$; $d = 2$ written out. Where $r' = k r$, as with $x_t = A(\lambda) x$, the last term is gone at"
        r" $\eta^2 = 1 + 2k > 0$: with exact heads, as an untrained posterior head's are for independent values, the"
        r" ELBO is then $-\ln p(x)$ up to the two ends.",
        proof=r"$z/\sigma = f + \epsilon$ with $f = e^{\lambda/2} x_t$. Both densities are carried by continuity"
        r" equations, with $f'$ and $E[f'|z]$, and $\nabla \ln(q(z|x)/q(z)) = f - E[f|z]$; the flux, a Gaussian times a"
        r" polynomial, decays. Then $q(x|z_0) = q(z_0|x)\,p(x)/q(z_0)$.",
        residual=lambda: (*_rate(), *_bound()),
        controls={
            "moving input forgotten": lambda: _rate(cross=0),
            "sign of the cross term": lambda: _rate(cross=-1),
            "r^2 for r^2/2": lambda: _rate(half=sp.S.One),
            "gap without the half": lambda: _bound(share=sp.S.One),
            "eta^2 = 1 + k": lambda: _bound(tight=1),
        },
        computed_by=("diffenc_ct.elbo.infinite_depth_integrand",),
    ),
)
