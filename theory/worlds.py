r"""Closed-form worlds: Gaussian data with a linear encoder, and Gaussian mixtures.

$x \sim N(m, S)$ and $x_t = A(\lambda) x$ with $A' = dA/d\lambda$; $V = \alpha^2 A^2 S + \sigma^2$ is the variance of
$z_t$. Formulas are for one eigendirection; where $A$ and $S$ share no basis the matrix form is proved as well.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr, Matrix

from ._core import Formula, Theorem
from ._linear_world import THEOREMS as LINEAR_FLOW
from ._mixture_world import THEOREMS as MIXTURE
from ._moments import mean_over
from ._notation import (
    Density,
    alpha,
    alpha2,
    g,
    lam,
    log_normal,
    rho,
    sigma,
    sigma2,
    z,
)

S, A, e = sp.symbols("S A eta2", positive=True)
m, rate, x = sp.symbols("m A' x", real=True)
_a, _s = sp.symbols("alpha sigma", positive=True)
_V = _a**2 * A**2 * S + _s**2
_BOTH = {_a: alpha(g), _s: sigma(g)}
_WORLD = r"$x \sim N(m, S)$, $x_t = A x$, one direction; any $\alpha, \sigma$."


def _at(expression: Expr) -> Expr:
    return expression.subs(_BOTH)


def _joint() -> Density:
    return Density.normal(x, m, S) * Density.normal(z, _a * A * x, _s**2)


def posterior_mean(gain: Expr | None = None) -> Expr:
    """E[x|z]."""
    gain = _a * A * S / _V if gain is None else gain
    return m + gain * (z - _a * A * m)


def _density(variance: Expr = _V) -> tuple[Expr, ...]:
    return _joint().integrate(x).minus(Density.normal(z, _a * A * m, variance))


def _posterior(gain: Expr | None = None) -> tuple[Expr, ...]:
    log_joint = _joint().exponent
    return (
        sp.diff(log_joint, x).subs(x, posterior_mean(gain)),
        -1 / sp.diff(log_joint, x, 2) - S * _s**2 / _V,
        *_matrix_posterior(),
    )


def _matrix_world() -> tuple[Matrix, Matrix]:
    both, other = sp.Symbol("S12", real=True), sp.Symbol("S22", positive=True)
    encoder = Matrix(2, 2, sp.symbols("A11 A12 A21 A22", real=True))
    return Matrix([[S, both], [both, other]]), encoder


def _matrix_posterior(transpose: bool = True) -> tuple[Expr, ...]:
    """(S - alpha^2 S A^T V^-1 A S) (S^-1 + SNR A^T A) = I, times the determinants."""
    prior, encoder = _matrix_world()
    turned = encoder.T if transpose else encoder
    variance = _a**2 * encoder * prior * encoder.T + _s**2 * sp.eye(2)
    known = encoder.T * encoder * _a**2 / _s**2
    # The product is I + S known - alpha^2 S A^T V^-1 A (I + S known).
    ahead = sp.eye(2) + prior * known
    inverse = variance.adjugate()
    product = variance.det() * (ahead - sp.eye(2))
    product -= _a**2 * prior * turned * inverse * encoder * ahead
    return tuple(sp.expand(each * _s**2) for each in product)


def covariances() -> tuple[Expr, Expr, Expr]:
    """a, b, c: of x_t, of x_t', and between them."""
    spread = S * _s**2 / _V
    return A**2 * spread, rate**2 * spread, A * rate * spread


def _noises() -> tuple[tuple[sp.Symbol, ...], Expr, Expr]:
    """x and z from independent standard normals, to take expectations of polynomials."""
    noises = sp.symbols("n1 n2", real=True)
    data = m + sp.sqrt(S) * noises[0]
    return noises, data, _a * A * data + _s * noises[1]


