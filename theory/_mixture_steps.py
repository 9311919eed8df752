r"""Mixture steps: each value follows the process of its own $x$. Part of the section on the ELBO.

Encoders are $x_t = A x$ where steps are compared; information is that of $q$ at the noise level in question.
"""

from __future__ import annotations

from itertools import product

import sympy as sp
from sympy import Expr

from ._core import Theorem
from ._notation import alpha2, lam, sigma2, x

_As, _At = sp.symbols("A_s A_t", positive=True)
_r, _q = sp.symbols("r q", positive=True)
_D = sp.Symbol("D", positive=True)


def _transition(dependent: bool = False, observed: bool = True) -> Expr:
    """Two values of two levels: sum_x p(x|z_t) prod_i G_i(x_i) against the product of mixtures."""
    levels = (0, 1)
    own = [sp.symbols(f"P{i}1 P{i}2", positive=True) for i in (1, 2)]
    seen = [sp.symbols(f"N{i}1 N{i}2", positive=True) for i in (1, 2)]
    step = [sp.symbols(f"G{i}1 G{i}2", positive=True) for i in (1, 2)]
    both = sp.symbols("P11 P12 P21 P22", positive=True)

    def joint(k: int, m: int) -> Expr:
        prior = both[2 * k + m] if dependent else own[0][k] * own[1][m]
        return prior * seen[0][k] * seen[1][m]

    pairs = list(product(levels, levels))
    mass = sum(joint(k, m) for k, m in pairs)
    truth = sum(joint(k, m) * step[0][k] * step[1][m] for k, m in pairs) / mass
    law: Expr = sp.S.One
    for i in (0, 1):
        weights = [
            sum(joint(*pair) for pair in pairs if pair[i] == k)
            if observed
            else sum(joint(*pair) / seen[i][k] for pair in pairs if pair[i] == k)
            for k in levels
        ]
        mixture = sum(p * g for p, g in zip(weights, step[i], strict=True))
        law *= mixture / sum(weights)
    return truth - law


def _component(back: Expr | None = None, first: bool = False) -> tuple[Expr, ...]:
    """Value and rate of x_s at s = t; x_s = a_s x where nothing is added and c = a'/a."""
    u, w, c, at = sp.symbols("u w c lambda_s", real=True)
    a = sp.Function("a", positive=True)
    scale, ahead = a(lam), at - lam
    back = alpha2(-lam) if back is None else back
    slope = (scale if first else a(at)) + ahead * (c * scale - a(lam).diff(lam))
    x_s = slope * x + sigma2(-at) * (u + ahead * ((c + back) * u + w))
    x_t = scale * x + sigma2(-lam) * u
    alone = {u: 0, w: 0, c: a(lam).diff(lam) / scale}
    return (
        x_s.subs(at, lam) - x_t,
        x_s.diff(at).subs(at, lam).doit() - c * x_t - sigma2(-lam) * w,
        x_s.subs(alone) - a(at) * x,
    )


def _divergence(information: int = 1, correlation: int = 1, gibbs: int = 1) -> Expr:
    """Of any law of x and two values of z_s at one z_t, each of two outcomes; p_i any."""
    outcomes = list(product((0, 1), (0, 1), (0, 1)))
    P = {o: sp.Symbol(f"P{''.join(map(str, o))}", positive=True) for o in outcomes}
    model = [sp.symbols(f"p{i}1 p{i}2", positive=True) for i in (1, 2)]

    def mass(**fixed: int) -> Expr:
        at = {"x": 0, "a": 1, "b": 2}
        return sum(P[o] for o in outcomes if all(o[at[name]] == v for name, v in fixed.items()))

    total: Expr = sp.S.Zero
    for (k, m, n), p in P.items():
        joint = sp.log(mass(a=m, b=n))
        first, second = sp.log(mass(a=m)), sp.log(mass(b=n))
        given = sp.log(p) - sp.log(mass(x=k))
        said = sp.log(model[0][m]), sp.log(model[1][n])
        of_model = (first - said[0]) + (second - said[1])
        parts = information * (given - joint) + correlation * (joint - first - second)
        total += p * (given - sum(said) - parts - gibbs * of_model)
    return total


def _precision(best: Expr = _q * _At / _As, share: int = 1) -> tuple[Expr, ...]:
    """What z_s has of x beside z_t, over SNR_s; its least; the noise level there, and its limit."""
    beta = (_As - _r * _q * _At) ** 2 / (1 - _r**2)
    a = sp.Function("A", positive=True)
    at = sp.Symbol("lambda_s", real=True)
    spent = (at - lam) + 2 * sp.log(a(at) / a(lam))
    nontrainable = spent.subs(a(at), alpha2(-at)).diff(at) - 1 - 2 * sigma2(-at)
    return (
        beta - (_As**2 - _q**2 * _At**2) - share * (_q * _At - _r * _As) ** 2 / (1 - _r**2),
        beta.diff(_r).subs(_r, best),
        sp.expand_log(
            -2 * sp.log(best).subs(_q, sp.exp(-_D / 2)) - _D - 2 * sp.log(_As / _At), force=True
        ),
        spent.diff(at) - 1 - 2 * a(at).diff(at) / a(at),
        nontrainable,
    )


