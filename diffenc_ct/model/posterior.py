"""Posterior heads: the network says what it knows of a value from its surroundings, Bayes' rule adds its observation.

An encoder x_t = a(gamma) x + sigma^2 (...) makes z/(alpha a) an observation of the data's value x of variance
v = exp(gamma)/a^2. With a network's distribution p(x; z, gamma), whose parameters do not say where z itself lies,

    x_hat = a E[x | z/(alpha a)] + sigma^2 u,        r_hat = c x_hat + sigma^2 w,        c the encoder's rate factor,

u a free output for what the encoder adds, and w one that paired heads have beside it.

    Posterior          a categorical over V levels x_k with logits b_k + sum_j c_j phi_j(x_k): see
                       `networks.level_mean`; b is fixed, the log histogram of the training data: an untrained head
                       is the model of independent values
    MixturePosterior   a mixture of K Gaussians N(mu_k, s_k^2) for reals:
                       p_k = softmax_k( l_k - (y - mu_k)^2/(2 (s_k^2 + v)) - 1/2 ln(s_k^2 + v) ),   y = z/(alpha a),
                       E[x | y] = sum_k p_k (mu_k v + y s_k^2)/(s_k^2 + v)

Any function of (z, gamma) is a legitimate estimate, so every bound stays a bound. At fixed outputs of the network
dx_hat/dz is alpha/sigma^2 times the posterior variance of a x, so that the probability flow is smooth on the noise's
own scale.

Theorems: encoders.posterior_head, encoders.posterior_variance, encoders.mixture_head.
Reference: Gulrajani and Hashimoto 2023 (Plaid: an output prior over text tokens); levels of images, mixtures, encoders
and flows: derived here.
"""

from abc import abstractmethod

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from diffenc_ct.encoders import Encoder, Encoding
from diffenc_ct.model.heads import Heads
from diffenc_ct.model.readings import Data, Gammas
from diffenc_ct.networks.level_functions import Basis, level_functions
from diffenc_ct.networks.level_mean import level_mean
from diffenc_ct.process import Errors, Estimates
from diffenc_ct.schedules import alpha, expand, sigma, sigma2

Parameters = Float[Tensor, "batch values parameters"]

# Values that are counted at a time, eight bytes each.
_COUNTED = 2**24


class _BayesHeads(Heads):
    """What both have in common: everything but the distribution over values.

    Args:
        network: net(z, gamma), z (batch, channels, ...), returns (batch, outputs channels, ...).
        parameters: of a value's distribution.
        free: whether there is an output u.
        paired: whether there is an output w.
    """

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
        a = encoder.scale(gamma)
        signal, noise = expand(alpha(gamma) * a, z), expand(sigma(gamma), z)
        # Deviations from the observation are small where noise is: nothing cancels.
        near = (z / signal).detach().clamp(-1, 1)
        excess = self._mean(
            parameters, (z - signal * near) / noise, alpha(gamma) * a / sigma(gamma), near
        )
        x_hat = expand(a, z) * (near + excess)
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
        g = alpha(gamma) / sigma(gamma)
        a, x_t = expand(encoder.scale(gamma), z), encoding.value
        near = (x_t / a).detach().clamp(-1, 1)
        beside = x_t - a * near
        excess = self._mean(
            parameters, expand(g, z) * beside + noise, g * encoder.scale(gamma), near
        )
        error, variance = beside - a * excess, expand(sigma2(gamma), z)
        if u is not None:
            error = error - variance * u
        factor = expand(encoder.rate_factor(gamma), z)
        rate = encoding.rate - factor * x_t + factor * error
        return Errors(error, rate if w is None else rate - variance * w)

    def regression(self, errors: Errors, gamma: Gammas) -> Float[Tensor, " batch"] | None:
        """Of x_hat on x_t, weighted by 1/sigma^2, where an output w has to be told apart."""
        return self.x_loss(errors.x, gamma) if self.paired else None

    def _read(self, z: Data, gamma: Gammas) -> tuple[Parameters, Data | None, Data | None]:
        """Parameters of every value's distribution, u and w, in z's dtype."""
        out: Tensor = self.network(z, gamma)
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

    @abstractmethod
    def _mean(self, parameters: Parameters, s: Data, g: Gammas, near: Data) -> Data:
        """E[x] - near for an observation y = near + s/g of precision g^2, of s's shape."""


