r"""Noise levels that differ by direction: a positive definite $H$ in place of $\eta^2 I$.

The reverse SDE has diffusion $\beta H$; its path divergence from the process given $x$ costs, per unit of $\lambda$,
$R(H) = \frac12 \mathrm{SNR}\,E\,\|H^{-1/2}(\frac{I+H}2 r + r')\|^2$. Part of the section on calibration.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr, Matrix

from ._core import Formula, Theorem

snr = sp.Symbol("SNR", positive=True)
_a, _p = sp.symbols("a1 a2", positive=True), sp.symbols("p1 p2", positive=True)
_b, _c = sp.symbols("b1 b2", positive=True), sp.symbols("c1 c2", real=True)


def _symmetric(name: str) -> Matrix:
    one, both, two = sp.symbols(f"{name}11 {name}12 {name}22", real=True)
    return Matrix([[one, both], [both, two]])


def _general(name: str) -> Matrix:
    return Matrix(2, 2, sp.symbols(f"{name}11 {name}12 {name}21 {name}22", real=True))


def path_rate(level: Matrix, cov: Matrix, cross: Matrix, rates: Matrix) -> Expr:
    """R(H) from A = E r r^T, C = E r r'^T and B = E r' r'^T."""
    kappa = (sp.eye(2) + level) / 2
    spread = kappa * cov * kappa.T + kappa * cross + cross.T * kappa.T + rates
    return snr / 2 * (level.inv() * spread).trace()


def matrix_level(weight: int = 8, share: int = 2) -> tuple[Expr, ...]:
    """X is any noise level, H the level for which D = E (r + 2r')(r + 2r')^T = H A H."""
    any_level, best, cov, cross = (
        _symmetric("X"),
        sp.diag(*sp.symbols("h1 h2", positive=True)),
        _symmetric("A"),
        _general("C"),
    )
    rates = (best * cov * best - cov - share * (cross + cross.T)) / 4
    information = snr * (cov.trace() / 2 + cross.trace())
    remaining = snr / 4 * ((best * cov).trace() - cov.trace() - 2 * cross.trace())
    off = any_level - best
    square = snr / weight * (off * cov * off * any_level.inv()).trace()
    return (path_rate(any_level, cov, cross, rates) - information - remaining - square,)


def _marginal(sign: int = 1) -> Expr:
    """The covariance of z_s given x after one reverse step with any contraction P, over sigma_s^2."""
    contraction = _general("P")
    kept = contraction * contraction.T + (sp.eye(2) - sign * contraction * contraction.T)
    return (kept - sp.eye(2))[0, 0]


def _per_dimension(weight: int = 4) -> tuple[Expr, ...]:
    """p_i = a_i eta_i*^2: then b_i + c_i = (p_i^2 / a_i - a_i) / 4; what remains is SNR (p_i - a_i - 2 c_i) / 4."""
    level = sp.Symbol("e", positive=True)
    total = sp.S.Zero
    for a, c, p in zip(_a, _c, _p, strict=True):
        b = (p**2 / a - a) / 4 - c
        total += snr / 2 * (((1 + level) / 2) ** 2 * a + (1 + level) * c + b) / level
    separate = snr * sum(
        a / 2 + c + (p - a - 2 * c) / 4 for a, c, p in zip(_a, _c, _p, strict=True)
    )
    pooled = sum(_a) * sum(p**2 / a for a, p in zip(_a, _p, strict=True))
    distance = _a[0] * _a[1] * (_p[0] / _a[0] - _p[1] / _a[1]) ** 2
    square = sum(a * (level - p / a) ** 2 / (2 * level) for a, p in zip(_a, _p, strict=True))
    return total - separate - snr / weight * square, pooled - sum(_p) ** 2 - distance


def _eigen(share: int = 2) -> tuple[Expr, ...]:
    """x_t = diag(A_1, A_2) x for any law of x: correlated residuals, rates k_i x_t,i."""
    cov, slopes = _symmetric("A"), sp.diag(*sp.symbols("k1 k2", positive=True))
    cross, rates = cov * slopes, slopes * cov * slopes
    level = sp.eye(2) + share * slopes
    return (path_rate(level, cov, cross, rates) - snr * (cov.trace() / 2 + cross.trace()),)


def _rotation(excess: Expr | None = None) -> tuple[Expr, ...]:
    """x_t' = omega J x_t with J the quarter turn, and residuals without a preferred direction."""
    a, omega, level = sp.symbols("a omega e", positive=True)
    turn = omega * Matrix([[0, -1], [1, 0]])
    cov = a * sp.eye(2)
    cross, rates = cov * turn.T, turn * cov * turn.T
    best = sp.sqrt(1 + 4 * omega**2)
    excess = snr * a * (best - 1) / 2 if excess is None else excess
    rate = path_rate(level * sp.eye(2), cov, cross, rates) - snr * cov.trace() / 2
    residual = (sp.eye(2) + 2 * turn) * cov * (sp.eye(2) + 2 * turn).T
    return (
        rate - excess - snr * a * (level - best) ** 2 / (4 * level),
        (residual - best**2 * cov)[0, 0],
        (residual - best**2 * cov)[0, 1],
    )


