"""The algorithm of `Adams`: Adams steps in gamma, each example its own, controlled by the error of log p itself.

What is solved, from one end of gamma to the other:   dz/dgamma = f,     dL/dgamma = div f.

*Steps.* A node is one evaluation of (f, div f, score). Between nodes f and div f are the polynomials through
an example's last `nodes` nodes. The next point is extrapolated by the last nodes - 2 of them (explicit Adams);
integrals are taken again, and for good, once newer nodes lie on both sides (centred, order `nodes`): the
trajectory and the quadrature of the divergence are of higher order, nodes - 1, than the extrapolation, at one
evaluation a step and no stages. z in gamma is the right coordinate: f tends to 0 at both ends, and the flow is not
stiff at small sigma.

*Error control on what is reported.* If z is off by e at some depth, log p is off by score . e (to first order:
L + log q_t(z) is what is being computed, and the score is its gradient). So with m what the newest node adds
to the extrapolated point, and q the last polynomial term's share in the divergence's integral, a step's error
is

    max(q, |score . m| / 10)  <=  tolerance          (nats; m is corrected for, hence the tenth)

Step sizes follow by a PI rule. Nothing of an example depends on its batch mates.

*Estimate of the total error.* Sum of q over the steps, plus |sum of score . (m_n - m_{n-1})|, the first-order
effect of having evaluated the divergence at extrapolated points.

Reference: Hairer, Norsett, Wanner, "Solving Ordinary Differential Equations I", III.5 (variable-step Adams),
IV.2 (PI).
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffenc_ct.distributed import Progress, silent
from diffenc_ct.likelihood.field import FlowValue
from diffenc_ct.likelihood.solver import Solution

_POINTS, _WEIGHTS = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(6))
_MISS_WEIGHT = 0.1
_GROWTH, _SHRINK, _ACCEPT, _SAFETY = 2.0, 0.2, 1.5, 0.85
# h *= safety err^-(1/5) err_before^(0.08): Hairer's PI rule
_INTEGRAL, _PROPORTIONAL = 0.2, 0.08


@runtime_checkable
class Field(Protocol):
    """What is integrated; see FlowField."""

    @property
    def columns(self) -> int: ...

    def __call__(
        self,
        z: Float[Tensor, "batch *data"],
        gamma: Float[Tensor, " batch"],
        rows: Int[Tensor, " batch"] | None = None,
    ) -> FlowValue: ...


def _weights(nodes: Tensor, used: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Weights (n, k) of int_a^b of the polynomial through the `used` among nodes (n, k); 0 for the rest."""
    half = (b - a) / 2
    at = a[:, None] + half[:, None] * (1 + _POINTS.to(a.device))
    skip = torch.eye(nodes.shape[1], dtype=torch.bool, device=a.device) | ~used[:, None, :]
    gaps = (nodes[:, :, None] - nodes[:, None, :]).masked_fill(skip, 1.0)
    factors = (at[:, :, None] - nodes[:, None, :])[:, :, None, :] / gaps[:, None]
    basis = factors.masked_fill(skip[:, None], 1.0).prod(-1)
    return half[:, None] * (_WEIGHTS.to(a.device)[:, None] * basis).sum(1) * used


def _combine(weights: Tensor, values: Tensor) -> Tensor:
    """sum_j w_nj values_nj."""
    return torch.einsum("nk,nkd->nd", weights.to(values.dtype), values)


@dataclass
class _State:
    """The examples still under way; every field has one row an example, histories are newest first."""

    rows: Tensor
    nodes: Tensor
    count: Tensor
    velocity: Tensor
    divergence: Tensor
    score: Tensor
    miss: Tensor
    z: Tensor
    integral: Tensor
    settled: Tensor
    step: Tensor
    last_error: Tensor
    error: Tensor
    drift: Tensor
    evaluations: Tensor
    rejected: Tensor

    def keep(self, mask: Tensor) -> "_State":
        return _State(**{name: value[mask] for name, value in vars(self).items()})


