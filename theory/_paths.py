r"""What errors of the heads cost the marginals, and what the ELBO charges for them. Part of the section on likelihood.

Data and model are carried from noise to data by drifts v and w (per unit of depth t) and by noise of variance nu =
eta^2 beta per unit of t; nu = 0 is the probability flow.
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy as sp
from sympy import Expr, Matrix, Symbol

from ._core import Theorem
from ._moments import mean_over
from ._notation import alpha, eta2, g, rate, sigma2, t, z

Z = sp.symbols("z1 z2", real=True)
_NU, N1 = Symbol("nu", positive=True), Symbol("n1", real=True)
KAPPA = (1 + eta2) / 2


def gradient(f: Expr) -> list[Expr]:
    return [f.diff(each) for each in Z]


def dot(a: Sequence[Expr], b: Sequence[Expr]) -> Expr:
    return sum(i * j for i, j in zip(a, b, strict=True))


def _general_rate(half: Expr, score: int) -> Expr:
    """(d/dt of q ln(q/p) + a divergence - what the theorem averages)/q, for any densities and drifts in the plane."""
    log_q, log_p = (sp.Function(name, real=True)(*Z) for name in ("A", "B"))
    drifts = [[sp.Function(f"{n}{i}", real=True)(*Z) for i in (1, 2)] for n in ("v", "w")]
    # over its density, the flux of each: v + nu/2 grad ln
    flux_q, flux_p = (
        [v + _NU / 2 * s for v, s in zip(drift, gradient(log), strict=True)]
        for drift, log in zip(drifts, (log_q, log_p), strict=True)
    )

    def spread(flux: Sequence[Expr], log: Expr) -> Expr:
        """The divergence of density times flux, over the density."""
        return sum(f.diff(x) for f, x in zip(flux, Z, strict=True)) + dot(flux, gradient(log))

    ratio = log_q - log_p
    change = -spread(flux_q, log_q) * (ratio + 1) + spread(flux_p, log_p)
    flux = [f * (ratio + 1) - h for f, h in zip(flux_q, flux_p, strict=True)]
    slopes = [a - score * b for a, b in zip(gradient(log_q), gradient(log_p), strict=True)]
    apart = [v - w for v, w in zip(*drifts, strict=True)]
    return change + spread(flux, log_q) - dot(apart, slopes) - half * _NU * dot(slopes, slopes)


def _gaussian_rate(half: Expr, score: int) -> Expr:
    """The same for N(m, w^2) and N(n, r^2) in one dimension, with any moments and hence any affine drifts."""
    m, w, n, r = (sp.Function(name, positive=True)(t) for name in ("m", "w", "n", "r"))
    kl = sp.log(r / w) + (w**2 + (m - n) ** 2) / (2 * r**2) - sp.S.Half
    drift_q, drift_p = (
        mean.diff(t) + (2 * s * s.diff(t) + _NU) / (2 * s**2) * (z - mean)
        for mean, s in ((m, w), (n, r))
    )
    slope = -(z - m) / w**2 + score * (z - n) / r**2
    averaged = (drift_q - drift_p) * slope + half * _NU * slope**2
    return kl.diff(t) - mean_over(averaged.subs(z, m + w * N1), (N1,))


def _marginal_rate(half: Expr = sp.S.Half, score: int = 1) -> tuple[Expr, ...]:
    return sp.expand(_general_rate(half, score)), _gaussian_rate(half, score)


def _drift(x_hat: Expr, r_hat: Expr) -> Expr:
    """The reverse drift for any eta, of section *dynamics*."""
    pull = KAPPA * z / sigma2(g) - alpha(g) / sigma2(g) * (KAPPA * x_hat + r_hat)
    return sigma2(g) * rate * (-z / 2 + pull)


def _square(sign: int, power: int) -> Expr:
    """-(dKL/dt) of the marginals against the ELBO's integrand less a square, at one z and in one direction."""
    x, r, x_hat, r_hat, u = sp.symbols("x r xhat rhat u", real=True)
    missed = KAPPA * (x - x_hat) + r - r_hat
    noise = eta2 * sigma2(g) * rate
    falls = -((_drift(x, r) - _drift(x_hat, r_hat)) * u + noise / 2 * u**2)
    charged = rate * sp.exp(-g) / (2 * eta2) * missed**2
    kept = noise / 2 * (u - sign * alpha(g) * missed / (sigma2(g) * eta2**power)) ** 2
    return falls - (charged - kept)


