"""From the density of a flow to the probability of levels: noise on the latent z_0, and K-sample bounds.

    log P(x) >= E[ log 1/K sum_k exp(w_k) ],      w = log p(x | z_0) + log p_0(z_0) - log q(z_0 | x)

a lower bound for every K that rises with K and is exact in the limit. With d dimensions and V levels:

    ModelNoise()         z_0 ~ q(z_0 | x) = N(alpha_0 x_0, sigma_0^2) and p(x | z_0): the model's own noise and decoder
    UniformNoise()       y = x + u, u ~ U(-h/2, h/2):     w = log p_y(y) + d ln h
    TruncatedNormal(tau) y = x + h eps/(2 tau), eps a standard normal cut at +-tau, Z = erf(tau / sqrt 2):
                         w = log p_y(y) - sum_i ln[phi(eps_i) 2 tau / (h Z)]

h is how far levels are apart, 2/V (or 2/(V - 1) where the ends are levels). For the last two P(x) is the mass of the
bin of that width about x under p_y(y) = alpha_0^d p_0(alpha_0 y), the density of z_0/alpha_0. The sum of P(x) over all
levels is 1 for the decoder, and the mass within (-1, 1), or (-1 - h/2, 1 + h/2), for the bins.

Real data: NoDequantisation() is p_y itself; ModelNoise() bounds the decoder's density.

Reference: Theis et al. 2016 (uniform); Zheng et al. 2023 (truncated normal); Kingma et al. 2021 (the decoder); Burda
et al. 2016 (K samples).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diffenc_ct.model import DiffEnc
from diffenc_ct.process import marginal
from diffenc_ct.schedules import alpha

Data = Shaped[Tensor, "batch *data"]
Scalar = Float[Tensor, ""]


@dataclass(frozen=True)
class Dequantised:
    """Latents and what turns their density into a weight.

    Attributes:
        z_0: latents, (batch, *data).
        log_weight: w - log p_0(z_0), (batch,).
    """

    z_0: Float[Tensor, "batch *data"]
    log_weight: Float[Tensor, " batch"]


# noise("normal") or noise("uniform"), U on (0, 1): of the data's shape.
Noise = Callable[[str], Tensor]


@dataclass(frozen=True, kw_only=True)
class Dequantisation(ABC):
    """How data become latents with a density.

    Attributes:
        samples: K, importance samples inside the logarithm.

    Raises:
        ValueError: for fewer than one sample.
    """

    samples: int = 1

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples={self.samples} must be at least 1")

    @abstractmethod
    def check(self, model: DiffEnc) -> None:
        """Refuse a model of another kind of data.

        Raises:
            ValueError: naming what fits.
        """

    @abstractmethod
    def draw(
        self,
        model: DiffEnc,
        x: Data,
        gamma_0: Scalar,
        noise: Noise,
    ) -> Dequantised:
        """z_0 and its log weight. Theorem: likelihood.dequantisation.

        Args:
            model: DiffEnc.
            x: data as the decoder has it.
            gamma_0: gamma at depth 0.
            noise: gives noise of the data's shape.
        """

    @property
    @abstractmethod
    def target(self) -> str:
        """What is bounded, in words."""

    @property
    def bound(self) -> str:
        """What the number is, in words."""
        plural = "s" * (self.samples > 1)
        return f"lower bound on the log-likelihood of {self.target}, {self.samples} sample{plural}"

    @property
    def random(self) -> bool:
        """Whether anything is drawn."""
        return True


@dataclass(frozen=True, kw_only=True)
class ModelNoise(Dequantisation):
    """The model's own noise and decoder: z_0 ~ q(z_0 | x), w = log p(x | z_0) + log p_0(z_0) - log q(z_0 | x).

    Attributes:
        samples: K, importance samples inside the logarithm.

    Raises:
        ValueError: for fewer than one sample.

    Example:
        >>> import diffenc_ct as dc
        >>> dc.ModelNoise(samples=8).bound
        "lower bound on the log-likelihood of the flow with the model's decoder, 8 samples"
    """

    def check(self, model: DiffEnc) -> None:
        """Levels and reals alike."""

    def draw(self, model: DiffEnc, x: Data, gamma_0: Scalar, noise: Noise) -> Dequantised:
        data = model.scale(x)
        q = marginal(model.encoder.encode(data, gamma_0.expand(len(data))), gamma_0)
        z_0 = q.sample(noise=noise("normal"))
        return Dequantised(z_0, (model.decode_log_prob(x, z_0, gamma_0) - q.log_prob(z_0)).double())

    @property
    def target(self) -> str:
        """The decoder's probability."""
        return "the flow with the model's decoder"


