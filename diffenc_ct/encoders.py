"""Encoders: depth-dependent maps x -> x_t and their rate in log-SNR.

An encoder turns data x into encoded data x_t = x_phi(x, lambda_t) of the same shape, and

    x_t' = d x_t / d lambda = -d x_t / d gamma        (lambda = -gamma)

is its rate. The encoders of the paper:

    identity (VDM)               x_t = x                                   x_t' = 0
    non-trainable (DiffEnc-nt)   x_t = alpha^2 x                           x_t' = sigma^2 x_t
    trainable (DiffEnc)          x_t = alpha^2 x + sigma^2 y(x, gamma)     x_t' = sigma^2 (x_t - y + dy/dlambda)

and one that begins at VDM, the trainable one with y = x + u:

    residual                     x_t = x + sigma^2 u(x, gamma)             x_t' = sigma^2 (du/dlambda - alpha^2 u)

All tend to x at t -> 0, so no encoder is needed to sample or decode. A new encoder is one class with one
method, `encode`; its rate then comes from forward-mode differentiation, value and rate from one evaluation.

Reference: Nielsen, Christensen, Dittadi, Winther, "DiffEnc", ICLR 2024, sections 3 and 4.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from diffenc_ct.networks.jets import Jet
from diffenc_ct.networks.rates import Softmaxes, attention_by_formula, by_two_reverse_passes
from diffenc_ct.schedules import alpha2, expand, sigma2

Data = Float[Tensor, "batch *data"]
Gammas = Float[Tensor, " batch"]


@dataclass(frozen=True)
class Encoding:
    """Encoded data and their rate.

    Attributes:
        value: x_t, of x's shape.
        rate: x_t' = dx_t/dlambda, of x's shape.
    """

    value: Data
    rate: Data


def with_rate(function: Callable[..., Any], x: Data, gamma: Gammas) -> Encoding:
    """A function of x and gamma with its derivative with respect to lambda = -gamma, in one forward-mode pass.

    Works inside autograd: both results carry gradients. A function with a true attribute `takes_jets` is given a Jet of
    gamma and returns one (see `networks.jets`): the same numbers, sooner. Others are not autocast, for there PyTorch's
    forward mode mixes types and fails; their attention is computed by PyTorch's own formulas, for its fused kernels
    have one derivative only. Operations without a forward derivative, or whose forward derivative has no gradients
    (softmax), are differentiated by two reverse passes.

    Args:
        function: function(x, gamma), of x's shape, where each example depends on its own gamma only.
        x: data.
        gamma: depths.
    Returns:
        The function's value and rate.
    Example:
        >>> with_rate(lambda x, gamma: x * gamma[:, None] ** 2, torch.ones(1, 1), torch.tensor([3.0]))
        Encoding(value=tensor([[9.]]), rate=tensor([[-6.]]))
    """
    if getattr(function, "takes_jets", False):
        y = function(x, Jet(gamma, -torch.ones_like(gamma)))
        return Encoding(y.value, y.rate)
    # Inference mode would drop the tangent without a word: leave it, keeping gradients off if they were.
    grad = torch.is_grad_enabled()
    whole = torch.autocast(x.device.type, enabled=False)
    with torch.inference_mode(False), torch.set_grad_enabled(grad), whole, attention_by_formula():
        try:
            with Softmaxes() as softmaxes, forward_ad.dual_level():
                dual = forward_ad.make_dual(gamma.clone(), -torch.ones_like(gamma))  # type: ignore[no-untyped-call]
                value, rate = forward_ad.unpack_dual(function(x, dual))  # type: ignore[no-untyped-call]
        except (NotImplementedError, RuntimeError) as error:
            if not re.search("forward.?(ad|mode)", str(error).lower()):
                raise
            return Encoding(*by_two_reverse_passes(function, x, gamma.clone()))
        if grad and not torch.compiler.is_compiling() and softmaxes.found:
            return Encoding(*by_two_reverse_passes(function, x, gamma.clone()))
    return Encoding(value, torch.zeros_like(value) if rate is None else rate)


def mix(x: Data, y: Data | float, gamma: Gammas) -> Data:
    """alpha^2 x + sigma^2 y, in float32 exact to a rounding of the larger part at both ends of the schedule.

    Beside the data, where the decoder resolves single roundings, x is kept whole and small terms are added to it, in
    the order of the authors' code; beside the noise alpha^2 is too small for 1 - sigma^2.

    Args:
        x: data.
        y: what they turn into, of x's shape or a number.
        gamma: depths.
    """
    to_y, to_x = expand(sigma2(gamma), x), expand(alpha2(gamma), x)
    return torch.where(to_y < 0.5, x + to_y * y - to_y * x, to_x * x + to_y * y)


class Encoder(nn.Module):
    """Base class: implement `encode(x, gamma) -> x_t`.

    Calling the encoder returns value and rate. Override `forward` only where the rate has a closed form.

    Attributes:
        flow_is_exact_with_one_head: whether x_t' = c x_t, so that heads which estimate one sum only give the
            probability flow that keeps the data's marginals.
    Example:
        >>> class Fading(Encoder):
        ...     def encode(self, x, gamma):
        ...         return x * torch.exp(-sigma2(gamma))[:, None]
        >>> Fading()(torch.ones(1, 1), torch.zeros(1))  # the rate is alpha^2 sigma^2 x_t
        Encoding(value=tensor([[0.6065]]), rate=tensor([[0.1516]]))
    """

    flow_is_exact_with_one_head: bool = False

    def encode(self, x: Data, gamma: Gammas) -> Data:
        """x_t of data x (batch, *data) at depths gamma (batch,)."""
        raise NotImplementedError("an encoder implements encode(x, gamma) -> x_t")

    def forward(self, x: Data, gamma: Gammas) -> Encoding:
        """x_t and x_t' of data x (batch, *data) at depths gamma (batch,)."""
        return with_rate(self.encode, x, gamma)

    def rate_factor(self, gamma: Gammas) -> Gammas:
        """c in the single head's r_hat = c x_hat: sigma^2, exact where x_t' = sigma^2 x_t.

        Theorem: encoders.nontrainable.
        """
        return sigma2(gamma)

    def scale(self, gamma: Gammas) -> Gammas:
        """a in x_t = a x + sigma^2 (...): z/(alpha a) is what posterior heads take for an observation of x. 1 here.

        Theorem: encoders.posterior_head.
        """
        return torch.ones_like(gamma)


