"""What every solver of the flow asks for: its velocity, its divergence and the score, in one pass.

    f(z, gamma) = dz/dgamma = alpha^2 z/2 - alpha (x_hat/2 + r_hat),        div f = tr df/dz

Directional derivatives v^T (df/dz) v are reverse-mode: the network is evaluated once, its transposed linear part for
all directions of a chunk, or all probes, as one batch. Forward mode takes one and a half to four times as long on a
CPU, because PyTorch computes shapes of its zero tangents in Python. It serves

    in inference mode                                 where nothing can be recorded
    where the derivative is itself differentiated     fused attention has one reverse-mode derivative only
    where the two disagree                            a part of a network under no_grad has a forward derivative, and
                                                      silently no other (one behind detach() has neither)

The score is (alpha x_hat - z)/sigma^2: for paired heads the gradient of log q_t, free of charge.

Heads that know their traces, tr dx_hat/dz and tr dr_hat/dz, offer them; then the exact divergence costs one evaluation.

Reference: Chen et al. 2018 (continuous normalising flows); Grathwohl et al. 2019 (FFJORD).
"""

import re
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffenc_ct.dynamics import Predictor
from diffenc_ct.model import DiffEnc, reverse_drift
from diffenc_ct.process import Estimates
from diffenc_ct.schedules import SchedulePoint, alpha, alpha2, expand, sigma2

AGREEMENT = 1e-3  # of forward and reverse mode, a dimension: 16-bit bodies are further apart and stay with forward


@dataclass(frozen=True)
class FlowValue:
    """What is asked for at one point of each example's path.

    Attributes:
        velocity: f, (batch, *data).
        divergence: div f, (batch, K): one column, or one a probe.
        score: (alpha x_hat - z)/sigma^2, (batch, *data).
    """

    velocity: Float[Tensor, "batch *data"]
    divergence: Float[Tensor, "batch K"]
    score: Float[Tensor, "batch *data"]


