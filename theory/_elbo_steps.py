"""The bound at finite depth: Gaussian divergences, one step, the sum of steps."""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._notation import (
    alpha,
    alpha2,
    g,
    gs,
    gt,
    rhat,
    rho,
    sigma,
    sigma2,
    w,
    xhat,
    xrate,
    xs,
    xt,
    zt,
)

_e = sp.Symbol("e", real=True)
_m1, _m2 = sp.symbols("mu_1 mu_2", real=True)
_v1, _v2 = sp.symbols("S_1 S_2", positive=True)
_s1, _s2 = sp.symbols("s_1 s_2", positive=True)
_eps, _epshat = sp.symbols("epsilon epshat", real=True)
_half = sp.Rational(1, 2)


def _expectation(integrand: Expr) -> Expr:
    """Over e ~ N(0, 1), by integration."""
    density = sp.exp(-(_e**2) / 2) / sp.sqrt(2 * sp.pi)
    return sp.integrate(sp.expand(integrand) * density, (_e, -sp.oo, sp.oo))


def _divergence(mean: Expr, variance: Expr, other: Expr, other_variance: Expr) -> Expr:
    """E[log N(z; mean, variance) - log N(z; other, other_variance)] over z ~ N(mean, variance)."""
    point = mean + sp.sqrt(variance) * _e
    logs = sp.log(other_variance) / 2 - sp.log(variance) / 2
    quadratic = (point - other) ** 2 / (2 * other_variance) - (point - mean) ** 2 / (2 * variance)
    return _expectation(quadratic) + logs


def _closed(mean: Expr, variance: Expr, other: Expr, other_variance: Expr) -> Expr:
    share = variance / other_variance
    logs = sp.log(variance) - sp.log(other_variance)
    return (share - 1 - logs + (mean - other) ** 2 / other_variance) / 2


def _gaussian(sign: int = 1, scale: Expr = _v2) -> Expr:
    claimed = _closed(_m1, _v1, _m2, _v2) + (sign - 1) * (sp.log(_v2) - sp.log(_v1)) / 2
    claimed += (_m1 - _m2) ** 2 * (1 / scale - 1 / _v2) / 2
    return _divergence(_m1, _v1, _m2, _v2) - claimed


def _delta(trend: int = 1) -> Expr:
    """mu_Q - mu_P from the two means' definitions, with lambda_s - lambda_t = gamma_t - gamma_s."""
    shrink = rho * sigma(gs) / sigma(gt)
    posterior = alpha(gs) * xs + shrink * (zt - alpha(gt) * xt)
    early = xhat + trend * (gt - gs) * rhat
    return posterior - (alpha(gs) * early + shrink * (zt - alpha(gt) * xhat))


def _claimed_delta() -> Expr:
    """alpha_s times the stable form, in which x_t' is added and taken away."""
    step, integral = gt - gs, -2 * sp.log(rho)
    keep = 1 - sp.exp(-(integral + step) / 2)
    return alpha(gs) * (keep * (xt - xhat) + (xs - xt - step * xrate) + step * (xrate - rhat))


_D, _S2 = sp.Symbol("Delta", real=True), sp.Symbol("S2", positive=True)


def _mismatch(ratio: Expr) -> Expr:
    return (1 / ratio - 1 + sp.log(ratio)) / 2


def _step(mismatch: Expr, error: Expr) -> Expr:
    """The divergence of two Gaussians of variances S^2 and w S^2 whose means differ by Delta, less the claim."""
    return sp.expand_log(_divergence(_D, _S2, sp.Integer(0), w * _S2)) - mismatch - error


def _step_formula() -> Formula:
    variance = sigma2(gs) * (1 - rho**2)
    kl = _mismatch(w) + _delta() ** 2 / (2 * w * variance)
    return Formula((xs, xt, xhat, rhat, gs, gt, rho, w), sp.simplify(kl.subs(zt, 0)))


def _discrete(exponent: Expr, factor: Expr = _half) -> Expr:
    """The step's divergence with the identity encoder, eta = 1, w = 1, in terms of the noise."""
    noisy = alpha(gt) * xt + sigma(gt) * _eps
    estimate = (noisy - sigma(gt) * _epshat) / alpha(gt)
    share = sp.exp(-(gt - gs) / 2)
    delta = _delta().subs({xs: xt, rhat: 0, rho: share, xhat: estimate, zt: noisy})
    kl = delta**2 / (2 * sigma2(gs) * (1 - share**2))
    return kl - factor * (sp.exp(exponent) - 1) * (_eps - _epshat) ** 2


