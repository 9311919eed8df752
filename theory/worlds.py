r"""Closed-form worlds: Gaussian data with a linear encoder, and Gaussian mixtures.

$x \sim N(m, S)$ and $x_t = A(\lambda) x$ with $A' = dA/d\lambda$; $V = \alpha^2 A^2 S + \sigma^2$ is the variance of $z_t$.
Formulas are for one eigendirection; where $A$ and $S$ share no basis the matrix form is proved as well.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr, Matrix

from theory._core import Formula, Theorem
from theory._notation import (
    alpha,
    alpha2,
    g,
    gamma,
    gaussian_integral,
    lam,
    log_normal,
    rho,
    sigma,
    sigma2,
    t,
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


def _log_joint(weight: int = 1) -> Expr:
    return log_normal(x, m, S) + weight * log_normal(z, _a * A * x, _s**2)


def posterior_mean(gain: Expr | None = None) -> Expr:
    """E[x|z]."""
    gain = _a * A * S / _V if gain is None else gain
    return m + gain * (z - _a * A * m)


def _density(variance: Expr = _V) -> Expr:
    return gaussian_integral(_log_joint(), x) - log_normal(z, _a * A * m, variance)


def _posterior(gain: Expr | None = None) -> tuple[Expr, ...]:
    mean = posterior_mean(gain)
    return (
        sp.diff(_log_joint(), x).subs(x, mean),
        -1 / sp.diff(_log_joint(), x, 2) - S * _s**2 / _V,
        *_matrix_posterior(),
    )


def _matrix_world() -> tuple[Matrix, Matrix, Matrix]:
    prior = Matrix([[S, sp.Symbol("S12")], [sp.Symbol("S12"), sp.Symbol("S22", positive=True)]])
    encoder = Matrix(2, 2, sp.symbols("A11 A12 A21 A22", real=True))
    return prior, encoder, _a**2 * encoder * prior * encoder.T + _s**2 * sp.eye(2)


def _matrix_posterior(transpose: bool = True) -> tuple[Expr, ...]:
    """S - G alpha A S with G = alpha S A^T V^-1 inverts S^-1 + SNR A^T A."""
    prior, encoder, variance = _matrix_world()
    turned = encoder.T if transpose else encoder
    inverse = variance.adjugate() / variance.det()
    cov = prior - _a**2 * prior * turned * inverse * encoder * prior
    precision = prior.adjugate() / prior.det() + _a**2 / _s**2 * encoder.T * encoder
    return tuple(sp.cancel(each) for each in cov * precision - sp.eye(2))


def covariances() -> tuple[Expr, Expr, Expr]:
    """a, b, c: of x_t, of x_t', and between them."""
    spread = S * _s**2 / _V
    return A**2 * spread, rate**2 * spread, A * rate * spread


def _noises() -> tuple[tuple[sp.Symbol, ...], Expr, Expr]:
    """x and z from independent standard normals, to take expectations of polynomials."""
    noises = sp.symbols("n1 n2", real=True)
    data = m + sp.sqrt(S) * noises[0]
    return noises, data, _a * A * data + _s * noises[1]


def _mean(polynomial: Expr, noises: tuple[sp.Symbol, ...]) -> Expr:
    moment = {0: 1, 1: 0, 2: 1}
    terms = sp.Poly(sp.expand(polynomial), *noises).terms()
    return sum(c * sp.prod(moment[n] for n in powers) for powers, c in terms)


