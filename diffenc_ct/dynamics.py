"""The dynamics as objects that solver libraries take: SDEs for torchsde, the probability flow for torchdiffeq.

    forward, given x         dz = [-beta/2 z + alpha dx_t/dt] dt + sqrt(beta) dw                 t: 0 -> 1
    reverse, given x         dz = b_Q dt + eta sqrt(beta) dw_bar                                 t: 1 -> 0
    reverse, generative      dz = b_eta dt + eta sqrt(beta) dw_bar                               t: 1 -> 0
    probability flow         dz/dt = b_0, eta = 0                                                either way

b_Q is b_eta with x_t and x_t' for the estimates. A reverse SDE runs in its own time tau = 1 - t, so that a solver's
time increases: dz = -b dtau + eta sqrt(beta) dw. The diffusion coefficient does not depend on z, so Ito's and
Stratonovich's reading agree (their difference is 1/2 g dg/dz = 0) and one object may be typed as either.

torchsde wants states (batch, d): an SDE on images is given `shape` and flattens them itself. torchdiffeq takes any
shape. The probability flow keeps the marginals q_t if the model's `flow_is_exact`.

Reference: Anderson 1982 (time reversal); Song et al. 2021 (probability flow); Nielsen et al. 2024, section 3.
"""

from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffenc_ct.encoders import Encoder
from diffenc_ct.model import reverse_drift
from diffenc_ct.process import AnyNoiseLevel, Estimates, as_noise_level, forward_drift
from diffenc_ct.schedules import Schedule, SchedulePoint

Data = Float[Tensor, "batch *data"]
Gammas = Float[Tensor, " batch"]
Flat = Float[Tensor, "batch d"]
Time = Float[Tensor, ""]


@runtime_checkable
class Predictor(Protocol):
    """What a model is to its dynamics: DiffEnc, or anything with a schedule and predictions."""

    @property
    def schedule(self) -> Schedule:
        """gamma(t)."""

    def predict(self, z: Data, gamma: Gammas) -> Estimates:
        """x_hat and r_hat at latents z of depths gamma."""


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

    def _images(self, y: Flat) -> Data:
        return y if self.shape is None else y.reshape(len(y), *self.shape)


class ForwardSDE(_SDE):
    """dz = [-beta/2 z + alpha dx_t/dt] dt + sqrt(beta) dw given data x. Start it at z_0 ~ q(z_0 | x).

    Theorem: process.forward_sde.

    Args:
        schedule: gamma(t).
        encoder: x -> x_t.
        x: data on the model's scale, (batch, *data).
        sde_type: "ito" or "stratonovich", which agree here: what torchsde's method asks for.
    Raises:
        ValueError: for another type.
    Example:
        >>> import diffenc_ct as dc
        >>> sde = ForwardSDE(dc.LinearSchedule(-4.0, 4.0), dc.IdentityEncoder(), torch.zeros(2, 1, 2, 2))
        >>> sde.f(torch.tensor(0.5), torch.ones(2, 4))[0]  # -beta/2 = -2
        tensor([-2., -2., -2., -2.])
    """

    def __init__(
        self, schedule: Schedule, encoder: Encoder, x: Data, *, sde_type: SDEType = "ito"
    ) -> None:
        super().__init__(tuple(x.shape[1:]), sde_type)
        self.schedule, self.encoder, self.x = schedule, encoder, x

    def f(self, t: Time, y: Flat) -> Flat:
        """The drift at time t."""
        point = self.schedule(t.to(y))
        encoding = self.encoder(self.x, point.gamma.expand(len(y)))
        return forward_drift(self._images(y), encoding, point).flatten(1)

    def g(self, t: Time, y: Flat) -> Flat:
        """The diffusion coefficient at time t."""
        point: SchedulePoint = self.schedule(t.to(y))
        return point.beta.sqrt().expand_as(y)


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

    def estimates(self, z: Data, gamma: Gammas) -> Estimates:
        """What stands in the place of x_t and x_t'."""
        raise NotImplementedError

    def f(self, tau: Time, y: Flat) -> Flat:
        """The drift -b at time tau."""
        z, point = self._images(y), self.schedule(1 - tau.to(y))
        found = self.estimates(z, point.gamma.expand(len(z)))
        return -reverse_drift(z, found, point, self.noise_level.squared(point.gamma)).flatten(1)

    def g(self, tau: Time, y: Flat) -> Flat:
        """The diffusion coefficient at time tau."""
        point: SchedulePoint = self.schedule(1 - tau.to(y))
        return (self.noise_level.squared(point.gamma) * point.beta).sqrt().expand_as(y)


