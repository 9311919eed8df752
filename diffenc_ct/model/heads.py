"""Heads: what a model predicts of the unknown, and how its networks say it.

Two quantities are unknown when a latent is to be denoised, encoded data and their rate in log-SNR,

    x_hat ~ E[x_t | z_t],      r_hat ~ E[x_t' | z_t].

A network's output u is read as

    "v":    x_hat = alpha z - sigma u         x_t - x_hat = sigma (u - v),            v = alpha eps - sigma x_t
    "eps":  x_hat = (z - sigma u) / alpha     x_t - x_hat = (sigma/alpha) (u - eps)
    "x":    x_hat = u

and, with c the encoder's rate factor (sigma^2; 0 for the identity encoder),

    Single(net)           one output                r_hat = c x_hat
    Paired(net)           two outputs u, u'         r_hat = sigma^2 (x_hat + u')
    Separate(net, head)   a network and a head      r_hat = (1 + c) x_hat_net - x_hat_head,    x_hat = x_hat_head
    Direct(net)           the network says both     for closed-form worlds and one's own parts

Heads of one's own derive from `Heads` and implement `forward`; `errors` where the difference x_t - x_hat would lose its
digits beside small noise.

Reference: Nielsen et al. 2024, sections 2 to 4; Salimans and Ho 2022 (v-prediction).
"""

from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn

from diffenc_ct.encoders import Encoder, Encoding
from diffenc_ct.process import Errors, Estimates
from diffenc_ct.schedules import alpha, alpha2, expand, sigma, sigma2

Predicts = Literal["v", "x", "eps"]
Data = Float[Tensor, "batch *data"]
Gammas = Float[Tensor, " batch"]
Traces = tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]


def read_output(predicts: Predicts, u: Data, z: Data, gamma: Gammas) -> Data:
    """x_hat from a network's output u at latents z.

    Theorem: encoders.v_identity.

    Args:
        predicts: what u estimates, "v", "x" or "eps".
        u: the output.
        z: the latents.
        gamma: their depths.
    Example:
        >>> import torch
        >>> z = torch.ones(1, 1)  # at gamma = 0 alpha^2 = sigma^2 = 1/2
        >>> read_output("eps", torch.ones(1, 1), z, torch.zeros(1)).round(decimals=4)
        tensor([[0.4142]])
    """
    if predicts == "x":
        return u
    alpha_, sigma_ = expand(alpha(gamma), z), expand(sigma(gamma), z)
    return alpha_ * z - sigma_ * u if predicts == "v" else (z - sigma_ * u) / alpha_


def read_error(predicts: Predicts, u: Data, noise: Data, x_t: Data, gamma: Gammas) -> Data:
    """x_t - x_hat for a network's output u at z = alpha x_t + sigma noise, without cancellation.

    Theorem: elbo.prediction_errors.

    Args:
        predicts: what u estimates, "v", "x" or "eps".
        u: the output.
        noise: eps of z.
        x_t: encoded data of z.
        gamma: depths.
    """
    if predicts == "x":
        return x_t - u
    alpha_, sigma_ = expand(alpha(gamma), x_t), expand(sigma(gamma), x_t)
    if predicts == "v":
        return sigma_ * (u - (alpha_ * noise - sigma_ * x_t))
    return (sigma_ / alpha_) * (u - noise)


def regression_loss(error: Data, gamma: Gammas, predicts: Predicts) -> Float[Tensor, " batch"]:
    """weight ||x_t - x_hat||^2 / d, minimised by x_hat = E[x_t | z_t].

    The weight makes it the network's own loss: ||u - v||^2 / d, ||u - eps||^2 / d, or ||x_t - x_hat||^2 / (sigma^2 d).
    Theorem: calibration.optimal_head.

    Args:
        error: x_t - x_hat.
        gamma: depths.
        predicts: what the network estimates.
    """
    weight = (alpha2(gamma) if predicts == "eps" else 1) / sigma2(gamma)
    return weight * error.square().flatten(1).mean(1)


class Heads(nn.Module):
    """Base class: implement `forward(z, gamma, encoder) -> Estimates`.

    Attributes:
        tells_apart: whether x_hat and r_hat are estimated apart, as the probability flow of any encoder needs; if not,
            they are right in the sum that the reverse SDE at eta = 1 needs.
    Example:
        >>> class Shrinking(Heads):  # right for data N(0, 1) and the identity encoder
        ...     def forward(self, z, gamma, encoder):
        ...         return Estimates(expand(alpha(gamma), z) * z, 0 * z)
    """

    tells_apart: bool = True

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

    def regression(self, errors: Errors, gamma: Gammas) -> Float[Tensor, " batch"] | None:
        """A loss besides the ELBO that tells the two estimates apart, None where there is none.

        Its gradient is for these heads' parameters only.

        Args:
            errors: what the heads missed at latents z.
            gamma: depths.
        """
        return None

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
        return Errors(error, _tied_rate_error(error, encoding, gamma, encoder))


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

    def regression(self, errors: Errors, gamma: Gammas) -> Float[Tensor, " batch"]:
        return regression_loss(errors.x, gamma, self.predicts)


class Separate(Heads):
    """A network that learned x_hat_net = E[x_t + x_t' | z_t] / (1 + c), and a head for E[x_t | z_t] beside it.

    x_hat is the head's, r_hat = (1 + c) x_hat_net - x_hat_head: the sum is the network's, and so the ELBO at eta = 1.
    `fit_head` makes one of a trained model. Theorem: elbo.separate_head.

    Args:
        network: as in Single.
        head: a second network of the same kind.
        predicts: how both outputs are read, "v", "x" or "eps".
    Raises:
        ValueError: for an unknown `predicts`.
    """

    def __init__(self, network: nn.Module, head: nn.Module, *, predicts: Predicts = "v") -> None:
        super().__init__()
        self.network, self.head, self.predicts = network, head, _known(predicts)

    def forward(self, z: Data, gamma: Gammas, encoder: Encoder) -> Estimates:
        factor = expand(encoder.rate_factor(gamma), z)
        sum_ = (1 + factor) * read_output(self.predicts, _output(self.network, z, gamma), z, gamma)
        x_hat = read_output(self.predicts, _output(self.head, z, gamma), z, gamma)
        return Estimates(x_hat, sum_ - x_hat)

    def errors(
        self, z: Data, noise: Data, encoding: Encoding, gamma: Gammas, encoder: Encoder
    ) -> Errors:
        x_t = encoding.value
        error = read_error(self.predicts, _output(self.network, z, gamma), noise, x_t, gamma)
        head_error = read_error(self.predicts, _output(self.head, z, gamma), noise, x_t, gamma)
        rate_error = _tied_rate_error(error, encoding, gamma, encoder)
        return Errors(head_error, rate_error + error - head_error)


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


def _tied_rate_error(error: Data, encoding: Encoding, gamma: Gammas, encoder: Encoder) -> Data:
    """x_t' - c x_hat, from error = x_t - x_hat."""
    factor = expand(encoder.rate_factor(gamma), error)
    return encoding.rate - factor * encoding.value + factor * error
