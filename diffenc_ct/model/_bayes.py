"""What heads have in common that sharpen a distribution of each value by the value's own observation.

See `posterior` for the mathematics. A network says parameters of every value's distribution, u and w; the observation
is y = z/(alpha a) = near + s/g, of precision g^2 = (alpha a/sigma)^2, told by its deviation from a reference near it.
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffenc_ct.encoders import Encoder, Encoding
from diffenc_ct.model.heads import Heads
from diffenc_ct.model.readings import Data, Gammas
from diffenc_ct.process import Errors, Estimates, Parts, Values
from diffenc_ct.schedules import alpha, expand, sigma, sigma2

Parameters = Float[Tensor, "batch values parameters"]


@dataclass(frozen=True)
class Observation:
    """y = near + s/g, an observation of x of precision g^2.

    Attributes:
        s: of every value.
        g: of every example, or of every value.
        near: the reference, of s's shape.
    """

    s: Float[Tensor, "*values"]
    g: Float[Tensor, "..."]
    near: Float[Tensor, "*values"]


class BayesHeads(Heads):
    """Everything but the distribution over values.

    Args:
        network: net(z, gamma), z (batch, channels, ...), returns (batch, outputs channels, ...).
        parameters: of a value's distribution.
        free: whether there is an output u.
        paired: whether there is an output w.
    """

    knows_values = True

    def __init__(self, network: nn.Module, parameters: int, *, free: bool, paired: bool) -> None:
        super().__init__()
        self.network, self.parameters_of_value = network, parameters
        self.free, self.paired = free, paired
        self.tells_apart = paired

    @property
    def outputs(self) -> int:
        """How many outputs of the network a value has: its distribution's parameters, u and w."""
        return self.parameters_of_value + self.free + self.paired

    def forward(self, z: Data, gamma: Gammas, encoder: Encoder) -> Estimates:
        """x_hat and r_hat."""
        parameters, u, w = self._read(z, gamma)
        seen = _seen(z, gamma, encoder)
        excess = self._mean(parameters, seen.s, seen.g, seen.near)
        x_hat = expand(encoder.scale(gamma), z) * (seen.near + excess)
        variance = expand(sigma2(gamma), z)
        if u is not None:
            x_hat = x_hat + variance * u
        r_hat = expand(encoder.rate_factor(gamma), z) * x_hat
        return Estimates(x_hat, r_hat if w is None else r_hat + variance * w)

    def errors(
        self, z: Data, noise: Data, encoding: Encoding, gamma: Gammas, encoder: Encoder
    ) -> Errors:
        """x_t - x_hat and x_t' - r_hat from the deviation of the data, not of z."""
        parameters, u, w = self._read(z, gamma)
        a, x_t = expand(encoder.scale(gamma), z), encoding.value
        seen = _seen_beside(x_t, noise, gamma, encoder)
        excess = self._mean(parameters, seen.s, seen.g, seen.near)
        error, variance = (x_t - a * seen.near) - a * excess, expand(sigma2(gamma), z)
        if u is not None:
            error = error - variance * u
        factor = expand(encoder.rate_factor(gamma), z)
        rate = encoding.rate - factor * x_t + factor * error
        return Errors(error, rate if w is None else rate - variance * w)

    def values(self, z: Data, gamma: Gammas, encoder: Encoder) -> Values:
        """The mixture of every value given z, and what the encoder adds."""
        return self._values(z, gamma, encoder, _seen(z, gamma, encoder))

    def values_beside(
        self, z: Data, noise: Data, x_t: Data, gamma: Gammas, encoder: Encoder
    ) -> Values:
        """The same from the deviation of the data, not of z."""
        return self._values(z, gamma, encoder, _seen_beside(x_t, noise, gamma, encoder))

    def _values(self, z: Data, gamma: Gammas, encoder: Encoder, seen: Observation) -> Values:
        parameters, u, w = self._read(z, gamma)
        # Flattened over examples and values, so that a chunk may hold any of them.
        g = seen.g.repeat_interleave(z[0].numel())
        flat = Observation(seen.s.flatten(), g, seen.near.flatten())
        return Values(
            gamma,
            encoder,
            seen.near,
            self._parts(parameters.flatten(0, 1), flat, z),
            self.components,
            lambda: self._mean(parameters, seen.s, seen.g, seen.near),
            torch.zeros_like(z) if u is None else u,
            torch.zeros_like(z) if w is None else w,
        )

    def regression(self, errors: Errors, gamma: Gammas) -> Float[Tensor, " batch"] | None:
        """Of x_hat on x_t, weighted by 1/sigma^2, where an output w has to be told apart."""
        return self.x_loss(errors.x, gamma) if self.paired else None

    def _read(self, z: Data, gamma: Gammas) -> tuple[Parameters, Data | None, Data | None]:
        """Parameters of every value's distribution, u and w, in z's dtype."""
        out: Tensor = self.output(z, gamma)
        wanted = (z.shape[0], self.outputs * z.shape[1], *z.shape[2:])
        if out.shape != wanted:
            raise ValueError(
                f"the network returned {tuple(out.shape)} for latents {tuple(z.shape)}; these heads need {wanted}"
            )
        # The network's channels: all channels of z for its first output, then for the second, ...
        out = torch.unflatten(out.to(z.dtype), 1, (self.outputs, z.shape[1]))
        n = self.parameters_of_value
        parameters = out[:, :n].movedim(1, -1).flatten(1, -2)
        u = out[:, n] if self.free else None
        return parameters, u, out[:, -1] if self.paired else None

    @property
    @abstractmethod
    def components(self) -> int:
        """How many components a value's distribution has."""

    @abstractmethod
    def _mean(self, parameters: Parameters, s: Data, g: Gammas, near: Data) -> Data:
        """E[x] - near for an observation y = near + s/g of precision g^2, of s's shape."""

    @abstractmethod
    def _parts(self, said: Tensor, seen: Observation, like: Data) -> Parts:
        """Components of x - near given the observation, by flattened values.

        Args:
            said: parameters of each flattened value.
            seen: of each, flattened.
            like: latents, whose shape says which value of its example each is.
        """


def _seen(z: Data, gamma: Gammas, encoder: Encoder) -> Observation:
    g = alpha(gamma) * encoder.scale(gamma)
    signal, noise = expand(g, z), expand(sigma(gamma), z)
    # Deviations from the observation are small where noise is: nothing cancels.
    near = (z / signal).detach().clamp(-1, 1)
    return Observation((z - signal * near) / noise, g / sigma(gamma), near)


def _seen_beside(x_t: Data, noise: Data, gamma: Gammas, encoder: Encoder) -> Observation:
    a, g = encoder.scale(gamma), alpha(gamma) / sigma(gamma)
    near = (x_t / expand(a, x_t)).detach().clamp(-1, 1)
    beside = x_t - expand(a, x_t) * near
    return Observation(expand(g, x_t) * beside + noise, g * a, near)
