r"""A network that was trained elsewhere saw $z = a(t)\,x + b(t)\,\epsilon$ in its own time and scaling, and estimates
a combination $u = p\,x + q\,\epsilon$. Both are this page's latents and estimates up to a scaling and two linear
equations.
"""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp
from sympy import Expr

from ._core import Formula, Theorem
from ._notation import alpha, eps, g, sigma, x

_a, _b = sp.symbols("a b", positive=True)
_da, _db = sp.symbols("a' b'", real=True)
_p, _q, _u = sp.symbols("p q u", real=True)
_z = _a * x + _b * eps
_s = sp.sqrt(_a**2 + _b**2)
_half = sp.Rational(1, 2)


def _process(factor: int = 2, norm: Expr = _s) -> tuple[Expr, ...]:
    """z/s less alpha x + sigma eps at gamma = 2 ln(b/a), coefficient by coefficient, squared."""
    level = sp.log((_b / _a) ** factor)
    return (
        (_a / norm) ** 2 - alpha(level) ** 2,
        (_b / norm) ** 2 - sigma(level) ** 2,
        alpha(level) ** 2 + sigma(level) ** 2 - 1,
    )


def _read(p: Expr, q: Expr, u: Expr, z: Expr = _z, b: Expr = _b) -> Expr:
    """x_hat."""
    return (q * z - b * u) / (_a * q - _b * p)


def _general(sign: int = 1, b: Expr = _b) -> tuple[Expr, ...]:
    """The right u gives x; any other misses it by (b/D) (u - p x - q eps)."""
    determinant = _a * _q - _b * _p
    missed = sign * b / determinant * (_u - _p * x - _q * eps)
    return _read(_p, _q, _p * x + _q * eps) - x, x - _read(_p, _q, _u) - missed


# What each parameterisation estimates, (p, q), and x_hat as it is written for it alone.
_EACH: dict[str, tuple[Expr, Expr, Expr]] = {
    "eps": (sp.S.Zero, sp.S.One, (_z - _b * _u) / _a),
    "x0": (sp.S.One, sp.S.Zero, _u),
    "v": (-_b, _a, (_a * _z - _b * _u) / (_a**2 + _b**2)),
    "score": (sp.S.Zero, -1 / _b, (_z + _b**2 * _u) / _a),
    "velocity": (_da, _db, (_db * _z - _b * _u) / (_a * _db - _da * _b)),
}


def _one(name: str, written: Expr | None = None) -> tuple[Expr, ...]:
    """The general reading less the written one; and the written one at the right output less x."""
    p, q, own = _EACH[name]
    own = own if written is None else written
    return _read(p, q, _u) - own, own.subs(_u, p * x + q * eps) - x


_WORDS = {
    "eps": r"u = \hat\epsilon: \qquad \hat x = \frac{z - b u}{a}",
    "x0": r"u = \hat x: \qquad \hat x = u \quad\text{(EDM's } D(z; \sigma)\text{, too)}",
    "v": r"u = \hat v,\ v = a\epsilon - b x: \qquad \hat x = \frac{a z - b u}{a^2 + b^2}",
    "score": r"u = \hat s,\ s = -\epsilon/b: \qquad \hat x = \frac{z + b^2 u}{a}",
    "velocity": (
        r"u = \widehat{dz/dt},\ \dot z = a' x + b' \epsilon: \qquad"
        r" \hat x = \frac{b' z - b u}{a b' - a' b}"
    ),
}
# The two mistakes that people make with each: its sign, and a taken for b.
_MISTAKES: dict[str, dict[str, Expr]] = {
    "eps": {
        "sign of the output": (_z + _b * _u) / _a,
        "a and b exchanged": (_z - _a * _u) / _b,
    },
    "x0": {
        "sign of the output": -_u,
        "read as eps": (_z - _b * _u) / _a,
    },
    "v": {
        "sign of the output": (_a * _z + _b * _u) / (_a**2 + _b**2),
        "a and b exchanged": (_b * _z - _a * _u) / (_a**2 + _b**2),
        "as if a^2 + b^2 = 1": _a * _z - _b * _u,
    },
    "score": {
        "sign of the output": (_z - _b**2 * _u) / _a,
        "b for b^2": (_z + _b * _u) / _a,
    },
    "velocity": {
        "sign of the output": (_db * _z + _b * _u) / (_a * _db - _da * _b),
        "sign of the determinant": (_db * _z - _b * _u) / (_da * _b - _a * _db),
        "a' for b'": (_da * _z - _b * _u) / (_a * _db - _da * _b),
    },
}


def _control(name: str, wrong: Expr) -> Callable[[], tuple[Expr, ...]]:
    return lambda: _one(name, wrong)