THEOREMS = (
    Theorem(
        name="calibration.noise_level_per_dimension",
        statement=r"\eta_{i*}^2 = \sqrt{1 + 4(b_i + c_i)/a_i}, \qquad R(\eta^2) = \sum_i R_i(\eta_{i*}^2) +"
        r" \mathrm{SNR} \sum_i \frac{a_i (\eta^2 - \eta_{i*}^2)^2}{8\eta^2}",
        assumptions=r"Any heads; $d = 2$ written out. One level for all loses nothing iff all $\eta_{i*}$ with $a_i"
        r" > 0$ agree.",
        proof=r"Complete the square in each dimension. At the best common level the loss is $\frac14\mathrm{SNR}\,"
        r"(\sqrt{\sum a_i \sum a_i \eta_{i*}^4} - \sum a_i \eta_{i*}^2)$, and Lagrange's identity writes it as a sum of"
        r" squares.",
        residual=_per_dimension,
        controls={"half the loss": lambda: _per_dimension(weight=8)},
        formula=lambda: Formula(
            (*_a, *_b, *_c),
            sp.Tuple(*(sp.sqrt(1 + 4 * (b + c) / a) for a, b, c in zip(_a, _b, _c, strict=True))),
        ),
    ),
    Theorem(
        name="calibration.matrix_noise_level",
        statement=r"R(X) - \frac{dI}{d\lambda} = \frac{\mathrm{SNR}}4 \left(\operatorname{tr}(HA) - E\,r\cdot(r +"
        r" 2r')\right) + \frac{\mathrm{SNR}}8 \operatorname{tr}\left((X-H) A (X-H) X^{-1}\right), \qquad HAH = D",
        assumptions=r"$A = E\,rr^T$, $D = E(r+2r')(r+2r')^T$; $H \succeq 0$ the solution of $HAH = D$, the"
        r" geometric mean $A^{-1} \mathbin{\sharp} D$; $X$ any positive definite noise level; $d = 2$ written"
        r" out in the eigenbasis of $H$.",
        proof=r"Complete the square in $X$; the last trace is that of a positive semidefinite product. The minimum"
        r" $\operatorname{tr}(HA) = \operatorname{tr}(A^{1/2} D A^{1/2})^{1/2}$ is the largest $E\,r\cdot r''$"
        r" of any coupling of Gaussians with covariances $A$ and $D$: what no noise level can remove is how far"
        r" $(r, r + 2r')$ is from an optimal transport. Tight iff $r' = \frac12(H - I)r$ with symmetric $H"
        r" \succeq 0$.",
        residual=lambda: (*matrix_level(), _marginal()),
        controls={
            "twice the square": lambda: matrix_level(weight=4),
            "cross term of r + r'": lambda: matrix_level(share=1),
            "noise added to what is kept": lambda: _marginal(sign=-1),
        },
    ),
    Theorem(
        name="calibration.linear_encoder_tight",
        statement=r"x_t = A(\lambda) x,\ \ K = A' A^{-1} \text{ symmetric in a fixed basis},\ \ H = I + 2K: \qquad"
        r" R(H) = \frac{dI}{d\lambda}",
        assumptions=r"Any prior (any residual covariance, not diagonal in general), $K \succeq -\frac12 I$; $d = 2$"
        r" in the eigenbasis of $K$.",
        proof=r"$r + 2r' = (I + 2K) r = Hr$: the square of `calibration.matrix_noise_level` and what remains both"
        r" vanish.",
        residual=_eigen,
        controls={"I + K": lambda: _eigen(share=1), "eta = 1": lambda: _eigen(share=0)},
    ),
    Theorem(
        name="calibration.rotation_never_tight",
        statement=r"x_t' = \omega J x_t: \qquad \min_H R(H) - \frac{dI}{d\lambda} = \tfrac12 \mathrm{SNR}\, a"
        r" \left(\sqrt{1 + 4\omega^2} - 1\right) > 0",
        assumptions=r"A counterexample: $J$ a quarter turn of the plane and $E\,rr^T = a I$, as for isotropic"
        r" Gaussian data.",
        proof=r"$D = (1 + 4\omega^2) A$, so $H = \sqrt{1 + 4\omega^2}\, I$, and $r + 2r' = (I + 2\omega J) r \ne"
        r" Hr$. The rate is linear in $x_t$ and known from it, yet no noise level makes the ELBO tight.",
        residual=_rotation,
        controls={"tight after all": lambda: _rotation(excess=sp.S.Zero)},
    ),
)
