"""What every bound is made of: the terms, what an estimate draws, the losses at the two ends.

    -log p(x) <= L_0 + L_1 + L_T,    L_0 = E_q[-log p(x | z_0)],    L_1 = KL(q(z_1 | x) || N(0, I))

All losses are per example, in nats; only `Terms.bits_per_dimension` divides by d ln 2.

Reference: Kingma et al. 2021, section 4.
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diffenc_ct.elbo.depths import Depths
from diffenc_ct.encoders import Encoder, Encoding
from diffenc_ct.process import Errors, Values, normal_like
from diffenc_ct.schedules import Schedule, SchedulePoint, expand, sigma2


@runtime_checkable
class Decodes(Protocol):
    """What a bound asks of a decoder."""

    def check(self, x: Tensor) -> None: ...

    def log_probs(
        self, x: Tensor, u: Tensor, gamma_0: Tensor, start: float | None = None
    ) -> Tensor: ...


@runtime_checkable
class Model(Protocol):
    """What a bound asks of a model: DiffEnc has it."""

    schedule: Schedule
    encoder: Encoder

    @property
    def decoder(self) -> Decodes: ...

    def scale(self, x: Tensor) -> Tensor: ...

    def errors(self, z: Tensor, noise: Tensor, encoding: Encoding, gamma: Tensor) -> Errors: ...

    def values_beside(self, z: Tensor, noise: Tensor, x_t: Tensor, gamma: Tensor) -> Values: ...


@dataclass(frozen=True)
class Residuals:
    """Where the diffusion loss was estimated, and what the heads missed there.

    Attributes:
        point: gamma and its rate at each example's depth, (batch,).
        errors: x_t - x_hat and x_t' - r_hat, (batch, *data); at finite depth with x_t' = 0.
    """

    point: SchedulePoint
    errors: Errors


@dataclass(frozen=True)
class Maps:
    """The three terms of every dimension, before their sums.

    Attributes:
        reconstruction: of L_0, (batch, *data).
        diffusion: of L_T or L_inf, likewise.
        latent: of L_1, likewise.
    """

    reconstruction: Float[Tensor, "batch *data"]
    diffusion: Float[Tensor, "batch *data"]
    latent: Float[Tensor, "batch *data"]

    @property
    def total(self) -> Float[Tensor, "batch *data"]:
        """Their sum: its own sum over the dimensions is an upper bound on -log p(x)."""
        return self.reconstruction + self.diffusion + self.latent

    def scaled(self, factor: float) -> "Maps":
        """In other units."""
        return Maps(factor * self.reconstruction, factor * self.diffusion, factor * self.latent)


@dataclass(frozen=True)
class Terms:
    """The ELBO's three terms of each example, in nats.

    Attributes:
        reconstruction: L_0.
        diffusion: L_T, or L_inf.
        latent: L_1.
        dimensions: d.
        residuals: what the diffusion loss was made of; None after a change of units, and of mixture steps.
        per_dimension: the terms before their sum over dimensions, in nats; after a change of units in bits, so that
            the mean over dimensions is what the sum has become.

    Example:
        >>> import torch
        >>> from diffenc_ct.elbo import Terms
        >>> terms = Terms(*torch.tensor([[1.0], [2.0], [0.5]]), dimensions=4)
        >>> terms.total, terms.bits_per_dimension().total
        (tensor([3.5000]), tensor([1.2624]))
    """

    reconstruction: Float[Tensor, " batch"]
    diffusion: Float[Tensor, " batch"]
    latent: Float[Tensor, " batch"]
    dimensions: int
    residuals: Residuals | None = None
    per_dimension: Maps | None = None

    @classmethod
    def of(cls, each: Maps, residuals: Residuals | None = None) -> "Terms":
        """Of the terms of every dimension.

        Args:
            each: in nats.
            residuals: what the diffusion loss was made of.
        """
        return cls(
            each.reconstruction.flatten(1).sum(1),
            each.diffusion.flatten(1).sum(1),
            each.latent.flatten(1).sum(1),
            each.latent[0].numel(),
            residuals,
            each,
        )

    @property
    def total(self) -> Float[Tensor, " batch"]:
        """L_0 + L_T + L_1, an upper bound on -log p(x) in nats."""
        return self.reconstruction + self.diffusion + self.latent

    def bits_per_dimension(self) -> "Terms":
        """The same in bits per dimension, nats / (d ln 2)."""
        scale = 1 / (self.dimensions * math.log(2))
        return Terms(
            self.reconstruction * scale,
            self.diffusion * scale,
            self.latent * scale,
            self.dimensions,
            per_dimension=None
            if self.per_dimension is None
            else self.per_dimension.scaled(1 / math.log(2)),
        )


# Trees of tensors, so that hooks of DDP, FSDP and torch.export find the tensors in a forward's result.
for _tree in (Errors, SchedulePoint, Residuals, Maps, Terms):
    torch.export.register_dataclass(_tree)


@dataclass(frozen=True)
class Draws:
    """Given values in the place of random ones, each optional; those left out are drawn.

    Attributes:
        t: where the diffusion loss is estimated, in [0, 1], (batch,).
        noise: eps of z_t, (batch, *data).
        noise_0: eps of z_0, (batch, *data).
        weight: 1 over the density with which t was drawn, (batch,); 1 where it is left out.

    Example:
        >>> import torch, diffenc_ct as dc
        >>> draws = dc.Draws(t=torch.linspace(0, 1, 8))  # a sweep over depth
    """

    t: Float[Tensor, " batch"] | None = None
    noise: Float[Tensor, "batch *data"] | None = None
    noise_0: Float[Tensor, "batch *data"] | None = None
    weight: Float[Tensor, " batch"] | None = None

    def complete(
        self, data: Float[Tensor, "batch *data"], depths: Depths, generator: torch.Generator | None
    ) -> "Drawn":
        """What is not given drawn, in the order noise, noise_0, t.

        Args:
            data: on the model's scale; the noises have its shape.
            depths: how t is drawn.
            generator: of what is drawn.

        Raises:
            ValueError: for a shape that does not fit the data.
        """
        for name, given in (("noise", self.noise), ("noise_0", self.noise_0)):
            if given is not None and given.shape != data.shape:
                raise ValueError(
                    f"{name} has shape {tuple(given.shape)}; it must be x's, {tuple(data.shape)}"
                )
        noise = normal_like(data, generator) if self.noise is None else self.noise
        noise_0 = normal_like(data, generator) if self.noise_0 is None else self.noise_0
        t, weight = self.t, self.weight
        if t is None:
            if weight is not None:
                raise ValueError("weight belongs to depths that are given; give t, too")
            t, weight = depths.draw(len(data), like=data, generator=generator)
        weight = torch.ones_like(t) if weight is None else weight
        for name, given in (("t", t), ("weight", weight)):
            if given.shape != (len(data),):
                raise ValueError(
                    f"{name} has shape {tuple(given.shape)}; it must be (batch,) = ({len(data)},)"
                )
        return Drawn(t, weight, noise, noise_0)


@dataclass(frozen=True)
class Drawn:
    """Draws, all there.

    Attributes:
        t: depths, (batch,).
        weight: 1 over their density.
        noise: eps of z_t.
        noise_0: eps of z_0.
    """

    t: Float[Tensor, " batch"]
    weight: Float[Tensor, " batch"]
    noise: Float[Tensor, "batch *data"]
    noise_0: Float[Tensor, "batch *data"]


def scaled(model: Model, x: Shaped[Tensor, "batch *data"]) -> Float[Tensor, "batch *data"]:
    """The data on the model's scale, without a look at their values.

    Args:
        model: whose scale it is.
        x: levels or reals.

    Raises:
        ValueError: for data without a batch dimension.
        TypeError: for data of the wrong kind.
    """
    data = model.scale(x)
    if data.ndim < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be (batch, *data)")
    return data


def latent_loss(
    x_1: Float[Tensor, "batch *data"], gamma_1: Float[Tensor, "..."]
) -> Float[Tensor, " batch"]:
    """L_1 = KL(q(z_1 | x) || N(0, I)) in nats, the sum of `latent_losses`.

    Theorem: elbo.gaussian_kl.

    Args:
        x_1: as in latent_losses.
        gamma_1: as in latent_losses.
    """
    return latent_losses(x_1, gamma_1).flatten(1).sum(1)


def latent_losses(
    x_1: Float[Tensor, "batch *data"], gamma_1: Float[Tensor, "..."]
) -> Float[Tensor, "batch *data"]:
    """KL(q(z_1,i | x) || N(0, 1)) of every dimension in nats.

    Args:
        x_1: encoded data at depth 1.
        gamma_1: gamma there, a scalar or (batch,).
    """
    # The authors' order of operations, so that float32 gives their numbers to the last digits; it rounds at d 2^-24.
    variance = expand(sigma2(gamma_1), x_1)
    terms = ((1 - variance) * x_1**2 + variance) - variance.log() - 1
    return 0.5 * terms


def reconstruction_losses(
    model: Model,
    x: Shaped[Tensor, "batch *data"],
    x_0: Float[Tensor, "batch *data"],
    gamma_0: Float[Tensor, ""],
    noise: Float[Tensor, "batch *data"],
) -> Float[Tensor, "batch *data"]:
    """L_0's estimate -log p(x_i | z_0) of every dimension at z_0 = alpha_0 x_0 + sigma_0 noise, in nats.

    Args:
        model: whose decoder it is.
        x: data as they are given, levels or reals.
        x_0: encoded data at depth 0.
        gamma_0: gamma there.
        noise: eps of z_0.
    """
    # u = z_0/alpha_0 at once: a product and a quotient by alpha_0 would round twice more.
    u = x_0 + torch.exp(0.5 * gamma_0) * noise
    return -model.decoder.log_probs(x, u, gamma_0, model.schedule.fixed_start)
