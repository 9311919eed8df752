"""Gaussians of independent dimensions: N(mean, std^2 I).

Reference: any textbook; KL in the form that keeps its digits where two variances are close.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """N(mean, std^2 I).

    Attributes:
        mean: (batch, *data).
        std: broadcastable to it.
    Example:
        >>> Gaussian(torch.zeros(1, 2), torch.ones(())).log_prob(torch.zeros(1, 2))  # -ln 2 pi
        tensor([-1.8379])
    """

    mean: Float[Tensor, "*shape"]
    std: Float[Tensor, "*#shape"]

    def sample(
        self,
        generator: torch.Generator | None = None,
        *,
        noise: Float[Tensor, "batch *data"] | None = None,
    ) -> Float[Tensor, "batch *data"]:
        """mean + std eps.

        Args:
            generator: of eps ~ N(0, I).
            noise: eps itself, in the place of a draw.
        """
        return self.mean + self.std * (
            normal_like(self.mean, generator) if noise is None else noise
        )

    def log_prob(self, z: Float[Tensor, "batch *data"]) -> Float[Tensor, " batch"]:
        """log N(z; mean, std^2 I) in nats, summed over the data's dimensions."""
        return self.log_probs(z).flatten(1).sum(1)

    def log_probs(self, z: Float[Tensor, "batch *data"]) -> Float[Tensor, "batch *data"]:
        """The same before the sum."""
        standardised = (z - self.mean) / self.std
        log_std = self.std.log().expand_as(z)
        return -(0.5 * standardised**2 + log_std + 0.5 * math.log(2 * math.pi))


def normal_like(
    x: Float[Tensor, "*shape"], generator: torch.Generator | None = None
) -> Float[Tensor, "*shape"]:
    """Standard normal noise of x's shape, dtype and device, drawn from `generator`."""
    return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)


def kl_divergence(q: Gaussian, p: Gaussian) -> Float[Tensor, " batch"]:
    """KL(q || p) in nats: 1/2 sum (u - 1 - ln u + (mu_q - mu_p)^2 / std_p^2), u = (std_q/std_p)^2.

    Theorem: elbo.gaussian_kl.

    Args:
        q: the law of z, with mean (batch, *data).
        p: the law that it is compared with, of the same shape.
    """
    log_u = 2 * (q.std.log() - p.std.log())
    # expm1(log u) - log u keeps its digits when the two variances are close.
    variances = torch.expm1(log_u) - log_u
    return 0.5 * (variances + ((q.mean - p.mean) / p.std) ** 2).flatten(1).sum(1)