class Posterior(_BayesHeads):
    """x_hat from a categorical over levels that Bayes' rule sharpens.

    Args:
        network: net(z, gamma), z (batch, channels, ...), returns (batch, outputs channels, ...): see `outputs`.
            Where it returns 0 at first, the untrained model is the one of independent values.
        levels: V of the data.
        functions: how many functions over the levels the logits are made of, beside those of the end levels.
        basis: "cosines", "hats", or "free" for a logit a level.
        ends: how many levels at either end have a function of their own.
        free: whether there is an output u.
        paired: whether there is an output w, so that the probability flow is exact with any encoder.
        prior: b, (V,), or (channels, ..., V) of shapes that broadcast to an example's; None for 0.

    Raises:
        ValueError: for an impossible option, or a prior of another number of levels.

    Example:
        >>> import torch, diffenc_ct as dc
        >>> network = dc.networks.MLP(3, outputs=3 * Posterior.outputs_for(levels=16))
        >>> model = dc.DiffEnc(dc.LinearSchedule(), dc.IdentityEncoder(), Posterior(network, 16), dc.Levels(16))
        >>> model(torch.randint(0, 16, (8, 3))).total.shape
        torch.Size([8])
    """

    x: Tensor
    phi: Tensor
    prior: Tensor

    def __init__(
        self,
        network: nn.Module,
        levels: int,
        *,
        functions: int = 24,
        basis: Basis = "cosines",
        ends: int = 8,
        free: bool = True,
        paired: bool = False,
        prior: Float[Tensor, "*values levels"] | None = None,
    ) -> None:
        phi = level_functions(levels, functions, basis, ends=ends)
        super().__init__(network, len(phi), free=free, paired=paired)
        prior = torch.zeros(levels) if prior is None else prior
        if prior.shape[-1] != levels:
            raise ValueError(f"prior has {prior.shape[-1]} levels, the data have {levels}")
        x = 2 * (torch.arange(levels, dtype=torch.float64) + 0.5) / levels - 1
        self.register_buffer("x", x, persistent=False)
        self.register_buffer("phi", phi.double(), persistent=False)
        self.register_buffer("prior", prior.float())

    @staticmethod
    def outputs_for(
        levels: int,
        *,
        functions: int = 24,
        basis: Basis = "cosines",
        ends: int = 8,
        free: bool = True,
        paired: bool = False,
    ) -> int:
        """How many outputs the network must have for each value."""
        return len(level_functions(levels, functions, basis, ends=ends)) + free + paired

    def _mean(self, parameters: Parameters, s: Data, g: Gammas, near: Data) -> Data:
        x, phi, prior = (part.to(s.dtype) for part in (self.x, self.phi, self.prior))
        if prior.ndim > 1:
            try:
                prior = prior.expand(*s.shape[1:], len(x))
            except RuntimeError:
                raise ValueError(
                    f"prior has shape {tuple(prior.shape)}, which does not broadcast to values {tuple(s.shape[1:])} "
                    f"of {len(x)} levels"
                ) from None
        mean = level_mean(
            parameters, s.flatten(1), g, near.flatten(1), prior.reshape(-1, len(x)), x, phi
        )
        return mean.view(s.shape)


class MixturePosterior(_BayesHeads):
    """x_hat from a mixture of Gaussians a value, for reals and for very many levels.

    The network says of each of K Gaussians its logit, its mean and its log deviation, the last two relative to K
    equally spaced ones on (-1, 1).

    Args:
        network: net(z, gamma), z (batch, channels, ...), returns (batch, outputs channels, ...): see `outputs`.
        components: K.
        free: whether there is an output u.
        paired: whether there is an output w.

    Raises:
        ValueError: for no component.
    """

    centres: Tensor

    def __init__(
        self, network: nn.Module, *, components: int = 6, free: bool = True, paired: bool = False
    ) -> None:
        if components < 1:
            raise ValueError(f"components={components}; at least one is needed")
        super().__init__(network, 3 * components, free=free, paired=paired)
        centres = 2 * (torch.arange(components, dtype=torch.float64) + 0.5) / components - 1
        self.register_buffer("centres", centres, persistent=False)

    @staticmethod
    def outputs_for(*, components: int = 6, free: bool = True, paired: bool = False) -> int:
        """How many outputs the network must have for each value."""
        return 3 * components + free + paired

    def _mean(self, parameters: Parameters, s: Data, g: Gammas, near: Data) -> Data:
        logits, shift, log_width = parameters.chunk(3, -1)
        v = (1 / g.square())[:, None, None]
        from_near = self.centres.to(s) + shift - near.flatten(1)[..., None]
        own = (2 * log_width).exp() / len(self.centres) ** 2
        y = (s.flatten(1) / g[:, None])[..., None]  # from near, too
        logits = logits - 0.5 * ((y - from_near).square() / (own + v) + (own + v).log())
        means = (from_near * v + y * own) / (own + v)
        return (logits.softmax(-1) * means).sum(-1).view(s.shape)


def log_histogram(
    data: Integer[Tensor, "examples *data"], levels: int, *, each: str = "value"
) -> Float[Tensor, "*values levels"]:
    """ln of the share of every level, one added to every count.

    Args:
        data: integers.
        levels: V.
        each: "value" for a histogram each, (*data, V), "channel" for one a channel, (channels, 1, ..., V), or "none"
            for zeros, (V,).

    Raises:
        ValueError: for another word.
    """
    if each == "none":
        return torch.zeros(levels)
    if each == "channel":
        pooled = data.transpose(0, 1).flatten(1).T
        return log_histogram(pooled, levels).reshape(data.shape[1], *[1] * (data.ndim - 2), levels)
    if each != "value":
        raise ValueError(f'each={each!r}; choose "value", "channel" or "none"')
    values = data.shape[1:].numel()
    first = levels * torch.arange(values)
    counts = torch.ones(values * levels, dtype=torch.float64)
    for part in torch.split(data.flatten(1), max(1, _COUNTED // values)):
        counts += torch.bincount((part.long() + first).flatten(), minlength=len(counts))
    counts = counts.reshape(*data.shape[1:], levels)
    return (counts / counts.sum(-1, keepdim=True)).log().float()