class IdentityEncoder(Encoder):
    """x_t = x: a plain variational diffusion model. Theorem: encoders.identity."""

    flow_is_exact_with_one_head = True

    def encode(self, x: Data, gamma: Gammas) -> Data:
        """x."""
        return x

    def forward(self, x: Data, gamma: Gammas) -> Encoding:
        """x and 0."""
        return Encoding(x, torch.zeros_like(x))

    def rate_factor(self, gamma: Gammas) -> Gammas:
        """0."""
        return torch.zeros_like(gamma)


class NonTrainableEncoder(Encoder):
    """x_t = alpha^2 x, x_t' = sigma^2 x_t: DiffEnc-nt. Theorem: encoders.nontrainable."""

    flow_is_exact_with_one_head = True

    def encode(self, x: Data, gamma: Gammas) -> Data:
        """alpha^2 x."""
        return mix(x, 0.0, gamma)

    def forward(self, x: Data, gamma: Gammas) -> Encoding:
        """x_t and sigma^2 x_t."""
        x_t = self.encode(x, gamma)
        return Encoding(x_t, expand(sigma2(gamma), x) * x_t)

    def scale(self, gamma: Gammas) -> Gammas:
        """alpha^2."""
        return alpha2(gamma)


class TrainableEncoder(Encoder):
    """x_t = alpha^2 x + sigma^2 y(x, gamma) with a network y; x_t' = sigma^2 (x_t - y + dy/dlambda).

    Theorem: encoders.rate.

    Args:
        network: network(x, gamma) -> y of x's shape. Keep y bounded (end it in tanh): at t = 1 almost all of x_t is y.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def encode(self, x: Data, gamma: Gammas) -> Data:
        """alpha^2 x + sigma^2 y."""
        return mix(x, self.network(x, gamma), gamma)

    def forward(self, x: Data, gamma: Gammas) -> Encoding:
        """x_t and sigma^2 (x_t - y + dy/dlambda), from one evaluation of the network."""
        y = with_rate(self.network, x, gamma)
        x_t = mix(x, y.value, gamma)
        return Encoding(x_t, expand(sigma2(gamma), x) * (x_t - y.value + y.rate))

    def scale(self, gamma: Gammas) -> Gammas:
        """alpha^2."""
        return alpha2(gamma)


class ResidualEncoder(Encoder):
    """x_t = x + sigma^2 u(x, gamma) with a network u; x_t' = sigma^2 (du/dlambda - alpha^2 u).

    The same maps as TrainableEncoder's, y = x + u, but a network that returns 0 at first makes it VDM, whose bound is
    tight at eta = 1, and not DiffEnc-nt, whose bound is not. Theorem: encoders.residual.

    Args:
        network: network(x, gamma) -> u of x's shape. Keep u bounded (end it in tanh): at t = 1 x_t is x + u.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def encode(self, x: Data, gamma: Gammas) -> Data:
        """x + sigma^2 u."""
        u: Tensor = self.network(x, gamma)
        return x + expand(sigma2(gamma), x) * u

    def forward(self, x: Data, gamma: Gammas) -> Encoding:
        """x_t and sigma^2 (du/dlambda - alpha^2 u), from one evaluation of the network."""
        u = with_rate(self.network, x, gamma)
        variance = expand(sigma2(gamma), x)
        rate = variance * (u.rate - expand(alpha2(gamma), x) * u.value)
        return Encoding(x + variance * u.value, rate)

    def rate_factor(self, gamma: Gammas) -> Gammas:
        """0: it begins at the identity."""
        return torch.zeros_like(gamma)
