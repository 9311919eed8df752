"""Products of mixtures of Gaussians: independent values, each a mixture of its own, made a chunk of values at a time.

    p(z) = prod_i sum_k p_ik N(z_i; m_ik, s_ik^2)

and, where q's deviation is the unit and q's mean the origin, its divergence, a sum of integrals over one value each,

    KL(N(0, I) || p) = sum_i E_eps[ -eps^2/2 - ln(2 pi)/2 - ln p_i(eps) ],    eps ~ N(0, 1),

from one draw of eps (unbiased), or by Gauss-Hermite quadrature of each value. p_ik and m_ik are as many as values times
components: they are never all there at once.

Theorem: elbo.mixture_kl.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.process.gaussians import normal_like

# Numbers of a chunk: a quarter of a megabyte in float32 on a CPU, in its cache.
_CHUNK = {"cpu": 2**16}
_CHUNK_ELSEWHERE = 2**26


@dataclass(frozen=True)
class Mixture:
    """sum_k p_k N(mean_k, std_k^2) of each of some values.

    Attributes:
        log_weights: ln p_k, (*values, components).
        mean: of each component, (*values, components).
        std: broadcastable to it, positive.

    Example:
        >>> halves = Mixture(torch.tensor([0.5, 0.5]).log(), torch.tensor([-1.0, 1.0]), torch.ones(1))
        >>> halves.log_prob(torch.tensor(0.0))  # ln N(1; 0, 1)
        tensor(-1.4189)
    """

    log_weights: Float[Tensor, "*values components"]
    mean: Float[Tensor, "*values components"]
    std: Float[Tensor, "*#values #components"]

    def log_prob(self, z: Float[Tensor, "*values"]) -> Float[Tensor, "*values"]:
        """ln of the density at z, of each value, in nats."""
        each = self.log_weights + self.log_densities(z)
        return each.logsumexp(-1) - 0.5 * math.log(2 * math.pi)

    def log_densities(self, z: Float[Tensor, "*values"]) -> Float[Tensor, "*values components"]:
        """ln of each component's density at z, up to ln(2 pi)/2."""
        standard = (z[..., None] - self.mean) / self.std
        return -0.5 * standard.square() - self.std.log()

    def draw(
        self, choice: Float[Tensor, "*values"], noise: Float[Tensor, "*values"]
    ) -> Float[Tensor, "*values"]:
        """A draw of each value, a function of two standard normal numbers.

        Args:
            choice: its normal probability says which component, in their order.
            noise: eps in mean_k + std_k eps.
        """
        below = self.log_weights.exp().cumsum(-1)
        # Rounding must not leave a share of the normal's mass without a component.
        share = torch.special.ndtr(choice)[..., None] * below[..., -1:]
        k = torch.searchsorted(below, share).clamp(max=below.shape[-1] - 1)
        mean, std = (v.expand_as(below).gather(-1, k)[..., 0] for v in (self.mean, self.std))
        return mean + std * noise


@dataclass(frozen=True)
class Components:
    """What x is known to be, value by value: sum_k p_k N(near + d_k, variance_k).

    Attributes:
        log_weights: ln p_k, (*values, components).
        d: of each component, from a reference near it, (*values, components).
        variance: of each component, broadcastable to d; 0 where x is one of several levels.
    """

    log_weights: Float[Tensor, "*values components"]
    d: Float[Tensor, "*values components"]
    variance: Float[Tensor, "*#values #components"]


# Some of the flattened values (of all examples) to their components.
Parts = Callable[[slice | Tensor], Components]


