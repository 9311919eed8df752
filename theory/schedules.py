r"""The schedule is an increasing function $\gamma(t)$, $\lambda = -\gamma = \log \mathrm{SNR}$.
Everything else follows from variance preservation: $\alpha^2 = \mathrm{sigmoid}(-\gamma)$ and
$\sigma^2 = \mathrm{sigmoid}(\gamma)$. A prime on a function of $t$ is $d/dt$; the drift and diffusion
of the forward process are $-\beta/2$ and $\sqrt\beta$.
"""

from __future__ import annotations

import sympy as sp

from ._core import Formula, Theorem
from ._notation import alpha, alpha2, beta, g, gamma, rate, sigma, sigma2, t

_a2, _s2 = alpha2(gamma(t)), sigma2(gamma(t))
_rate = gamma(t).diff(t)


def _pinned() -> tuple[sp.Expr, sp.Expr, sp.Expr, sp.Function]:
    """A schedule made from any increasing function by pinning its ends."""
    low, high = sp.symbols("gamma_0 gamma_1", real=True)
    raw = sp.Function("m", real=True)
    share = (raw(t) - raw(0)) / (raw(1) - raw(0))
    return low + (high - low) * share, low, high, raw


def _pinned_residuals() -> tuple[sp.Expr, ...]:
    level, low, high, raw = _pinned()
    slope = (high - low) * raw(t).diff(t) / (raw(1) - raw(0))
    return level.subs(t, 0) - low, level.subs(t, 1) - high, level.diff(t) - slope


def _pinned_without_scale() -> sp.Expr:
    level, low, high, raw = _pinned()
    return level.diff(t) - (high - low) * raw(t).diff(t)


