"""The probability flow's velocity, its divergence and the score, in one pass: what every likelihood solver
asks for.

Along dz/dgamma = f(z, gamma) = alpha^2 z/2 - alpha (x_hat/2 + r_hat),

    log p_0(z_0) = log p_1(z_1) + int_{gamma_0}^{gamma_1} div f dgamma,        div f = tr df/dz

The trace is exact, from the d directional derivatives e_i^T (df/dz) e_i in chunks, or Hutchinson's estimate,
the mean of v^T (df/dz) v over K fixed probes with E[v v^T] = I:

    Rademacher   v_i = +-1         variance of a probe: sum_{i != j} (J_ij^2 + J_ij J_ji)
    Gaussian     v_i ~ N(0, 1)     variance of a probe: sum_ij (J_ij^2 + J_ij J_ji)

Directional derivatives are forward-mode: the network itself is evaluated once, its linear part for all directions of
a chunk, or all probes, as one batch (reverse-mode, and one whole batch, where a network does not allow it). The
score is (alpha x_hat - z)/sigma^2: for paired heads the gradient of log q_t, free of charge.

A network that knows its traces offers `traces(z, gamma) -> (tr dx_hat/dz, tr dr_hat/dz)`, (batch,) each; then
"exact" costs one evaluation.

Reference: Chen et al. 2018 (continuous normalising flows); Grathwohl et al. 2019 (FFJORD); Hutchinson 1989.
"""

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffenc_ct.model import DiffEnc, Heads, reverse_drift
from diffenc_ct.schedules import SchedulePoint, alpha, alpha2, expand, sigma2

Divergence = Literal["exact", "rademacher", "gaussian"]
DIVERGENCES = ("exact", "rademacher", "gaussian")


@dataclass(frozen=True)
class FlowValue:
    """f and score of z's shape; divergence (batch, K): one column, or one a probe."""

    velocity: Tensor
    divergence: Tensor
    score: Tensor


class FlowField:
    """field(z, gamma, rows) -> FlowValue, per unit of gamma. Theorem: likelihood.change_of_variables.

    probes: None for the exact divergence, or (examples, K, *data), drawn once; `rows` says which examples z
    holds. chunk: directions in one batch of the exact divergence; by default as many as make batches of 4096
    examples.
    """

    def __init__(
        self, model: DiffEnc, *, probes: Tensor | None = None, chunk: int | None = None
    ) -> None:
        self.model, self.probes, self.chunk = model, probes, chunk
        self._forward_mode = True

    @property
    def columns(self) -> int:
        """K: how many numbers the divergence of an example is."""
        return 1 if self.probes is None else self.probes.shape[1]

    def __call__(self, z: Tensor, gamma: Tensor, rows: Tensor | None = None) -> FlowValue:
        if self.probes is None:
            if self.model.prediction == "heads" and hasattr(self.model.network, "traces"):
                return self._closed_form(z, gamma)
            return self._exact(z, gamma)
        probes = self.probes if rows is None else self.probes[rows]
        velocity, score, slope = self._along(z, gamma, probes)
        return FlowValue(velocity, slope, score)

    def _flow(self, z: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """Velocity and score from one evaluation of the heads."""
        heads = self.model.predict(z, gamma)
        return _velocity(z, heads, gamma), _score(z, heads, gamma)

    def _closed_form(self, z: Tensor, gamma: Tensor) -> FlowValue:
        velocity, score = self._flow(z, gamma)
        of_x, of_r = self.model.network.traces(z, gamma)  # type: ignore[operator]
        trace = alpha2(gamma) / 2 * z[0].numel() - alpha(gamma) * (of_x / 2 + of_r)
        return FlowValue(velocity, trace[:, None], score)

    def _exact(self, z: Tensor, gamma: Tensor) -> FlowValue:
        n, d = len(z), z[0].numel()
        size = min(d, self.chunk or max(1, 4096 // n))
        trace = torch.zeros_like(gamma)
        for start in range(0, d, size):
            basis = torch.eye(d, dtype=z.dtype, device=z.device)[start : start + size]
            directions = basis.reshape(1, -1, *z.shape[1:]).expand(n, -1, *z.shape[1:])
            velocity, score, slope = self._along(z, gamma, directions)
            trace = trace + slope.sum(1)
        return FlowValue(velocity, trace[:, None], score)

    def _along(self, z: Tensor, gamma: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f, score, and v^T (df/dz) v for directions (n, K, *data): (n, K)."""
        v = directions.to(z.dtype)
        if self._forward_mode:
            try:
                return self._forward_derivative(z, gamma, v)
            except (NotImplementedError, RuntimeError) as error:
                # a network with an operation that has no forward derivative or batching rule
                if not re.search("forward|vmap|batching|functorch", str(error).lower()):
                    raise
                self._forward_mode = False
        n, k = v.shape[:2]
        repeated, depths, v = z.repeat_interleave(k, 0), gamma.repeat_interleave(k), v.flatten(0, 1)
        velocity, score, change = self._reverse_derivative(repeated, depths, v)
        slope = (v * change).flatten(1).sum(1).reshape(n, k)
        return velocity.unflatten(0, (n, k))[:, 0], score.unflatten(0, (n, k))[:, 0], slope

    def _forward_derivative(
        self, z: Tensor, gamma: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As _along: the network once at z, and its linear part at the K directions, batched."""

        def along(v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            found = torch.func.jvp(lambda z: self._flow(z, gamma), (z,), (v,))
            (velocity, score), (change, _) = found[0], found[1]
            return velocity, score, (v * change).flatten(1).sum(1)

        velocity, score, slope = torch.func.vmap(along, in_dims=1, out_dims=(0, 0, 1))(v)
        return velocity[0], score[0], slope

    def _reverse_derivative(
        self, z: Tensor, gamma: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """f, score, v^T (df/dz): as good, since only its product with v is wanted."""
        outer = torch.is_grad_enabled()
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            velocity, score = self._flow(z, gamma)
            (change,) = torch.autograd.grad(velocity, z, v, create_graph=outer, retain_graph=outer)
        if outer:
            return velocity, score, change
        return velocity.detach(), score.detach(), change


def draw_probes(
    divergence: Divergence, noise: "torch.Generator", shape: torch.Size, like: Tensor
) -> Tensor:
    """Probes of one example, of `shape` = (K, *data), from its own generator."""
    if divergence == "gaussian":
        return torch.randn(shape, generator=noise, dtype=like.dtype, device=noise.device).to(like)
    signs = torch.randint(0, 2, shape, generator=noise, device=noise.device)
    return (2 * signs - 1).to(like)


def _velocity(z: Tensor, heads: Heads, gamma: Tensor) -> Tensor:
    point = SchedulePoint(gamma, torch.ones_like(gamma))
    return reverse_drift(z, heads, point, torch.zeros_like(gamma))


def _score(z: Tensor, heads: Heads, gamma: Tensor) -> Tensor:
    return (expand(alpha(gamma), z) * heads.x_hat - z) / expand(sigma2(gamma), z)
