"""Exponential integrators in log-SNR, exact in the linear part, for both heads and any noise level.

In the variable u = z/alpha = x_t + e^{-lambda/2} eps the reverse SDE, run towards larger lambda, loses its schedule:

    du = [-kappa (u - x_hat) + r_hat] dlambda + eta e^{-lambda/2} dw,        kappa = (1 + eta^2)/2

With K(a, b) = int_a^b kappa dlambda, a step from a to b > a is exactly, in either of two frames,

    data frame     u_b = e^{-K(a,b)} u_a + int_a^b e^{-K(l,b)} (kappa x_hat + r_hat) dl + e^{-b/2} sqrt(1 - rho^2) noise
    noise frame    u_b = u_a - int_a^b e^{-K(a,l)} kappa n dl + int_a^b r_hat dl,      n = e^{K(a,l)} (u - x_hat)

(the latter written for eta = 0; n is eps up to a factor). What is unknown is how the heads move along the path.
x_hat, n and r_hat/sigma^2 (bounded for every encoder: x_t' = sigma^2 (x_t - y + dy/dlambda)) are replaced by the
polynomials in lambda through k known values, which turns the integrals into weights such as
int e^{-K(l,b)} kappa l_j dl, found by Gauss-Legendre quadrature for any noise level. The local error is O(h^{k+1}).

The frames differ in where they look. A predictor extrapolates, and the noise frame weighs the near end of a step,
where extrapolation errs least; a corrector interpolates, and the data frame weighs the far end, whose value is known
by then (it is the evaluation that the next step needs anyway). With noise (eta > 0) n jumps with every increment and
x_hat does not, so both happen in the data frame; the corrector carries the step's own noise into the drift, where the
predictor has that of the step before. A third weak order would need iterated integrals of the noise.

Reference: Hochbruck and Ostermann 2010 (exponential integrators); Lu et al. 2022, Zhao et al. 2023 (DPM-Solver,
UniPC: identity encoder, eta = 0); Xue et al. 2023 (SA-Solver). Both heads and the use of frames: derived here.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.model import DiffEnc
from diffenc_ct.process import Estimates, NoiseLevel, posterior_std
from diffenc_ct.sampling.grids import Placement
from diffenc_ct.sampling.problem import Grid, Problem
from diffenc_ct.sampling.solver import GridSolver, deterministic_where_exact
from diffenc_ct.schedules import alpha, sigma2

Frame = Literal["data", "noise"]
_NODES, _WEIGHTS = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(32))


@dataclass(frozen=True)
class Known:
    """What is known at one log-SNR.

    Attributes:
        lam: lambda.
        u: z/alpha there, (batch, *data).
        found: x_hat and r_hat there.
    """

    lam: Float[Tensor, ""]
    u: Float[Tensor, "batch *data"]
    found: Estimates


def lagrange(nodes: Float[Tensor, " k"], at: Float[Tensor, " q"]) -> Float[Tensor, "k q"]:
    """The Lagrange polynomials of nodes at points.

    Example:
        >>> lagrange(torch.tensor([0.0, 1.0]), torch.tensor([0.25]))
        tensor([[0.7500],
                [0.2500]])
    """
    rows = []
    for j, node in enumerate(nodes):
        others = torch.cat([nodes[:j], nodes[j + 1 :]])
        rows.append(((at - others[:, None]) / (node - others[:, None])).prod(0))
    return torch.stack(rows)


def growth(
    a: Float[Tensor, "..."], b: Float[Tensor, "..."], level: NoiseLevel
) -> Float[Tensor, "..."]:
    """K(a, b) = int_a^b kappa dlambda = (b - a + int eta^2 dlambda)/2, negative for b < a."""
    a, b = torch.broadcast_tensors(a, b)  # type: ignore[no-untyped-call]
    return 0.5 * (b - a + level.integral(-b, -a))


def _quadrature(
    a: Tensor, b: Tensor, nodes: Tensor, level: NoiseLevel
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points, kappa there, weighted basis for x_hat or n, and for r_hat: sigma^2(l) l_j(l) / sigma^2(node j)."""
    points = (a + b) / 2 + (b - a) / 2 * _NODES
    kappa = (1 + level.squared(-points)) / 2
    basis = (b - a) / 2 * _WEIGHTS * lagrange(nodes, points)
    return points, kappa, basis, basis * sigma2(-points) / sigma2(-nodes)[:, None]