def _covariances(slope: int = 1) -> tuple[Expr, ...]:
    noises, data, latent = _noises()
    off = data - posterior_mean().subs(z, latent)
    a, b, c = covariances()
    return (
        mean_over((A * off) ** 2, noises) - a,
        mean_over((rate * off) ** 2, noises) - b,
        mean_over(A * rate * off**2, noises) - slope * c,
    )


def integrand() -> Expr:
    """The rate of L_inf,eta per unit of lambda, with optimal heads."""
    kappa = (1 + e) / 2
    return _a**2 / (2 * e) * (kappa * A + rate) ** 2 * S / _V


def _integrand(kappa: Expr | None = None) -> Expr:
    noises, data, latent = _noises()
    kappa = (1 + e) / 2 if kappa is None else kappa
    known = posterior_mean().subs(z, latent)
    heads = A * known, rate * known
    off = kappa * (A * data - heads[0]) + rate * data - heads[1]
    return _a**2 / _s**2 / (2 * e) * mean_over(off**2, noises) - integrand()


_as, _ss = sp.symbols("alpha_s sigma_s", positive=True)
_As, _delta = sp.symbols("A_s delta", positive=True)


def step_ratio(bias: int = 1) -> Expr:
    """E||Delta||^2/S^2 per direction, with heads that extrapolate along their tangent."""
    kept = (_as * _As / _ss - rho * _a * A / _s) ** 2 * S * _s**2 / _V
    tangent = (_as / _ss * (_As - A - _delta * rate)) ** 2 * (m**2 + (_a * A * S) ** 2 / _V)
    return (kept + bias * tangent) / (1 - rho**2)


def _step(bias: int = 1, sign: int = 1) -> Expr:
    noises, data, latent = _noises()
    known = posterior_mean().subs(z, latent)
    ahead = (A + sign * _delta * rate) * known
    off = _as * (_As * data - ahead) - rho * _ss / _s * _a * (A * data - A * known)
    return mean_over(off**2, noises) / (_ss**2 * (1 - rho**2)) - step_ratio(bias)


def _information(cross: int = 1) -> tuple[Expr, ...]:
    scale = sp.Function("A", positive=True)(lam)
    snr = sp.exp(lam)
    value = sp.log(1 + snr * scale**2 * S) / 2
    spread = S / (1 + snr * scale**2 * S)
    expected = snr * (scale**2 / 2 + cross * scale * scale.diff(lam)) * spread
    return value.diff(lam) - expected, _matrix_information(cross)


def _matrix_information(cross: int = 1) -> Expr:
    """Jacobi's formula against the traces, times the determinant of I + SNR A S A^T."""
    prior, encoder = _matrix_world()
    slope = Matrix(2, 2, sp.symbols("B11 B12 B21 B22", real=True))
    snr = sp.Symbol("SNR", positive=True)
    signal = snr * encoder * prior * encoder.T
    inside = sp.eye(2) + signal
    moved = snr * (slope * prior * encoder.T + encoder * prior * slope.T)
    value = (inside.adjugate() * (signal + moved)).trace() / 2
    # A Cov(x|z) = (I + SNR A S A^T)^-1 A S
    known = inside.adjugate() * encoder * prior
    a, c = (known * encoder.T).trace(), (known * slope.T).trace()
    return sp.expand(value - snr * (a / 2 + cross * c))


def ends(centred: bool = False, noise: int = 1) -> tuple[Expr, Expr]:
    """E L_0 and E L_1."""
    second = S if centred else S + m**2
    snr = _a**2 / _s**2
    start = (sp.log(2 * sp.pi / snr) + noise + snr * (1 - A) ** 2 * second) / 2
    return start, (_a**2 * A**2 * second + _s**2 - 1 - sp.log(_s**2)) / 2