def _chain(given: int) -> tuple[Expr, ...]:
    """Two Gaussian steps z_1 -> z_0 of the same noise: KL of the pair, from the noise and from the data."""
    u, w, r, a, b = sp.symbols("u w r a b", positive=True)

    def pair(start: Expr, slope: Expr) -> Matrix:
        return Matrix([[slope**2 * start + r, slope * start], [slope * start, start]])

    def kl(q: Matrix, p: Matrix) -> Expr:
        determinants = sp.log(sp.factor(p.det())) - sp.log(sp.factor(q.det()))
        return ((p.inv() * q).trace() - q.rows + determinants) / 2

    q, p = pair(u, b), pair(w, a)
    gain_q, gain_p = q[0, 1] / q[0, 0], p[0, 1] / p[0, 0]
    left_q, left_p = (sp.factor(c.det()) / c[0, 0] for c in (q, p))
    inner = kl(Matrix([[left_q]]), Matrix([[left_p]]))
    inner += given * (gain_q - gain_p) ** 2 * q[0, 0] / (2 * left_p)
    return (
        kl(q, p) - kl(Matrix([[u]]), Matrix([[w]])) - (b - a) ** 2 * u / (2 * r),
        kl(q, p) - kl(q[:1, :1], p[:1, :1]) - inner,
    )


def _path(sign: int = 1, power: int = 1, given: int = 1) -> tuple[Expr, ...]:
    return (_square(sign, power), *_chain(given))


THEOREMS = (
    Theorem(
        name="likelihood.marginal_kl_rate",
        statement=r"\frac{d}{dt} KL(q_t\|p_t) = E_q\left[(v - w)\cdot u\right] + \tfrac\nu2 E_q\|u\|^2, \qquad u ="
        r" \nabla \ln\frac{q_t}{p_t}, \qquad \partial_t q = -\nabla\cdot(v q) - \tfrac\nu2 \Delta q,\quad \partial_t"
        r" p = -\nabla\cdot(w p) - \tfrac\nu2 \Delta p",
        assumptions=r"Any densities and drifts for which $q v \ln(q/p)$, $q w$ and their like vanish at infinity;"
        r" $\nu = 0$ for two probability flows, $\nu = \eta^2\beta$ for two reverse SDEs; $d = 2$ written out, and"
        r" in one dimension Gaussians of any moments, integrated.",
        proof=r"Both equations put into $\partial_t(q \ln(q/p))$, integrated by parts. The flow's KL at depth 0 is"
        r" that at depth 1 plus $\tfrac12\int\beta\,E_q[(\nabla\ln q - \hat s)\cdot u]\,dt$, where $\hat s ="
        r" (\alpha\hat x - z)/\sigma^2$ and the encoder does not move: $v - w = -\frac\beta2(\nabla\ln q - \hat s)$."
        r" An error pays only for its part along what it has done to the density.",
        residual=_marginal_rate,
        controls={
            "nu for nu/2": lambda: _marginal_rate(half=sp.S.One),
            "score of q alone": lambda: _marginal_rate(score=0),
        },
        computed_by=("diffenc_ct.likelihood.flow.log_density",),
    ),
    Theorem(
        name="likelihood.path_kl",
        statement=r"KL(q_0\|p_0) + \tfrac12 \int_0^1 \eta^2\beta\, E\left\|u - \frac{\alpha(\kappa a + b)}{\eta^2"
        r" \sigma^2}\right\|^2 dt = KL(q_1\|p_1) + \tfrac12 \int_0^1 \frac{\gamma'\,\mathrm{SNR}}{\eta^2}\,"
        r" E\|\kappa a + b\|^2 dt"
        "\n\n"
        r"KL(q_0\|p_0) + E\,KL(q(z_1|z_0)\|p(z_1|z_0)) = KL(q_1\|p_1) + E\,KL(q(z_0|z_1)\|p(z_0|z_1))",
        assumptions=r"$a = E[x_t|z] - \hat x$, $b = E[x_t'|z] - \hat r$; $p_t$ the marginals of the SDE model, $u$"
        r" of `likelihood.marginal_kl_rate`; any encoder, any $\eta > 0$, componentwise. Below, the same for one"
        r" step of Gaussians of the same noise.",
        proof=r"Drifts that differ by $-\alpha\gamma'(\kappa a + b)$, and a square completed; the chain rule of KL."
        r" On the right is the price of the heads' errors in the ELBO, the KL of paths; on the left the KL of what"
        r" is generated, and the KL of paths with a given end. So the ELBO bounds the SDE model, and is loose at"
        r" least by the second term.",
        residual=_path,
        controls={
            "sign of the error": lambda: _path(sign=-1),
            "error not over eta^2": lambda: _path(power=0),
            "means of z_1 given z_0 forgotten": lambda: _path(given=0),
        },
        computed_by=("diffenc_ct.elbo.infinite_depth_integrand", "diffenc_ct.dynamics.ReverseSDE"),
    ),
)
