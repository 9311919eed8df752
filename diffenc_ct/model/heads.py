"""Heads: what a model predicts of the unknown, and how its networks say it.

Two quantities are unknown when a latent is to be denoised, encoded data and their rate in log-SNR,

    x_hat ~ E[x_t | z_t],      r_hat ~ E[x_t' | z_t].

A network's output u is read as

    "v":    x_hat = alpha z - sigma u
    "eps":  x_hat = (z - sigma u) / alpha
    "x":    x_hat = u

(see `readings`) and, with c the encoder's rate factor (sigma^2; 0 for the identity encoder),

    Single(net)           one output                r_hat = c x_hat
    Paired(net)           two outputs u, u'         r_hat = sigma^2 (x_hat + u')
    Separate(tied, head)  two of one sum each       r_hat = (x_hat + r_hat of tied) - x_hat_head,    x_hat = x_hat_head
    Direct(net)           the network says both     for closed-form worlds and one's own parts

Heads of one's own derive from `Heads` and implement `forward`; `errors` where the difference x_t - x_hat would lose its
digits beside small noise.

Reference: Nielsen et al. 2024, sections 2 to 4; Salimans and Ho 2022 (v-prediction).
"""

import copy
from typing import get_args

from jaxtyping import Float
from torch import Tensor, nn

from diffenc_ct.encoders import Encoder, Encoding
from diffenc_ct.model.readings import (
    Data,
    Gammas,
    Predicts,
    read_error,
    read_output,
    regression_loss,
)
from diffenc_ct.process import Errors, Estimates, Values
from diffenc_ct.schedules import expand, sigma2

Traces = tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]


class Heads(nn.Module):
    """Base class: implement `forward(z, gamma, encoder) -> Estimates`.

    Attributes:
        tells_apart: whether x_hat and r_hat are estimated apart, as the probability flow of any encoder needs; if not,
            they are right in the sum that the reverse SDE at eta = 1 needs.
        knows_values: whether they know a distribution of every value, of which mixture steps are made.
    Example:
        >>> class Shrinking(Heads):  # right for data N(0, 1) and the identity encoder
        ...     def forward(self, z, gamma, encoder):
        ...         return Estimates(expand(alpha(gamma), z) * z, 0 * z)
    """

    tells_apart: bool = True
    knows_values: bool = False

    def forward(self, z: Data, gamma: Gammas, encoder: Encoder) -> Estimates:
        """x_hat and r_hat at latents z of depths gamma; `encoder` is the model's."""
        raise NotImplementedError("heads implement forward(z, gamma, encoder) -> Estimates")

    def errors(
        self, z: Data, noise: Data, encoding: Encoding, gamma: Gammas, encoder: Encoder
    ) -> Errors:
        """x_t - x_hat and x_t' - r_hat at z = alpha x_t + sigma noise.

        The same as subtracting `forward` from `encoding`, which is what this does; override it where that cancels.

        Args:
            z: latents.
            noise: their eps.
            encoding: x_t and x_t'.
            gamma: depths.
            encoder: the model's.
        """
        found = self(z, gamma, encoder)
        return Errors(encoding.value - found.x_hat, encoding.rate - found.r_hat)

    def values(self, z: Data, gamma: Gammas, encoder: Encoder) -> Values:
        """What is known of every value at latents z, where `knows_values`: of what mixture steps are made.

        Args:
            z: latents.
            gamma: their depths.
            encoder: the model's.
        Raises:
            ValueError: where the heads estimate means only.
        """
        raise ValueError(
            f'step="mixture": {type(self).__name__} heads estimate means only; mixture steps need heads that know a '
            'distribution of every value (Posterior, MixturePosterior): use step="gaussian"'
        )

    def values_beside(
        self, z: Data, noise: Data, x_t: Data, gamma: Gammas, encoder: Encoder
    ) -> Values:
        """The same at z = alpha x_t + sigma noise; override it where deviations from x_t keep more digits.

        Args:
            z: latents.
            noise: their eps.
            x_t: encoded data.
            gamma: depths.
            encoder: the model's.
        """
        return self.values(z, gamma, encoder)

    def regression(self, errors: Errors, gamma: Gammas) -> Float[Tensor, " batch"] | None:
        """A loss besides the ELBO that tells the two estimates apart, None where there is none.

        Its gradient is for these heads' parameters only.

        Args:
            errors: what the heads missed at latents z.
            gamma: depths.
        """
        return None

    def x_loss(self, error: Data, gamma: Gammas) -> Float[Tensor, " batch"]:
        """The regression of x_hat on x_t, by which a head is fitted: weighted as if the network predicted x.

        Args:
            error: x_t - x_hat.
            gamma: depths.
        """
        return regression_loss(error, gamma, "x")

    def on(self, network: nn.Module) -> "Heads":
        """The same heads on another network.

        Args:
            network: in the place of `self.network`, with the same outputs.
        """
        return copy.deepcopy(self, {id(self.network): network})

    def traces(self, z: Data, gamma: Gammas) -> Traces | None:
        """tr dx_hat/dz and tr dr_hat/dz where they are known in closed form, else None."""
        return None


