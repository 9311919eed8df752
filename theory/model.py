r"""The model replaces what the posterior knows, $x_t$ and its rate $x_t'$, by two estimates from
$z_t$, $\hat x$ and $\hat r$. With the estimate at the lower depth, $\hat x_s = \hat x + (\lambda_s -
\lambda_t)\,\hat r$, a reverse step is the posterior with $\hat x_s, \hat x$ in place of $x_s, x_t$. A
single head has $\hat r = \sigma^2 \hat x$ (0 for the identity encoder); paired heads give both. Below,
$\kappa = (1 + \eta^2)/2$.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._decoder import THEOREMS as _DECODER
from ._notation import (
    alpha,
    alpha2,
    beta,
    eta2,
    g,
    gamma,
    gs,
    gt,
    rate,
    rhat,
    rho,
    s,
    sigma,
    sigma2,
    t,
    w,
    xhat,
    xrate,
    xt,
    z,
    zt,
)

_level = sp.Function("e", positive=True)  # eta^2 as a function of gamma
_encoded = sp.Function("x_phi", real=True)
_LAST = sigma2(gt)
_bayes_rho = sp.exp(-(gt - gs) / 2)


def _reverse_mean(share: Expr, early: Expr, late: Expr, trend: int = 1) -> Expr:
    estimate = xhat + trend * (late - early) * rhat
    return alpha(early) * estimate + share * sigma(early) / sigma(late) * (zt - alpha(late) * xhat)


def _paper_mean(trend: int = 1, last: Expr = _LAST) -> Expr:
    ratio = alpha(gt) / alpha(gs)
    remaining = sigma2(gt) - ratio**2 * sigma2(gs)
    return (
        ratio * sigma2(gs) / last * zt
        + alpha(gs) * remaining / last * xhat
        + trend * alpha(gs) * (gt - gs) * rhat
    )


def _reverse_drift(level: Expr, speed: Expr, noise: Expr, heads: tuple[Expr, Expr]) -> Expr:
    kappa = (1 + noise) / 2
    pull = alpha(level) / sigma2(level) * (kappa * heads[0] + heads[1])
    return speed * (-z / 2 + kappa * z / sigma2(level) - pull)


def _stable_drift(extra: Expr) -> Expr:
    kappa = (1 + eta2) / 2
    stable = rate * ((eta2 + extra) / 2 * z - alpha(g) * (kappa * xhat + rhat))
    return _reverse_drift(g, sigma2(g) * rate, eta2, (xhat, rhat)) - stable


def _limit(kappa_noise: Expr, trend: int = 1, scale: Expr = sp.S.One) -> tuple[Expr, ...]:
    """The reverse step as s -> t: values at s = t, then the derivatives in s there."""
    share = sp.exp(-sp.Integral(_level(g), (g, gamma(s), gamma(t))) / 2)
    mean = _reverse_mean(share, gamma(s), gamma(t), trend).subs(zt, z)
    variance = sigma2(gamma(s)) * (1 - share**2)
    claimed = _reverse_drift(gamma(t), beta(t), kappa_noise, (xhat, rhat))
    noise = scale * _level(gamma(t)) * beta(t)
    return (
        _at_t(mean) - z,
        _at_t(variance),
        _at_t(mean.diff(s)) - claimed,
        _at_t(-variance.diff(s)) - noise,
    )


def _at_t(expression: Expr) -> Expr:
    return expression.subs(s, t).doit()


def _conditional_reversal(noise: Expr, diffusion: Expr, trend: int = 1) -> Expr:
    """[dq/dt + d(b_Q q)/dz + eta^2 beta/2 d2q/dz2]/q for q = N(alpha x_t, sigma^2), run from t = 1 to 0."""
    value = _encoded(-gamma(t))
    slope_in_lambda = -value.diff(t) / gamma(t).diff(t)
    log_q = -((z - alpha(gamma(t)) * value) ** 2) / (2 * sigma2(gamma(t)))
    log_q -= sp.log(sigma2(gamma(t))) / 2
    drift = _reverse_drift(gamma(t), beta(t), noise, (value, trend * slope_in_lambda))
    slope = log_q.diff(z)
    spread = slope.diff(z) + slope**2
    return log_q.diff(t) + drift.diff(z) + drift * slope + diffusion * beta(t) / 2 * spread


def _anderson(factor: Expr) -> Expr:
    """The reverse Fokker-Planck operator on any q(z, t) that solves the forward one."""
    q = sp.Function("q", positive=True)(z, t)
    drift, squared = sp.Function("f")(z, t), sp.Function("g2", positive=True)(t)
    forward = -(drift * q).diff(z) + squared / 2 * q.diff(z, 2)
    backward_drift = drift - factor * squared * sp.log(q).diff(z)
    backward = -(backward_drift * q).diff(z) - eta2 * squared / 2 * q.diff(z, 2)
    return forward - backward


def _from_forward(noise: Expr) -> Expr:
    """f - kappa beta score less b_Q, given x."""
    speed = sigma2(g) * rate
    forward = -speed / 2 * z - alpha(g) * rate * xrate
    score = (alpha(g) * xt - z) / sigma2(g)
    reverse = _reverse_drift(g, speed, eta2, (xt, xrate))
    return forward - (1 + noise) / 2 * speed * score - reverse


def _paper_drift(level: Expr) -> Expr:
    speed = sigma2(g) * rate
    paper = speed * (-z / 2 + z / sigma2(g) - alpha(g) * (1 / sigma2(g) + level) * xhat)
    return paper - _reverse_drift(g, speed, sp.Integer(1), (xhat, sigma2(g) * xhat))


_heads = (z, xhat, rhat, g, rate, eta2)

THEOREMS: tuple[Theorem, ...] = (
    Theorem(
        name="model.reverse_mean",
        statement=(
            r"\alpha_s \hat x_s + \rho\,\frac{\sigma_s}{\sigma_t}\,(z_t - \alpha_t \hat x)"
            r" \;\overset{\eta = 1}{=}\; \mu_P = \frac{\alpha_{ts}\sigma_s^2}{\sigma_t^2}\,z_t +"
            r" \frac{\alpha_s\sigma_{ts}^2}{\sigma_t^2}\,\hat x + \alpha_s (\lambda_s -"
            r" \lambda_t)\,\hat r"
        ),
        assumptions=(
            r"Any $\hat x, \hat r$; componentwise. For other $\eta$ the left side is the"
            " definition."
        ),
        proof=(
            r"$\rho\,\sigma_s/\sigma_t = \alpha_{ts}\sigma_s^2/\sigma_t^2$ at $\eta = 1$; collect"
            r" $\hat x$."
        ),
        residual=lambda: _reverse_mean(_bayes_rho, gs, gt) - _paper_mean(),
        controls={
            "sign of lambda_s - lambda_t": lambda: (
                _reverse_mean(_bayes_rho, gs, gt) - _paper_mean(-1)
            ),
            "sigma_s^2 in the denominators": lambda: (
                _reverse_mean(_bayes_rho, gs, gt) - _paper_mean(last=sigma2(gs))
            ),
            "rho of eta = 0": lambda: _reverse_mean(sp.Integer(1), gs, gt) - _paper_mean(),
        },
        computed_by=("diffenc_ct.model.DiffEnc.reverse",),
        formula=lambda: Formula(
            (zt, xhat, rhat, gs, gt, rho, w),
            sp.Tuple(_reverse_mean(rho, gs, gt), sp.sqrt(w * sigma2(gs) * (1 - rho**2))),
        ),
    ),
    Theorem(
        name="model.reverse_limit",
        statement=(
            r"\lim_{s \to t} \frac{E[z_s \mid z_t] - z_t}{s - t} = b_\eta = \beta\left[-\frac z2 +"
            r" \frac{\kappa z}{\sigma^2} - \frac{\alpha}{\sigma^2}(\kappa \hat x + \hat r)\right],"
            r" \qquad \lim_{s \to t} \frac{\mathrm{Var}[z_s \mid z_t]}{t - s} = \eta^2\beta"
        ),
        assumptions=(
            r"General $\gamma(t)$ and $\eta^2(\gamma)$; $\hat x, \hat r$ any functions of $(z_t,"
            r" t)$, fixed as $s \to t$; componentwise; variance ratio 1."
        ),
        proof=(
            "Mean and variance are $z_t$ and 0 at $s = t$, so the limits are derivatives in $s$,"
            r" by Leibniz for the integral in $\rho$."
        ),
        residual=lambda: _limit(_level(gamma(t))),
        controls={
            "kappa of eta = 1": lambda: _limit(sp.Integer(1)),
            "sign of the rate": lambda: _limit(_level(gamma(t)), trend=-1),
            "noise beta/2": lambda: _limit(_level(gamma(t)), scale=sp.S.Half),
        },
        computed_by=("diffenc_ct.model.reverse_drift",),
        formula=lambda: Formula(_heads, _reverse_drift(g, sigma2(g) * rate, eta2, (xhat, rhat))),
    ),
    Theorem(
        name="model.stable_drift",
        statement=(
            r"b_\eta = \gamma'\left[ \frac{\eta^2 + \alpha^2}{2}\,z - \alpha\,(\kappa\hat x + \hat r)"
            r" \right]"
        ),
        assumptions=r"Any heads and $\eta$; componentwise. Nothing cancels here as $t \to 1$.",
        proof=r"$\beta = \sigma^2\gamma'$ and $\kappa - \sigma^2/2 = (\eta^2 + \alpha^2)/2$.",
        residual=lambda: _stable_drift(alpha2(g)),
        controls={
            "sigma^2 for alpha^2": lambda: _stable_drift(sigma2(g)),
            "alpha^2 missing": lambda: _stable_drift(sp.S.Zero),
        },
        computed_by=("diffenc_ct.model.reverse_drift",),
    ),
    Theorem(
        name="model.anderson",
        statement=(
            r"\partial_t q = -\partial_z (f q) + \tfrac{g^2}{2}\,\partial_z^2 q"
            r" \;\Longrightarrow\; \partial_t q = -\partial_z (b\,q) - \tfrac{\eta^2"
            r" g^2}{2}\,\partial_z^2 q, \qquad b = f - \frac{1 + \eta^2}{2}\,g^2\,\partial_z \log"
            " q"
        ),
        assumptions=(
            "Any drift $f(z, t)$ and positive density $q(z, t)$; the second equation is the"
            r" Fokker-Planck equation of a diffusion run from $t = 1$ to $0$ with noise $\eta g$."
            " Scalar; in more dimensions sum over them."
        ),
        proof=(
            r"$q\,\partial_z\log q = \partial_z q$ turns the extra drift into $\tfrac{1+\eta^2}{2}"
            r" g^2 \partial_z^2 q$."
        ),
        residual=lambda: _anderson((1 + eta2) / 2),
        controls={
            "Anderson's factor 1 at every eta": lambda: _anderson(sp.Integer(1)),
            "sign of the score": lambda: _anderson(-(1 + eta2) / 2),
        },
        computed_by=("diffenc_ct.model.reverse_drift",),
    ),
    Theorem(
        name="model.time_reversal",
        statement=(
            r"b_{Q,\eta} = -\frac\beta2 z + \alpha\frac{dx_t}{dt} - \frac{1 +"
            r" \eta^2}{2}\,\beta\,\nabla_z \log q(z \mid x) = \beta\left[-\frac z2 + \frac{\kappa"
            r" z}{\sigma^2} - \frac{\alpha}{\sigma^2}(\kappa x_t + x_t')\right]"
            r" \quad\text{keeps}\quad q(z_t \mid x)"
        ),
        assumptions=(
            r"General $\gamma(t)$, $x_\phi(\lambda)$, any $\eta^2$; run from $t = 1$ to 0 with"
            r" noise $\eta\sqrt\beta$. Scalar as dimensions decouple. In terms of the drift at"
            r" $\eta = 1$ it is $b_{Q,1} + \tfrac{1-\eta^2}{2}\beta \nabla\log q$."
        ),
        proof=(
            r"Insert the score $(\alpha x_t - z)/\sigma^2$; the reverse Fokker-Planck residual"
            " divided by $q$ is a quadratic in $z$ that vanishes."
        ),
        residual=lambda: (_from_forward(eta2), _conditional_reversal(eta2, eta2)),
        controls={
            "kappa of eta = 1": lambda: _conditional_reversal(sp.Integer(1), eta2),
            "noise of eta = 1": lambda: _conditional_reversal(eta2, sp.Integer(1)),
            "sign of x_t'": lambda: _conditional_reversal(eta2, eta2, trend=-1),
            "score with factor eta^2/2": lambda: _from_forward(eta2 - 1),
        },
        computed_by=("diffenc_ct.model.reverse_drift",),
        formula=lambda: Formula(
            (z, xt, xrate, g, rate, eta2),
            -sigma2(g) * rate / 2 * z
            - alpha(g) * rate * xrate
            - (1 + eta2) / 2 * rate * (alpha(g) * xt - z),
        ),
    ),
    Theorem(
        name="model.paper_drift",
        statement=(
            r"\eta = 1,\; \hat r = \sigma^2 \hat x: \qquad b = \beta\left[-\frac z2 +"
            r" \frac{z}{\sigma^2} - \alpha\left(\frac{1}{\sigma^2} + 1\right)\hat x\right]"
        ),
        assumptions="Single head; componentwise.",
        proof=r"$\kappa = 1$ and $(\hat x + \sigma^2\hat x)/\sigma^2 = (1/\sigma^2 + 1)\hat x$.",
        residual=lambda: _paper_drift(sp.Integer(1)),
        controls={
            "the identity encoder's drift": lambda: _paper_drift(sp.Integer(0)),
            "sign of the extra x_hat": lambda: _paper_drift(sp.Integer(-1)),
        },
        computed_by=("diffenc_ct.model.reverse_drift",),
        formula=lambda: Formula(
            (z, xhat, g, rate),
            sigma2(g) * rate * (-z / 2 + z / sigma2(g) - alpha(g) * (1 / sigma2(g) + 1) * xhat),
        ),
    ),
    *_DECODER,
)
