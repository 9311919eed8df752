"""Decoders: from data to the unit scale, and from a latent z_0 back to data with a probability.

    Levels(V)   integers 0..V-1; level k is x_k = 2 (k + 1/2)/V - 1, or 2 k/(V - 1) - 1 where the ends are levels;
                p(x | z_0) a product over dimensions of categoricals with logits
                -(z_0/alpha_0 - x_k)^2 / (2 exp(gamma_0))
    Reals()     floats as they are; p(x | z_0) = N(z_0/alpha_0, exp(gamma_0) I)

Everything is computed from u = z_0/alpha_0, which float32 resolves beside a level's edge.

Reference: Kingma et al. 2021 (the discrete decoder).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from diffenc_ct.process import Gaussian

Data = Shaped[Tensor, "batch *data"]
Latents = Float[Tensor, "batch *data"]
Scalar = Float[Tensor, ""]


class Decoder(ABC):
    """p(x | z_0), and the scale of the data.

    Attributes:
        levels: the number of levels of integers, None for reals.
        width: how far levels are apart on the model's scale, None for reals.
        mark: what tells the scale from the usual one of as many levels, for `fingerprint`.
    """

    levels: int | None
    width: float | None = None
    mark: str = ""

    @abstractmethod
    def check(self, x: Data) -> None:
        """Refuse data that the decoder has no probability for. Reads the values: not for inside a training step.

        Raises:
            TypeError: where levels meet floats or reals meet integers.
            ValueError: where a value is not in range.
        """

    @abstractmethod
    def scale(self, x: Data, dtype: torch.dtype) -> Latents:
        """Data on the unit scale of the model, without a look at their values.

        Args:
            x: data as they are given.
            dtype: of the result, where the data are no floats.
        Raises:
            TypeError: where levels meet floats or reals meet integers.
        """

    def log_jacobian(self, x: Data) -> Scalar:
        """ln |det d scale(x)/dx|, float64: a density of scaled reals times this factor is one of the reals themselves.

        0 where the scale is the data's own. Of levels there are no densities.

        Args:
            x: data as they are given.
        """
        return torch.zeros((), dtype=torch.float64, device=x.device)

    def log_prob(
        self, x: Data, u: Latents, gamma_0: Scalar, start: float | None = None
    ) -> Float[Tensor, " batch"]:
        """log p(x | z_0) in nats, the sum of `log_probs`."""
        return self.log_probs(x, u, gamma_0, start).flatten(1).sum(1)

    @abstractmethod
    def log_probs(
        self, x: Data, u: Latents, gamma_0: Scalar, start: float | None = None
    ) -> Latents:
        """log p(x_i | z_0) of every value in nats: values are independent given z_0.

        Args:
            x: data as they are given, levels or reals.
            u: z_0/alpha_0.
            gamma_0: gamma at depth 0.
            start: gamma_0 as a number where it is known without a wait for the device, else None.
        """

    def logits(self, u: Latents, gamma_0: Scalar) -> Float[Tensor, "batch *data levels"]:
        """ln p(x_k | z_0) of every level, up to a constant.

        Args:
            u: z_0/alpha_0.
            gamma_0: gamma at depth 0.
        Raises:
            ValueError: where the data are reals.
        """
        raise ValueError(f"{self} has no levels: reals have a density")

    @abstractmethod
    def most_probable(self, u: Latents) -> Data:
        """The most probable x at u = z_0/alpha_0."""

    @abstractmethod
    def draw(self, u: Latents, gamma_0: Scalar, generator: torch.Generator | None = None) -> Data:
        """A draw of x from p(x | z_0).

        Args:
            u: z_0/alpha_0.
            gamma_0: gamma at depth 0.
            generator: of the draw.
        """


@dataclass(frozen=True)
class Levels(Decoder):
    """Integers 0..V-1, level k at x_k = 2 (k + 1/2)/V - 1, or at 2 k/(V - 1) - 1.

    The first are the centres of V bins of (-1, 1), as in VDM; the second, from -1 to 1, are what x/127.5 - 1 makes of
    bytes, as most other code does. A model must be given those that its network was trained on.

    Attributes:
        levels: V, at least 2.
        ends: whether the first and the last level lie at -1 and 1.

    Raises:
        ValueError: for fewer than two levels.

    Example:
        >>> import torch, diffenc_ct as dc
        >>> dc.Levels(4).scale(torch.tensor([[0, 3]]), torch.float64)
        tensor([[-0.7500,  0.7500]], dtype=torch.float64)
        >>> dc.Levels(4, ends=True).scale(torch.tensor([[0, 3]]), torch.float64)
        tensor([[-1.,  1.]], dtype=torch.float64)
    """

    levels: int
    ends: bool = False

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise ValueError(f"levels={self.levels}; integer data need at least 2 levels")

    @property
    def width(self) -> float:  # type: ignore[override]
        """How far levels are apart: 2/V, or 2/(V - 1)."""
        return 2 / (self.levels - self.ends)

    @property
    def mark(self) -> str:  # type: ignore[override]
        """Not empty where the ends are levels."""
        return "ends" if self.ends else ""

    def check(self, x: Data) -> None:
        """Refuse what is no integer of 0..V-1. Reads the values."""
        self._check_type(x)
        if x.numel() and (int(x.max()) >= self.levels or int(x.min()) < 0):
            raise ValueError(
                f"x has values from {int(x.min())} to {int(x.max())}; with levels={self.levels} they must lie in "
                f"0..{self.levels - 1}"
            )

    def scale(self, x: Data, dtype: torch.dtype) -> Latents:
        """Level k -> x_k; NaN for what is no level, so that a loss of it is NaN, too."""
        self._check_type(x)
        k = x.long()  # bytes compared with 256 are compared with 0
        return torch.where((k >= 0) & (k < self.levels), self.centres(x, dtype), math.nan)

    def _check_type(self, x: Tensor) -> None:
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise TypeError(
                f"Levels({self.levels}) means integer data, but x is {x.dtype}; give integers 0..{self.levels - 1}"
            )

    def centres(self, k: Integer[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
        """x_k = 2 (k + 1/2)/V - 1, or 2 k/(V - 1) - 1."""
        return 2 * (k.to(dtype) + self._offset) / (self.levels - self.ends) - 1

    @property
    def _offset(self) -> float:
        """How far the first level lies from -1, in widths."""
        return 0.0 if self.ends else 0.5

    def log_probs(
        self, x: Data, u: Latents, gamma_0: Scalar, start: float | None = None
    ) -> Latents:
        """The categoricals' log-probabilities, of the near levels where gamma_0 is known. Theorem: model.decoder."""
        near, precision = self._near(u, start), torch.exp(-gamma_0)
        logits = self._logits(near, u, precision)
        own = -0.5 * precision * (u - self.centres(x, u.dtype)) ** 2
        return own - logits.logsumexp(-1)

    def logits(self, u: Latents, gamma_0: Scalar) -> Float[Tensor, "batch *data levels"]:
        """-(u - x_k)^2 / (2 exp(gamma_0)). Theorem: model.decoder."""
        return self._logits(self._near(u, None), u, torch.exp(-gamma_0))

    def most_probable(self, u: Latents) -> Integer[Tensor, "batch *data"]:
        """The nearest level, int64."""
        place = (u.detach() + 1) * (self.levels - self.ends) / 2 + (0.5 - self._offset)
        return place.floor().long().clamp(0, self.levels - 1)

    def draw(
        self, u: Latents, gamma_0: Scalar, generator: torch.Generator | None = None
    ) -> Integer[Tensor, "batch *data"]:
        """A level, int64. Waits for gamma_0's device."""
        near = self._near(u, float(gamma_0.detach()))
        weights = self._logits(near, u, torch.exp(-gamma_0)).softmax(-1)
        choice = torch.multinomial(weights.flatten(0, -2), 1, generator=generator)
        return near.gather(-1, choice.reshape(*u.shape, 1)).squeeze(-1)

    def _logits(self, near: Tensor, u: Tensor, precision: Tensor) -> Tensor:
        distances = (u.unsqueeze(-1) - self.centres(near, u.dtype)) ** 2
        outside = (near < 0) | (near >= self.levels)
        return (-0.5 * precision * distances).masked_fill(outside, -math.inf)

    def _near(self, u: Tensor, gamma_0: float | None) -> Tensor:
        """The levels that carry all mass of p(x | z_0) at float64's precision: (*u.shape, K), some outside 0..V-1.

        k bins beyond the nearest level, a logit is lower by at least k (k - 1) h^2 / (2 exp(gamma_0)), h the bin's
        width; beyond 45 nats a level adds less than rounding. All levels where gamma_0 is not known as a number.
        """
        if gamma_0 is None:
            return torch.arange(self.levels, device=u.device).expand(*u.shape, -1)
        per_bin = self.width**2 / (2 * math.exp(gamma_0))
        reach = min(math.ceil(0.5 + math.sqrt(0.25 + 45 / per_bin)), self.levels)
        offsets = torch.arange(-reach, reach + 1, device=u.device)
        return self.most_probable(u).unsqueeze(-1) + offsets


