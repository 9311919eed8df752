"""What a theorem is here, and how it is decided.

A theorem carries a *residual*, an expression that is identically zero if the statement holds, and *controls*: the same
residual with one sign, factor or term made wrong. The proof must reach sympy's exact zero by rewriting; numbers are
never put in. A control must not vanish: its value at random rational points, with every undefined function replaced by
a polynomial, is told from zero by interval-tracked arithmetic, so an expression that merely was not simplified enough
does not count as caught.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType

import mpmath
import sympy as sp
from sympy import Expr, Symbol
from sympy.core.function import AppliedUndef

Residual = Callable[[], "Expr | Sequence[Expr]"]


@dataclass(frozen=True)
class Formula:
    """An expression in textbook form that some function of the code computes in a stable form.

    Args:
        symbols: the arguments, in the order in which the formula is called.
        expression: one expression, or a ``sympy.Tuple`` of several that the code returns together.
    """

    symbols: tuple[Symbol, ...]
    expression: Expr | sp.Tuple

    def __call__(self, *values: float, digits: int = 60) -> mpmath.mpf | tuple[mpmath.mpf, ...]:
        """The value at a point, computed with ``digits`` decimal digits.

        Raises:
            ValueError: the number of values is not the number of symbols.
        """
        if len(values) != len(self.symbols):
            names = ", ".join(str(symbol) for symbol in self.symbols)
            raise ValueError(f"values: got {len(values)}, but the formula takes ({names})")
        with mpmath.workdps(digits):
            return _compiled(self)(*(mpmath.mpf(value) for value in values))


@cache
def _compiled(formula: Formula) -> Callable[..., mpmath.mpf]:
    function: Callable[..., mpmath.mpf] = sp.lambdify(formula.symbols, formula.expression, "mpmath")
    return function


@dataclass(frozen=True)
class Theorem:
    """A formula with its proof and the mistakes that the proof must notice.

    Args:
        name: ``section.name``; docstrings of the code refer to it.
        statement: LaTeX, in textbook form.
        assumptions: what is general, what is scalar and why (Markdown).
        proof: the idea of the proof in a line or two (Markdown).
        residual: expressions that must each be exactly zero.
        controls: what was made wrong -> expressions that must not all vanish.
        computed_by: dotted names of the functions of the code that compute the formula.
        formula: the expression to compare with the code, where there is one.
    """

    name: str
    statement: str
    assumptions: str
    proof: str
    residual: Residual
    controls: Mapping[str, Residual]
    computed_by: tuple[str, ...] = ()
    formula: Callable[[], Formula] | None = None

    def __post_init__(self) -> None:
        if not self.controls:
            raise ValueError(f"controls: {self.name} has none, so its proof could be vacuous")
        object.__setattr__(self, "controls", MappingProxyType(dict(self.controls)))

    @property
    def section(self) -> str:
        return self.name.split(".")[0]


@dataclass(frozen=True)
class Verdict:
    """``proved``: every residual is exactly zero. ``controls``: description -> whether it was caught.

    ``seconds`` of processor time, so that a busy machine does not make a proof look slow.
    """

    proved: bool
    controls: Mapping[str, bool] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        return self.proved and bool(self.controls) and all(self.controls.values())


def check(theorem: Theorem) -> Verdict:
    """Prove the theorem and run its controls."""
    start = time.process_time()
    proved = all(map(zero, _each(theorem.residual())))
    controls = {
        wrong: any(nonzero(residual) for residual in _each(control()))
        for wrong, control in theorem.controls.items()
    }
    return Verdict(proved, controls, time.process_time() - start)


def _each(residuals: Expr | Sequence[Expr]) -> tuple[Expr, ...]:
    several = isinstance(residuals, Iterable) and not isinstance(residuals, sp.Basic)
    found = tuple(residuals) if several else (residuals,)
    if not found:
        raise ValueError("a residual without expressions proves nothing")
    return tuple(sp.sympify(residual) for residual in found)


# Cheap first: most residuals are rational functions once the exponentials are symbols.
_STRATEGIES: tuple[Callable[[Expr], Expr], ...] = (
    lambda e: e,
    lambda e: sp.expand(e),
    lambda e: sp.expand(sp.fraction(sp.together(e))[0]),
    lambda e: sp.expand(sp.fraction(sp.together(sp.expand(e, log=True)))[0]),
    lambda e: sp.powsimp(sp.expand(sp.fraction(sp.together(e.rewrite(sp.exp)))[0])),
    lambda e: sp.simplify(e),
    lambda e: sp.simplify(sp.expand(sp.logcombine(sp.powdenest(e, force=False)))),
    lambda e: sp.radsimp(sp.simplify(e.rewrite(sp.exp))),
)


def zero(expression: Expr) -> bool:
    """Whether rewriting brings the expression to sympy's exact zero."""
    expression = sp.sympify(expression).doit()
    if expression.has(sp.nan, sp.zoo, sp.oo):
        return False
    return any(strategy(expression) == 0 for strategy in _STRATEGIES)


def nonzero(expression: Expr, trials: int = 6) -> bool:
    """Whether the expression is certainly not identically zero: it has a value that is not."""
    expression = sp.sympify(expression)
    return any(_value_is_nonzero(expression, seed) for seed in range(trials))


def _value_is_nonzero(expression: Expr, seed: int) -> bool:
    while functions := expression.atoms(AppliedUndef):
        head = _outermost(functions)
        expression = expression.replace(head, _polynomial(str(head), seed)).doit()
    point = {symbol: _rational(symbol, seed) for symbol in expression.free_symbols}
    value = expression.subs(point).doit().evalf(30, maxn=400)
    return bool(value.is_number and value.is_finite and abs(value) > sp.Rational(1, 10**12))


def _outermost(functions: set[Expr]) -> sp.Basic:
    """A function that is no argument of another, so that derivatives by an inner one are taken before it goes."""
    inner = {g.func for f in functions for argument in f.args for g in argument.atoms(AppliedUndef)}
    heads = sorted({f.func for f in functions}, key=str)
    return next((head for head in heads if head not in inner), heads[0])


def _rational(symbol: Symbol, seed: int) -> Expr:
    draw = random.Random(f"{symbol}/{seed}")
    if symbol.is_integer:
        return sp.Integer(draw.randint(2, 6))
    return sp.Rational(draw.randint(20, 90), 97)


def _polynomial(name: str, seed: int) -> Callable[..., Expr]:
    """A cubic with positive coefficients: increasing and positive where its arguments are positive."""

    def value(*arguments: Expr) -> Expr:
        draw = random.Random(f"{name}/{seed}")

        def coefficient() -> sp.Rational:
            return sp.Rational(draw.randint(20, 90), 97)

        total: Expr = coefficient()
        for index, u in enumerate(arguments):
            total += coefficient() * u + coefficient() * u**2 / 2 + coefficient() * u**3 / 6
            total += sum(coefficient() * u * other for other in arguments[index + 1 :])
        return total

    return value
