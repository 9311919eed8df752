"""The dynamics as objects that solver libraries take: SDEs for torchsde, the probability flow for torchdiffeq.

    forward, given x         dz = [-beta/2 z + alpha dx_t/dt] dt + sqrt(beta) dw                 t: 0 -> 1
    reverse, given x         dz = b_Q dt + eta sqrt(beta) dw_bar                                 t: 1 -> 0
    reverse, generative      dz = b_eta dt + eta sqrt(beta) dw_bar                               t: 1 -> 0
    probability flow         dz/dt = b_0, eta = 0                                                either way

b_Q is b_eta with x_t and x_t' for the estimates. A reverse SDE runs in its own time tau = 1 - t, so that a solver's time
increases: dz = -b dtau + eta sqrt(beta) dw. The diffusion coefficient does not depend on z, so Ito's and
Stratonovich's reading agree (their difference is 1/2 g dg/dz = 0) and one object may be typed as either.

torchsde wants states (batch, d): an SDE on images is given `shape` and flattens them itself. torchdiffeq takes any
shape. The probability flow keeps the marginals q_t if the model's `flow_is_exact`.

Reference: Anderson 1982 (time reversal); Song et al. 2021 (probability flow); Nielsen et al. 2024, section 3.
"""

from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from diffenc_ct.encoders import Encoder
from diffenc_ct.model import reverse_drift
from diffenc_ct.process import AnyNoiseLevel, Estimates, as_noise_level, forward_drift
from diffenc_ct.schedules import Schedule, SchedulePoint


@runtime_checkable
class Predictor(Protocol):
    """What a model is to its dynamics: DiffEnc, or anything with a schedule and predictions."""

    @property
    def schedule(self) -> Schedule: ...
    def predict(self, z: Tensor, gamma: Tensor) -> Estimates: ...


SDEType = Literal["ito", "stratonovich"]


class _SDE(nn.Module):
    """torchsde's contract: noise_type, sde_type, f(t, y), g(t, y) on y (batch, d)."""

    noise_type = "diagonal"

    def __init__(self, shape: tuple[int, ...] | None, sde_type: SDEType) -> None:
        super().__init__()
        if sde_type not in ("ito", "stratonovich"):
            raise ValueError(
                f'sde_type={sde_type!r}; choose "ito" or "stratonovich" (they agree here)'
            )
        self.shape, self.sde_type = shape, sde_type

    def _images(self, y: Tensor) -> Tensor:
        return y if self.shape is None else y.unflatten(1, self.shape)


class ForwardSDE(_SDE):
    """dz = [-beta/2 z + alpha dx_t/dt] dt + sqrt(beta) dw given data x (batch, *data), scaled to (-1, 1).

    Start it at z_0 ~ q(z_0 | x). Theorem: process.forward_sde.
    """

    def __init__(
        self, schedule: Schedule, encoder: Encoder, x: Tensor, *, sde_type: SDEType = "ito"
    ) -> None:
        super().__init__(tuple(x.shape[1:]), sde_type)
        self.schedule, self.encoder, self.x = schedule, encoder, x

    def f(self, t: Tensor, y: Tensor) -> Tensor:
        point = self.schedule(t.to(y))
        encoding = self.encoder(self.x, point.gamma.expand(len(y)))
        return forward_drift(self._images(y), encoding, point).flatten(1)

    def g(self, t: Tensor, y: Tensor) -> Tensor:
        return self.schedule(t.to(y)).beta.sqrt().expand_as(y)


class _ReverseSDE(_SDE):
    """Reverse time tau = 1 - t: drift -b, diffusion eta sqrt(beta)."""

    def __init__(
        self,
        schedule: Schedule,
        noise_level: AnyNoiseLevel,
        shape: tuple[int, ...] | None,
        sde_type: SDEType,
    ) -> None:
        super().__init__(shape, sde_type)
        self.schedule, self.noise_level = schedule, as_noise_level(noise_level)

    def estimates(self, z: Tensor, gamma: Tensor) -> Estimates:
        raise NotImplementedError

    def f(self, tau: Tensor, y: Tensor) -> Tensor:
        z, point = self._images(y), self.schedule(1 - tau.to(y))
        found = self.estimates(z, point.gamma.expand(len(z)))
        return -reverse_drift(z, found, point, self.noise_level.squared(point.gamma)).flatten(1)

    def g(self, tau: Tensor, y: Tensor) -> Tensor:
        point = self.schedule(1 - tau.to(y))
        return (self.noise_level.squared(point.gamma) * point.beta).sqrt().expand_as(y)


class ReverseSDE(_ReverseSDE):
    """The generative reverse SDE in tau = 1 - t, from z_1 ~ N(0, I) at tau = 0 to z_0 at tau = 1.

    shape: the data's shape, e.g. (1, 28, 28), for states (batch, d) of images; None for vectors.
    Theorem: model.reverse_limit.
    """

    def __init__(
        self,
        model: Predictor,
        *,
        noise_level: AnyNoiseLevel = 1.0,
        shape: tuple[int, ...] | None = None,
        sde_type: SDEType = "ito",
    ) -> None:
        super().__init__(model.schedule, noise_level, shape, sde_type)
        self.model = model

    def estimates(self, z: Tensor, gamma: Tensor) -> Estimates:
        return self.model.predict(z, gamma)


class ConditionalReverseSDE(_ReverseSDE):
    """The reverse SDE given data x, in tau = 1 - t: started at q(z_1 | x) it has the marginals q(z_t | x).

    Theorem: model.time_reversal.
    """

    def __init__(
        self,
        schedule: Schedule,
        encoder: Encoder,
        x: Tensor,
        *,
        noise_level: AnyNoiseLevel = 1.0,
        sde_type: SDEType = "ito",
    ) -> None:
        super().__init__(schedule, noise_level, tuple(x.shape[1:]), sde_type)
        self.encoder, self.x = encoder, x

    def estimates(self, z: Tensor, gamma: Tensor) -> Estimates:
        encoding = self.encoder(self.x, gamma)
        return Estimates(encoding.value, encoding.rate)


class ProbabilityFlow(nn.Module):
    """dz/dt = beta [-z/2 + (z - alpha x_hat)/(2 sigma^2) - (alpha/sigma^2) r_hat], for torchdiffeq, any shape.

    Integrate from t = 1 to 0 to sample, from 0 to 1 for a likelihood. Theorem: likelihood.continuity.
    """

    def __init__(self, model: Predictor) -> None:
        super().__init__()
        self.model = model

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        point = self.model.schedule(t.to(z))
        found = self.model.predict(z, point.gamma.expand(len(z)))
        return reverse_drift(z, found, point, torch.zeros_like(point.gamma))

    def velocity(self, z: Tensor, gamma: Tensor) -> Tensor:
        """dz/dgamma at gamma (batch,): the flow without its schedule. Theorem: likelihood.continuity."""
        point = SchedulePoint(gamma, torch.ones_like(gamma))
        return reverse_drift(z, self.model.predict(z, gamma), point, torch.zeros_like(gamma))
