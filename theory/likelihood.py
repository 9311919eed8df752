r"""The likelihood of the probability-flow ODE, and the bounds that turn a density into probabilities of levels.

![Tied against paired probability flow in a Gaussian world](figures/flow.png)
"""

from __future__ import annotations

from itertools import product

import sympy as sp
from sympy import Expr, Matrix

from ._core import Formula, Theorem
from ._notation import alpha, lam, sigma, t
from ._path_errors import THEOREMS as _PATH_ERRORS
from ._paths import THEOREMS as _PATHS
from ._prior import Prior

_A, _S = alpha(-lam), sigma(-lam)
_Z = sp.symbols("z1 z2", real=True)
_LABEL = sp.Symbol("x", real=True)
_TAU = sp.Symbol("tau", positive=True)


def _observed(encoded: tuple[Expr, ...]) -> Prior:
    square = sum((z - _A * x) ** 2 for z, x in zip(_Z, encoded, strict=False))
    return Prior(-square / (2 * _S**2) - len(encoded) * sp.log(_S))


def flow(z: Expr, x_hat: Expr, r_hat: Expr, half: Expr = sp.S.Half, sign: int = -1) -> Expr:
    """The probability flow's dz/dt over gamma'."""
    return _S**2 * (-z / 2 + half * (z - _A * x_hat) / _S**2 + sign * _A / _S**2 * r_hat)


def _continuity(**wrong: Expr) -> Expr:
    encoded = tuple(sp.Function(f"X{i}", real=True)(lam) for i in (1, 2))
    prior = _observed(encoded)
    total = -prior.diff(prior.mass, lam)
    for z, x in zip(_Z, encoded, strict=True):
        drift = flow(z, prior.mean(x), prior.mean(x.diff(lam)), **wrong)
        total += prior.diff(drift * prior.mass, z)
    return total


def _change_of_variables(sign: int = -1) -> tuple[Expr, ...]:
    drift = [sp.Function(f"f{i}", real=True)(*_Z, t) for i in (1, 2)]
    density = sp.Function("p", positive=True)(*_Z, t)
    divergence = sum(f.diff(z) for f, z in zip(drift, _Z, strict=True))
    flux = -sum((f * density).diff(z) for f, z in zip(drift, _Z, strict=True))
    along = flux + sum(f * density.diff(z) for f, z in zip(drift, _Z, strict=True))
    jacobian = Matrix(2, 2, sp.symbols("J11 J12 J21 J22", real=True))
    change = Matrix(2, 2, lambda i, j: drift[i].diff(_Z[j])) * jacobian
    determinant = jacobian.det()
    moved = sum(determinant.diff(jacobian[i, j]) * change[i, j] for i in (0, 1) for j in (0, 1))
    return along / density - sign * divergence, moved + sign * divergence * determinant


def _tied(encoded: Expr, shared: Expr) -> Expr:
    """Tied flow minus true flow in one dimension, with x_hat* = E[x + x'|z]/(1 + share) for both heads."""
    prior = _observed((encoded,))
    rate = encoded.diff(lam)
    head = prior.mean(encoded + rate) / (1 + shared)
    return flow(_Z[0], head, shared * head) - flow(_Z[0], prior.mean(encoded), prior.mean(rate))


def _tied_error(weight: int = 2) -> tuple[Expr, ...]:
    encoded = sp.Function("X", real=True)(lam)
    prior, s2 = _observed((encoded,)), _S**2
    off = prior.mean(encoded.diff(lam)) - s2 * prior.mean(encoded)
    z, k, mean, spread = sp.symbols("z k m s", positive=True)
    exponent = k * z - (z - mean) ** 2 / (2 * spread**2)
    density = sp.exp(exponent) / (sp.sqrt(2 * sp.pi) * spread)
    transform = sp.integrate(density, (z, -sp.oo, sp.oo))
    return (
        _tied(encoded, s2) - _A / (weight * (1 + s2)) * off,
        sp.simplify(transform - sp.exp(k * mean + k**2 * spread**2 / 2)),
    )


def _tied_exact(power: int = 2, share: Expr | None = None) -> tuple[Expr, ...]:
    still = sp.Function("x", real=True)(_LABEL)
    return _tied(_A**power * still, _S**2 if share is None else share), _tied(still, sp.S.Zero)