def solve_adams(
    field: Field,
    z: Float[Tensor, "batch *data"],
    start: Float[Tensor, ""],
    end: Float[Tensor, ""],
    *,
    tolerance: float,
    nodes: int = 6,
    max_steps: int = 10_000,
    progress: Progress = silent,
) -> Solution:
    """Integrate every example from gamma = start to end (either way).

    Differentiable in z and the field's parameters: step sizes are constants.

    Args:
        field: what is integrated.
        z: where it starts.
        start: gamma there.
        end: gamma at the end.
        tolerance: error of log p allowed a step, nats.
        nodes: how many the polynomials use, 4 to 12.
        max_steps: attempts, accepted and rejected, before an example is given up.
        progress: called with the number of examples that came to an end.

    Returns:
        Solution: with steps and errors of each example.
    """
    shape, first, last = z.shape[1:], float(start), float(end)
    total, direction = abs(last - first), 1.0 if last > first else -1.0
    s = _begin(field, z, first, nodes, direction * total / 128)
    finished: list[tuple[_State, str]] = []
    # `settle`: the node behind which the integrals are final, the middle of the stencil
    predictors, settle = nodes - 2, nodes // 2
    order = torch.arange(nodes + 1, device=z.device)
    for _ in range(max_steps):
        now, used = s.nodes[:, 0], order[:-1] < s.count[:, None]
        left = last - now
        near, half = s.step.abs() >= left.abs(), s.step.abs() > left.abs() / 2
        following = torch.where(
            near, torch.full_like(now, last), now + torch.where(half, left / 2, s.step)
        )
        ahead = _weights(s.nodes, used & (order[:-1] < predictors), now, following)
        guess = s.z + _combine(_weights(s.nodes, used, s.settled, now) + ahead, s.velocity)
        value = field(guess.reshape(-1, *shape), following.to(z.dtype), s.rows)
        velocity, score = value.velocity.flatten(1), value.score.flatten(1).detach()

        new = {
            "nodes": torch.cat([following[:, None], s.nodes], 1),
            "velocity": torch.cat([velocity[:, None], s.velocity], 1),
            "divergence": torch.cat([value.divergence[:, None].double(), s.divergence], 1),
        }
        all_used = order <= s.count[:, None]
        stencil = all_used & (order < nodes)
        shorter = stencil & (order < (s.count[:, None] + 1).clamp(max=nodes) - 1)
        best = _weights(new["nodes"], stencil, now, following)
        with torch.no_grad():
            change = best - _weights(new["nodes"], shorter, now, following)
            quadrature = _combine(change, new["divergence"]).mean(1).abs()
            correction = best.clone()
            correction[:, 1:] -= ahead
            miss = _combine(correction, new["velocity"])
            goal = (score * miss).sum(1).double().abs()
            error = torch.maximum(quadrature, _MISS_WEIGHT * goal) / tolerance
            # a non-finite value is a step too long, until steps underflow
            finite = error.isfinite() & velocity.isfinite().all(1)
            error = torch.where(finite, error.clamp(min=1e-12), torch.full_like(error, 1e12))
            accepted = error <= _ACCEPT
            ratio = (_SAFETY * error**-_INTEGRAL * s.last_error**_PROPORTIONAL).clamp(
                _SHRINK, _GROWTH
            )
            step = ((following - now) * ratio).clamp(-total / 6, total / 6)
            drift = (0.5 * (score + s.score) * (miss - s.miss)).sum(1).double()

        def choose(yes: Tensor, no: Tensor, where: Tensor = accepted) -> Tensor:
            return torch.where(where.reshape(-1, *[1] * (no.ndim - 1)), yes, no)

        done = accepted & near
        count = s.count + accepted
        history = {name: choose(kept[:, :nodes], getattr(s, name)) for name, kept in new.items()}
        behind = torch.where(
            accepted & (count >= nodes), history["nodes"][:, nodes - 1 - settle], s.settled
        )
        settled = torch.where(done, history["nodes"][:, 0], behind)
        share = _weights(history["nodes"], order[:-1] < count[:, None], s.settled, settled)
        s = _State(
            rows=s.rows,
            **history,
            count=count,
            score=choose(score, s.score),
            miss=choose(miss, s.miss),
            z=s.z + _combine(share, history["velocity"]),
            integral=s.integral + _combine(share, history["divergence"]),
            settled=settled,
            step=step,
            last_error=choose(error.clamp(min=1e-3), s.last_error),
            error=s.error + choose(quadrature, torch.zeros_like(quadrature)),
            drift=s.drift + choose(drift, torch.zeros_like(drift)),
            evaluations=s.evaluations + 1,
            rejected=s.rejected + ~accepted,
        )
        stuck = ~done & (step.abs() < 1e-10 * total)
        for mask, status in (
            (done, "ok"),
            (stuck & finite, "step underflow"),
            (stuck & ~finite, "non-finite"),
        ):
            if mask.any():
                finished.append((s.keep(mask), status))
        if (done | stuck).any():
            progress(int((done | stuck).sum()))
            s = s.keep(~(done | stuck))
        if not len(s.rows):
            break
    else:
        finished.append((s, "step limit"))
    return _gather(finished, shape)


def _begin(field: Field, z: Tensor, gamma: float, nodes: int, step: float) -> _State:
    n, kind = len(z), z.new_empty((), dtype=torch.float64)
    rows = torch.arange(n, device=z.device)
    value = field(z, torch.full((n,), gamma, dtype=z.dtype, device=z.device), rows)

    def history(first: Tensor) -> Tensor:
        padding = torch.zeros(n, nodes - 1, first.shape[1], dtype=first.dtype, device=first.device)
        return torch.cat([first[:, None], padding], 1)

    zeros = kind.new_zeros(n)
    # places for nodes that do not exist yet; distinct, so that no division by zero is ever made
    places = gamma - step * torch.arange(nodes).to(kind)
    return _State(
        rows=rows,
        nodes=places.expand(n, -1),
        count=torch.ones(n, dtype=torch.long, device=z.device),
        velocity=history(value.velocity.flatten(1)),
        divergence=history(value.divergence.double()),
        score=value.score.flatten(1).detach(),
        miss=torch.zeros_like(z.flatten(1)).detach(),
        z=z.flatten(1),
        integral=kind.new_zeros(n, field.columns),
        settled=kind.new_full((n,), gamma),
        step=kind.new_full((n,), step),
        last_error=kind.new_ones(n),
        error=zeros,
        drift=zeros,
        evaluations=torch.ones(n, dtype=torch.long, device=z.device),
        rejected=torch.zeros(n, dtype=torch.long, device=z.device),
    )


def _gather(finished: list[tuple[_State, str]], shape: torch.Size) -> Solution:
    """The examples in their first order; what did not come to an end becomes NaN."""
    back = torch.cat([s.rows for s, _ in finished]).argsort()

    def take(name: str, spoil: bool = False) -> Tensor:
        parts = [
            getattr(s, name) * (float("nan") if spoil and status != "ok" else 1)
            for s, status in finished
        ]
        return torch.cat(parts)[back]

    status = [status for s, status in finished for _ in range(len(s.rows))]
    evaluations, rejected = take("evaluations"), take("rejected")
    return Solution(
        z=take("z", True).reshape(-1, *shape),
        integral=take("integral", True),
        error=take("error", True) + take("drift", True).abs(),
        evaluations=evaluations,
        accepted=evaluations - 1 - rejected,
        rejected=rejected,
        status=[status[i] for i in back.tolist()],
    )
