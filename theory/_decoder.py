"""The decoder at t = 0, for levels and for reals."""

from __future__ import annotations

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._notation import Density, alpha, alpha2, g, sigma2, x, z


def _decoder(variance: Expr) -> Expr:
    """log q(z_0|x = a) - log q(z_0|x = b) less the difference of the two logits."""
    a, b = sp.symbols("a b", real=True)

    def logit(value: Expr) -> Expr:
        return -((z / alpha(g) - value) ** 2) / (2 * variance)

    def exponent(value: Expr) -> Expr:
        return Density.normal(z, alpha(g) * value, sigma2(g)).exponent

    return exponent(a) - exponent(b) - logit(a) + logit(b)


THEOREMS: tuple[Theorem, ...] = (
    Theorem(
        name="model.decoder",
        statement=(
            r"p(x = x_k \mid z_0) \propto q(z_0 \mid x_k): \qquad \mathrm{logit}_k ="
            r" -\frac{(z_0/\alpha_0 - x_k)^2}{2 e^{\gamma_0}}"
        ),
        assumptions=(
            "One dimension (the decoder is a product over them); encoder at its limit, $x_0 = x$;"
            " uniform prior over levels."
        ),
        proof=r"$\sigma_0^2/\alpha_0^2 = e^{\gamma_0}$; only differences of logits matter.",
        residual=lambda: _decoder(sp.exp(g)),
        controls={
            "sigma_0^2 for exp(gamma_0)": lambda: _decoder(sigma2(g)),
            "sign of gamma_0": lambda: _decoder(sp.exp(-g)),
        },
        computed_by=("diffenc_ct.model.Levels.log_prob",),
        formula=lambda: Formula((z, x, g), -((z / alpha(g) - x) ** 2) / (2 * sp.exp(g))),
    ),
    Theorem(
        name="model.continuous_decoder",
        statement=(
            r"q(z_0 \mid x)\,\alpha_0 = \mathcal N\!\left(\frac{z_0}{\alpha_0};\, x,"
            r" e^{\gamma_0}\right) = p(x \mid z_0)"
        ),
        assumptions="One dimension; encoder at its limit, $x_0 = x$.",
        proof=r"Change of variables $z_0 \mapsto z_0/\alpha_0$, symmetric in point and mean.",
        residual=lambda: Density(
            Density.normal(z, alpha(g) * x, sigma2(g)).exponent,
            Density.normal(z, alpha(g) * x, sigma2(g)).weight * alpha2(g),
        ).minus(Density.normal(x, z / alpha(g), sp.exp(g))),
        controls={
            "factor alpha_0 missing": lambda: Density.normal(z, alpha(g) * x, sigma2(g)).minus(
                Density.normal(x, z / alpha(g), sp.exp(g))
            ),
        },
        computed_by=("diffenc_ct.model.Reals.log_prob",),
        formula=lambda: Formula(
            (z, x, g), -((z / alpha(g) - x) ** 2) / (2 * sp.exp(g)) - sp.log(2 * sp.pi) / 2 - g / 2
        ),
    ),
)