@dataclass(frozen=True)
class Mixtures:
    """Independent values, z_i = centre_i + gain d_i + std_i eps_i with d_i a mixture: one step of a model.

    Attributes:
        parts: components of d, by flattened values.
        components: how many a value has.
        centre: (batch, *data).
        gain: of each example, (batch,).
        std: of eps, broadcastable to (batch, *data).

    Example:
        >>> d = torch.tensor([[-1.0, 1.0]])
        >>> two = Mixtures(lambda rows: Components(d.abs().log() - math.log(2), d, torch.zeros(1, 1)), 2,
        ...                torch.zeros(1, 1), torch.ones(1), torch.ones(1, 1))
        >>> two.divergence(nodes=24)  # from either component it would be 1/2
        tensor([0.1254])
    """

    parts: Parts
    components: int
    centre: Float[Tensor, "batch *data"]
    gain: Float[Tensor, " batch"]
    std: Float[Tensor, "..."]

    def mixture(self, rows: slice) -> Mixture:
        """Weights, means and deviations of some values.

        Args:
            rows: which of the flattened values, batch * data of them.
        """
        found = self.parts(rows)
        gain, std, centre = (v[rows, None] for v in self._flat)
        std = (std.square() + gain.square() * found.variance).sqrt()
        return Mixture(found.log_weights, centre + gain * found.d, std)

    @cached_property
    def _flat(self) -> tuple[Tensor, Tensor, Tensor]:
        """gain, std and centre of every value, flattened."""
        each = self.gain.reshape(-1, *[1] * (self.centre.ndim - 1)), self.std, self.centre
        gain, std, centre = (v.expand_as(self.centre).flatten() for v in each)
        return gain, std, centre

    def chunks(self, places: int = 1) -> Iterator[tuple[slice, Mixture]]:
        """All values, a chunk at a time: which, and their mixtures.

        Args:
            places: how many numbers are made for each component.
        """
        for part in self.slices(places):
            yield part, self.mixture(part)

    def slices(self, places: int = 1) -> list[slice]:
        """Which of the flattened values each chunk has.

        Args:
            places: how many numbers are made for each component.
        """
        chunk = _CHUNK.get(self.centre.device.type, _CHUNK_ELSEWHERE)
        rows = max(1, chunk // (self.components * places))
        return [slice(i, i + rows) for i in range(0, self.centre.numel(), rows)]

    def log_prob(self, z: Float[Tensor, "batch *data"]) -> Float[Tensor, " batch"]:
        """ln p(z) in nats, summed over the data's dimensions."""
        return self.log_probs(z).flatten(1).sum(1)

    def log_probs(self, z: Float[Tensor, "batch *data"]) -> Float[Tensor, "batch *data"]:
        """The same before the sum."""
        flat = z.flatten()
        each = [mixture.log_prob(flat[rows]) for rows, mixture in self.chunks()]
        return torch.cat(each).view_as(z)

    def sample(
        self,
        generator: torch.Generator | None = None,
        *,
        choice: Float[Tensor, "batch *data"] | None = None,
        noise: Float[Tensor, "batch *data"] | None = None,
    ) -> Float[Tensor, "batch *data"]:
        """A draw: of each value's component, then of that Gaussian.

        Args:
            generator: of both.
            choice: standard normal numbers in the place of the first, as in Mixture.draw.
            noise: eps in the place of the second.
        """
        choice = normal_like(self.centre, generator) if choice is None else choice
        noise = normal_like(self.centre, generator) if noise is None else noise
        first, second = choice.flatten(), noise.flatten()
        drawn = [mixture.draw(first[rows], second[rows]) for rows, mixture in self.chunks()]
        return torch.cat(drawn).view_as(self.centre)

    def divergence(
        self, *, nodes: int = 16, noise: Float[Tensor, "batch *data"] | None = None
    ) -> Float[Tensor, " batch"]:
        """KL(N(0, I) || p) in nats, the sum of `divergences`. Theorem: elbo.mixture_kl.

        Args:
            nodes: of the quadrature.
            noise: one draw of eps, at which the integrand alone estimates it without bias.
        """
        return self.divergences(nodes=nodes, noise=noise).flatten(1).sum(1)

    def divergences(
        self, *, nodes: int = 16, noise: Float[Tensor, "batch *data"] | None = None
    ) -> Float[Tensor, "batch *data"]:
        """KL(N(0, 1) || p_i) of every value in nats.

        Args:
            nodes: of the quadrature.
            noise: one draw of eps, at which the integrand alone estimates it without bias.
        """
        if noise is not None:
            normal = -0.5 * (noise.square() + math.log(2 * math.pi))
            return normal - self.log_probs(noise)
        at, weight = (torch.from_numpy(v).to(self.centre) for v in _hermite(nodes))
        normal = -0.5 * (at.square() + math.log(2 * math.pi))
        each = []
        for _, m in self.chunks(places=nodes):
            spread = Mixture(m.log_weights[:, None], m.mean[:, None], m.std[:, None])
            each.append((normal - spread.log_prob(at.expand(len(m.mean), -1))) @ weight)
        return torch.cat(each).view_as(self.centre)


def _hermite(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Where to look and with which weight, for means under N(0, 1)."""
    at, weight = np.polynomial.hermite_e.hermegauss(nodes)
    return at, weight / weight.sum()