def _rotation(squash: Expr = sp.S.One) -> Expr:
    """x_t = alpha^2 R(omega lambda) x with isotropic Gaussian x: the tied flow's continuity equation."""
    spread, omega, a, s = sp.symbols("S omega alpha sigma", positive=True)
    variance = (a**6 * spread + s**2, a**6 * spread * squash + s**2)
    gain = [a**5 * v / w for v, w in zip((spread, spread * squash), variance, strict=True)]
    mean = [gain[0] * _Z[0], gain[1] * _Z[1]]
    turned = [-omega * mean[1], omega * mean[0]]
    log_q = sum(-(z**2) / (2 * v) - sp.log(v) / 2 for z, v in zip(_Z, variance, strict=True))
    # d alpha^2/d lambda = alpha^2 sigma^2 = -d sigma^2/d lambda, both over gamma'
    change = log_q.diff(a) * a * s**2 / 2 - log_q.diff(s) * s * a**2 / 2
    total = -change
    for z, m, j in zip(_Z, mean, turned, strict=True):
        head = m + j / (1 + s**2)
        drift = s**2 * (-z / 2 + (z - a * head) / (2 * s**2) - a * head)
        total += drift.diff(z) + drift * log_q.diff(z)
    return sp.together(total).subs(a, sp.sqrt(1 - s**2))


def _gaussian_moment(power: int) -> Expr:
    u = sp.Symbol("u", real=True)
    return sp.integrate(u**power * sp.exp(-(u**2) / 2), (u, -sp.oo, sp.oo)) / sp.sqrt(2 * sp.pi)


def _hutchinson(
    normal_probe: bool, weight: int = 2, diagonal: bool | None = None
) -> tuple[Expr, ...]:
    """Mean and variance of v^T M v in three dimensions."""
    size = 3
    matrix = Matrix(size, size, lambda i, j: sp.Symbol(f"M{i}{j}", real=True))
    symmetric = (matrix + matrix.T) / 2
    probe = sp.symbols(f"v1:{size + 1}", real=True)
    form = sp.expand((Matrix(probe).T * matrix * Matrix(probe))[0])
    if normal_probe:
        moment = {n: _gaussian_moment(n) for n in range(5)}

        def mean(polynomial: Expr) -> Expr:
            terms = sp.Poly(polynomial, *probe).terms()
            return sum(c * sp.prod(moment[n] for n in powers) for powers, c in terms)
    else:

        def mean(polynomial: Expr) -> Expr:
            signs = product((-1, 1), repeat=size)
            return sum(polynomial.subs(dict(zip(probe, s, strict=True))) for s in signs) / 2**size

    keep = normal_probe if diagonal is None else diagonal
    square = sum(symmetric[i, j] ** 2 for i in range(size) for j in range(size) if keep or i != j)
    first = mean(form)
    second = mean(sp.expand(form**2))
    return sp.expand(first - matrix.trace()), sp.expand(second - first**2 - weight * square)


def _bound(entropy: int = 1, tangent: int = 1) -> tuple[Expr, ...]:
    """Pointwise in the noise: log p(x) minus what is averaged is the log ratio of q and the posterior."""
    likelihood, prior, q, evidence, y = sp.symbols("p(x|z) p(z) q(z|x) p(x) y", positive=True)
    averaged = sp.log(likelihood) + sp.log(prior) - entropy * sp.log(q)
    posterior = likelihood * prior / evidence
    slack = y - tangent - sp.log(y)
    return (
        sp.expand_log(sp.log(evidence) - averaged - sp.log(q / posterior)),
        slack.subs(y, 1),
        slack.diff(y).subs(y, 1),
        slack.diff(y, 2) - 1 / y**2,
    )


def _truncated(scale: Expr | None = None, edge: int = 2) -> tuple[Expr, ...]:
    u = sp.Symbol("u", real=True)
    density = sp.exp(-(u**2) / 2) / sp.sqrt(2 * sp.pi)
    constant = sp.erf(_TAU / sp.sqrt(2) if scale is None else _TAU * scale)
    mass = sp.integrate(density, (u, -_TAU, _TAU))
    square = sp.integrate(u**2 * density, (u, -_TAU, _TAU)) / constant
    return mass - constant, square - (1 - edge * _TAU * density.subs(u, _TAU) / constant)


def truncated_normal() -> tuple[Expr, Expr]:
    """Z and the entropy of a standard normal truncated at tau."""
    constant = sp.erf(_TAU / sp.sqrt(2))
    edge = _TAU * sp.exp(-(_TAU**2) / 2) / sp.sqrt(2 * sp.pi)
    return constant, sp.log(2 * sp.pi) / 2 + sp.log(constant) + sp.S.Half - edge / constant


