"""The rate of the ELBO at its optimum, in a, b, c, and what no noise level removes."""

from __future__ import annotations

import sympy as sp
from sympy import Expr

a, b, snr, k = sp.symbols("a b SNR k", positive=True)
c = sp.Symbol("c", real=True)


def rate_at_optimum(level: Expr) -> Expr:
    """The rate of L_inf,eta with optimal heads, per unit of lambda."""
    kappa = (1 + level) / 2
    return snr / 2 * (kappa**2 * a + 2 * kappa * c + b) / level


INFORMATION = snr * (a / 2 + c)
STAR = sp.sqrt(1 + 4 * (b + c) / a)
REMAINING = snr * (a * (STAR - 1) / 4 - c / 2)