class FlowField:
    """f, div f and the score, per unit of gamma. Theorem: likelihood.change_of_variables.

    Args:
        model: DiffEnc.
        probes: None for the exact divergence, or those of all examples, drawn once.
        chunk: directions in one batch of the exact divergence; by default as many as make batches of 4096 examples.
    """

    def __init__(
        self,
        model: DiffEnc,
        *,
        probes: Float[Tensor, "examples K *data"] | None = None,
        chunk: int | None = None,
    ) -> None:
        self.model, self.probes, self.chunk = model, probes, chunk
        self._forward_mode = True  # False once a network has turned out to have none
        self._agreed: bool | None = None  # of forward and reverse mode, when it has been asked

    @property
    def columns(self) -> int:
        """K: how many numbers the divergence of an example is."""
        return 1 if self.probes is None else self.probes.shape[1]

    def __call__(
        self,
        z: Float[Tensor, "batch *data"],
        gamma: Float[Tensor, " batch"],
        rows: Int[Tensor, " batch"] | None = None,
    ) -> FlowValue:
        """The three at latents z of depths gamma.

        Args:
            z: latents.
            gamma: their depths.
            rows: which examples they belong to, where they are not all of them in order.
        """
        model = self.model if rows is None else self.model.rows(rows)
        if self.probes is None:
            traces = model.heads.traces(z, gamma)
            if traces is None:
                return self._exact(model, z, gamma)
            return _closed_form(model, z, gamma, traces)
        probes = self.probes if rows is None else self.probes[rows]
        velocity, score, slope = self._along(model, z, gamma, probes)
        return FlowValue(velocity, slope, score)

    @property
    def exact(self) -> bool:
        """Whether the divergence is no estimate."""
        return self.probes is None

    def _exact(self, model: DiffEnc, z: Tensor, gamma: Tensor) -> FlowValue:
        n, d = len(z), z[0].numel()
        size = min(d, self.chunk or max(1, 4096 // n))
        trace = torch.zeros_like(gamma)
        for start in range(0, d, size):
            basis = torch.eye(d, dtype=z.dtype, device=z.device)[start : start + size]
            directions = basis.reshape(1, -1, *z.shape[1:]).expand(n, -1, *z.shape[1:])
            velocity, score, slope = self._along(model, z, gamma, directions)
            trace = trace + slope.sum(1)
        return FlowValue(velocity, trace[:, None], score)

    def _along(
        self, model: DiffEnc, z: Tensor, gamma: Tensor, directions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """f, score, and v^T (df/dz) v for directions (n, K, *data): (n, K)."""
        v = directions.to(z.dtype)
        # In inference mode nothing can be recorded for reverse mode.
        forward = torch.is_grad_enabled() or torch.is_inference_mode_enabled()
        if self._forward_mode and (forward or not self._agree(model, z)):
            found = self._forward_or_none(model, z, gamma, v)
            if found is not None:
                return found
        return self._reverse_derivative(model, z, gamma, v)

    def _agree(self, model: DiffEnc, z: Tensor) -> bool:
        """Whether reverse mode has forward mode's derivative, along one direction at three depths; asked once."""
        if self._agreed is None:
            gamma = model.schedule(torch.tensor([0.2, 0.5, 0.8]).to(z)).gamma
            first = torch.zeros(3, dtype=torch.long, device=z.device)
            model, z = model.rows(first), z[first]
            v = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(z)
            forward = self._forward_or_none(model, z, gamma, v[:, None])
            _, _, slope = self._reverse_derivative(model, z, gamma, v[:, None])
            apart = torch.zeros(()) if forward is None else (forward[2] - slope).abs()
            self._agreed = not bool((apart > AGREEMENT * z[0].numel()).any())
        return self._agreed

    def _forward_or_none(
        self, model: DiffEnc, z: Tensor, gamma: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """As _along; None for a network with an operation that has no forward derivative or batching rule."""
        try:
            return self._forward_derivative(model, z, gamma, v)
        except (NotImplementedError, RuntimeError) as error:
            if not re.search("forward|vmap|batching|functorch", str(error).lower()):
                raise
            self._forward_mode = False
            return None

    def _forward_derivative(
        self, model: DiffEnc, z: Tensor, gamma: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As _along: the network once at z, and its linear part at the K directions, batched.

        The flow is linear in z and in the estimates, so that only these are differentiated: f(v, dx_hat, dr_hat).
        """

        def estimates(z: Tensor) -> tuple[Tensor, Tensor]:
            found = model.predict(z, gamma)
            return found.x_hat, found.r_hat

        def along(v: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
            found = torch.func.jvp(estimates, (z,), (v,))
            return found[0], found[1]

        found, changes = torch.func.vmap(along, in_dims=1, out_dims=(0, 1))(v)
        velocity, score = _flow_and_score(z, Estimates(*(part[0] for part in found)), gamma)
        change, _ = _flow_and_score(
            v.flatten(0, 1),
            Estimates(*(part.flatten(0, 1) for part in changes)),
            gamma.repeat_interleave(v.shape[1]),
        )
        slope = (v.flatten(0, 1) * change).flatten(1).sum(1)
        return velocity, score, slope.reshape(v.shape[:2])

    def _reverse_derivative(
        self, model: DiffEnc, z: Tensor, gamma: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As _along: the network once at z, v^T (df/dz) for the K directions, batched."""
        outer = torch.is_grad_enabled()
        with torch.enable_grad():
            z = z if outer and z.requires_grad else z.detach().requires_grad_()
            velocity, score = flow_and_score(model, z, gamma)
            change = _pulled_back(velocity, z, v, again=outer)
        slope = (v * change).flatten(2).sum(2)
        if outer:
            return velocity, score, slope
        return velocity.detach(), score.detach(), slope.detach()


def _pulled_back(f: Tensor, z: Tensor, v: Tensor, *, again: bool) -> Tensor:
    """v^T (df/dz), (n, K, *data), for v (n, K, *data); `again`: to be differentiated itself."""
    kept = {"create_graph": again, "retain_graph": True}
    if v.shape[1] > 1:
        try:
            (found,) = torch.autograd.grad(f, z, v.transpose(0, 1), is_grads_batched=True, **kept)
            return found.transpose(0, 1)
        except RuntimeError as error:  # an operation that cannot be batched
            if not re.search("vmap|batching|functorch", str(error).lower()):
                raise
    each = (torch.autograd.grad(f, z, one, **kept)[0] for one in v.unbind(1))
    return torch.stack(tuple(each), 1)


def _closed_form(
    model: DiffEnc, z: Tensor, gamma: Tensor, traces: tuple[Tensor, Tensor]
) -> FlowValue:
    velocity, score = flow_and_score(model, z, gamma)
    of_x, of_r = traces
    trace = alpha2(gamma) / 2 * z[0].numel() - alpha(gamma) * (of_x / 2 + of_r)
    return FlowValue(velocity, trace[:, None], score)


def flow_and_score(
    model: Predictor, z: Float[Tensor, "batch *data"], gamma: Float[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch *data"], Float[Tensor, "batch *data"]]:
    """dz/dgamma of the probability flow and the score (alpha x_hat - z)/sigma^2, from one evaluation.

    Args:
        model: DiffEnc, or what predicts like one.
        z: latents.
        gamma: their depths.
    """
    return _flow_and_score(z, model.predict(z, gamma), gamma)


def _flow_and_score(z: Tensor, found: Estimates, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Both are linear in z and the estimates together."""
    point = SchedulePoint(gamma, torch.ones_like(gamma))
    velocity = reverse_drift(z, found, point, torch.zeros_like(gamma))
    return velocity, (expand(alpha(gamma), z) * found.x_hat - z) / expand(sigma2(gamma), z)
