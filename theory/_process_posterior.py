"""The process backwards, given the data: Bayes' posterior and the family of noise levels around it."""

from __future__ import annotations

import sympy as sp
from sympy import Expr, Symbol

from ._core import Formula, Theorem
from ._notation import (
    Density,
    alpha,
    alpha2,
    eps,
    g,
    gs,
    gt,
    rho,
    sigma,
    sigma2,
    xs,
    xt,
    zs,
    zt,
)

# Bayes' rule asks for no variance preservation: alpha and sigma at the two depths are free here.
_as, _at, _ss, _st = sp.symbols("alpha_s alpha_t sigma_s sigma_t", positive=True)
_ats = _at / _as
_sts2 = _st**2 - _ats**2 * _ss**2
_gr, _xr = sp.symbols("gamma_r x_r", real=True)
_rho_rs, _rho_st = sp.symbols("rho_rs rho_st", positive=True)
_bayes_rho = sp.exp(-(gt - gs) / 2)


def _bayes_mean(shift: int = 1) -> Expr:
    return _ats * _ss**2 / _st**2 * zt + _as * _sts2 / _st**2 * xt + shift * _as * (xs - xt)


def _bayes(mean: Expr, variance: Expr) -> tuple[Expr, Expr]:
    """q(z_t|z_s) q(z_s) / q(z_t) less the claimed q(z_s|z_t)."""
    forward = Density.normal(zt, _ats * zs + _at * (xt - xs), _sts2)
    joint = forward * Density.normal(zs, _as * xs, _ss**2)
    posterior = joint / Density.normal(zt, _at * xt, _st**2)
    return posterior.minus(Density.normal(zs, mean, variance))


def _mean(point: Expr, early: Expr, late: Expr, level: tuple[Expr, Expr], share: Expr) -> Expr:
    """alpha_s x_s + rho sigma_s/sigma_t (z_t - alpha_t x_t), level = (gamma_s, gamma_t)."""
    s_, t_ = level
    return alpha(s_) * early + share * sigma(s_) / sigma(t_) * (point - alpha(t_) * late)


def _kept(variance: Expr) -> tuple[Expr, Expr]:
    """The reverse step integrated over q(z_t|x), less q(z_s|x), for any rho."""
    step = Density.normal(zs, _mean(zt, xs, xt, (gs, gt), rho), variance)
    joint = step * Density.normal(zt, alpha(gt) * xt, sigma2(gt))
    return joint.integrate(zt).minus(Density.normal(zs, alpha(gs) * xs, sigma2(gs)))


def _composition(whole: Expr) -> tuple[Expr, Expr]:
    """Mean and variance of two reverse steps t -> s -> r less those of one step with rho = whole."""
    middle = _mean(zt, xs, xt, (gs, gt), _rho_st)
    slope = _rho_rs * sigma(_gr) / sigma(gs)
    mean = _mean(middle, _xr, xs, (_gr, gs), _rho_rs)
    variance = sigma2(_gr) * (1 - _rho_rs**2) + slope**2 * sigma2(gs) * (1 - _rho_st**2)
    return (
        mean - _mean(zt, _xr, xt, (_gr, gt), whole),
        variance - sigma2(_gr) * (1 - whole**2),
    )


def _ends(share: Expr) -> tuple[Expr, Expr]:
    """Mean and variance at the rho of eta = 1 less those of Bayes' posterior."""
    here = {_as: alpha(gs), _at: alpha(gt), _ss: sigma(gs), _st: sigma(gt)}
    variance = (_sts2 * _ss**2 / _st**2).subs(here)
    return (
        _mean(zt, xs, xt, (gs, gt), share) - _bayes_mean().subs(here),
        sigma2(gs) * (1 - share**2) - variance,
    )


def _deterministic(share: Expr) -> tuple[Expr, Expr]:
    noisy = alpha(gt) * xt + sigma(gt) * eps
    return (
        _mean(noisy, xs, xt, (gs, gt), share) - (alpha(gs) * xs + sigma(gs) * eps),
        sigma2(gs) * (1 - share**2),
    )


def _stable(level: Expr, power: int = 1) -> Expr:
    textbook = (sigma2(gt) - alpha2(gt) / alpha2(gs) * sigma2(gs)) * sigma2(gs) / sigma2(gt)
    return textbook + level * (sp.exp(power * (gs - gt)) - 1)


def _rho_of(level: Expr) -> Expr:
    """rho from eta^2 as a function of gamma."""
    return sp.exp(-sp.integrate(level, (g, gs, gt)) / 2)


_eta = sp.Symbol("eta", positive=True)
_any = sp.Function("e", positive=True)