class ReverseSDE(_ReverseSDE):
    """The generative reverse SDE in tau = 1 - t, from z_1 ~ N(0, I) at tau = 0 to z_0 at tau = 1.

    Theorem: model.reverse_limit.

    Args:
        model: DiffEnc, or anything with its schedule and predictions.
        noise_level: eta.
        shape: the data's, e.g. (1, 28, 28), where states (batch, d) are images; None for vectors.
        sde_type: "ito" or "stratonovich", which agree here.
    Raises:
        ValueError: for another type.
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

    def estimates(self, z: Data, gamma: Gammas) -> Estimates:
        """The model's."""
        return self.model.predict(z, gamma)


class ConditionalReverseSDE(_ReverseSDE):
    """The reverse SDE given data x, in tau = 1 - t: started at q(z_1 | x) it has the marginals q(z_t | x).

    Theorem: model.time_reversal.

    Args:
        schedule: gamma(t).
        encoder: x -> x_t.
        x: data on the model's scale, (batch, *data).
        noise_level: eta.
        sde_type: "ito" or "stratonovich", which agree here.
    Raises:
        ValueError: for another type.
    """

    def __init__(
        self,
        schedule: Schedule,
        encoder: Encoder,
        x: Data,
        *,
        noise_level: AnyNoiseLevel = 1.0,
        sde_type: SDEType = "ito",
    ) -> None:
        super().__init__(schedule, noise_level, tuple(x.shape[1:]), sde_type)
        self.encoder, self.x = encoder, x

    def estimates(self, z: Data, gamma: Gammas) -> Estimates:
        """x_t and x_t' themselves."""
        encoding = self.encoder(self.x, gamma)
        return Estimates(encoding.value, encoding.rate)


class ProbabilityFlow(nn.Module):
    """dz/dt = beta [-z/2 + (z - alpha x_hat)/(2 sigma^2) - (alpha/sigma^2) r_hat], for torchdiffeq, any shape.

    Integrate from t = 1 to 0 to sample, from 0 to 1 for a likelihood. Theorem: likelihood.continuity.

    Args:
        model: DiffEnc, or anything with its schedule and predictions.
    Example:
        >>> import diffenc_ct as dc
        >>> from torchdiffeq import odeint
        >>> model = dc.worlds.GaussianWorld(torch.zeros(2), torch.ones(2)).model(dc.LinearSchedule())
        >>> odeint(dc.ProbabilityFlow(model), torch.ones(1, 2), torch.tensor([1.0, 0.0]))[-1].round(decimals=3)
        tensor([[1., 1.]])
    """

    def __init__(self, model: Predictor) -> None:
        super().__init__()
        self.model = model

    def forward(self, t: Time, z: Data) -> Data:
        """dz/dt at time t."""
        point = self.model.schedule(t.to(z))
        found = self.model.predict(z, point.gamma.expand(len(z)))
        return reverse_drift(z, found, point, torch.zeros_like(point.gamma))

    def velocity(self, z: Data, gamma: Gammas) -> Data:
        """dz/dgamma: the flow without its schedule. Theorem: likelihood.continuity."""
        point = SchedulePoint(gamma, torch.ones_like(gamma))
        return reverse_drift(z, self.model.predict(z, gamma), point, torch.zeros_like(gamma))