def _entropy(*names: str) -> Expr:
    """H of some of x, z_s, z_u, z_t as a symbol."""
    return sp.Symbol("H(" + ",".join(sorted(set(names))) + ")", real=True) if names else sp.S.Zero


def _information(a: tuple[str, ...], b: tuple[str, ...], given: tuple[str, ...] = ()) -> Expr:
    return _entropy(*a, *given) + _entropy(*b, *given) - _entropy(*a, *b, *given) - _entropy(*given)


def _telescopes(best: Expr = _q * _At / _As, left: int = 1) -> tuple[Expr, ...]:
    """q(z_t|z_s, x) does not ask for x at the right noise level; the chain rule."""
    al_s, al_t, s_s, s_t = sp.symbols("alpha_s alpha_t sigma_s sigma_t", positive=True)
    of_x = al_t * _At - best * (s_t / s_s) * al_s * _As
    step = _information(("x",), ("zs",), ("zt",))
    ends = _information(("x",), ("zs",)) - _information(("x",), ("zt",))
    return (
        of_x.subs(_q, al_t * s_s / (al_s * s_t)),
        step - ends - left * _information(("x",), ("zt",), ("zs",)),
    )


def _coarser(markov: bool = True, sign: int = 1) -> Expr:
    """A step over two steps: given x, z_t - z_u - z_s is a Markov chain at every noise level."""
    two = _information(("x",), ("zu",), ("zt",)) + _information(("x",), ("zs",), ("zu",))
    one = _information(("x",), ("zs",), ("zt",))
    saved = _information(("x",), ("zu",), ("zs", "zt")) + sign * _information(
        ("zs",), ("zt",), ("zu",)
    )
    chain = _entropy("x", "zs", "zu") + _entropy("x", "zu", "zt") - _entropy("x", "zu")
    whole = {_entropy("x", "zs", "zu", "zt"): chain} if markov else {}
    return (two - one - saved).subs(whole)


_STEP = "diffenc_ct.process.values.Values."

