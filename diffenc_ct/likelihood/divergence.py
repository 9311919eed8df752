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

Heads that know their traces, tr dx_hat/dz and tr dr_hat/dz, offer them; then the exact divergence costs one evaluation.

Reference: Chen et al. 2018 (continuous normalising flows); Grathwohl et al. 2019 (FFJORD); Hutchinson 1989.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.dynamics import Predictor
from diffenc_ct.likelihood.randomness import example_generator
from diffenc_ct.model import DiffEnc, reverse_drift
from diffenc_ct.schedules import SchedulePoint, alpha, alpha2, expand, sigma2


class Divergence(ABC):
    """How the trace of df/dz is found."""

    @abstractmethod
    def field(
        self, model: DiffEnc, z: Float[Tensor, "batch *data"], seeds: Sequence[int]
    ) -> "FlowField":
        """What a solver integrates from z, with each example's probes drawn from its seed."""


@dataclass(frozen=True)
class Exact(Divergence):
    """The trace from d directional derivatives; from one evaluation where the heads know their traces.

    Attributes:
        chunk: directions in one batch; by default as many as make batches of 4096 examples.

    Raises:
        ValueError: for a chunk below 1.
    """

    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"chunk={self.chunk} must be at least 1")

    def field(self, model: DiffEnc, z: Tensor, seeds: Sequence[int]) -> "FlowField":
        return FlowField(model, chunk=self.chunk)


@dataclass(frozen=True)
class _Hutchinson(Divergence):
    """Probes, drawn once and fixed along each example's path.

    Attributes:
        probes: K, how many an example.

    Raises:
        ValueError: for fewer than one probe.
    """

    probes: int = 1

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise ValueError(f"probes={self.probes} must be at least 1")

    @abstractmethod
    def draw(self, generator: torch.Generator, shape: torch.Size, like: Tensor) -> Tensor:
        """Probes of one example, of `shape` = (K, *data)."""

    def field(self, model: DiffEnc, z: Tensor, seeds: Sequence[int]) -> "FlowField":
        shape = torch.Size((self.probes, *z.shape[1:]))
        each = [self.draw(example_generator(seed, "probes"), shape, z) for seed in seeds]
        return FlowField(model, probes=torch.stack(each))


@dataclass(frozen=True)
class Rademacher(_Hutchinson):
    """Hutchinson's estimate with probes of +-1.

    Attributes:
        probes: K, how many an example.

    Raises:
        ValueError: for fewer than one probe.

    Example:
        >>> import diffenc_ct as dc
        >>> dc.Rademacher(probes=4).probes
        4
    """

    def draw(self, generator: torch.Generator, shape: torch.Size, like: Tensor) -> Tensor:
        signs = torch.randint(0, 2, shape, generator=generator, device=generator.device)
        return (2 * signs - 1).to(like)


@dataclass(frozen=True)
class GaussianProbes(_Hutchinson):
    """Hutchinson's estimate with standard normal probes.

    Attributes:
        probes: K, how many an example.

    Raises:
        ValueError: for fewer than one probe.
    """

    def draw(self, generator: torch.Generator, shape: torch.Size, like: Tensor) -> Tensor:
        noise = torch.randn(shape, generator=generator, dtype=like.dtype, device=generator.device)
        return noise.to(like)


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
            traces = self.model.heads.traces(z, gamma)
            return self._exact(z, gamma) if traces is None else self._closed_form(z, gamma, traces)
        probes = self.probes if rows is None else self.probes[rows]
        velocity, score, slope = self._along(z, gamma, probes)
        return FlowValue(velocity, slope, score)

    @property
    def exact(self) -> bool:
        """Whether the divergence is no estimate."""
        return self.probes is None

    def _flow(self, z: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        return flow_and_score(self.model, z, gamma)

    def _closed_form(self, z: Tensor, gamma: Tensor, traces: tuple[Tensor, Tensor]) -> FlowValue:
        velocity, score = self._flow(z, gamma)
        of_x, of_r = traces
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


def flow_and_score(
    model: Predictor, z: Float[Tensor, "batch *data"], gamma: Float[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch *data"], Float[Tensor, "batch *data"]]:
    """dz/dgamma of the probability flow and the score (alpha x_hat - z)/sigma^2, from one evaluation.

    Args:
        model: DiffEnc, or what predicts like one.
        z: latents.
        gamma: their depths.
    """
    found = model.predict(z, gamma)
    point = SchedulePoint(gamma, torch.ones_like(gamma))
    velocity = reverse_drift(z, found, point, torch.zeros_like(gamma))
    return velocity, (expand(alpha(gamma), z) * found.x_hat - z) / expand(sigma2(gamma), z)
