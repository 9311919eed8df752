"""The symbols that all sections share, and Gaussian densities to integrate.

Depth enters as a general increasing function gamma(t); alpha and sigma are its textbook images, written so that no
square root is nested.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp
from sympy import Expr, Symbol

s, t = sp.symbols("s t", real=True)
gamma = sp.Function("gamma", real=True)
g, gs, gt = sp.symbols("gamma gamma_s gamma_t", real=True)
rate = sp.Symbol("gamma'", positive=True)
lam = sp.Symbol("lambda", real=True)
x, y, z, eps = sp.symbols("x y z epsilon", real=True)
zs, zt, xs, xt = sp.symbols("z_s z_t x_s x_t", real=True)
xhat, rhat, xrate = sp.symbols("xhat rhat x'", real=True)
rho, w, d = sp.symbols("rho w d", positive=True)
eta2 = sp.Symbol("eta2", positive=True)


def alpha2(level: Expr) -> Expr:
    return 1 / (1 + sp.exp(level))


def sigma2(level: Expr) -> Expr:
    return sp.exp(level) / (1 + sp.exp(level))


def alpha(level: Expr) -> Expr:
    return (1 + sp.exp(level)) ** sp.Rational(-1, 2)


def sigma(level: Expr) -> Expr:
    return sp.exp(level / 2) * (1 + sp.exp(level)) ** sp.Rational(-1, 2)


def beta(time: Symbol) -> Expr:
    """sigma^2 gamma' at a time that is a symbol."""
    return sigma2(gamma(time)) * gamma(time).diff(time)


def log_normal(point: Expr, mean: Expr, variance: Expr) -> Expr:
    """log N(point; mean, variance) in one dimension."""
    return -((point - mean) ** 2) / (2 * variance) - sp.log(2 * sp.pi * variance) / 2


@dataclass(frozen=True)
class Density:
    """sqrt(weight) exp(exponent), the exponent quadratic: Gaussians up to products, quotients and integrals.

    Exponent and squared weight are compared apart, so that no logarithm or root stands in the way of a proof.
    """

    exponent: Expr
    weight: Expr

    @classmethod
    def normal(cls, point: Expr, mean: Expr, variance: Expr) -> Density:
        return cls(-((point - mean) ** 2) / (2 * variance), 1 / (2 * sp.pi * variance))

    def __mul__(self, other: Density) -> Density:
        return Density(self.exponent + other.exponent, self.weight * other.weight)

    def __truediv__(self, other: Density) -> Density:
        return Density(self.exponent - other.exponent, self.weight / other.weight)

    def integrate(self, variable: Symbol) -> Density:
        """Over the whole line: exp(-P v^2/2 + Q v + R) gives sqrt(2 pi/P) exp(Q^2/(2P) + R)."""
        second = -sp.diff(self.exponent, variable, 2)
        first = sp.diff(self.exponent, variable).subs(variable, 0)
        rest = self.exponent.subs(variable, 0)
        return Density(first**2 / (2 * second) + rest, self.weight * 2 * sp.pi / second)

    def minus(self, other: Density) -> tuple[Expr, Expr]:
        """Both zero exactly if the two are the same function."""
        return self.exponent - other.exponent, self.weight - other.weight