class Single(Heads):
    """One network net(z, gamma) -> u of z's shape: x_hat by `predicts`, r_hat = c x_hat.

    What the paper trains: its minimiser is x_hat = E[x_t + x_t' | z_t] / (1 + c).

    Args:
        network: net(z, gamma), z (batch, *data), gamma (batch,), returns z's shape.
        predicts: how its output is read, "v", "x" or "eps".
    Raises:
        ValueError: for an unknown `predicts`.
    Example:
        >>> import torch, diffenc_ct as dc
        >>> heads = dc.Single(dc.networks.MLP(3), predicts="eps")
        >>> heads(torch.zeros(2, 3), torch.zeros(2), dc.IdentityEncoder()).x_hat.shape
        torch.Size([2, 3])
    """

    tells_apart = False

    def __init__(self, network: nn.Module, *, predicts: Predicts = "v") -> None:
        super().__init__()
        self.network, self.predicts = network, _known(predicts)

    def forward(self, z: Data, gamma: Gammas, encoder: Encoder) -> Estimates:
        x_hat = read_output(self.predicts, _output(self.network, z, gamma), z, gamma)
        return Estimates(x_hat, expand(encoder.rate_factor(gamma), z) * x_hat)

    def errors(
        self, z: Data, noise: Data, encoding: Encoding, gamma: Gammas, encoder: Encoder
    ) -> Errors:
        u = _output(self.network, z, gamma)
        error = read_error(self.predicts, u, noise, encoding.value, gamma)
        factor = expand(encoder.rate_factor(gamma), error)
        return Errors(error, encoding.rate - factor * encoding.value + factor * error)

    def x_loss(self, error: Data, gamma: Gammas) -> Float[Tensor, " batch"]:
        return regression_loss(error, gamma, self.predicts)