THEOREMS = (
    Theorem(
        name="elbo.mixture_step",
        statement=r"q(z_s|z_t) = \prod_i \sum_k p_{ik}\, N\left(z_{s,i};\ \alpha_s a_s x_k + \rho\frac{\sigma_s}"
        r"{\sigma_t}(z_{t,i} - \alpha_t a_t x_k),\ \sigma_s^2(1-\rho^2)\right) \quad\text{for independent values},"
        r"\qquad p_{ik} = p(x_i = x_k \mid z_t)",
        assumptions="Any noise level and encoder of single values; two values of two levels written out. Of dependent"
        " values the factors are the marginals of $q(z_s|z_t)$, and their product is another law.",
        proof=r"$q(z_s|z_t) = \sum_x p(x|z_t)\, q_\eta(z_s|z_t, x)$, and both factors are products.",
        residual=_transition,
        controls={
            "values that know of one another": lambda: _transition(dependent=True),
            "weights without the observation": lambda: _transition(observed=False),
        },
        computed_by=(_STEP + "step", _STEP + "step_from"),
    ),
    Theorem(
        name="elbo.component_of_a_step",
        statement=r"x_s = (a_s + D(ca - a'))\,x + \sigma_s^2\left(u + D((c + \alpha^2)u + w)\right),\quad D ="
        r" \lambda_s - \lambda_t:\qquad x_s|_{s=t} = x_t = ax + \sigma^2 u,\quad \frac{dx_s}{d\lambda_s}\Big|_{s=t} ="
        r" c\,x_t + \sigma^2 w; \qquad u = w = 0,\ ca = a' \Rightarrow x_s = a_s x",
        assumptions=r"Any scale $a(\lambda)$ and rate factor $c$; $a, c, u, w$ without index at $t$.",
        proof=r"$d\sigma^2/d\lambda = -\alpha^2\sigma^2$. So short steps have the mean of the Gaussian step, and $L_T$"
        r" tends to the same heads' $L_\infty$.",
        residual=_component,
        controls={
            "sigma^2 taken for constant": lambda: _component(back=sp.S.Zero),
            "x_t + D x_t' of every level": lambda: _component(first=True),
        },
        computed_by=(_STEP + "encoded",),
    ),
    Theorem(
        name="elbo.mixture_kl",
        statement=r"E\, KL\Big(q(z_s|z_t,x)\,\Big\|\prod_i p_i(z_{s,i})\Big) = I(x; z_s|z_t) + E\,KL\Big(q(z_s|z_t)"
        r"\Big\|\prod_i q(z_{s,i}|z_t)\Big) + \sum_i E\,KL\left(q(z_{s,i}|z_t)\|p_i\right)",
        assumptions=r"Any $p$ that is a product given $z_t$; two values of two outcomes written out, at one $z_t$. The"
        r" second term is the multi-information (total correlation) of $z_s$ given $z_t$: what values have to do with"
        r" each other. Exact mixture steps make the third vanish, so no product law, Gaussian or other, costs less.",
        proof=r"Insert $\log q(z_s|z_t)$ and $\log q(z_{s,i}|z_t)$; each difference is a divergence.",
        residual=_divergence,
        controls={
            "multi-information forgotten": lambda: _divergence(correlation=0),
            "errors of the marginals forgotten": lambda: _divergence(gibbs=0),
            "information forgotten": lambda: _divergence(information=0),
        },
        computed_by=("diffenc_ct.process.mixtures.Mixtures.divergence",),
    ),
    Theorem(
        name="elbo.mixture_noise_level",
        statement=r"\frac{(A_s - r q A_t)^2}{1-r^2} = A_s^2 - q^2 A_t^2 + \frac{(qA_t - rA_s)^2}{1-r^2},\quad q^2 ="
        r" e^{-D} = \frac{\mathrm{SNR}_t}{\mathrm{SNR}_s}: \qquad r_* = q\frac{A_t}{A_s},\quad \int_s^t \eta_*^2"
        r" d\gamma = D + 2\ln\frac{A_s}{A_t},\quad \eta_*^2 \to 1 + 2\frac{A'}{A}",
        assumptions=r"$x_t = A x$; $r = \rho$. Given $z_t$, $z_s$ observes $x$ with $\mathrm{SNR}_s$ times that"
        r" precision. The step costs $\sum_i I(x_i; z_{s,i}|z_t)$ (elbo.mixture_kl with $q(z_s|z_t,x)$ a product), and"
        r" each term grows with the precision; so $\eta_*$ costs least, of dependent values, too: 1 for the identity,"
        r" $1 + 2\sigma^2$ for the non-trainable encoder.",
        proof=r"Complete the square in $r$.",
        residual=_precision,
        controls={
            "the noise level of the identity": lambda: _precision(best=_q),
            "the quotient inverted": lambda: _precision(best=_q * _As / _At),
            "the square forgotten": lambda: _precision(share=0),
        },
        computed_by=(
            "diffenc_ct.process.NonTrainableNoiseLevel",
            "diffenc_ct.calibration.measure_mixture_steps",
        ),
    ),
    Theorem(
        name="elbo.every_depth_costs_the_same",
        statement=r"\eta = \eta_*:\quad I(x; z_t|z_s) = 0,\qquad L_T = \sum I(x;z_s|z_t) + \sum E\,KL\Big(q(z_s|z_t)"
        r"\Big\|\prod_i q(z_{s,i}|z_t)\Big) = I(x;z_0) - I(x;z_1) + \sum E\,KL\Big(q(z_s|z_t)\Big\|\prod_i"
        r" q(z_{s,i}|z_t)\Big)",
        assumptions=r"$x_t = A x$, exact weights. Of independent values the last sum is 0, so $L_T = L_\infty$ at every"
        r" $T$ and on every grid; of dependent ones it is all that a grid can change.",
        proof=r"At $\eta_*$ the mean of $q(z_t|z_s,x)$ has no $x$; so $z_s$ knows all that $z_t$ knows, and the chain"
        r" rule telescopes. $L_{\infty}$ is the same there (calibration.cauchy_schwarz at $k = A'/A$).",
        residual=_telescopes,
        controls={
            "eta = 1 with every encoder": lambda: _telescopes(best=_q),
            "at any noise level": lambda: _telescopes(left=0),
        },
        computed_by=("diffenc_ct.elbo.FiniteDepth",),
    ),
    Theorem(
        name="elbo.coarser_steps_cost_less",
        statement=r"I(x;z_u|z_t) + I(x;z_s|z_u) - I(x;z_s|z_t) = I(x;z_u|z_s,z_t) + I(z_s;z_t|z_u) \ge 0",
        assumptions=r"$s < u < t$; any encoder and noise level. Of independent values and exact weights: at other noise"
        r" levels than $\eta_*$, $I(x;z_0) - I(x;z_1) \le L_T \le L_\infty$, so $L_T = L_\infty$ fails there, on the"
        r" side of fewer steps. Of dependent values their multi-information works against it.",
        proof=r"Chain rule twice; $z_t - z_u - z_s$ is a Markov chain given $x$, since $\rho$ is a product over steps.",
        residual=_coarser,
        controls={
            "no chain given x": lambda: _coarser(markov=False),
            "the second term with the other sign": lambda: _coarser(sign=-1),
        },
    ),
)
