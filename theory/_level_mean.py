r"""What a network need not find out: features that the noise leaves, and the mean over levels. Part of the section on
encoders.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._notation import Density, alpha, g, sigma2, w, x, z
from ._prior import Prior


def _features(damping: Expr | None = None, phase: Expr | None = None) -> tuple[Expr, ...]:
    """exp(i w x) averaged over the posterior of a flat prior, and of one that flattens."""
    damping = sp.exp(g) if damping is None else damping
    phase = 1 / alpha(g) if phase is None else phase
    size, angle = -(w**2) * damping / 2, w * z * phase
    seen = Density.normal(z, alpha(g) * x, sigma2(g))
    wave = Density(sp.I * w * x, sp.S.One)
    flat = (seen * wave).integrate(x) / seen.integrate(x)
    width = sp.Symbol("S", positive=True)
    wide = seen * Density.normal(x, 0, width)
    flattening = (wide * wave).integrate(x) / wide.integrate(x)
    return (
        *flat.minus(Density(size + sp.I * angle, sp.S.One)),
        sp.limit(sp.simplify(flattening.exponent), width, sp.oo) - size - sp.I * angle,
        sp.exp(size) * (sp.cos(angle) + sp.I * sp.sin(angle)) - sp.exp(size + sp.I * angle),
    )


# The mean over levels: k is the level, which the law of x_k and the functions' values hang on.
_k, _y = sp.Symbol("k", integer=True), sp.Symbol("y", real=True)
_X, _PHI = (
    sp.Function("x", real=True)(_k),
    [sp.Function(f"phi{j}", real=True)(_k) for j in (1, 2)],
)
_c, _s, _r = sp.symbols("c1 c2", real=True), sp.Symbol("s", real=True), sp.Symbol("r", real=True)
_g = sp.Symbol("g", positive=True)


def _slopes(
    centred: int = 1, power: int = 1, of_precision: tuple[int, int] = (1, -1)
) -> tuple[Expr, ...]:
    d = _X - _r
    logits = sum(c * phi for c, phi in zip(_c, _PHI, strict=True))
    prior = Prior(sp.expand(logits - (_s - _g * d) ** 2 / 2))
    mean = prior.mean(d)
    variance, skew = prior.cov(d, d), prior.cov(d, d**2)
    share, rest = of_precision
    of_functions = (
        prior.diff(mean, c) - prior.mean(d * phi) + centred * mean * prior.mean(phi)
        for c, phi in zip(_c, _PHI, strict=True)
    )
    return (
        *of_functions,
        prior.diff(mean, _s) - _g**power * variance,
        prior.diff(mean, _g) - share * _s * variance - rest * _g * skew,
        prior.diff(mean, _r) + 1 - _g**2 * variance,
        (_s - _g * d).subs(_s, _g * (_y - _r)) - _g * (_y - _X),
    )


def _mean_formula() -> Formula:
    """Three levels and two functions: E[x] - r and its derivatives by c, s and g."""
    b, at = sp.symbols("b1:4", real=True), sp.symbols("x1:4", real=True)
    phi = [sp.symbols(f"phi{j}_1:4", real=True) for j in (1, 2)]
    d = [each - _r for each in at]
    weights = [
        sp.exp(b[k] + _c[0] * phi[0][k] + _c[1] * phi[1][k] - (_s - _g * d[k]) ** 2 / 2)
        for k in range(3)
    ]

    def mean(*factors: list[Expr]) -> Expr:
        terms = (p * sp.prod(each) for p, *each in zip(weights, *factors, strict=True))
        return sum(terms) / sum(weights)

    def cov(first: list[Expr], second: list[Expr]) -> Expr:
        return mean(first, second) - mean(first) * mean(second)

    variance, skew = cov(d, d), cov(d, [each**2 for each in d])
    return Formula(
        (*_c, _s, _g, _r, *b, *at, *phi[0], *phi[1]),
        sp.Tuple(
            mean(d),
            *(cov(d, list(each)) for each in phi),
            _g * variance,
            _s * variance - _g * skew,
        ),
    )


THEOREMS = (
    Theorem(
        name="encoders.noise_aware_features",
        statement=r"E\left[e^{iwx} \mid z\right] = e^{-w^2 e^\gamma/2}\, e^{iwz/\alpha}, \qquad z = \alpha x +"
        r" \sigma\epsilon",
        assumptions=r"A flat prior on $x$, or a Gaussian one whose variance tends to infinity; componentwise.",
        proof=r"$x \mid z \sim N(z/\alpha, e^\gamma)$; complete the square with $iwx$ in the exponent. Its real and"
        r" imaginary parts are the cosine's and the sine's mean.",
        residual=_features,
        controls={
            "undamped": lambda: _features(damping=sp.S.Zero),
            "sigma^2 for exp(gamma)": lambda: _features(damping=sigma2(g)),
            "phase w z": lambda: _features(phase=sp.S.One),
            "phase of exp(gamma)": lambda: _features(phase=sp.exp(-g / 2)),
        },
        computed_by=("diffenc_ct.networks.features.noise_aware_features",),
        formula=lambda: Formula(
            (z, w, g),
            sp.Tuple(
                *(
                    sp.exp(-(w**2) * sp.exp(g) / 2) * wave(w * z / alpha(g))
                    for wave in (sp.sin, sp.cos)
                )
            ),
        ),
    ),
    Theorem(
        name="encoders.posterior_mean",
        statement=r"p_k \propto \exp\left(b_k + \sum_j c_j \phi_{jk} - \tfrac12 (s - g d_k)^2\right),\quad d_k = x_k"
        r" - r,\quad m = \sum_k p_k d_k:\qquad \frac{\partial m}{\partial c_j} = \operatorname{Cov}(d, \phi_j),\quad"
        r" \frac{\partial m}{\partial s} = g \operatorname{Var}(d),\quad \frac{\partial m}{\partial g} = s"
        r" \operatorname{Var}(d) - g \operatorname{Cov}(d, d^2),\quad \frac{\partial m}{\partial r} = g^2"
        r" \operatorname{Var}(d) - 1",
        assumptions=r"Any number of levels, any $b$, any functions (two written out), $s$, $g$ and $r$ independent."
        r" With $s = g (y - r)$ the sum $r + m$ does not depend on $r$.",
        proof=r"The derivative of a softmax mean is a covariance with the logits' derivative: $\phi_j$, $g d - s$, $d"
        r" (s - g d)$ and $g (g d - s)$; constants drop out. $s - g d_k = g (y - x_k)$.",
        residual=_slopes,
        controls={
            "mean of the product for the covariance": lambda: _slopes(centred=0),
            "g missing": lambda: _slopes(power=0),
            "sign of the third moment": lambda: _slopes(of_precision=(1, 1)),
            "third moment forgotten": lambda: _slopes(of_precision=(1, 0)),
            "its variance forgotten": lambda: _slopes(of_precision=(0, -1)),
        },
        computed_by=("diffenc_ct.networks.level_mean.level_mean",),
        formula=_mean_formula,
    ),
)