def _ends(centred: bool = False, noise: int = 1) -> tuple[Expr, ...]:
    noises, data, latent = _noises()
    width = _s / _a
    start = sp.log(2 * sp.pi * width**2) / 2 + (data - latent / _a) ** 2 / (2 * width**2)
    point = _a * A * data + _s * sp.Symbol("n3", real=True)
    logs = log_normal(x, _a * A * data, _s**2) - log_normal(x, 0, 1)
    end = logs.subs(x, point)
    start_claim, end_claim = ends(centred, noise)
    three = (*noises, sp.Symbol("n3", real=True))
    return (
        sp.expand_log(mean_over(start, noises) - start_claim),
        sp.expand_log(mean_over(sp.expand(sp.expand_log(end)), three) - end_claim),
    )


THEOREMS = (
    Theorem(
        name="worlds.gaussian_density",
        statement=r"q_t(z) = N(z; \alpha A m, V), \qquad V = \alpha^2 A^2 S + \sigma^2",
        assumptions=_WORLD,
        proof="Integrate the data out by completing the square.",
        residual=_density,
        controls={
            "alpha for alpha^2": lambda: _density(_a * A**2 * S + _s**2),
            "A for A^2": lambda: _density(_a**2 * A * S + _s**2),
        },
        computed_by=(
            "diffenc_ct.worlds.GaussianWorld.marginal",
            "diffenc_ct.worlds.GaussianWorld.log_q",
        ),
        formula=lambda: Formula((z, m, S, A, g), _at(log_normal(z, _a * A * m, _V))),
    ),
    Theorem(
        name="worlds.gaussian_posterior",
        statement=r"E[x|z] = m + \frac{\alpha A S}{V}(z - \alpha A m), \quad \operatorname{Var}(x|z) ="
        r" \frac{S\sigma^2}{V},\qquad E[x_t|z] = A\, E[x|z],\ \ E[x_t'|z] = A' E[x|z]",
        assumptions=_WORLD
        + r" In general, $S - \alpha^2 S A^T V^{-1} A S = (S^{-1} + \mathrm{SNR} A^T A)^{-1}$ for matrices"
        r" ($2 \times 2$ written out).",
        proof="The log joint is quadratic in $x$: its stationary point and curvature.",
        residual=_posterior,
        controls={
            "gain without alpha": lambda: _posterior(A * S / _V),
            "gain over sigma^2": lambda: _posterior(_a * A * S / _s**2),
            "A for its transpose": lambda: _matrix_posterior(transpose=False),
        },
        computed_by=(
            "diffenc_ct.worlds.GaussianWorld.estimates",
            "diffenc_ct.worlds.GaussianWorld.posterior_covariance",
        ),
        formula=lambda: Formula(
            (z, m, S, A, rate, g),
            sp.Tuple(_at(A * posterior_mean()), _at(rate * posterior_mean())),
        ),
    ),
    Theorem(
        name="worlds.gaussian_covariances",
        statement=r"a = A^2 \frac{S\sigma^2}{V}, \qquad c = A A' \frac{S\sigma^2}{V}, \qquad b = A'^2"
        r" \frac{S\sigma^2}{V}",
        assumptions=_WORLD,
        proof="Second moments of the residuals over data and noise.",
        residual=_covariances,
        controls={"sign of c": lambda: _covariances(slope=-1)},
        computed_by=("diffenc_ct.worlds.GaussianWorld.covariances",),
        formula=lambda: Formula((S, A, rate, g), sp.Tuple(*map(_at, covariances()))),
    ),
    Theorem(
        name="worlds.gaussian_integrand",
        statement=r"R(\eta^2) = \frac{\alpha^2 S (\kappa A + A')^2}{2\eta^2 V}, \qquad \kappa = \tfrac12 (1 + \eta^2)",
        assumptions=_WORLD + r" Per unit of $\lambda$, optimal heads.",
        proof=r"$\frac{\mathrm{SNR}}{2\eta^2} E[(\kappa r + r')^2]$ by second moments.",
        residual=_integrand,
        controls={"kappa = 1": lambda: _integrand(kappa=sp.S.One)},
        computed_by=("diffenc_ct.worlds.GaussianWorld.infinite_depth_rate",),
        formula=lambda: Formula((S, A, rate, e, g), _at(integrand())),
    ),
    Theorem(
        name="worlds.gaussian_step",
        statement=r"\frac{E\Delta^2}{S^2} = \frac{1}{1 - \rho^2} \left[\left(\frac{\alpha_s A_s}{\sigma_s} - \rho"
        r" \frac{\alpha_t A_t}{\sigma_t}\right)^2 \frac{S\sigma_t^2}{V} + \frac{\alpha_s^2}{\sigma_s^2} (A_s -"
        r" A_t - \delta A_t')^2 \left(m^2 + \frac{\alpha_t^2 A_t^2 S^2}{V}\right)\right]",
        assumptions=_WORLD
        + r" $\delta = \lambda_s - \lambda_t$; optimal heads, $\hat x_s = \hat x + \delta \hat r$; on the"
        r" left $S^2 = \sigma_s^2(1 - \rho^2)$. $w_* = 1 + E\Delta^2/S^2$.",
        proof=r"$x = E[x|z] + \xi$ with the two parts uncorrelated.",
        residual=_step,
        controls={
            "bias of the tangent forgotten": lambda: _step(bias=0),
            "rate by gamma": lambda: _step(sign=-1),
        },
        computed_by=(
            "diffenc_ct.worlds.GaussianWorld.step_excess",
            "diffenc_ct.worlds.GaussianWorld.finite_depth_loss",
        ),
        formula=lambda: Formula(
            (m, S, _As, A, rate, rho, sp.Symbol("gamma_s", real=True), g),
            _at(
                step_ratio().subs(
                    {
                        _as: alpha(sp.Symbol("gamma_s", real=True)),
                        _ss: sigma(sp.Symbol("gamma_s", real=True)),
                        _delta: g - sp.Symbol("gamma_s", real=True),
                    }
                )
            ),
        ),
    ),
    Theorem(
        name="worlds.gaussian_mutual_information",
        statement=r"I(x; z_t) = \tfrac12 \ln(1 + \mathrm{SNR} A^2 S), \qquad \frac{dI}{d\lambda} ="
        r" \mathrm{SNR}\left(\frac a2 + c\right)",
        assumptions=_WORLD
        + r" $\frac12 \ln\det(I + \mathrm{SNR} A S A^T)$ for matrices ($2 \times 2$ written out).",
        proof="Differentiate; Jacobi's formula for the determinant.",
        residual=_information,
        controls={
            "moving input forgotten": lambda: _information(cross=0),
            "sign of c": lambda: _information(cross=-1),
        },
        computed_by=("diffenc_ct.worlds.GaussianWorld.mutual_information",),
        formula=lambda: Formula((S, A, g), sp.log(1 + alpha2(g) / sigma2(g) * A**2 * S) / 2),
    ),
    Theorem(
        name="worlds.gaussian_ends",
        statement=r"E L_0 = \tfrac12 \left[\ln 2\pi + \gamma_0 + 1 + \mathrm{SNR} (1 - A)^2 (S + m^2)\right],"
        r" \qquad E L_1 = \tfrac12 \left[\alpha^2 A^2 (S + m^2) + \sigma^2 - 1 - \ln\sigma^2\right]",
        assumptions=_WORLD + r" Continuous decoder $N(z_0/\alpha_0, e^{\gamma_0})$.",
        proof="Second moments of data and noise.",
        residual=_ends,
        controls={
            "variance for second moment": lambda: _ends(centred=True),
            "decoder's noise forgotten": lambda: _ends(noise=0),
        },
        computed_by=(
            "diffenc_ct.worlds.GaussianWorld.reconstruction_loss",
            "diffenc_ct.worlds.GaussianWorld.latent_loss",
        ),
        formula=lambda: Formula((m, S, A, g), sp.Tuple(*map(_at, ends()))),
    ),
    *LINEAR_FLOW,
    *MIXTURE,
)