def _conversion(name: str) -> Theorem:
    return Theorem(
        name=f"adapters.{name}",
        statement=_WORDS[name],
        assumptions="One dimension; $z = a x + b\\epsilon$, $a, b > 0$.",
        proof="The general reading with this parameterisation's $p, q$; at the right output it is $x$.",
        residual=lambda: _one(name),
        controls={wrong: _control(name, written) for wrong, written in _MISTAKES[name].items()},
        computed_by=("diffenc_ct.adapters.AdaptedHeads.forward",),
    )


def _turning(half: Expr = _half, sign: int = 1) -> Expr:
    """a b' - a' b less a b gamma'/2, gamma = 2 ln(b/a)."""
    t = sp.Symbol("t", positive=True)
    a, b = (sp.Function(name, positive=True)(t) for name in ("a", "b"))
    rate = (2 * (sp.log(b) - sp.log(a))).diff(t)
    return a * b.diff(t) - sign * a.diff(t) * b - half * a * b * rate


def _times(scale: Expr = _half, offset: int = 1) -> tuple[Expr, ...]:
    """2 ln(b/a) at the closed-form times, exponentiated: rectified flow, sigma, and the cosine's tangent."""
    root = sp.exp(scale * g)
    line = root / (offset + root)
    angle = sp.atan(root)
    return (
        (line / (1 - line)) ** 2 - sp.exp(g),
        root**2 - sp.exp(g),
        (sp.sin(angle) / sp.cos(angle)) ** 2 - sp.exp(g),
    )


THEOREMS: tuple[Theorem, ...] = (
    Theorem(
        name="adapters.native_process",
        statement=(
            r"\frac{z}{s} = \alpha x + \sigma\epsilon,\quad s = \sqrt{a^2 + b^2},\quad"
            r" \gamma = 2 \ln\frac{b}{a}: \qquad \alpha = \frac{a}{s},\quad \sigma = \frac{b}{s}"
        ),
        assumptions="Any $a, b > 0$; all four are positive, so their squares decide.",
        proof=r"$\mathrm{sigmoid}(\pm\gamma)$ of $e^\gamma = b^2/a^2$.",
        residual=_process,
        controls={
            "ln(b/a) for its double": lambda: _process(factor=1),
            "a + b for s": lambda: _process(norm=_a + _b),
            "ln(a/b) for ln(b/a)": lambda: _process(factor=-2),
        },
        computed_by=("diffenc_ct.adapters.NativeProcess.forward",),
    ),
    Theorem(
        name="adapters.parameterisations",
        statement=(
            r"u \approx p\,x + q\,\epsilon: \qquad \hat x = \frac{q z - b u}{D},\quad"
            r" x - \hat x = \frac{b}{D}(u - p\,x - q\,\epsilon),\quad D = a q - b p"
        ),
        assumptions="One dimension; $D \\ne 0$.",
        proof="Cramer's rule for $z$ and $u$; the second is linear in $u$ and vanishes at the right one.",
        residual=_general,
        controls={
            "sign of the error": lambda: _general(sign=-1),
            "a for b in the error": lambda: _general(b=_a),
        },
        computed_by=(
            "diffenc_ct.adapters.AdaptedHeads.forward",
            "diffenc_ct.adapters.AdaptedHeads.errors",
        ),
        formula=lambda: Formula(
            (_a, _b, _p, _q, x, eps, _u),
            sp.Tuple(_read(_p, _q, _u), _b / (_a * _q - _b * _p) * (_u - _p * x - _q * eps)),
        ),
    ),
    *(_conversion(name) for name in _EACH),
    Theorem(
        name="adapters.velocity_determinant",
        statement=r"a b' - a' b = \tfrac12\, a b\, \gamma'",
        assumptions="Primes in any time; so a velocity can be read wherever the log SNR is monotone.",
        proof=r"$\gamma' = 2 (b'/b - a'/a)$.",
        residual=_turning,
        controls={
            "gamma' without 1/2": lambda: _turning(half=sp.S.One),
            "a b' + a' b": lambda: _turning(sign=-1),
        },
        computed_by=("diffenc_ct.adapters.AdaptedHeads.forward",),
    ),
    Theorem(
        name="adapters.times",
        statement=(
            r"\frac{t}{1 - t} = \sigma_{\mathrm{VE}} = \tan\theta = e^{\gamma/2}"
            r"\quad\text{at } t = \mathrm{sigmoid}(\gamma/2),\ \sigma_{\mathrm{VE}} = e^{\gamma/2},"
            r"\ \theta = \arctan e^{\gamma/2}"
        ),
        assumptions="Rectified flow $a = 1 - t, b = t$; variance exploding $a = 1$; cosine $a = \\cos\\theta$.",
        proof=r"$b/a = e^{\gamma/2}$ in each.",
        residual=_times,
        controls={
            "gamma for gamma/2": lambda: _times(scale=sp.S.One),
            "2 for 1 in the sigmoid": lambda: _times(offset=2),
        },
        computed_by=(
            "diffenc_ct.adapters.RectifiedFlow.time",
            "diffenc_ct.adapters.VarianceExploding.time",
            "diffenc_ct.adapters.Cosine.time",
        ),
    ),
)