THEOREMS = (
    Theorem(
        name="schedules.drift",
        statement=r"\frac{\alpha'}{\alpha} = -\frac{\beta}{2}, \qquad \beta = \sigma^2 \gamma'",
        assumptions=r"$\gamma(t)$ differentiable.",
        proof=r"Differentiate $\log\alpha = -\tfrac12 \log(1 + e^\gamma)$.",
        residual=lambda: alpha(gamma(t)).diff(t) / alpha(gamma(t)) + beta(t) / 2,
        controls={
            "sign of the drift": lambda: alpha(gamma(t)).diff(t) / alpha(gamma(t)) - beta(t) / 2,
            "factor 1/2 missing": lambda: alpha(gamma(t)).diff(t) / alpha(gamma(t)) + beta(t),
            r"alpha^2 in place of sigma^2": lambda: (
                alpha(gamma(t)).diff(t) / alpha(gamma(t)) + _a2 * _rate / 2
            ),
        },
        computed_by=("diffenc_ct.schedules.SchedulePoint.beta",),
        formula=lambda: Formula((g, rate), -sigma2(g) * rate / 2),
    ),
    Theorem(
        name="schedules.variance",
        statement=r"(\sigma^2)' = -(\alpha^2)' = \alpha^2 \sigma^2 \gamma' = \beta - \beta\sigma^2",
        assumptions=r"$\gamma(t)$ differentiable.",
        proof=(
            r"Derivative of the sigmoid, $\mathrm{sigmoid}' = \mathrm{sigmoid}\,(1 -"
            r" \mathrm{sigmoid})$."
        ),
        residual=lambda: (
            _s2.diff(t) - _a2 * _s2 * _rate,
            _s2.diff(t) + _a2.diff(t),
            _s2.diff(t) - beta(t) * (1 - _s2),
        ),
        controls={
            "alpha^2 forgotten": lambda: _s2.diff(t) - _s2 * _rate,
            "sign of (alpha^2)'": lambda: _s2.diff(t) - _a2.diff(t),
        },
    ),
    Theorem(
        name="schedules.beta",
        statement=(
            r"\beta = \sigma^2\gamma' = (\sigma^2)' - 2\,\frac{\alpha'}{\alpha}\,\sigma^2 ="
            r" \frac{d}{dt}\,\mathrm{softplus}(\gamma)"
        ),
        assumptions=r"$\gamma(t)$ differentiable.",
        proof=(
            "The middle form is the diffusion that the variance equation of the forward process"
            r" asks for; insert $\alpha'/\alpha$ and $(\sigma^2)'$. The last one is"
            r" $-2\,(\log\alpha)'$."
        ),
        residual=lambda: (
            beta(t) - (_s2.diff(t) - 2 * alpha(gamma(t)).diff(t) / alpha(gamma(t)) * _s2),
            beta(t) - sp.log(1 + sp.exp(gamma(t))).diff(t),
        ),
        controls={
            "factor 2 missing": lambda: (
                beta(t) - (_s2.diff(t) - alpha(gamma(t)).diff(t) / alpha(gamma(t)) * _s2)
            ),
            "softplus(-gamma)": lambda: beta(t) - sp.log(1 + sp.exp(-gamma(t))).diff(t),
        },
        computed_by=("diffenc_ct.schedules.SchedulePoint.beta",),
        formula=lambda: Formula((g, rate), sigma2(g) * rate),
    ),
    Theorem(
        name="schedules.snr",
        statement=(
            r"\mathrm{SNR} = \frac{\alpha^2}{\sigma^2} = e^{-\gamma}, \qquad \mathrm{SNR}' ="
            r" -\gamma'\,\mathrm{SNR} = -\frac{\beta\,\mathrm{SNR}}{\sigma^2}"
        ),
        assumptions=r"$\gamma(t)$ differentiable.",
        proof="The quotient of the two sigmoids; chain rule.",
        residual=lambda: (
            _a2 / _s2 - sp.exp(-gamma(t)),
            (_a2 / _s2).diff(t) + _rate * _a2 / _s2,
            (_a2 / _s2).diff(t) + beta(t) * _a2 / _s2**2,
        ),
        controls={
            "sign of the exponent": lambda: _a2 / _s2 - sp.exp(gamma(t)),
            "SNR increasing": lambda: (_a2 / _s2).diff(t) - _rate * _a2 / _s2,
        },
        computed_by=("diffenc_ct.schedules.snr", "diffenc_ct.schedules.SchedulePoint.snr"),
        formula=lambda: Formula((g,), sp.exp(-g)),
    ),
    Theorem(
        name="schedules.stable_forms",
        statement=(
            r"\alpha^2 = \mathrm{sigmoid}(-\gamma) = 1 - \sigma^2 ="
            r" e^{-\mathrm{softplus}(\gamma)}, \qquad \sigma^2 = \mathrm{sigmoid}(\gamma) ="
            r" \frac{1}{1 + \mathrm{SNR}} = e^{-\mathrm{softplus}(-\gamma)}"
        ),
        assumptions=(
            r"$\gamma$ real. The textbook forms $1 - \sigma^2$ and $1 - \alpha^2$ lose all digits"
            " in floating point at the ends; the code uses the others."
        ),
        proof=r"Multiply numerator and denominator by $e^{\pm\gamma}$.",
        residual=lambda: (
            alpha2(g) - (1 - sigma2(g)),
            alpha2(g) - sp.exp(-sp.log(1 + sp.exp(g))),
            sigma2(g) - 1 / (1 + sp.exp(-g)),
            sigma2(g) - sp.exp(-sp.log(1 + sp.exp(-g))),
            alpha(g) ** 2 - alpha2(g),
            sigma(g) ** 2 - sigma2(g),
        ),
        controls={
            "alpha and sigma exchanged": lambda: alpha2(g) - 1 / (1 + sp.exp(-g)),
            "alpha + sigma = 1": lambda: alpha(g) + sigma(g) - 1,
        },
        computed_by=(
            "diffenc_ct.schedules.alpha",
            "diffenc_ct.schedules.sigma",
            "diffenc_ct.schedules.alpha2",
            "diffenc_ct.schedules.sigma2",
        ),
        formula=lambda: Formula((g,), sp.Tuple(alpha(g), sigma(g), alpha2(g), sigma2(g))),
    ),
    Theorem(
        name="schedules.pinned",
        statement=(
            r"\gamma(t) = \gamma_0 + (\gamma_1 - \gamma_0)\,\frac{m(t) - m(0)}{m(1) - m(0)},"
            r" \qquad \gamma'(t) = \frac{(\gamma_1 - \gamma_0)\,m'(t)}{m(1) - m(0)}"
        ),
        assumptions="$m$ any increasing differentiable function (a monotone network, a polynomial).",
        proof=(
            r"Evaluate at both ends and differentiate; $\gamma' > 0$ because $m' > 0$ and $m(1) >"
            " m(0)$."
        ),
        residual=_pinned_residuals,
        controls={"rate not scaled by m(1) - m(0)": _pinned_without_scale},
        computed_by=("diffenc_ct.schedules.MonotoneSchedule",),
    ),
)