def _bound(sign: int = 1) -> tuple[Expr, Expr]:
    """log q(z_0..z_T|x) - log p(x, z_0..z_T), term by term, and against the exact posterior."""
    i, n = sp.symbols("i T", integer=True, positive=True)
    q, p = sp.IndexedBase("lq"), sp.IndexedBase("lp")
    q_1, p_1, decoder, evidence, posterior = sp.symbols("lq1 lp1 l0 lpx lpost", real=True)
    steps_q, steps_p = sp.Sum(q[i], (i, 1, n)), sp.Sum(p[i], (i, 1, n))
    ratio = (q_1 + steps_q) - (p_1 + steps_p + decoder)
    split = (q_1 - p_1) + sp.Sum(q[i] - p[i], (i, 1, n)) - sign * decoder
    slack = (q_1 + steps_q) - posterior
    # Bayes: p(x, z) = p(z|x) p(x).
    return ratio - split, (ratio - slack + evidence).subs(
        posterior, p_1 + steps_p + decoder - evidence
    )


def _latent(log_sign: int = 1) -> tuple[Expr, Expr]:
    """The divergence from N(0, 1) in the marginal's mean and variance, then those inserted."""
    generic = (_v1 + _m1**2 - 1 - log_sign * sp.log(_v1)) / 2
    here = {_m1: alpha(g) * xt, _v1: sigma2(g)}
    return (
        _divergence(_m1, _v1, sp.Integer(0), sp.Integer(1)) - generic,
        generic.subs(here) - _latent_loss() - (1 - log_sign) * sp.log(sigma2(g)) / 2,
    )


def _latent_loss() -> Expr:
    return (sigma2(g) - 1 - sp.log(sigma2(g)) + alpha2(g) * xt**2) / 2