@dataclass(frozen=True)
class Reals(Decoder):
    """Floats as they are, of about unit scale: p(x | z_0) = N(z_0/alpha_0, exp(gamma_0) I).

    Example:
        >>> import diffenc_ct as dc
        >>> dc.Reals().levels is None
        True
    """

    levels: None = field(default=None, init=False, repr=False)

    def check(self, x: Data) -> None:
        """Refuse integers."""
        self.scale(x, x.dtype)

    def scale(self, x: Data, dtype: torch.dtype) -> Latents:
        """x itself."""
        if not x.is_floating_point():
            raise TypeError(
                f"Reals() means real data, but x is {x.dtype}; give floats, or take Levels(V)"
            )
        return x

    def log_probs(
        self, x: Data, u: Latents, gamma_0: Scalar, start: float | None = None
    ) -> Latents:
        """The Gaussian's log-density. Theorem: model.continuous_decoder."""
        return Gaussian(u, torch.exp(0.5 * gamma_0)).log_probs(x)

    def most_probable(self, u: Latents) -> Latents:
        """u itself."""
        return u

    def draw(
        self, u: Latents, gamma_0: Scalar, generator: torch.Generator | None = None
    ) -> Latents:
        """u + exp(gamma_0/2) eps."""
        return Gaussian(u, torch.exp(0.5 * gamma_0)).sample(generator)