def _rho_residuals(constant: Expr, tight: Expr) -> tuple[Expr, ...]:
    """rho multiplies over adjoining intervals and has closed forms for the named noise levels."""

    def integral(low: Symbol, high: Symbol) -> Expr:
        return sp.Integral(_any(g), (g, low, high))

    split = (integral(_gr, gs) + integral(gs, gt) - integral(_gr, gt)).diff(gs)
    # Compared through the derivative of -2 log rho in gamma_t; both sides are 1 at gamma_t = gamma_s.
    return (
        split.doit(),
        (-2 * sp.log(constant)).diff(gt) - _eta**2,
        (-2 * sp.log(tight)).diff(gt) - 1 - 2 * sigma2(gt),
        constant.subs(gt, gs) - 1,
        tight.subs(gt, gs) - 1,
    )


_CONSTANT = sp.exp(-(_eta**2) * (gt - gs) / 2)
_TIGHT = sp.exp(-(gt - gs) / 2) * (1 + sp.exp(gs)) / (1 + sp.exp(gt))
_MEAN_STD = sp.Tuple(_mean(zt, xs, xt, (gs, gt), rho), sp.sqrt(sigma2(gs) * (1 - rho**2)))

THEOREMS = (
    Theorem(
        name="process.posterior",
        statement=(
            r"q(z_s \mid z_t, x) = \mathcal N(\mu_Q, \sigma_Q^2 I), \quad \mu_Q ="
            r" \frac{\alpha_{ts}\sigma_s^2}{\sigma_t^2} z_t +"
            r" \frac{\alpha_s\sigma_{ts}^2}{\sigma_t^2} x_t + \alpha_s (x_s - x_t), \quad"
            r" \sigma_Q^2 = \frac{\sigma_{ts}^2\sigma_s^2}{\sigma_t^2}"
        ),
        assumptions=(
            r"Any $\alpha, \sigma > 0$ (variance preservation is not used), any $x_s, x_t$; scalar"
            " as dimensions decouple."
        ),
        proof=(
            r"Bayes: $q(z_t|z_s)\, q(z_s)/q(z_t)$ is $\mathcal N(z_s; \mu_Q, \sigma_Q^2)$,"
            " normalisation included."
        ),
        residual=lambda: _bayes(_bayes_mean(), _sts2 * _ss**2 / _st**2),
        controls={
            "sign of x_s - x_t": lambda: _bayes(_bayes_mean(-1), _sts2 * _ss**2 / _st**2),
            "x_s - x_t missing": lambda: _bayes(_bayes_mean(0), _sts2 * _ss**2 / _st**2),
            "variance sigma_ts^2": lambda: _bayes(_bayes_mean(), _sts2),
        },
        computed_by=("diffenc_ct.process.posterior",),
        formula=lambda: Formula(
            (zt, xs, xt, gs, gt),
            sp.Tuple(_bayes_mean(), sp.sqrt(_sts2) * _ss / _st).subs(
                {_as: alpha(gs), _at: alpha(gt), _ss: sigma(gs), _st: sigma(gt)}
            ),
        ),
    ),
    Theorem(
        name="process.posterior_variance",
        statement=(
            r"\sigma_Q^2 = \frac{\sigma_{ts}^2\sigma_s^2}{\sigma_t^2} ="
            r" -\sigma_s^2\,\mathrm{expm1}(\gamma_s - \gamma_t)"
        ),
        assumptions=(
            r"Any $\gamma_s < \gamma_t$; the stable form keeps its digits as $\gamma_s \to"
            r" \gamma_t$."
        ),
        proof=r"$\sigma_{ts}^2/\sigma_t^2 = 1 - \mathrm{SNR}_t/\mathrm{SNR}_s$.",
        residual=lambda: _stable(sigma2(gs)),
        controls={
            "sigma_t^2 for sigma_s^2": lambda: _stable(sigma2(gt)),
            "s and t exchanged": lambda: _stable(sigma2(gs), -1),
        },
        computed_by=("diffenc_ct.process.posterior",),
        formula=lambda: Formula(
            (gs, gt),
            (sigma2(gt) - alpha2(gt) / alpha2(gs) * sigma2(gs)) * sigma2(gs) / sigma2(gt),
        ),
    ),
    Theorem(
        name="process.noise_level",
        statement=(
            r"q_\eta(z_s \mid z_t, x) = \mathcal N\!\left(\alpha_s x_s +"
            r" \rho\,\frac{\sigma_s}{\sigma_t}\,(z_t - \alpha_t x_t),\; \sigma_s^2 (1 - \rho^2)"
            r" I\right) \;\Longrightarrow\; \int q_\eta(z_s \mid z_t, x)\, q(z_t \mid x)\, dz_t ="
            r" q(z_s \mid x)"
        ),
        assumptions=(
            r"Every $\rho \in (0, 1)$, so every noise level $\eta(t)$; scalar as dimensions"
            " decouple."
        ),
        proof=(
            r"Complete the square in $z_t$: the mean becomes $\alpha_s x_s$, the variance"
            r" $\rho^2\sigma_s^2 + (1 - \rho^2)\sigma_s^2$."
        ),
        residual=lambda: _kept(sigma2(gs) * (1 - rho**2)),
        controls={
            "variance sigma_s^2 (1 - rho)": lambda: _kept(sigma2(gs) * (1 - rho)),
            "variance sigma_t^2 (1 - rho^2)": lambda: _kept(sigma2(gt) * (1 - rho**2)),
        },
        computed_by=("diffenc_ct.process.posterior",),
        formula=lambda: Formula((zt, xs, xt, gs, gt, rho), _MEAN_STD),
    ),
    Theorem(
        name="process.noise_level_composition",
        statement=(
            r"\int q_\eta(z_r \mid z_s, x)\, q_\eta(z_s \mid z_t, x)\, dz_s = q_\eta(z_r \mid z_t,"
            r" x), \qquad \rho_{rt} = \rho_{rs}\,\rho_{st}"
        ),
        assumptions=r"Any $\rho_{rs}, \rho_{st}$; $r < s < t$; scalar as dimensions decouple.",
        proof=(
            r"Means are affine and variances add; the product rule is that of $\rho ="
            r" e^{-\frac12\int\eta^2 d\gamma}$. So refining a grid does not change the process."
        ),
        residual=lambda: _composition(_rho_rs * _rho_st),
        controls={"rho added": lambda: _composition((_rho_rs + _rho_st) / 2)},
        computed_by=("diffenc_ct.process.posterior",),
    ),
    Theorem(
        name="process.noise_level_ends",
        statement=(
            r"\eta = 1,\; \rho = e^{-(\gamma_t - \gamma_s)/2}:\; q_\eta = q(z_s \mid z_t, x);"
            r" \qquad \eta = 0,\; \rho = 1:\; z_s = \alpha_s x_s + \sigma_s \epsilon \;\text{ for"
            r" }\; z_t = \alpha_t x_t + \sigma_t \epsilon"
        ),
        assumptions=r"Scalar as dimensions decouple. $\eta = 0$ is DDIM with an encoder.",
        proof=(
            r"$\rho\,\sigma_s/\sigma_t = \alpha_{ts}\sigma_s^2/\sigma_t^2$ at $\eta = 1$; at $\eta"
            " = 0$ the variance is 0."
        ),
        residual=lambda: (*_ends(_bayes_rho), *_deterministic(sp.Integer(1))),
        controls={
            "rho = exp(-(gamma_t - gamma_s))": lambda: _ends(_bayes_rho**2),
            "rho < 1 at eta = 0": lambda: _deterministic(rho),
        },
        computed_by=("diffenc_ct.process.posterior",),
        formula=lambda: Formula((zt, xs, xt, gs, gt), _MEAN_STD.subs(rho, _bayes_rho)),
    ),
    Theorem(
        name="process.noise_level_rho",
        statement=(
            r"\rho(s, t) = \exp\!\left(-\frac12 \int_{\gamma_s}^{\gamma_t} \eta^2\,"
            r" d\gamma\right); \quad \eta \text{ constant: } e^{-\eta^2 (\gamma_t - \gamma_s)/2};"
            r" \quad \eta^2 = 1 + 2\sigma^2:\; e^{-(\gamma_t -"
            r" \gamma_s)/2}\,\frac{\alpha_t^2}{\alpha_s^2}"
        ),
        assumptions=r"$\eta^2$ a function of $\gamma$.",
        proof=(
            "Additivity of the integral: its derivative in the middle point vanishes. The closed"
            r" forms have the right logarithmic derivative in $\gamma_t$ and are 1 at $\gamma_t ="
            r" \gamma_s$ ($\int\sigma^2 d\gamma = \mathrm{softplus}(\gamma)$)."
        ),
        residual=lambda: _rho_residuals(_CONSTANT, _TIGHT),
        controls={
            "eta for eta^2": lambda: _rho_residuals(_rho_of(_eta), _TIGHT),
            "1 + sigma^2 for 1 + 2 sigma^2": lambda: _rho_residuals(
                _CONSTANT, _TIGHT * sp.sqrt((1 + sp.exp(gt)) / (1 + sp.exp(gs)))
            ),
        },
        computed_by=(
            "diffenc_ct.process.NoiseLevel",
            "diffenc_ct.process.ConstantNoiseLevel",
            "diffenc_ct.process.NonTrainableNoiseLevel",
        ),
        formula=lambda: Formula((_eta, gs, gt), sp.Tuple(_CONSTANT, _TIGHT)),
    ),
)