def _covariances(slope: int = 1) -> tuple[Expr, ...]:
    noises, data, latent = _noises()
    off = data - posterior_mean().subs(z, latent)
    a, b, c = covariances()
    return (
        _mean((A * off) ** 2, noises) - a,
        _mean((rate * off) ** 2, noises) - b,
        _mean(A * rate * off**2, noises) - slope * c,
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
    return _a**2 / _s**2 / (2 * e) * _mean(off**2, noises) - integrand()


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
    return _mean(off**2, noises) / (_ss**2 * (1 - rho**2)) - step_ratio(bias)


def _information(cross: int = 1) -> tuple[Expr, ...]:
    scale = sp.Function("A", positive=True)(lam)
    snr = sp.exp(lam)
    value = sp.log(1 + snr * scale**2 * S) / 2
    spread = S / (1 + snr * scale**2 * S)
    expected = snr * (scale**2 / 2 + cross * scale * scale.diff(lam)) * spread
    return value.diff(lam) - expected, *_matrix_information(cross)


def _matrix_information(cross: int = 1) -> tuple[Expr, ...]:
    prior, encoder, _ = _matrix_world()
    slope = Matrix(2, 2, sp.symbols("B11 B12 B21 B22", real=True))
    snr = sp.Symbol("SNR", positive=True)
    inside = sp.eye(2) + snr * encoder * prior * encoder.T
    change = snr * encoder * prior * encoder.T
    change += snr * (slope * prior * encoder.T + encoder * prior * slope.T)
    value = (inside.adjugate() * change).trace() / (2 * inside.det())
    cov = prior - snr * prior * encoder.T * inside.adjugate() * encoder * prior / inside.det()
    a, c = (encoder * cov * encoder.T).trace(), (encoder * cov * slope.T).trace()
    return (sp.cancel(value - snr * (a / 2 + cross * c)),)


_w = sp.symbols("w1 w2", positive=True)
_ms, _Ss = sp.symbols("m1 m2", real=True), sp.symbols("S1 S2", positive=True)


def mixture(shared: bool = False) -> tuple[Expr, Expr, Expr]:
    """q_t(z), its score, and E[x|z], of a mixture of two Gaussians."""
    parts, scores, means = [], [], []
    for weight, mean, spread in zip(_w, _ms, _Ss, strict=True):
        variance = _a**2 * A**2 * spread + _s**2
        off = z - _a * A * mean
        parts.append(weight * sp.exp(log_normal(z, _a * A * mean, variance)))
        scores.append(-off / variance)
        means.append(mean + _a * A * spread / variance * off)
    total = sum(parts)
    shares = _w if shared else [p / total for p in parts]
    score = sum(share * each for share, each in zip(shares, scores, strict=True))
    known = sum(share * each for share, each in zip(shares, means, strict=True))
    return total, score, known


def _mixture_score(shared: bool = False) -> tuple[Expr, ...]:
    total, score, _ = mixture(shared)
    return (total.diff(z) - total * score,)


def _mixture_posterior(shared: bool = False, power: int = 2) -> tuple[Expr, ...]:
    total, _, known = mixture(shared)
    source = sp.Symbol("k", real=True)
    joint = sp.S.Zero
    for weight, mean, spread in zip(_w, _ms, _Ss, strict=True):
        tilted = log_normal(x, mean, spread) + log_normal(z, _a * A * x, _s**2) + source * x
        joint += weight * sp.exp(gaussian_integral(tilted, x))
    bayes = joint.diff(source).subs(source, 0) - known * joint.subs(source, 0)
    tweedie = _a * A * known * total - z * total - _s**power * total.diff(z)
    return _collect(bayes), _collect(tweedie)


def _collect(expression: Expr) -> Expr:
    """Exponentials of the same component have equal exponents and prefactors: bring them to one form."""
    form = sp.expand(expression)
    form = form.replace(lambda u: isinstance(u, sp.exp), lambda u: _split(u.args[0]))
    return sp.simplify(form)


def _split(exponent: Expr) -> Expr:
    logs = sum(u for u in sp.Add.make_args(sp.expand(exponent)) if u.has(sp.log))
    rest = sp.together(sp.expand(exponent) - logs)
    return sp.exp(sp.factor(rest)) * sp.powdenest(sp.expand(sp.exp(logs)), force=True)


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


def _euler(power: int = 2) -> tuple[Expr, ...]:
    """One Euler step of dz = (F z + c) dt, and the KL of what it made from the exact Gaussian."""
    F, c, h, mean = sp.symbols("F c h mu", real=True)
    start, spread, target, width = sp.symbols("v s n r", positive=True)
    noise = sp.Symbol("n1", real=True)
    moved = (1 + h * F) * (mean + sp.sqrt(start) * noise) + h * c
    average = _mean(moved, (noise,))
    point = m + spread * noise
    logs = log_normal(point, m, spread**2) - log_normal(point, target, width**2)
    kl = sp.log(width / spread) + (spread**2 + (m - target) ** 2) / (2 * width**power) - sp.S.Half
    return (
        average - ((1 + h * F) * mean + h * c),
        _mean((moved - average) ** 2, (noise,)) - (1 + h * F) ** 2 * start,
        sp.expand_log(_mean(sp.expand_log(logs), (noise,)) - kl),
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
        formula=lambda: Formula((S, A, rate, g), sp.Tuple(*map(_at, covariances()))),
    ),
    Theorem(
        name="worlds.gaussian_integrand",
        statement=r"R(\eta^2) = \frac{\alpha^2 S (\kappa A + A')^2}{2\eta^2 V}, \qquad \kappa = \tfrac12 (1 + \eta^2)",
        assumptions=_WORLD + r" Per unit of $\lambda$, optimal heads.",
        proof=r"$\frac{\mathrm{SNR}}{2\eta^2} E[(\kappa r + r')^2]$ by second moments.",
        residual=_integrand,
        controls={"kappa = 1": lambda: _integrand(kappa=sp.S.One)},
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
        formula=lambda: Formula((S, A, g), sp.log(1 + alpha2(g) / sigma2(g) * A**2 * S) / 2),
    ),
    Theorem(
        name="worlds.mixture_score",
        statement=r"q_t(z) = \sum_i w_i N(z; \alpha A m_i, V_i), \qquad \nabla \log q_t = \sum_i \pi_i(z)"
        r" \frac{\alpha A m_i - z}{V_i}, \qquad \pi_i \propto w_i N(z; \alpha A m_i, V_i)",
        assumptions=r"Two components written out, one direction; $A = 1$ (identity) or $\alpha^2$ (non-trainable)"
        r" or any other.",
        proof="Derivative of a logarithm of a sum.",
        residual=_mixture_score,
        controls={"prior weights for responsibilities": lambda: _mixture_score(shared=True)},
        formula=lambda: Formula(
            (z, *_w, *_ms, *_Ss, A, g),
            sp.Tuple(_at(sp.log(mixture()[0])), _at(mixture()[1])),
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
            "sigma for sigma^2": lambda: _mixture_posterior(power=1),
        },
        formula=lambda: Formula((z, *_w, *_ms, *_Ss, A, g), _at(mixture()[2])),
    ),
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
