r"""Posterior heads: a network's distribution of a value, sharpened by the value's own observation. Part of the section
on encoders.

An encoder $x_t = a x + \sigma^2 (\dots)$ makes $z/(\alpha a)$ an observation of $x$ of variance $v = e^\gamma/a^2$.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._notation import Density, alpha, alpha2, g, lam, sigma2, x, z
from ._prior import Prior

_a, _al, _si = sp.symbols("a alpha sigma", positive=True)
_u, _w = sp.symbols("u w", real=True)
_NOISY = _si**2 / (_al * _a) ** 2  # exp(gamma)/a^2


def _bayes(scale: Expr = _al * _a, variance: Expr = 2 * _si**2) -> tuple[Expr, ...]:
    """Three levels of one value beside two of another: log-odds, given both latents."""
    joint = [sp.symbols(f"P{k}1 P{k}2", positive=True) for k in (1, 2, 3)]
    elsewhere = sp.symbols("N1 N2", positive=True)  # densities of the other value's latent
    levels = sp.symbols("x1:4", real=True)

    def known(k: int) -> Expr:
        return sp.log(sum(p * n for p, n in zip(joint[k], elsewhere, strict=True)))

    def both(k: int) -> Expr:
        return known(k) + Density.normal(z, _al * _a * levels[k], _si**2).exponent

    def logit(k: int) -> Expr:
        return known(k) - (z - scale * levels[k]) ** 2 / variance

    return tuple(both(k) - both(0) - logit(k) + logit(0) for k in (1, 2))


def _estimates(factors: tuple[Expr, ...] | None = None, back: int = 1) -> tuple[Expr, ...]:
    """Four encoders: E[x_t | z] = a E[x | z] + sigma^2 E[. | z], E[x_t' | z] = c E[x_t | z] + sigma^2 E[. | z]."""
    s2, a2 = sigma2(-lam), alpha2(-lam)
    data = sp.Function("X", real=True)(sp.Symbol("k"))
    y, u = (sp.Function(name, real=True)(lam) for name in ("Y", "U"))
    none = sp.S.Zero
    encoders = (
        # a, what is added over sigma^2, what the rate has beside c x_t over sigma^2
        (sp.S.One, none, none),
        (a2, none, none),
        (a2, y, y.diff(lam) - back * y),
        (sp.S.One, u, u.diff(lam) - back * a2 * u),
    )
    prior, residuals = Prior(sp.S.Zero), []
    for (a, added, more), c in zip(encoders, factors or (none, s2, s2, none), strict=True):
        encoded = a * data + s2 * added
        residuals += [
            prior.mean(encoded) - a * prior.mean(data) - s2 * prior.mean(added),
            prior.mean(encoded.diff(lam)) - c * prior.mean(encoded) - s2 * prior.mean(more),
            a.diff(lam) / a - c,
        ]
    return tuple(residuals)


def _lacking(share: Expr = sp.S.Half) -> Expr:
    """The logit that an encoder's y adds to that of z/(alpha a)."""
    y = sp.Symbol("y", real=True)
    free = z - _al * _a * x
    whole = -((free - _al * _si**2 * y) ** 2) / (2 * _si**2)
    return whole + free**2 / (2 * _si**2) - _al * y * free + share * (_al * _si * y) ** 2


def _variance(gain: Expr | None = None) -> tuple[Expr, ...]:
    """dx_hat_i/dz_j of two values of any law, observed side by side, and of one whose law is a softmax's."""
    gain = _al * _a**2 / _si**2 if gain is None else gain
    k = sp.Symbol("k")
    values = [sp.Function(f"X{i}", real=True)(k) for i in (1, 2)]
    latents = sp.symbols("z1 z2", real=True)
    residuals = []
    for n in (1, 2):
        pairs = list(zip(latents, values, strict=True))[:n]
        seen = -sum((one - _al * _a * value) ** 2 for one, value in pairs) / (2 * _si**2)
        prior = Prior(sp.expand(seen))
        x_hat = _a * prior.mean(values[0])
        residuals += [
            prior.diff(x_hat, one) - gain * prior.cov(values[0], value) for one, value in pairs
        ]
    return tuple(residuals)


def _by_encoded(factor: Expr) -> Expr:
    """The slope over Var(x_t | z) = a^2 Var(x | z), at alpha and sigma of a gamma."""
    return (alpha(g) / sigma2(g) - factor) / alpha(g)


_l, _m = sp.symbols("l1 l2", real=True), sp.symbols("mu1 mu2", real=True)
_S = sp.symbols("S1 S2", positive=True)


def _component(k: int, v: Expr, y: Expr) -> tuple[Expr, Expr]:
    """The logit of one Gaussian, and the mean of x under it."""
    logit = _l[k] - (y - _m[k]) ** 2 / (2 * (_S[k] + v)) - sp.log(_S[k] + v) / 2
    return logit, (_m[k] * v + y * _S[k]) / (_S[k] + v)


def _mixture(
    v: Expr = _NOISY, y: Expr = z / (_al * _a), power: Expr = sp.S.Half
) -> tuple[Expr, ...]:
    """Each component with a source exp(k x); log-odds of two, as exponents and squared weights apart."""
    source = sp.Symbol("k", real=True)
    found, claims, residuals = [], [], []
    for k in (0, 1):
        plain = Density.normal(x, _m[k], _S[k]) * Density.normal(z, _al * _a * x, _si**2)
        marginal = plain.integrate(x)
        sourced = Density(plain.exponent + source * x, plain.weight).integrate(x)
        mean = sourced.exponent.diff(source).subs(source, 0)
        residuals.append(mean - _component(k, v, y)[1])
        found.append(marginal)
        claims.append(Density(-((y - _m[k]) ** 2) / (2 * (_S[k] + v)), (_S[k] + v) ** (-2 * power)))
    return (*residuals, *(found[0] / found[1]).minus(claims[0] / claims[1]))


# What the code computes: levels -2/3, 0 and 2/3, and two Gaussians about -1/2 and 1/2 of deviation about 1/2.
_b = sp.symbols("b1:4", real=True)
_LEVELS = (sp.Rational(-2, 3), sp.S.Zero, sp.Rational(2, 3))
_SCALES = {
    "identity": (sp.S.One, sp.S.Zero),
    "nontrainable": (alpha2(g), sigma2(g)),
    "trainable": (alpha2(g), sigma2(g)),
    "residual": (sp.S.One, sp.S.Zero),
}


def _level_moments(a: Expr) -> tuple[Expr, Expr]:
    """E[x | z] and Var(x | z) of the three levels."""
    weights = [
        sp.exp(b - (z - alpha(g) * a * at) ** 2 / (2 * sigma2(g)))
        for b, at in zip(_b, _LEVELS, strict=True)
    ]
    first, second = (
        sum(p * at**n for p, at in zip(weights, _LEVELS, strict=True)) / sum(weights)
        for n in (1, 2)
    )
    return first, second - first**2


def _level_formula() -> Formula:
    results: list[Expr] = []
    for a, c in _SCALES.values():
        x_hat = a * _level_moments(a)[0] + sigma2(g) * _u
        results += [x_hat, c * x_hat + sigma2(g) * _w]
    return Formula((z, *_b, _u, _w, g), sp.Tuple(*results))


def _slope_formula() -> Formula:
    slopes = (alpha(g) * a**2 / sigma2(g) * _level_moments(a)[1] for a in (sp.S.One, alpha2(g)))
    return Formula((z, *_b, g), sp.Tuple(*slopes))


def _mixture_formula() -> Formula:
    shift, widths = sp.symbols("e1 e2", real=True), sp.symbols("q1 q2", real=True)
    half = sp.S.Half
    own = {
        _m[0]: shift[0] - half,
        _m[1]: shift[1] + half,
        _S[0]: sp.exp(2 * widths[0]) / 4,
        _S[1]: sp.exp(2 * widths[1]) / 4,
    }
    results = []
    for a in (sp.S.One, alpha2(g)):
        parts = [_component(k, sp.exp(g) / a**2, z / (alpha(g) * a)) for k in (0, 1)]
        weights = [sp.exp(logit) for logit, _ in parts]
        mean = sum(p * each for p, (_, each) in zip(weights, parts, strict=True)) / sum(weights)
        results.append((a * mean).subs(own))
    return Formula((z, *_l, *shift, *widths, g), sp.Tuple(*results))


_COMPUTES = "diffenc_ct.model.posterior."

THEOREMS = (
    Theorem(
        name="encoders.posterior_head",
        statement=r"p(x_i = x_k \mid z) = \operatorname{softmax}_k\left(\ln p(x_i = x_k \mid z_{-i}) - \frac{(z_i -"
        r" \alpha a x_k)^2}{2\sigma^2}\right), \qquad E[x_t|z] = a\, E[x|z] + \sigma^2 u,\quad E[x_t'|z] = c\,"
        r" E[x_t|z] + \sigma^2 w,\quad c = \frac{a'}{a}"
        "\n\n"
        r"\text{identity: } a = 1,\ c = u = w = 0;\qquad \text{non-trainable: } a = \alpha^2,\ c = \sigma^2,\ u = w ="
        r" 0;\qquad \text{trainable: } a = \alpha^2,\ c = \sigma^2,\ u = E[y|z],\ w = E[y' - y|z];\qquad"
        r" \text{residual: } a = 1,\ c = 0,\ u = E[u|z],\ w = E[u' - \alpha^2 u|z]",
        assumptions=r"$a' = da/d\lambda$; $z_{-i}$ are the other values' latents; any joint law of the values, $x_t = a"
        r" x$ in the first formula. An encoder that adds $\sigma^2 y$ lacks $\alpha y (z - \alpha a x) -"
        r" \tfrac12\alpha^2\sigma^2 y^2$ in its logits, which at the latents of $x$ is"
        r" $\alpha\sigma y\epsilon + \tfrac12\alpha^2\sigma^2 y^2$ and tends to 0 with $\sigma$: a network can say it.",
        proof=r"Given the data the latents are independent, so $z_i$ enters Bayes' rule by $N(z_i; \alpha a x_k,"
        r" \sigma^2)$ alone, whose constant the softmax drops; expectations are linear, and $d\ln\alpha^2/d\lambda ="
        r" \sigma^2$.",
        residual=lambda: (*_bayes(), *_estimates(), _lacking()),
        controls={
            "alpha for alpha a": lambda: _bayes(scale=_al),
            "a for alpha a": lambda: _bayes(scale=_a),
            "sigma^2 for 2 sigma^2": lambda: _bayes(variance=_si**2),
            "c = 0 for every encoder": lambda: _estimates((sp.S.Zero,) * 4),
            "c = sigma^2 for every encoder": lambda: _estimates((sigma2(-lam),) * 4),
            "c = alpha^2 where the scale is alpha^2": lambda: _estimates(
                (sp.S.Zero, alpha2(-lam), alpha2(-lam), sp.S.Zero)
            ),
            "w without the value of y or u": lambda: _estimates(back=0),
            "square of y forgotten": lambda: _lacking(sp.S.Zero),
        },
        computed_by=(_COMPUTES + "Posterior", "diffenc_ct.encoders.Encoder.scale"),
        formula=_level_formula,
    ),
    Theorem(
        name="encoders.posterior_variance",
        statement=r"x_t = a x:\qquad \frac{\partial \hat x_i}{\partial z_j} = \frac{\alpha a^2}{\sigma^2}"
        r" \operatorname{Cov}(x_i, x_j \mid z) = \frac{\alpha}{\sigma^2} \operatorname{Cov}(x_{t,i}, x_{t,j} \mid z)"
        r" = \frac{\operatorname{Cov}(x_{t,i}, x_{t,j} \mid z)}{\alpha\, e^\gamma}",
        assumptions=r"$\hat x = a E[x|z]$; any law of the data, two values written out. For a head it is the slope in"
        r" $z_i$ at fixed outputs of the network.",
        proof=r"The logit's derivative is $\alpha a x_i/\sigma^2$ up to a constant, the mean's a covariance with it.",
        residual=lambda: (*_variance(), _by_encoded(1 / (alpha(g) * sp.exp(g)))),
        controls={
            "a for a^2": lambda: _variance(_al * _a / _si**2),
            "alpha^2 for alpha": lambda: _variance((_al * _a / _si) ** 2),
            "sigma for sigma^2": lambda: _variance(_al * _a**2 / _si),
            "alpha/exp(gamma)": lambda: _by_encoded(alpha(g) / sp.exp(g)),
        },
        computed_by=("diffenc_ct.networks.level_mean.level_mean", _COMPUTES + "Posterior"),
        formula=_slope_formula,
    ),
    Theorem(
        name="encoders.mixture_head",
        statement=r"x \sim \sum_k e^{l_k} N(\mu_k, s_k^2):\qquad p_k = \operatorname{softmax}_k\left(l_k - \frac{(y -"
        r" \mu_k)^2}{2 (s_k^2 + v)} - \tfrac12 \ln(s_k^2 + v)\right),\quad E[x|z] = \sum_k p_k \frac{\mu_k v + y"
        r" s_k^2}{s_k^2 + v},\qquad y = \frac{z}{\alpha a},\quad v = \frac{\sigma^2}{\alpha^2 a^2} ="
        r" \frac{e^\gamma}{a^2}",
        assumptions=r"$x_t = a x$; two components written out, one direction.",
        proof=r"$z/(\alpha a) = x + (\sigma/(\alpha a))\,\epsilon$. Bayes' rule in each component, with a source"
        r" $e^{kx}$ for its mean; the $\alpha a$ of the change of variables is common to all.",
        residual=_mixture,
        controls={
            "exp(gamma) for v": lambda: _mixture(v=(_si / _al) ** 2),
            "exp(gamma)/a for v": lambda: _mixture(v=(_si / _al) ** 2 / _a),
            "z/alpha for y": lambda: _mixture(y=z / _al),
            "half the logarithm forgotten": lambda: _mixture(power=sp.S.Zero),
        },
        computed_by=(_COMPUTES + "MixturePosterior",),
        formula=_mixture_formula,
    ),
)