@dataclass(frozen=True, kw_only=True)
class _Bins(Dequantisation):
    """The mass of the bin of a level's width h about x."""

    def check(self, model: DiffEnc) -> None:
        """Refuse reals."""
        if model.decoder.levels is None:
            raise ValueError(
                f"{type(self).__name__} spreads levels over bins, but these are real data; choose NoDequantisation() "
                "or ModelNoise()"
            )

    @property
    def target(self) -> str:
        """A bin's mass."""
        return "the flow's mass in a level's bin"


def _bins(model: DiffEnc, x: Tensor, gamma_0: Tensor) -> tuple[Tensor, float, Tensor, Tensor]:
    """Bins' centres and width, alpha_0 and its log Jacobian."""
    data, scale = model.scale(x), alpha(gamma_0)
    assert model.decoder.width is not None
    return data, model.decoder.width, scale, data[0].numel() * scale.double().log()


@dataclass(frozen=True, kw_only=True)
class UniformNoise(_Bins):
    """y = x + u, u ~ U(-h/2, h/2): w = log p_y(y) + d ln h, h the levels' distance.

    Attributes:
        samples: K, importance samples inside the logarithm.

    Raises:
        ValueError: for fewer than one sample.

    Example:
        >>> from diffenc_ct.likelihood import UniformNoise
        >>> UniformNoise().bound
        "lower bound on the log-likelihood of the flow's mass in a level's bin, 1 sample"
    """

    def draw(self, model: DiffEnc, x: Data, gamma_0: Scalar, noise: Noise) -> Dequantised:
        data, width, scale, jacobian = _bins(model, x, gamma_0)
        y = data + width * (noise("uniform") - 0.5)
        return Dequantised(
            scale * y, (jacobian + data[0].numel() * math.log(width)).expand(len(data))
        )


@dataclass(frozen=True, kw_only=True)
class TruncatedNormal(_Bins):
    """y = x + h eps/(2 tau), eps a normal cut at +-tau: w = log p_y(y) - sum_i ln[phi(eps_i) 2 tau / (h Z)].

    Attributes:
        tau: where the normal is cut, in standard deviations; the cut lies at the bin's edge.
        samples: K, importance samples inside the logarithm.

    Raises:
        ValueError: for a tau that is not positive, or fewer than one sample.

    Example:
        >>> import diffenc_ct as dc
        >>> dc.TruncatedNormal(tau=3, samples=8).bound
        "lower bound on the log-likelihood of the flow's mass in a level's bin, 8 samples"
    """

    tau: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tau > 0:
            raise ValueError(f"tau={self.tau} must be positive")

    def draw(self, model: DiffEnc, x: Data, gamma_0: Scalar, noise: Noise) -> Dequantised:
        data, width, scale, jacobian = _bins(model, x, gamma_0)
        mass, tau = truncated_normal_constant(self.tau), self.tau
        # the inverse of the cut normal's distribution function
        eps = math.sqrt(2) * torch.erfinv(mass * (2 * noise("uniform") - 1))
        eps = eps.clamp(-tau, tau)
        log_normal = -0.5 * eps.double() ** 2 - 0.5 * math.log(2 * math.pi)
        log_q = (log_normal - math.log(mass * width / (2 * tau))).flatten(1).sum(1)
        return Dequantised(scale * (data + width / (2 * tau) * eps), jacobian - log_q)


@dataclass(frozen=True)
class NoDequantisation(Dequantisation):
    """Real data as they are: the density of z_0/alpha_0, as one of the data where the decoder standardises them.

    Raises:
        ValueError: for more than one sample: nothing is drawn.

    Example:
        >>> from diffenc_ct.likelihood import NoDequantisation
        >>> NoDequantisation().bound
        'log-density of z_0/alpha_0 under the flow'
    """

    samples: int = 1

    def __post_init__(self) -> None:
        if self.samples != 1:
            raise ValueError(f"samples={self.samples}: nothing is drawn; leave it out")

    def check(self, model: DiffEnc) -> None:
        """Refuse levels."""
        if model.decoder.levels is not None:
            raise ValueError(
                "a density at undequantised integers can be made as high as one likes; choose ModelNoise(), "
                "UniformNoise() or TruncatedNormal()"
            )

    def draw(self, model: DiffEnc, x: Data, gamma_0: Scalar, noise: Noise) -> Dequantised:
        data, scale = model.scale(x), alpha(gamma_0)
        jacobian = data[0].numel() * scale.double().log() + model.decoder.log_jacobian(x)
        return Dequantised(scale * data, jacobian.expand(len(data)))

    @property
    def target(self) -> str:
        """The flow's density."""
        return "the flow"

    @property
    def bound(self) -> str:
        """No bound."""
        return "log-density of z_0/alpha_0 under the flow"

    @property
    def random(self) -> bool:
        """Nothing is drawn."""
        return False


def truncated_normal_constant(tau: float) -> float:
    """Z = erf(tau / sqrt 2), the normal's mass within tau standard deviations. Theorem: likelihood.truncated_normal."""
    return math.erf(tau / math.sqrt(2))
