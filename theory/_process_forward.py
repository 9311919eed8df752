"""The process forwards in time, given the data: equation, marginal, transition."""

from __future__ import annotations

import sympy as sp
from sympy import Expr, Symbol

from ._core import Formula, Theorem
from ._notation import (
    Density,
    alpha,
    alpha2,
    beta,
    g,
    gamma,
    gs,
    gt,
    log_normal,
    rate,
    s,
    sigma,
    sigma2,
    t,
    xrate,
    xs,
    xt,
    z,
    zs,
    zt,
)

_encoded = sp.Function("x_phi", real=True)


def _x(time: Symbol) -> Expr:
    """x_t, an encoder that sees depth through lambda = -gamma only."""
    return _encoded(-gamma(time))


def _a(time: Symbol) -> Expr:
    return alpha(gamma(time))


def _s2(time: Symbol) -> Expr:
    return sigma2(gamma(time))


def _drift(point: Expr, follow: int = 1, half: Expr = sp.S.Half) -> Expr:
    return -half * beta(t) * point + follow * _a(t) * _x(t).diff(t)


def _moments(follow: int = 1, noise: int = 1) -> tuple[Expr, ...]:
    """Mean and variance equations of dz = drift dt + sqrt(beta) dw, at alpha x_t and sigma^2."""
    mean, variance = _a(t) * _x(t), _s2(t)
    return (
        mean.diff(t) - _drift(mean, follow),
        variance.diff(t) - (-beta(t) * variance + noise * beta(t)),
    )


def _fokker_planck(follow: int = 1, diffusion: Expr = sp.S.Half) -> Expr:
    """[dq/dt + d(drift q)/dz - beta/2 d2q/dz2] / q for q = N(alpha x_t, sigma^2)."""
    log_q = log_normal(z, _a(t) * _x(t), _s2(t))
    drift, slope = _drift(z, follow), log_q.diff(z)
    transport = drift.diff(z) + drift * slope
    spread = slope.diff(z) + slope**2
    return log_q.diff(t) + transport - diffusion * beta(t) * spread


def _transition_mean(start: Expr, early: Symbol, late: Symbol, sign: int = 1) -> Expr:
    return _a(late) / _a(early) * start + sign * _a(late) * (_x(late) - _x(early))


def _transition_variance(early: Symbol, late: Symbol) -> Expr:
    return _s2(late) - (_a(late) / _a(early)) ** 2 * _s2(early)


def _transition(sign: int = 1) -> tuple[Expr, ...]:
    """From a point at s: initial values, and the moment equations in t."""
    mean, variance = _transition_mean(zs, s, t, sign), _transition_variance(s, t)
    return (
        mean.subs(t, s) - zs,
        mean.diff(t) - _drift(mean),
        variance.subs(t, s),
        variance.diff(t) + beta(t) * variance - beta(t),
    )


def _step(point: Expr, start: Expr, early: str, late: str, sign: int = 1) -> Density:
    """q(z_late | z_early, x) with alpha, sigma and the encoder's output free at each depth."""
    ratio = _free("alpha", late) / _free("alpha", early)
    mean = ratio * start + sign * _free("alpha", late) * (_at_depth(late) - _at_depth(early))
    return Density.normal(
        point, mean, _free("sigma", late) ** 2 - ratio**2 * _free("sigma", early) ** 2
    )


def _free(name: str, depth: str) -> Symbol:
    return sp.Symbol(f"{name}_{depth}", positive=True)


def _at_depth(depth: str) -> Symbol:
    return sp.Symbol(f"x_{depth}", real=True)


def _marginal(point: Expr, depth: str) -> Density:
    return Density.normal(
        point, _free("alpha", depth) * _at_depth(depth), _free("sigma", depth) ** 2
    )


def _marginalised(sign: int = 1) -> tuple[Expr, Expr]:
    """q(z_t | z_s) q(z_s) integrated over z_s, less q(z_t)."""
    joint = _step(zt, zs, "s", "t", sign) * _marginal(zs, "s")
    return joint.integrate(zs).minus(_marginal(zt, "t"))


def _composed(sign: int = 1) -> tuple[Expr, Expr]:
    """Two transitions r -> s -> t with the point at s integrated out, less the one r -> t."""
    joint = _step(zt, zs, "s", "t", sign) * _step(zs, z, "r", "s")
    return joint.integrate(zs).minus(_step(zt, z, "r", "t"))


def _stable_variance(level: Expr, sign: int = 1) -> Expr:
    textbook = sigma2(gt) - alpha2(gt) / alpha2(gs) * sigma2(gs)
    return textbook + level * (sp.exp(sign * (gs - gt)) - 1)


