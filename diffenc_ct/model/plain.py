"""Plain heads: a network's output is an estimate.

A network's output u is read as

    "v":    x_hat = alpha z - sigma u
    "eps":  x_hat = (z - sigma u) / alpha
    "x":    x_hat = u

(see `readings`) and, with c the encoder's rate factor (sigma^2; 0 for the identity encoder),

    Single(net)           one output                r_hat = c x_hat
    Paired(net)           two outputs u, u'         r_hat = sigma^2 (x_hat + u')
    Separate(tied, head)  two of one sum each       r_hat = (x_hat + r_hat of tied) - x_hat_head,    x_hat = x_hat_head
    Direct(net)           the network says both     for closed-form worlds and one's own parts

Reference: Nielsen et al. 2024, sections 2 to 4; Salimans and Ho 2022 (v-prediction).
"""

import copy
from typing import get_args

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from diffenc_ct.encoders import Encoder, Encoding
from diffenc_ct.model.heads import Heads, Rows, Traces
from diffenc_ct.model.readings import (
    Data,
    Gammas,
    Predicts,
    read_error,
    read_output,
    regression_loss,
)
from diffenc_ct.process import Errors, Estimates
from diffenc_ct.schedules import expand, sigma2


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
        x_hat = read_output(self.predicts, _output(self, z, gamma), z, gamma)
        return Estimates(x_hat, expand(encoder.rate_factor(gamma), z) * x_hat)

    def errors(
        self, z: Data, noise: Data, encoding: Encoding, gamma: Gammas, encoder: Encoder
    ) -> Errors:
        u = _output(self, z, gamma)
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
        first, second = _output(self, z, gamma, multiple=2).chunk(2, dim=1)
        x_hat = read_output(self.predicts, first, z, gamma)
        return Estimates(x_hat, expand(sigma2(gamma), z) * (x_hat + second))

    def errors(
        self, z: Data, noise: Data, encoding: Encoding, gamma: Gammas, encoder: Encoder
    ) -> Errors:
        first, second = _output(self, z, gamma, multiple=2).chunk(2, dim=1)
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

    @property
    def condition(self) -> Tensor | None:  # type: ignore[override]
        """What both parts are given."""
        return self.tied.condition

    def given(
        self, condition: Shaped[Tensor, "batch *condition"] | None, *, values: bool = True
    ) -> Heads:
        return _with_parts(
            self, *(part.given(condition, values=values) for part in (self.tied, self.head))
        )

    def rows(self, index: Rows) -> Heads:
        return _with_parts(self, self.tied.rows(index), self.head.rows(index))

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
        found = self.output(z, gamma)
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


def _with_parts(heads: Separate, tied: Heads, head: Heads) -> Separate:
    """The same heads of other parts."""
    found = copy.copy(heads)
    found._modules = {"tied": tied, "head": head}
    return found


def _output(heads: Heads, z: Data, gamma: Gammas, *, multiple: int = 1) -> Tensor:
    """The network's output, refused where it has not z's shape with `multiple` times the channels."""
    out: Tensor = heads.output(z, gamma)
    wanted = (z.shape[0], multiple * z.shape[1], *z.shape[2:])
    if out.shape != wanted:
        raise ValueError(
            f"the network returned {tuple(out.shape)} for latents {tuple(z.shape)}; these heads need {tuple(wanted)}"
        )
    return out
