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

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from diffenc_ct.model._bayes import BayesHeads, Observation, Parameters
from diffenc_ct.model.decoder import Levels
from diffenc_ct.model.readings import Data, Gammas
from diffenc_ct.networks.level_functions import Basis, level_functions
from diffenc_ct.networks.level_mean import level_logits, level_mean
from diffenc_ct.process import Components, Parts

# Values that are counted at a time, eight bytes each.
_COUNTED = 2**24


class Posterior(BayesHeads):
    """x_hat from a categorical over levels that Bayes' rule sharpens.

    Args:
        network: net(z, gamma), z (batch, channels, ...), returns (batch, outputs channels, ...): see `outputs`.
            Where it returns 0 at first, the untrained model is the one of independent values.
        levels: V of the data, as Levels(V, ends=True) where they do not lie as those of Levels(V).
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
        levels: int | Levels,
        *,
        functions: int = 24,
        basis: Basis = "cosines",
        ends: int = 8,
        free: bool = True,
        paired: bool = False,
        prior: Float[Tensor, "*values levels"] | None = None,
    ) -> None:
        decoder = levels if isinstance(levels, Levels) else Levels(levels)
        levels = decoder.levels
        phi = level_functions(levels, functions, basis, ends=ends)
        super().__init__(network, len(phi), free=free, paired=paired)
        prior = torch.zeros(levels) if prior is None else prior
        if prior.shape[-1] != levels:
            raise ValueError(f"prior has {prior.shape[-1]} levels, the data have {levels}")
        x = decoder.centres(torch.arange(levels), torch.float64)
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

    @property
    def components(self) -> int:
        """V."""
        return len(self.x)

    def _mean(self, parameters: Parameters, s: Data, g: Gammas, near: Data) -> Data:
        x, phi = self.x.to(s.dtype), self.phi.to(s.dtype)
        prior = self._prior_of(s)
        mean = level_mean(parameters, s.flatten(1), g, near.flatten(1), prior, x, phi)
        return mean.view(s.shape)

    def _parts(self, said: Tensor, seen: Observation, like: Data) -> Parts:
        x, phi, prior = self.x.to(like.dtype), self.phi.to(like.dtype), self._prior_of(like)

        def parts(rows: slice | Tensor) -> Components:
            s, g, near = seen.s[rows], seen.g[rows], seen.near[rows]
            of_value = torch.arange(len(seen.s), device=s.device)[rows] % like[0].numel()
            own = prior[of_value] if len(prior) > 1 else prior
            logits, d = level_logits(said[rows], s, g, near, own, x, phi)
            return Components(logits.log_softmax(-1), d, s.new_zeros(1, 1))

        return parts

    def _prior_of(self, like: Data) -> Tensor:
        """b of one value, (1, V), or of every value, (values, V)."""
        prior = self.prior.to(like.dtype)
        if prior.ndim > 1:
            try:
                prior = prior.expand(*like.shape[1:], len(self.x))
            except RuntimeError:
                raise ValueError(
                    f"prior has shape {tuple(prior.shape)}, which does not broadcast to values "
                    f"{tuple(like.shape[1:])} of {len(self.x)} levels"
                ) from None
        return prior.reshape(-1, len(self.x))


class MixturePosterior(BayesHeads):
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

    @property
    def components(self) -> int:
        """K."""
        return len(self.centres)

    def _mean(self, parameters: Parameters, s: Data, g: Gammas, near: Data) -> Data:
        each = Observation(s.flatten(1), g[:, None], near.flatten(1))
        found = self._posterior(parameters, each)
        return (found.log_weights.exp() * found.d).sum(-1).view(s.shape)

    def _parts(self, said: Tensor, seen: Observation, like: Data) -> Parts:
        return lambda rows: self._posterior(
            said[rows], Observation(seen.s[rows], seen.g[rows], seen.near[rows])
        )

    def _posterior(self, parameters: Tensor, seen: Observation) -> Components:
        """Of values (...,) with parameters (..., 3 K)."""
        logits, shift, log_width = parameters.chunk(3, -1)
        v = (1 / seen.g.square())[..., None]
        from_near = self.centres.to(parameters) + shift - seen.near[..., None]
        own = (2 * log_width).exp() / len(self.centres) ** 2
        y = (seen.s / seen.g)[..., None]  # from near, too
        logits = logits - 0.5 * ((y - from_near).square() / (own + v) + (own + v).log())
        means = (from_near * v + y * own) / (own + v)
        return Components(logits.log_softmax(-1), means, own * v / (own + v))


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