def _importance(drop: int = 0) -> tuple[Expr, ...]:
    """The mean of K + 1 weights is the mean of the means that leave one out; log lies below its tangent."""
    residuals = []
    for number in range(1, 5):
        weights = sp.symbols(f"w1:{number + 2}", positive=True)
        total = sum(weights)
        without = [(total - w) / number for w in weights[drop:]]
        residuals.append(total / (number + 1) - sum(without) / (number + 1))
    y = sp.Symbol("y", positive=True)
    below = y - 1 - sp.log(y)
    return (*residuals, below.subs(y, 1), below.diff(y).subs(y, 1), below.diff(y, 2) - 1 / y**2)


THEOREMS = (
    Theorem(
        name="likelihood.continuity",
        statement=r"\partial_t q_t + \nabla \cdot (f q_t) = 0, \qquad f = \beta\left[-\frac z2 + \frac{z - \alpha"
        r" E[x_t|z]}{2\sigma^2} - \frac{\alpha}{\sigma^2} E[x_t'|z]\right]",
        assumptions=r"Any prior with the moments used, any encoder; $d = 2$ written out; over $\gamma'$, so any"
        r" schedule.",
        proof=r"Differentiate $q_t = \int\mu(dx)\,N(z; \alpha x_t, \sigma^2 I)$ under the integral; the moments agree.",
        residual=_continuity,
        controls={
            "sign of r_hat": lambda: _continuity(sign=1),
            "r_hat dropped": lambda: _continuity(sign=0),
            "the SDE's kappa": lambda: _continuity(half=sp.S.One),
        },
        computed_by=("diffenc_ct.dynamics.ProbabilityFlow",),
    ),
    Theorem(
        name="likelihood.change_of_variables",
        statement=r"\frac{d}{dt} \log p_t(z(t)) = -\nabla\cdot f, \qquad \frac{d}{dt} \det J = (\nabla\cdot f) \det"
        r" J,\qquad \log p_0(z_0) = \log p_1(z_1) + \int_0^1 \nabla\cdot f\,dt",
        assumptions=r"Any smooth drift $f(z, t)$; $J = \partial z(t)/\partial z(0)$; $d = 2$ written out.",
        proof=r"Continuity equation along $\dot z = f$, and Jacobi's formula for $\dot J = (\nabla f) J$.",
        residual=_change_of_variables,
        controls={"sign of the divergence": lambda: _change_of_variables(sign=1)},
        computed_by=("diffenc_ct.likelihood.flow.log_density",),
    ),
    Theorem(
        name="likelihood.tied_error",
        statement=r"f_{\text{tied}} - f = \frac{\alpha\beta}{2\sigma^2(1 + \sigma^2)}\, E[x_t' - \sigma^2 x_t \mid"
        r" z], \qquad \int e^{kz} N(z; m, s^2)\, dz = e^{km + k^2 s^2/2} \ne 0",
        assumptions=r"Any prior and encoder; $\hat x = E[x_t + x_t'|z]/(1 + \sigma^2)$, the ELBO's optimum, and"
        r" $\hat r = \sigma^2 \hat x$; componentwise.",
        proof=r"Moments; the transform shows that a Gaussian blurs injectively. So in one dimension, where two"
        r" fluxes with the same divergence that vanish at infinity agree, the tied flow has the data's"
        r" marginals iff $E[x_t'|x_t] = \sigma^2 x_t$.",
        residual=_tied_error,
        controls={"twice the error": lambda: _tied_error(weight=1)},
    ),
    Theorem(
        name="likelihood.tied_exact",
        statement=r"x_t = \alpha^2 x:\ f_{\text{tied}} = f; \qquad x_t = x,\ \hat r = 0:\ f_{\text{tied}} = f",
        assumptions=r"Any prior; componentwise. $x_t' = \sigma^2 x_t$ in general is $x_t = \alpha^2 g(x)$, for"
        r" which $x$ stands.",
        proof=r"The error of `likelihood.tied_error` is the mean of zero; without an encoder the term is dropped.",
        residual=_tied_exact,
        controls={
            "x_t = alpha x": lambda: _tied_exact(power=1),
            "term dropped for an encoder": lambda: _tied_exact(share=sp.S.Zero),
        },
    ),
    Theorem(
        name="likelihood.tied_rotation",
        statement=r"x_t' = \sigma^2 x_t + \omega J x_t,\ x \sim N(0, SI): \qquad \partial_t q_t +"
        r" \nabla\cdot(f_{\text{tied}} q_t) = 0",
        assumptions=r"A counterexample to 'only if' in two dimensions: $J$ a quarter turn.",
        proof=r"The error of the drift, proportional to $Jz$, carries a divergence-free flux. So in more than one"
        r" dimension a tied flow can keep every marginal although $x_t' \ne \sigma^2 x_t$.",
        residual=_rotation,
        controls={"anisotropic data": lambda: _rotation(squash=sp.Rational(1, 3))},
    ),
    Theorem(
        name="likelihood.hutchinson",
        statement=r"E[v^T M v] = \operatorname{tr} M, \qquad \operatorname{Var}_{\pm 1} = 2 \sum_{i \ne j} \bar"
        r" M_{ij}^2,\qquad \operatorname{Var}_{N(0, I)} = 2 \|\bar M\|_F^2, \qquad \bar M = \tfrac12 (M + M^T)",
        assumptions=r"Any $M$; $d = 3$ written out, all signs enumerated, Gaussian moments integrated.",
        proof=r"Second and fourth moments of the probe. Rademacher probes never do worse.",
        residual=lambda: (*_hutchinson(False), *_hutchinson(True)),
        controls={
            "variance without the two": lambda: _hutchinson(False, weight=1),
            "Gaussian variance for signs": lambda: _hutchinson(False, diagonal=True),
            "variance for signs for Gaussian": lambda: _hutchinson(True, diagonal=False),
        },
        computed_by=(
            "diffenc_ct.likelihood.divergence.Rademacher",
            "diffenc_ct.likelihood.divergence.GaussianProbes",
        ),
    ),
    Theorem(
        name="likelihood.dequantisation",
        statement=r"\log p(x) - E_q\left[\log p(x|z) + \log p(z) - \log q(z|x)\right] = KL(q(z|x)\|p(z|x)) = E_q[y"
        r" - 1 - \ln y] \ge 0,\quad y = \frac{p(z|x)}{q(z|x)}",
        assumptions=r"Any density $p(z)$ and any $q(z|x)$ that covers $p(z|x)$: the model's own noise, a truncated"
        r" normal, or uniform noise with $p(x|z)$ the indicator of the bin of $x$.",
        proof=r"Bayes' rule pointwise; $y - 1 - \ln y$ is convex with its minimum, zero, at $y = 1$.",
        residual=_bound,
        controls={
            "entropy of q forgotten": lambda: _bound(entropy=0),
            "sign of the entropy": lambda: _bound(entropy=-1),
        },
        computed_by=("diffenc_ct.likelihood.dequantisation.Dequantisation.draw",),
    ),
    Theorem(
        name="likelihood.truncated_normal",
        statement=r"Z = \int_{-\tau}^{\tau} \frac{e^{-u^2/2}}{\sqrt{2\pi}} du ="
        r" \operatorname{erf}\frac{\tau}{\sqrt2}, \qquad H = \tfrac12 \ln 2\pi + \ln Z + \tfrac12 - \frac{\tau"
        r" e^{-\tau^2/2}}{\sqrt{2\pi}\,Z}",
        assumptions=r"$\tau > 0$; $q(u) = N(u; 0, 1)/Z$ on $[-\tau, \tau]$, one per dimension.",
        proof="Integrate; once by parts for the second moment.",
        residual=_truncated,
        controls={
            "erf(tau)": lambda: _truncated(scale=sp.S.One),
            "one edge for two": lambda: _truncated(edge=1),
        },
        computed_by=("diffenc_ct.likelihood.dequantisation.truncated_normal_constant",),
        formula=lambda: Formula((_TAU,), sp.Tuple(*truncated_normal())),
    ),
    Theorem(
        name="likelihood.importance",
        statement=r"L_K = E \ln \frac1K \sum_{i \le K} w_i: \qquad L_K \le L_{K+1} \le \ln E w",
        assumptions=r"Exchangeable positive weights; $K = 1, \dots, 4$ written out.",
        proof=r"The mean of $K+1$ weights is the mean of the $K+1$ means that leave one out, and $\ln$ is concave"
        r" (below its tangent), so Jensen applies to that mean.",
        residual=_importance,
        controls={"a subset forgotten": lambda: _importance(drop=1)},
        computed_by=("diffenc_ct.likelihood.estimate.log_likelihood",),
    ),
    *_PATHS,
    *_PATH_ERRORS,
)
