"""The bound of infinite depth, for any noise level eta and any heads.

    L_inf = 1/2 E_{t, eps} [gamma' SNR eta^-2 || kappa (x_t - x_hat) + (x_t' - r_hat) ||^2],    kappa = (1 + eta^2)/2

Assumptions: q has the marginals of `process`, p the steps of `model`; p(z_1) = N(0, I); eta > 0.
Reference: Nielsen et al. 2024, sections 3 and 4, appendices; Kingma et al. 2021, section 4.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diffenc_ct.elbo.depths import Depths, LowDiscrepancyDepths
from diffenc_ct.elbo.subsets import encode, evenly, part_rates, spread
from diffenc_ct.elbo.terms import (
    Draws,
    Maps,
    Model,
    Residuals,
    Terms,
    latent_losses,
    reconstruction_losses,
    scaled,
)
from diffenc_ct.process import AnyNoiseLevel, Errors, NoiseLevel, as_noise_level, marginal
from diffenc_ct.schedules import SchedulePoint, expand


def infinite_depth_integrand(
    errors: Errors, point: SchedulePoint, noise_level: NoiseLevel
) -> Float[Tensor, " batch"]:
    """1/2 gamma' SNR eta^-2 || kappa (x_t - x_hat) + (x_t' - r_hat) ||^2 in nats.

    Theorem: elbo.girsanov.

    Args:
        errors: x_t - x_hat and x_t' - r_hat, (batch, *data) each.
        point: gamma and gamma' of each example, (batch,) each.
        noise_level: eta.
    """
    return infinite_depth_integrands(errors, point, noise_level).flatten(1).sum(1)


def infinite_depth_integrands(
    errors: Errors, point: SchedulePoint, noise_level: NoiseLevel
) -> Float[Tensor, "batch *data"]:
    """The same of every dimension, before the sum.

    Args:
        errors: as in infinite_depth_integrand.
        point: as in infinite_depth_integrand.
        noise_level: as in infinite_depth_integrand.
    """
    eta_squared = noise_level.squared(point.gamma)
    kappa = expand((1 + eta_squared) / 2, errors.x)
    factor = expand(0.5 * point.rate * point.snr / eta_squared, errors.x)
    return factor * (kappa * errors.x + errors.r).square()


@dataclass(frozen=True)
class InfiniteDepth:
    """The bound of infinite depth and how it is estimated.

    Attributes:
        noise_level: eta > 0, a number, a NoiseLevel or a function of gamma.
        depths: how t is drawn.
        ends_fraction: below 1, reconstruction and latent loss are computed for that fraction of the batch only (evenly
            spread examples), scaled up there and 0 elsewhere: their batch mean stays unbiased.
        rate_fraction: below 1, the derivative of the encoder's network is computed for that fraction of the batch only,
            and what it changes scaled up (see `subsets`): unbiased, too. `Terms.residuals` is then without it.

    Raises:
        ValueError: for eta = 0, with which the bound is infinite, and for fractions outside (0, 1].

    Example:
        >>> import diffenc_ct as dc
        >>> dc.InfiniteDepth(noise_level=0.8).level.eta
        0.8
    """

    noise_level: AnyNoiseLevel = 1.0
    depths: Depths = field(default_factory=LowDiscrepancyDepths)
    ends_fraction: float = 1.0
    rate_fraction: float = 1.0

    def __post_init__(self) -> None:
        refuse_determinism(self.level)
        for name in ("ends_fraction", "rate_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in (0, 1]")

    @property
    def level(self) -> NoiseLevel:
        """The noise level as an object."""
        return as_noise_level(self.noise_level)

    def terms(
        self,
        model: Model,
        x: Shaped[Tensor, "batch *data"],
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> Terms:
        """One unbiased estimate of each term, for each example, without a look at the data's values.

        Args:
            model: DiffEnc.
            x: levels or reals, as the model's decoder has it.
            draws: values in the place of random ones.
            generator: of the rest.

        Raises:
            TypeError: for data of the wrong kind.
            ValueError: for shapes that do not fit.
        """
        data = scaled(model, x)
        drawn = (draws or Draws()).complete(data, self.depths, generator)
        gamma_0, gamma_1 = (model.schedule.at(end, data).gamma for end in (0.0, 1.0))
        ends, some = evenly(self.ends_fraction, data), evenly(self.rate_fraction, data)
        at_ends = [(data[ends], gamma_0), (data[ends], gamma_1)]
        point: SchedulePoint = model.schedule(drawn.t)
        gamma = point.gamma
        rest = None
        if self.rate_fraction == 1:
            encoding = model.encoder(data, gamma)
            x_0, x_1 = encode(model.encoder, at_ends)
        else:
            encoding, rest, (x_0, x_1) = part_rates(model.encoder, data, gamma, some, at_ends)
        z = marginal(encoding.value, gamma).sample(noise=drawn.noise)
        errors = model.errors(z, drawn.noise, encoding, gamma)
        diffusion = infinite_depth_integrands(errors, point, self.level)
        if rest is not None:
            exact = Errors(errors.x[some], errors.r[some] + rest)
            there = SchedulePoint(gamma[some], point.rate[some])
            lacking = infinite_depth_integrands(exact, there, self.level) - diffusion[some]
            diffusion = diffusion + spread(lacking, some, len(data))
        reconstruction = reconstruction_losses(model, x[ends], x_0, gamma_0, drawn.noise_0[ends])
        each = Maps(
            spread(reconstruction, ends, len(data)),
            expand(drawn.weight, data) * diffusion,
            spread(latent_losses(x_1, gamma_1), ends, len(data)),
        )
        return Terms.of(each, Residuals(point, errors))

    def along(
        self, t: Float[Tensor, " batch"], loss: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Where draws look, and the loss there for each unit of depth: the same.

        Args:
            t: depths that were drawn.
            loss: the diffusion term of each.
        """
        return t, loss


def refuse_determinism(level: NoiseLevel) -> None:
    """Refuse eta = 0.

    Args:
        level: eta.

    Raises:
        ValueError: where it is 0 at every depth.
    """
    if level.deterministic:
        raise ValueError(
            "noise_level=0 makes both processes deterministic: the bound is infinite; use eta > 0"
        )
