"""Decoders: from data to the unit scale, and from a latent z_0 back to data with a probability.

    Levels(V)   integers 0..V-1; level k is x_k = 2 (k + 1/2)/V - 1; p(x | z_0) a product over dimensions of
                categoricals with logits -(z_0/alpha_0 - x_k)^2 / (2 exp(gamma_0))
    Reals()     floats as they are; p(x | z_0) = N(z_0/alpha_0, exp(gamma_0) I)

Everything is computed from u = z_0/alpha_0, which float32 resolves beside a level's edge.

Reference: Kingma et al. 2021 (the discrete decoder).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer, Shaped
from torch import Tensor

from diffenc_ct.process import Gaussian

Data = Shaped[Tensor, "batch *data"]


class Decoder(ABC):
    """p(x | z_0), and the scale of the data.

    Attributes:
        levels: the number of levels of integers, None for reals.
    """

    levels: int | None

    @abstractmethod
    def check(self, x: Data) -> None:
        """Refuse data that the decoder has no probability for. Reads the values: not for inside a training step.

        Raises:
            TypeError: where levels meet floats or reals meet integers.
            ValueError: where a value is not in range.
        """

    @abstractmethod
    def scale(self, x: Data, dtype: torch.dtype) -> Float[Tensor, "batch *data"]:
        """Data on the unit scale of the model, without a look at their values.

        Raises:
            TypeError: where levels meet floats or reals meet integers.
        """

    @abstractmethod
    def log_prob(
        self,
        x: Data,
        u: Float[Tensor, "batch *data"],
        gamma_0: Float[Tensor, ""],
        start: float | None = None,
    ) -> Float[Tensor, " batch"]:
        """log p(x | z_0) in nats.

        Args:
            x: data as they are given, levels or reals.
            u: z_0/alpha_0.
            gamma_0: gamma at depth 0.
            start: gamma_0 as a number where it is known without a wait for the device, else None.
        """

    @abstractmethod
    def most_probable(self, u: Float[Tensor, "batch *data"]) -> Data:
        """The most probable x at u = z_0/alpha_0."""

    @abstractmethod
    def draw(
        self,
        u: Float[Tensor, "batch *data"],
        gamma_0: Float[Tensor, ""],
        generator: torch.Generator | None = None,
    ) -> Data:
        """A draw of x from p(x | z_0)."""


@dataclass(frozen=True)
class Levels(Decoder):
    """Integers 0..V-1, level k at x_k = 2 (k + 1/2)/V - 1.

    Attributes:
        levels: V, at least 2.

    Raises:
        ValueError: for fewer than two levels.

    Example:
        >>> import torch, diffenc_ct as dc
        >>> dc.Levels(4).scale(torch.tensor([[0, 3]]), torch.float64)
        tensor([[-0.7500,  0.7500]], dtype=torch.float64)
    """

    levels: int

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise ValueError(f"levels={self.levels}; integer data need at least 2 levels")

    def check(self, x: Tensor) -> None:
        self._check_type(x)
        if x.numel() and (int(x.max()) >= self.levels or int(x.min()) < 0):
            raise ValueError(
                f"x has values from {int(x.min())} to {int(x.max())}; with levels={self.levels} they must lie in "
                f"0..{self.levels - 1}"
            )

    def scale(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Level k -> 2 (k + 1/2)/V - 1; NaN for what is no level, so that a loss of it is NaN, too."""
        self._check_type(x)
        inside = (x >= 0) & (x < self.levels)
        return torch.where(inside, self.centres(x, dtype), math.nan)

    def _check_type(self, x: Tensor) -> None:
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise TypeError(
                f"Levels({self.levels}) means integer data, but x is {x.dtype}; give integers 0..{self.levels - 1}"
            )

    def centres(self, k: Integer[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
        """x_k = 2 (k + 1/2)/V - 1."""
        return 2 * (k.to(dtype) + 0.5) / self.levels - 1

    def log_prob(self, x: Tensor, u: Tensor, gamma_0: Tensor, start: float | None = None) -> Tensor:
        near, precision = self._near(u, start), torch.exp(-gamma_0)
        logits = self._logits(near, u, precision)
        own = -0.5 * precision * (u - self.centres(x, u.dtype)) ** 2
        return (own - logits.logsumexp(-1)).flatten(1).sum(1)

    def most_probable(self, u: Tensor) -> Tensor:
        return ((u.detach() + 1) * self.levels / 2).floor().long().clamp(0, self.levels - 1)

    def draw(self, u: Tensor, gamma_0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        near = self._near(u, float(gamma_0))
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
        per_bin = (2 / self.levels) ** 2 / (2 * math.exp(gamma_0))
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

    levels: None = None

    def check(self, x: Tensor) -> None:
        self.scale(x, x.dtype)

    def scale(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """x itself."""
        if not x.is_floating_point():
            raise TypeError(
                f"Reals() means real data, but x is {x.dtype}; give floats, or take Levels(V)"
            )
        return x

    def log_prob(self, x: Tensor, u: Tensor, gamma_0: Tensor, start: float | None = None) -> Tensor:
        return Gaussian(u, torch.exp(0.5 * gamma_0)).log_prob(x)

    def most_probable(self, u: Tensor) -> Tensor:
        return u

    def draw(self, u: Tensor, gamma_0: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return Gaussian(u, torch.exp(0.5 * gamma_0)).sample(generator)