THEOREMS = (
    Theorem(
        name="elbo.bound",
        statement=(
            r"-\log p(x) = L_0 + L_1 + L_T - \mathrm{KL}\big(q(z_{0:1} \mid x)\,\|\,p(z_{0:1} \mid"
            r" x)\big) \le L_0 + L_1 + L_T"
        ),
        assumptions=(
            r"Any $T$ steps, any densities with $q(z_{0:1}|x) = q(z_1|x)\prod_i q(z_{s_i}|z_{t_i},"
            r" x)$ and $p(x, z_{0:1}) = p(z_1)\prod_i p(z_{s_i}|z_{t_i})\,p(x|z_0)$; log densities"
            " are free symbols."
        ),
        proof=(
            r"$\log q - \log p$ telescopes into the three terms; $p(x, z) = p(z|x)\,p(x)$ gives"
            " the slack, which is a divergence and so not negative. The expectation is linear and"
            " stays outside."
        ),
        residual=_bound,
        controls={"sign of the decoder's term": lambda: _bound(-1)},
        computed_by=("diffenc_ct.elbo.elbo",),
    ),
    Theorem(
        name="elbo.gaussian_kl",
        statement=(
            r"\mathrm{KL}\big(\mathcal N(\mu_1, S_1 I)\,\|\,\mathcal N(\mu_2, S_2 I)\big) = \frac"
            r" d2\left(\frac{S_1}{S_2} - 1 - \ln\frac{S_1}{S_2}\right) + \frac{\|\mu_1 -"
            r" \mu_2\|^2}{2 S_2}"
        ),
        assumptions=(
            "General means and variances. Proved for one dimension: both densities are products"
            " over dimensions, so the divergence is the sum of $d$ such terms."
        ),
        proof=r"Integrate the difference of the log densities against $\mathcal N(\mu_1, S_1)$.",
        residual=_gaussian,
        controls={
            "sign of the logarithm": lambda: _gaussian(sign=-1),
            "S_1 under the means": lambda: _gaussian(scale=_v1),
        },
        computed_by=("diffenc_ct.process.kl_divergence",),
        formula=lambda: Formula((_m1, _s1, _m2, _s2), _closed(_m1, _s1**2, _m2, _s2**2)),
    ),
    Theorem(
        name="elbo.latent_kl",
        statement=(
            r"L_1 = \mathrm{KL}\big(q(z_1 \mid x)\,\|\,\mathcal N(0, I)\big) = \frac"
            r" d2\left(\sigma_1^2 - 1 - \ln \sigma_1^2\right) + \frac{\alpha_1^2}{2}\,\|x_1\|^2"
        ),
        assumptions="$x_1$ is the encoded data at $t = 1$; one dimension, the rest by addition.",
        proof="Integration, as for two Gaussians.",
        residual=_latent,
        controls={"sign of the logarithm": lambda: _latent(-1)},
        computed_by=("diffenc_ct.elbo.latent_loss",),
        formula=lambda: Formula((xt, g), _latent_loss()),
    ),
    Theorem(
        name="elbo.mean_difference",
        statement=(
            r"\Delta = \mu_Q - \mu_P = \alpha_s (x_s - \hat x_s) -"
            r" \rho\,\frac{\sigma_s}{\sigma_t}\,\alpha_t (x_t - \hat x) = \alpha_s \left[\left(1 -"
            r" e^{-\int\kappa\,d\gamma}\right) a + (x_s - x_t - h\,x_t') + h\,b\right]"
        ),
        assumptions=(
            r"$h = \gamma_t - \gamma_s$, any $\rho$; componentwise. The last form has no"
            r" cancellation as $h \to 0$."
        ),
        proof=(
            r"$z_t$ cancels; $\rho\,\sigma_s\alpha_t/(\sigma_t\alpha_s) = \rho\,e^{-h/2} ="
            r" e^{-\int\kappa\,d\gamma}$."
        ),
        residual=lambda: _delta() - _claimed_delta(),
        controls={
            "sign of lambda_s - lambda_t": lambda: _delta(-1) - _claimed_delta(),
            "the rate's error twice": lambda: (
                _delta() - _claimed_delta() - alpha(gs) * (gt - gs) * (xrate - rhat)
            ),
        },
        computed_by=("diffenc_ct.elbo.mean_difference",),
        formula=lambda: Formula(
            (xs, xt, xhat, rhat, gs, gt, rho), (_delta() / alpha(gs)).subs(zt, 0)
        ),
    ),
    Theorem(
        name="elbo.step_kl",
        statement=(
            r"\mathrm{KL}\big(q_\eta(z_s \mid z_t, x)\,\|\,p(z_s \mid z_t)\big) = \frac"
            r" d2\left(\frac1w - 1 + \ln w\right) + \frac{\|\Delta\|^2}{2 w S^2}, \qquad S^2 ="
            r" \sigma_s^2 (1 - \rho^2)"
        ),
        assumptions=(
            r"Any $\eta > 0$, heads, $w > 0$. One dimension; $d$ of them add up, also with a $w_i$"
            " for each."
        ),
        proof="The divergence of Gaussians with variances $S^2$ and $w S^2$, by integration.",
        residual=lambda: _step(_mismatch(w), _D**2 / (2 * w * _S2)),
        controls={
            "1/w missing in the error": lambda: _step(_mismatch(w), _D**2 / (2 * _S2)),
            "sign of ln w": lambda: _step(_mismatch(w) - sp.log(w), _D**2 / (2 * w * _S2)),
            "w for 1/w": lambda: _step(_mismatch(1 / w), _D**2 / (2 * w * _S2)),
        },
        computed_by=("diffenc_ct.elbo.step_kl",),
        formula=_step_formula,
    ),
    Theorem(
        name="elbo.discrete_vdm",
        statement=(
            r"x_t = x,\; \eta = w = 1: \qquad \mathrm{KL} = \tfrac12\,\mathrm{expm1}(\gamma_t -"
            r" \gamma_s)\,\|\epsilon - \hat\epsilon\|^2, \qquad L_T = \frac"
            r" T2\,E_{i,\epsilon}\left[\mathrm{expm1}(\gamma_{t_i} - \gamma_{s_i})\,\|\epsilon -"
            r" \hat\epsilon\|^2\right]"
        ),
        assumptions="Identity encoder; $i$ uniform over the $T$ steps; componentwise.",
        proof=(
            r"$\Delta = \alpha_s (1 - e^{\gamma_s - \gamma_t})(x - \hat x)$ and $x - \hat x ="
            r" -(\sigma_t/\alpha_t)(\epsilon - \hat\epsilon)$."
        ),
        residual=lambda: _discrete(gt - gs),
        controls={
            "s and t exchanged": lambda: _discrete(gs - gt),
            "factor 1/2 missing": lambda: _discrete(gt - gs, sp.Integer(1)),
        },
        computed_by=("diffenc_ct.elbo.step_kl",),
        formula=lambda: Formula(
            (_eps, _epshat, gs, gt), (sp.exp(gt - gs) - 1) / 2 * (_eps - _epshat) ** 2
        ),
    ),
)