def data_frame(
    a: Float[Tensor, ""], b: Float[Tensor, ""], nodes: Float[Tensor, " k"], level: NoiseLevel
) -> tuple[Float[Tensor, ""], Float[Tensor, " k"], Float[Tensor, " k"]]:
    """e^{-K(a,b)} and the weights of x_hat and r_hat at the nodes in u_b, float64.

    Theorem: sampling.data_frame.

    Args:
        a: log-SNR where the step begins.
        b: log-SNR where it ends.
        nodes: log-SNRs of known values.
        level: eta.
    """
    points, kappa, for_x, for_r = _quadrature(a, b, nodes, level)
    keep = torch.exp(-growth(points, b, level))
    return torch.exp(-growth(a, b, level)), for_x @ (keep * kappa), for_r @ keep


def noise_frame(
    a: Float[Tensor, ""], b: Float[Tensor, ""], nodes: Float[Tensor, " k"], level: NoiseLevel
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """The weights of u - x_hat and of r_hat at the nodes in u_b - u_a, float64.

    Theorem: sampling.noise_frame.

    Args:
        a: log-SNR where the step begins.
        b: log-SNR where it ends.
        nodes: log-SNRs of known values.
        level: eta.
    """
    points, kappa, for_n, for_r = _quadrature(a, b, nodes, level)
    decay = torch.exp(-growth(a, points, level))
    return -(for_n @ (decay * kappa)) * torch.exp(growth(a, nodes, level)), for_r.sum(1)


def advance(
    u: Float[Tensor, "batch *data"],
    a: Float[Tensor, ""],
    b: Float[Tensor, ""],
    known: list[Known],
    level: NoiseLevel,
    frame: Frame,
) -> Float[Tensor, "batch *data"]:
    """u_b without its noise.

    Args:
        u: z/alpha at a.
        a: log-SNR where the step begins.
        b: log-SNR where it ends.
        known: the estimates that the polynomials go through.
        level: eta.
        frame: in which they are extrapolated.
    """
    nodes = torch.stack([k.lam for k in known])
    if frame == "data":
        shrink, for_x, for_r = data_frame(a, b, nodes, level)
        moved = shrink.item() * u
        for k, x, r in zip(known, for_x.tolist(), for_r.tolist(), strict=True):
            moved = moved + x * k.found.x_hat + r * k.found.r_hat
        return moved
    for_n, for_r = noise_frame(a, b, nodes, level)
    for k, n, r in zip(known, for_n.tolist(), for_r.tolist(), strict=True):
        u = u + n * (k.u - k.found.x_hat) + r * k.found.r_hat
    return u


@dataclass(frozen=True, eq=False, kw_only=True)
class _Exponential(GridSolver):
    """Common parts: options, the variable u, its noise, evaluations at log-SNR.

    Attributes:
        order: 1, 2 or 3; where there is noise, orders 2 and 3 are the same, weak order 2.
    """

    steps: int = 30
    placement: Placement | Float[Tensor, " nodes"] = "balanced"
    order: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (1, 2, 3):
            raise ValueError(f"order={self.order}; exponential integrators have orders 1, 2 and 3")

    def convergence_order(self, stochastic: bool) -> int:
        """The convergence order, weak where there is noise."""
        return min(self.order, 2) if stochastic else self.order

    def level(self, model: DiffEnc) -> NoiseLevel:
        """The given one; else 0, or 1 where the model's probability flow is not exact."""
        return deterministic_where_exact(self.noise_level, model)

    @staticmethod
    def look(problem: Problem, u: Float[Tensor, "batch *data"], lam: Float[Tensor, ""]) -> Known:
        """u and the estimates at log-SNR lam."""
        z = alpha(-lam).item() * u
        return Known(lam, u, problem.estimates(z, -lam))

    @staticmethod
    def increment(
        problem: Problem,
        u: Float[Tensor, "batch *data"],
        a: Float[Tensor, ""],
        b: Float[Tensor, ""],
    ) -> Float[Tensor, "batch *data"]:
        """The noise of a step a -> b: e^{-b/2} sqrt(1 - rho^2) eps."""
        if not problem.stochastic:
            return torch.zeros_like(u)
        std = posterior_std(-b, -a, problem.noise_level) / alpha(-b)
        return std.item() * problem.noise(u)


@dataclass(frozen=True, eq=False, kw_only=True)
class Exponential(_Exponential):
    """One evaluation a step: a predictor through the last `order` values, then, with `corrector`, a corrector.

    The default of `sample`.

    Attributes:
        corrector: None means where there is noise only: there it makes the error smaller, at the same weak order.
            Without noise it makes few steps (6 to 8) of the identity encoder far better, and of other encoders worse.

    Raises:
        ValueError: for another order.

    Example:
        >>> import diffenc_ct as dc
        >>> dc.Exponential(order=2, steps=20).convergence_order(stochastic=False)
        2
    """

    corrector: bool | None = None

    def __call__(
        self, problem: Problem, z: Float[Tensor, "batch *data"], grid: Grid
    ) -> Float[Tensor, "batch *data"]:
        lam, level, k = -grid.gamma, problem.noise_level, self.convergence_order(problem.stochastic)
        frame: Frame = "data" if problem.stochastic else "noise"
        correct = k > 1 and (problem.stochastic if self.corrector is None else self.corrector)
        u = z / alpha(grid.gamma[0]).item()
        known: list[Known] = []
        before, noise = u, torch.zeros_like(u)
        for a, b in zip(lam[:-1], lam[1:], strict=True):
            here = self.look(problem, u, a)
            # The first step, of order 1, is corrected always: its error would cap the order at 2.
            if known and (correct or len(known) < k - 1):
                values = [here, *known][:k]
                u = advance(before, known[0].lam, a, values, level, "data") + noise
            known = [here, *known][:k]
            before, noise = u, self.increment(problem, u, a, b)
            u = advance(u, a, b, known, level, frame) + noise
        return alpha(grid.gamma[-1]).item() * u


@dataclass(frozen=True, eq=False, kw_only=True)
class ExponentialSinglestep(_Exponential):
    """`order` evaluations a step, no memory: exponential Euler, trapezoid, and Heun's third-order method.

    Order 3 has stages at 0, 1/3 and 2/3 of the step in lambda. With noise the trapezoid is the best of them
    (weak order 2) and order 3 is the same.

    Raises:
        ValueError: for another order.

    Example:
        >>> from diffenc_ct.sampling import ExponentialSinglestep
        >>> ExponentialSinglestep(order=3).convergence_order(stochastic=True)
        2
    """

    def __call__(
        self, problem: Problem, z: Float[Tensor, "batch *data"], grid: Grid
    ) -> Float[Tensor, "batch *data"]:
        lam, level, k = -grid.gamma, problem.noise_level, self.convergence_order(problem.stochastic)
        u = z / alpha(grid.gamma[0]).item()
        for a, b in zip(lam[:-1], lam[1:], strict=True):
            noise = self.increment(problem, u, a, b)
            known = [self.look(problem, u, a)]
            if k == 2:
                guess = advance(u, a, b, known, level, "data") + noise
                known.append(self.look(problem, guess, b))
            elif k == 3:
                for share in (1 / 3, 2 / 3):
                    c = a + share * (b - a)
                    known.append(self.look(problem, advance(u, a, c, known, level, "data"), c))
                del known[1]
            u = advance(u, a, b, known, level, "data") + noise
        return alpha(grid.gamma[-1]).item() * u
