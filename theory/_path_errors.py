r"""Errors of the score that the flow's marginals pay for otherwise than the ELBO. Part of the section on likelihood.

The model's score is s + delta, where s = grad ln q is the data's; the encoder does not move, and x_hat = E[x|z] +
(sigma^2/alpha) delta. Model and data begin with the same density at depth 1.
"""

from __future__ import annotations

import sympy as sp
from sympy import Expr, Symbol

from ._core import Formula, Theorem
from ._moments import mean_over
from ._notation import alpha, eta2, g, log_normal, rate, sigma2, z
from ._paths import KAPPA, N1, Z, dot, gradient

_N2 = Symbol("n2", real=True)
_k, _K = sp.symbols("k K", real=True)
_U = Symbol("U", positive=True)


def _rotation(turn: int = -1, share: int = 1) -> tuple[Expr, ...]:
    """What a turned score adds to the Fokker-Planck equation of any density, and its price in a Gaussian world."""
    log_q, omega = sp.Function("A", real=True)(*Z), Symbol("omega", real=True)
    variance = Symbol("V", positive=True)
    first, second = gradient(log_q)
    added = [omega * turn * second, omega * first]
    moved = sum(e.diff(x) for e, x in zip(added, Z, strict=True)) + dot(added, [first, second])
    gaussian = [e.subs(log_q, -dot(Z, Z) / (2 * variance)).doit() for e in added]
    at = {x: sp.sqrt(variance) * n for x, n in zip(Z, (N1, _N2), strict=True)}
    mean = mean_over(dot(gaussian, gaussian).subs(at), (N1, _N2))
    # the price of path_kl at a = -(sigma^2/alpha) delta, b = 0
    delta, beta = Symbol("delta", real=True), sigma2(g) * rate
    price = rate * sp.exp(-g) / (2 * eta2) * (KAPPA * sigma2(g) / alpha(g) * delta) ** 2
    return (
        moved,
        mean - share * 2 * omega**2 / variance,
        price - KAPPA**2 / (2 * eta2) * beta * delta**2,
    )


def _flow_kl(K: Expr) -> Expr:
    return (K + sp.exp(-K) - 1) / 2


def _sde_variance(k: Expr, U: Expr) -> Expr:
    return (1 - 2 * k * sp.exp(-(1 - 2 * k) * U)) / (1 - 2 * k)


def _linear(half: Expr = sp.S.Half, sign: int = 1, bend: Expr = sp.S.One) -> tuple[Expr, ...]:
    """Variances of flow and SDE with the score's slope off by k; time u = int beta, from depth 0."""
    u = Symbol("u", positive=True)
    # q's variance and the error so far, int_t^1 beta k, as functions of u
    V, off, k = (sp.Function(name, positive=True)(u) for name in ("V", "K", "k"))
    of_q, of_off = 1 - V, -k
    p = V * sp.exp(sign * off)
    moved = p.diff(off) * of_off + p.diff(V) * of_q
    slope = -sp.S.Half - half * (-1 / V + k)
    own = _sde_variance(_k, _U - u)
    variance = Symbol("V", positive=True)
    logs = log_normal(z, 0, variance) - log_normal(z, 0, variance * sp.exp(_K))
    kl = mean_over(sp.expand_log(logs).subs(z, sp.sqrt(variance) * N1), (N1,))
    above = _flow_kl(_k * _U) - _k**2 * _U / 2
    return (
        moved - 2 * slope * p,
        kl - _flow_kl(_K),
        mean_over((_k * sp.sqrt(variance) * N1) ** 2, (N1,)) - _k**2 * variance,
        own.diff(u) - (2 * (sp.S.Half - _k) * own - 1),
        own.subs(u, _U) - 1,
        above.subs(_k, 0),
        above.diff(_k).subs(_k, 0),
        above.diff(_k, 2) - (bend * _U**2 * sp.exp(-_k * _U) / 2 - _U),
    )


