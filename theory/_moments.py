"""Expectations of polynomials in standard normals."""

from __future__ import annotations

import sympy as sp
from sympy import Expr, Symbol


def mean_over(polynomial: Expr, noises: tuple[Symbol, ...]) -> Expr:
    """Expectation of a polynomial, of degree at most two in each of independent standard normals."""
    moment = {0: 1, 1: 0, 2: 1}
    terms = sp.Poly(sp.expand(polynomial), *noises).terms()
    return sum(c * sp.prod(moment[n] for n in powers) for powers, c in terms)