THEOREMS = (
    Theorem(
        name="process.forward_sde",
        statement=(
            r"dz = \left[ -\frac{\beta}{2}\,z + \alpha\,\frac{dx_t}{dt} \right] dt +"
            r" \sqrt\beta\,dw, \quad z_0 \sim q(z_0 \mid x) \quad\Longrightarrow\quad E[z_t] ="
            r" \alpha x_t, \quad \mathrm{Var}[z_t] = \sigma^2"
        ),
        assumptions=(
            r"General $\gamma(t)$ and encoder $x_\phi(\lambda)$, $dx_t/dt = -\gamma' x_t'$."
            " Scalar: drift and noise act on each dimension alone."
        ),
        proof=(
            r"The mean and variance equations of a linear diffusion, $m' = -\tfrac\beta2 m +"
            r" \alpha\,dx_t/dt$ and $V' = -\beta V + \beta$, hold for $m = \alpha x_t$, $V ="
            r" \sigma^2$, and so do the initial values."
        ),
        residual=_moments,
        controls={
            "sign of the encoder's drift": lambda: _moments(follow=-1),
            "encoder's drift missing": lambda: _moments(follow=0),
            "noise 2 beta": lambda: _moments(noise=2),
        },
        computed_by=("diffenc_ct.process.forward_drift",),
        formula=lambda: Formula(
            (z, xrate, g, rate), -sigma2(g) * rate / 2 * z - alpha(g) * rate * xrate
        ),
    ),
    Theorem(
        name="process.fokker_planck",
        statement=(
            r"\partial_t q + \partial_z\!\left[\left(-\frac\beta2 z + \alpha\frac{dx_t}{dt}\right)"
            r" q\right] - \frac\beta2\,\partial_z^2 q = 0, \qquad q = \mathcal N(z;\, \alpha x_t,"
            r" \sigma^2)"
        ),
        assumptions=(
            r"General $\gamma(t)$, $x_\phi(\lambda)$; the density of one dimension (the joint one"
            " is their product)."
        ),
        proof="Divide by $q$: a quadratic in $z$ whose three coefficients vanish.",
        residual=_fokker_planck,
        controls={
            "sign of the encoder's drift": lambda: _fokker_planck(follow=-1),
            "diffusion beta instead of beta/2": lambda: _fokker_planck(diffusion=sp.Integer(1)),
        },
        computed_by=("diffenc_ct.process.forward_drift",),
    ),
    Theorem(
        name="process.marginal",
        statement=(
            r"\int q(z_t \mid z_s, x)\, q(z_s \mid x)\, dz_s = q(z_t \mid x) = \mathcal N(\alpha_t"
            r" x_t, \sigma_t^2 I)"
        ),
        assumptions=(
            r"Any $\alpha, \sigma > 0$ and $x_s, x_t$ at two depths; scalar as dimensions"
            " decouple."
        ),
        proof="Complete the square in $z_s$; the densities agree, normalisation included.",
        residual=_marginalised,
        controls={"sign of x_t - x_s in the transition": lambda: _marginalised(-1)},
        computed_by=("diffenc_ct.process.marginal",),
        formula=lambda: Formula((xt, gt), sp.Tuple(alpha(gt) * xt, sigma(gt))),
    ),
    Theorem(
        name="process.transition",
        statement=(
            r"q(z_t \mid z_s, x) = \mathcal N\!\left(\alpha_{ts} z_s + \alpha_t (x_t - x_s),\;"
            r" \sigma_{ts}^2 I\right)"
        ),
        assumptions=r"General $\gamma$, $x_\phi$; scalar as dimensions decouple.",
        proof=(
            "At $t = s$ the mean is $z_s$ and the variance 0; in $t$ both obey the moment"
            " equations of the forward process, which have one solution."
        ),
        residual=_transition,
        controls={"sign of x_t - x_s": lambda: _transition(-1)},
        computed_by=("diffenc_ct.process.transition",),
        formula=lambda: Formula(
            (zs, xs, xt, gs, gt),
            sp.Tuple(
                alpha(gt) / alpha(gs) * zs + alpha(gt) * (xt - xs),
                sp.sqrt(sigma2(gt) - alpha2(gt) / alpha2(gs) * sigma2(gs)),
            ),
        ),
    ),
    Theorem(
        name="process.transition_variance",
        statement=(
            r"\sigma_{ts}^2 = \sigma_t^2 - \alpha_{ts}^2 \sigma_s^2 ="
            r" -\sigma_t^2\,\mathrm{expm1}(\gamma_s - \gamma_t)"
        ),
        assumptions=(
            r"Any $\gamma_s < \gamma_t$; the stable form keeps its digits as $\gamma_s \to"
            r" \gamma_t$."
        ),
        proof=(
            r"$\alpha_{ts}^2\sigma_s^2/\sigma_t^2 = \mathrm{SNR}_t/\mathrm{SNR}_s = e^{\gamma_s -"
            r" \gamma_t}$."
        ),
        residual=lambda: _stable_variance(sigma2(gt)),
        controls={
            "sigma_s^2 for sigma_t^2": lambda: _stable_variance(sigma2(gs)),
            "s and t exchanged": lambda: _stable_variance(sigma2(gt), -1),
        },
        computed_by=("diffenc_ct.process.transition",),
        formula=lambda: Formula((gs, gt), sigma2(gt) - alpha2(gt) / alpha2(gs) * sigma2(gs)),
    ),
    Theorem(
        name="process.chapman_kolmogorov",
        statement=(
            r"\int q(z_t \mid z_s, x)\, q(z_s \mid z_r, x)\, dz_s = q(z_t \mid z_r, x), \qquad r <"
            " s < t"
        ),
        assumptions=r"Any $\alpha, \sigma > 0$ and $x_r, x_s, x_t$; scalar as dimensions decouple.",
        proof=(
            "Complete the square in $z_s$: transitions compose, so the process is Markov given $x$."
        ),
        residual=_composed,
        controls={"sign of x_t - x_s in one of them": lambda: _composed(-1)},
        computed_by=("diffenc_ct.process.transition",),
    ),
)