def _linear_formula() -> Formula:
    """KL of the marginals of the flow, charge of the ELBO, KL of the marginals of the SDE, at S = 1 and constant k."""
    own = _sde_variance(_k, _U)
    sde = (1 / own + sp.log(own) - 1) / 2
    return Formula((_k, _U), sp.Tuple(_flow_kl(_k * _U), _k**2 * _U / 2, sde))


def _hermite(n: int) -> Expr:
    return sp.expand((-1) ** n * sp.exp(z**2 / 2) * sp.exp(-(z**2) / 2).diff(z, n))


def _mean(polynomial: Expr) -> Expr:
    """Over z ~ N(0, 1)."""
    terms = sp.Poly(sp.expand(polynomial), z).terms()
    return sum(c * sp.factorial2(n - 1) for (n,), c in terms if n % 2 == 0)


def _mode(n: int, decay: int, factor: Expr) -> tuple[Expr, ...]:
    """First order in epsilon, for the score's error epsilon k(u) He_n."""
    u, small = sp.symbols("u epsilon", real=True)
    k, H = (sp.Function(name, real=True)(u) for name in ("k", "H"))
    kappa = factor * (1 + eta2)
    q, h = sp.exp(-(z**2) / 2), H * _hermite(n + 1)
    p = q * (1 + small * h)
    drift = -z / 2 - (1 + eta2) / 2 * (-z + small * k * _hermite(n))
    residual = p.diff(u) + (drift * p).diff(z) + eta2 / 2 * p.diff(z, 2)
    claimed = eta2 * (n + decay) / 2 * H - kappa * k
    first = (residual / q).diff(small).subs(small, 0).subs(H.diff(u), claimed)
    a, mass, square = sp.symbols("a int_k int_k2", real=True)
    squares = (square - 2 * a * mass + a**2 * _U).subs(a, mass / _U)  # int (k - a)^2 du
    path = sp.factorial(n) / 2
    flow = sp.factorial(n + 1) / 2 * sp.Rational(1, 4)
    sde = sp.factorial(n + 1) / 2 * kappa**2
    second = sp.log(1 + small * a).diff(small, 2).subs(small, 0)
    return (
        sp.expand(sp.simplify(first)),
        -_mean(second.subs(a, h)) / 2 - sp.factorial(n + 1) / 2 * H**2,
        _mean(_hermite(n) ** 2) - sp.factorial(n),
        flow * (_k * _U) ** 2 - (n + 1) * _U / 4 * path * _k**2 * _U,
        square - mass**2 / _U - squares,
        sde / (eta2 * (n + decay)) - path * KAPPA**2 / eta2,
    )


def _second_order(decay: int = 1, factor: Expr = sp.S.Half) -> tuple[Expr, ...]:
    return tuple(each for n in range(5) for each in _mode(n, decay, factor))