class Paired(Heads):
    """One network with twice the channels, u and u': x_hat from u by `predicts`, r_hat = sigma^2 (x_hat + u').

    Its `regression` on E[x_t | z_t] tells the two apart, of which the ELBO sees one sum only.

    Args:
        network: net(z, gamma), z (batch, channels, ...), returns (batch, 2 channels, ...).
        predicts: how the first half of its output is read, "v", "x" or "eps".
    Raises:
        ValueError: for an unknown `predicts`.
    """

    def __init__(self, network: nn.Module, *, predicts: Predicts = "v") -> None:
        super().__init__()
        self.network, self.predicts = network, _known(predicts)

    def forward(self, z: Data, gamma: Gammas, encoder: Encoder) -> Estimates:
        first, second = _output(self.network, z, gamma, multiple=2).chunk(2, dim=1)
        x_hat = read_output(self.predicts, first, z, gamma)
        return Estimates(x_hat, expand(sigma2(gamma), z) * (x_hat + second))

    def errors(
        self, z: Data, noise: Data, encoding: Encoding, gamma: Gammas, encoder: Encoder
    ) -> Errors:
        first, second = _output(self.network, z, gamma, multiple=2).chunk(2, dim=1)
        error = read_error(self.predicts, first, noise, encoding.value, gamma)
        variance = expand(sigma2(gamma), z)
        return Errors(error, encoding.rate - variance * (encoding.value - error + second))

    def x_loss(self, error: Data, gamma: Gammas) -> Float[Tensor, " batch"]:
        return regression_loss(error, gamma, self.predicts)

    def regression(self, errors: Errors, gamma: Gammas) -> Float[Tensor, " batch"]:
        return self.x_loss(errors.x, gamma)


class Separate(Heads):
    """Heads of one sum, which learned x_hat + r_hat = E[x_t + x_t' | z_t], and a head for E[x_t | z_t] beside them.

    x_hat is the head's, r_hat the tied heads' sum less x_hat: so the ELBO at eta = 1 is that of the tied heads.
    `fit_head` makes one of a trained model. Theorem: elbo.separate_head.

    Args:
        tied: Single, or other heads that do not tell the two apart; a network alone is read by `predicts`.
        head: others of that kind, of which x_hat is taken; a network alone is read by `predicts`.
        predicts: how networks alone are read, "v", "x" or "eps".
    Raises:
        ValueError: for an unknown `predicts`.
    """

    def __init__(self, tied: nn.Module, head: nn.Module, *, predicts: Predicts = "v") -> None:
        super().__init__()
        parts = (
            part if isinstance(part, Heads) else Single(part, predicts=predicts)
            for part in (tied, head)
        )
        self.tied, self.head = parts

    def forward(self, z: Data, gamma: Gammas, encoder: Encoder) -> Estimates:
        tied, x_hat = self.tied(z, gamma, encoder), self.head(z, gamma, encoder).x_hat
        return Estimates(x_hat, tied.x_hat + tied.r_hat - x_hat)

    def errors(
        self, z: Data, noise: Data, encoding: Encoding, gamma: Gammas, encoder: Encoder
    ) -> Errors:
        tied, head = (
            part.errors(z, noise, encoding, gamma, encoder) for part in (self.tied, self.head)
        )
        return Errors(head.x, tied.r + tied.x - head.x)


class Direct(Heads):
    """A network that returns Estimates itself; it may know its traces, `traces(z, gamma)`.

    Args:
        network: net(z, gamma) -> Estimates.
    Raises:
        TypeError: where the network returns anything else.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Data, gamma: Gammas, encoder: Encoder) -> Estimates:
        found = self.network(z, gamma)
        if not isinstance(found, Estimates):
            name = type(found).__name__
            raise TypeError(f"the network returned a {name}; Direct needs Estimates")
        return found

    def traces(self, z: Data, gamma: Gammas) -> Traces | None:
        known = getattr(self.network, "traces", None)
        return None if known is None else known(z, gamma)


def _known(predicts: Predicts) -> Predicts:
    if predicts not in get_args(Predicts):
        raise ValueError(
            f"predicts={predicts!r}; choose one of {', '.join(map(repr, get_args(Predicts)))}"
        )
    return predicts


def _output(network: nn.Module, z: Data, gamma: Gammas, *, multiple: int = 1) -> Tensor:
    """net(z, gamma), refused where it has not z's shape with `multiple` times the channels."""
    out: Tensor = network(z, gamma)
    wanted = (z.shape[0], multiple * z.shape[1], *z.shape[2:])
    if out.shape != wanted:
        raise ValueError(
            f"the network returned {tuple(out.shape)} for latents {tuple(z.shape)}; these heads need {tuple(wanted)}"
        )
    return out
