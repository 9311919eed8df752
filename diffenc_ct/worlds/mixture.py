"""The mixture world: x ~ sum_k w_k N(mu_k, s^2 I) and any encoder x_t = a(gamma) x.

z given component k is N(alpha a mu_k, v I) with v = alpha^2 a^2 s^2 + sigma^2, so with r_k(z) its posterior weight

    log q_t(z) = logsumexp_k (ln w_k + ln N(z; alpha a mu_k, v I))
    E[x | z] = sum_k r_k(z) (mu_k + (alpha a s^2 / v) (z - alpha a mu_k))
    tr Cov(x | z) = d s^2 sigma^2 / v + (sigma^2 / v)^2 (sum_k r_k ||mu_k||^2 - ||sum_k r_k mu_k||^2)

Reference: Bayes' rule; theory/worlds.py proves each formula.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.encoders import Encoder, IdentityEncoder
from diffenc_ct.process import Estimates, normal_like
from diffenc_ct.schedules import alpha, expand, sigma2
from diffenc_ct.worlds._world import Data, Gammas, World

Each = Float[Tensor, " batch"]
Column = Float[Tensor, "batch 1"]


class MixtureWorld(World):
    """x ~ sum_k weights_k N(means_k, deviation^2 I), with an encoder x_t = a(gamma) x.

    With real images as means it is a world of images whose exact likelihood is known.

    Args:
        means: (K, *data).
        deviation: of every component, > 0.
        encoder: identity (the default), non-trainable, or any that multiplies x by a number.
        weights: (K,), of any sum; uniform by default.
    Raises:
        ValueError: for means without data's dimensions, or a deviation that is not positive.
    Example:
        >>> world = MixtureWorld(torch.tensor([[-1.0], [1.0]]), 0.1)
        >>> world.posterior_mean(torch.zeros(1, 1), torch.zeros(1))  # halfway between the two
        tensor([[0.]])
    """

    def __init__(
        self,
        means: Float[Tensor, "..."],
        deviation: float,
        encoder: Encoder | None = None,
        weights: Float[Tensor, " components"] | None = None,
    ) -> None:
        super().__init__(IdentityEncoder() if encoder is None else encoder)
        if means.ndim < 2 or deviation <= 0:
            raise ValueError(
                f"means {tuple(means.shape)} must be (K, *data) and deviation={deviation} positive"
            )
        self.shape = means.shape[1:]
        self.register_buffer("means", means.flatten(1))
        weights = torch.ones(len(means)) if weights is None else weights
        self.register_buffer("log_weights", weights.to(means).log().log_softmax(0))
        self.means: Tensor
        self.log_weights: Tensor
        self.deviation = deviation

    @property
    def dimensions(self) -> int:
        """d."""
        return self.means.shape[1]

    def sample(
        self, n: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "{n} *data"]:
        """n draws of x."""
        choice = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        mean = self.means[choice]
        drawn = mean + self.deviation * normal_like(mean, generator)
        return drawn.reshape(n, *self.shape)

    def factor(self, gamma: Each) -> tuple[Each, Each]:
        """a(gamma) and a' = da/dlambda."""
        encoding = self.encoder(torch.ones_like(gamma)[:, None], gamma)
        return encoding.value[:, 0], encoding.rate[:, 0]

    def _components(
        self, z: Data, scale: Column, variance: Column
    ) -> Float[Tensor, "batch components"]:
        """log w_k N(z; scale mu_k, variance I)."""
        means, flat = self.means.to(z), z.flatten(1)
        squared = (
            (flat**2).sum(1, keepdim=True)
            - 2 * scale * (flat @ means.mT)
            + scale**2 * (means**2).sum(1)
        )
        log_normal = -0.5 * (
            squared / variance + self.dimensions * torch.log(2 * math.pi * variance)
        )
        return self.log_weights.to(z) + log_normal

    def _scales(self, gamma: Each) -> tuple[Each, Each, Column, Column]:
        a, rate = self.factor(gamma)
        scale = (alpha(gamma) * a)[:, None]
        return a, rate, scale, scale**2 * self.deviation**2 + sigma2(gamma)[:, None]

    def log_prob(self, x: Data) -> Each:
        """log p(x) of the data in nats."""
        one = torch.ones(len(x), 1, dtype=x.dtype, device=x.device)
        return self._components(x, one, one * self.deviation**2).logsumexp(1)

    def log_q(self, z: Data, gamma: Gammas) -> Each:
        """log q_t(z) in nats. Theorem: worlds.mixture_score."""
        _, _, scale, variance = self._scales(gamma.expand(len(z)))
        return self._components(z, scale, variance).logsumexp(1)

    def posterior_mean(self, z: Data, gamma: Gammas) -> Data:
        """E[x | z]. Theorem: worlds.mixture_posterior."""
        _, _, scale, variance = self._scales(gamma.expand(len(z)))
        weights = self._components(z, scale, variance).softmax(1)
        gain = scale * self.deviation**2 / variance
        mean = weights @ self.means.to(z)
        return (mean + gain * (z.flatten(1) - scale * mean)).reshape(z.shape)

    def posterior_variance(self, z: Data, gamma: Gammas) -> Each:
        """tr Cov(x | z): within and between components. Theorem: worlds.mixture_posterior."""
        _, _, scale, variance = self._scales(gamma.expand(len(z)))
        weights, means = self._components(z, scale, variance).softmax(1), self.means.to(z)
        within = (self.deviation**2 * sigma2(gamma) / variance[:, 0]) * self.dimensions
        # A component's posterior mean moves with mu_k by the factor sigma^2 / v.
        shrink = (sigma2(gamma) / variance[:, 0]) ** 2
        spread = weights @ (means**2).sum(1) - ((weights @ means) ** 2).sum(1)
        return within + shrink * spread

    def estimates(self, z: Data, gamma: Gammas) -> Estimates:
        """E[x_t | z] = a E[x | z] and E[x_t' | z] = a' E[x | z]. Theorem: worlds.mixture_posterior."""
        a, rate = self.factor(gamma.expand(len(z)))
        x = self.posterior_mean(z, gamma)
        return Estimates(expand(a, z) * x, expand(rate, z) * x)

    def traces(self, z: Data, gamma: Gammas) -> tuple[Each, Each]:
        """tr dx_hat/dz and tr dr_hat/dz: dE[x|z]/dz = (alpha a/sigma^2) Cov(x|z).

        Theorem: worlds.mixture_posterior.
        """
        a, rate = self.factor(gamma.expand(len(z)))
        trace = alpha(gamma) * a / sigma2(gamma) * self.posterior_variance(z, gamma)
        return a * trace, rate * trace