THEOREMS = (
    Theorem(
        name="likelihood.kl_rotation",
        statement=r"\delta = \omega J s:\quad \nabla\cdot(q\,\delta) = 0,\quad p_t = q_t; \qquad \tfrac12 \int_0^1"
        r" \frac{\kappa^2\beta}{\eta^2}\, E\|\delta\|^2 dt = \tfrac12 \int_0^1"
        r" \frac{\kappa^2\beta}{\eta^2}\,\omega^2\, \frac dV\, dt \quad\text{for}\quad q_t = N(0, V I)",
        assumptions=r"$s = \nabla\ln q_t$, the model's score is $s + \delta$, so $\hat x = E[x|z] +"
        r" (\sigma^2/\alpha)\,\delta$; identity encoder, and the same density of $z_1$, here and below. Any data, any"
        r" depth-dependent $\omega$, $J$ a quarter turn of the plane (of each of several pairs of dimensions); flow and"
        r" SDE of every $\eta$.",
        proof=r"$q\,\delta = \omega J \nabla q$ has no divergence, so the Fokker-Planck equation of $q$ is the"
        r" model's. Flow and SDE have the data's density exactly, and all that the ELBO charges is KL of paths with"
        r" a given end.",
        residual=_rotation,
        controls={
            "symmetric for antisymmetric": lambda: _rotation(turn=1),
            "price of one dimension": lambda: _rotation(share=sp.S.Half),
        },
        computed_by=(
            "diffenc_ct.likelihood.flow.log_density",
            "diffenc_ct.elbo.infinite_depth_integrand",
        ),
    ),
    Theorem(
        name="likelihood.kl_linear",
        statement=r"\delta = kz:\quad KL_{\text{flow}} = \tfrac12 (K + e^{-K} - 1),\quad K = \int_0^1 \beta k\, dt;"
        r" \qquad KL_{\text{paths}} = \tfrac12 \int_0^1 \beta k^2 V dt"
        "\n\n"
        r"V = 1,\ k \text{ constant},\ U = \int_0^1 \beta\,dt:\quad KL_{\text{flow}} > KL_{\text{paths}}\ \text{ for"
        r" }\ kU < \ln\tfrac U2,\ k \ne 0,\ U > 2; \qquad P_0 = \frac{1 - 2k e^{-(1-2k)U}}{1 - 2k}",
        assumptions=r"Data $N(0, S)$ in one dimension, $V = \alpha^2 S + \sigma^2$, $\eta = 1$ for paths; $k$ any"
        r" function of depth where it is not said to be constant, and then $S = 1$. $P_0$ is the variance of the SDE"
        r" model.",
        proof=r"The flow's variance is $V e^{K(t)}$, $K(t) = \int_t^1\beta k$. Errors that cancel over depth ($K ="
        r" 0$) cost it nothing. The difference of the two KLs is 0 with slope 0 at $k = 0$, with second derivative"
        r" $\frac12 U^2 e^{-kU} - U > 0$. So neither KL bounds the other.",
        residual=_linear,
        controls={
            "the SDE's drift": lambda: _linear(half=sp.S.One),
            "sign of the error": lambda: _linear(sign=-1),
            "second derivative twice": lambda: _linear(bend=sp.S(2)),
        },
        computed_by=(
            "diffenc_ct.likelihood.flow.log_density",
            "diffenc_ct.elbo.infinite_depth_integrand",
        ),
        formula=_linear_formula,
    ),
    Theorem(
        name="likelihood.kl_second_order",
        statement=r"\delta = k\,He_n(z):\quad KL_\eta \simeq \frac{(n+1)!}{2}\left(\kappa \int_0^U k\,e^{-\eta^2"
        r" (n+1) u/2} du\right)^2, \qquad KL_{\text{paths}} = \frac{n!}{2}\frac{\kappa^2}{\eta^2} \int_0^U k^2 du"
        "\n\n"
        r"KL_{\text{flow}} \simeq \frac{(n+1)!}{8}\left(\int_0^U k\,du\right)^2 \le \frac{(n+1)\,U}{4}\,"
        r" KL_{\text{paths}}(\eta = 1), \qquad KL_\eta \lesssim KL_{\text{paths}}",
        assumptions=r"Data $N(0, 1)$ in one dimension, $u = \int_0^t\beta$, small $k(u)$, $He_n$ the Hermite"
        r" polynomial; $n = 0, \dots, 4$ written out. $\simeq$: up to third order in $k$.",
        proof=r"$p = q\,(1 + H He_{n+1})$ with $\dot H = \frac{\eta^2}{2}(n+1) H - \kappa k$ and $H = 0$ at depth 1;"
        r" $KL \simeq \frac12 E(p/q - 1)^2$; Cauchy-Schwarz, with equality for constant $k$. All are quadratic."
        r" Paths are charged for the error at each depth, the flow for its mean over depth, the more the rougher it"
        r" is in $z$; the SDE forgets what went wrong far from the data.",
        residual=_second_order,
        controls={
            "decay of n": lambda: _second_order(decay=0),
            "1 + eta^2 for kappa": lambda: _second_order(factor=sp.S.One),
        },
        computed_by=("diffenc_ct.likelihood.flow.log_density",),
    ),
)
