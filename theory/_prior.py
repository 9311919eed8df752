"""Integrals over a general prior, differentiated under the integral sign.

Data x has any law mu; what an encoder makes of it enters as undefined functions of lambda (x is a label and is not
written). An integral of mu(dx) F(x, lambda) k(x, z, lambda) is one symbol, the *moment* of F against the kernel k.
Differentiating it gives the moments of (dF + F dlog k), so every identity between them reduces to algebra in moments,
for discrete and continuous priors alike. Differentiation under the integral sign is the only analytic assumption: it
holds where the encoded data and its rates have all moments, since the kernel is Gaussian in them.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr, Symbol
from sympy.core.function import AppliedUndef


class Prior:
    """Moments of a prior against a kernel.

    Args:
        log_kernel: log k as a polynomial in the observation and the label's functions.
    """

    def __init__(self, log_kernel: Expr) -> None:
        self._log_kernel = log_kernel
        self._integrands: dict[Symbol, Expr] = {}

    def __call__(self, integrand: Expr) -> Expr:
        """The integral of mu(dx) integrand k, as a polynomial in moment symbols."""
        total: Expr = sp.S.Zero
        for term in sp.Add.make_args(sp.expand(integrand)):
            outside, inside = sp.S.One, sp.S.One
            for factor in sp.Mul.make_args(term):
                if factor.atoms(AppliedUndef):
                    inside *= factor
                else:
                    outside *= factor
            total += outside * self._moment(inside)
        return total

    def _moment(self, integrand: Expr) -> Symbol:
        symbol = sp.Symbol(f"<{integrand}>", positive=True)
        self._integrands[symbol] = integrand
        return symbol

    @property
    def mass(self) -> Expr:
        """The integral of mu(dx) k: the density of the observation."""
        return self(sp.S.One)

    def mean(self, quantity: Expr) -> Expr:
        """E[quantity | observation]."""
        return self(quantity) / self.mass

    def cov(self, first: Expr, second: Expr) -> Expr:
        """Cov(first, second | observation)."""
        return self.mean(first * second) - self.mean(first) * self.mean(second)

    def diff(self, expression: Expr, variable: Symbol, times: int = 1) -> Expr:
        """Total derivative of an expression in moments, by the observation or by lambda."""
        for _ in range(times):
            total = sp.diff(expression, variable)
            for symbol in expression.free_symbols & self._integrands.keys():
                integrand = self._integrands[symbol]
                change = sp.diff(integrand, variable) + integrand * sp.diff(
                    self._log_kernel, variable
                )
                total += sp.diff(expression, symbol) * self(change)
            expression = total
        return expression
