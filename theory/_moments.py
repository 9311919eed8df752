"""Integrals of Gaussians by completing the square, and expectations of polynomials in standard normals."""

from __future__ import annotations

import sympy as sp
from sympy import Expr, Symbol


def gaussian_integral(quadratic: Expr, variable: Symbol) -> Expr:
    """log of the integral of exp(quadratic) over the variable.

    The quadratic -P v^2/2 + Q v + R integrates to sqrt(2 pi/P) exp(Q^2/(2P) + R).
    """
    second = -sp.diff(quadratic, variable, 2)
    first = sp.diff(quadratic, variable).subs(variable, 0)
    return sp.log(2 * sp.pi / second) / 2 + first**2 / (2 * second) + quadratic.subs(variable, 0)


def mean_over(polynomial: Expr, noises: tuple[Symbol, ...]) -> Expr:
    """Expectation of a polynomial, of degree at most two in each of independent standard normals."""
    moment = {0: 1, 1: 0, 2: 1}
    terms = sp.Poly(sp.expand(polynomial), *noises).terms()
    return sum(c * sp.prod(moment[n] for n in powers) for powers, c in terms)
