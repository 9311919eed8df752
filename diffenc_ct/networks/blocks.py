"""Building blocks of the U-Nets: Fourier features, depth embedding, residual and attention blocks.

Plain modules from images to images, (batch, channels, *sides), for tensors and for jets (a tensor with its
derivative with respect to the depth, see `jets`); they know nothing of diffusion. The
arithmetic is that of Kingma et al., "Variational Diffusion Models" (2021), which DiffEnc's authors
use: swish, group normalisation with epsilon 1e-6, zero-initialised last convolutions, LeCun-normal
initialisation elsewhere.
"""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffenc_ct.networks.forward_mode import tangent, transformed
from diffenc_ct.networks.jets import Jet, add, affine, concatenate, dropout, each, silu
from diffenc_ct.networks.norm_silu import norm, norm_silu

_EPSILON = 1e-6
# Layers by the number of sides: of signals, images, volumes.
CONVOLUTION: dict[int, type[nn.Conv1d] | type[nn.Conv2d] | type[nn.Conv3d]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}
TRANSPOSED: dict[
    int, type[nn.ConvTranspose1d] | type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]
] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
_Layer = TypeVar("_Layer", bound=nn.Linear | Convolution | Transposed)


def lecun_(layer: _Layer) -> _Layer:
    """Initialise a layer as Flax does: weights of variance 1/fan_in (truncated at two deviations), zero bias.

    Args:
        layer: changed in place.
    Returns:
        The layer.
    """
    weight = layer.weight
    transposed = isinstance(layer, Transposed)
    fan_in = weight[:, 0].numel() if transposed else weight[0].numel()
    # 0.8796... is the deviation of a standard normal truncated to [-2, 2].
    std = math.sqrt(1.0 / fan_in) / 0.87962566103423978
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def zero_(layer: _Layer) -> _Layer:
    """Initialise a layer to the zero map.

    Args:
        layer: changed in place.
    Returns:
        The layer.
    """
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def group_norm(groups: int, channels: int) -> nn.GroupNorm:
    """Group normalisation with epsilon 1e-6.

    Args:
        groups: a divisor of `channels`.
        channels: of the layer's input.
    Returns:
        The layer.
    Raises:
        ValueError: groups do not divide the channels.
    """
    if channels % groups:
        raise ValueError(
            f"groups={groups} does not divide {channels} channels; choose a divisor of every width"
        )
    return nn.GroupNorm(groups, channels, eps=_EPSILON)


def fourier_features(
    x: Float[Tensor, "batch channels *sides"], start: int, stop: int
) -> Float[Tensor, "batch features *sides"]:
    """Base-2 Fourier features along dimension 1: sin and cos of 2 pi 2^k x for k = start..stop-1.

    Args:
        x: (batch, channels, *sides).
        start: the lowest k.
        stop: one more than the highest k.
    Returns:
        (batch, 2 channels (stop - start), *sides): all sines first, each input's frequencies next to each other.
    """
    octaves = torch.arange(start, stop, dtype=x.dtype, device=x.device)
    frequencies = (2 * math.pi * 2.0**octaves).reshape(1, 1, -1, *([1] * (x.ndim - 2)))
    phases = (x.unsqueeze(2) * frequencies).flatten(1, 2)
    return torch.cat([phases.sin(), phases.cos()], dim=1)


class DepthEmbedding(nn.Module):
    """gamma, shape (batch,) -> vector (batch, 4 width): sinusoids of 1000 (gamma - lo)/(hi - lo), two dense layers.

    The first layer has one input more than there are sinusoids: the authors' slot for a class label,
    which is zero in all of their published configurations. It is kept so that their weights fit; labels have an
    embedding of their own here, `known`.

    Args:
        width: of the networks; there are width // 2 frequencies. At least 4.
        gamma_range: (lo, hi), the gammas of depths 0 and 1.
    Raises:
        ValueError: width is below 4.
    """

    def __init__(self, width: int, gamma_range: tuple[float, float]) -> None:
        super().__init__()
        if width < 4:
            raise ValueError(f"width={width} is too small for sinusoids; at least 4 is needed")
        self.width, self.gamma_range = width, gamma_range
        self.dense0 = lecun_(nn.Linear(width + 1, 4 * width))
        self.dense1 = lecun_(nn.Linear(4 * width, 4 * width))

    def forward(
        self,
        gamma: Float[Tensor, " batch"] | Jet,
        known: Float[Tensor, "batch features"] | None = None,
    ) -> Float[Tensor, "batch features"] | Jet:
        """The embedding of each example's depth, and of what else is known.

        Args:
            gamma: (batch,).
            known: an embedding that is added before the last nonlinearity.
        Returns:
            (batch, 4 width), of gamma's kind.
        """
        low, high = self.gamma_range
        # The order of the authors' operations: a phase of 1000 radians shows float32's rounding.
        position = (gamma - low) / (high - low) * 1000.0
        half = self.width // 2
        like = gamma.value if isinstance(gamma, Jet) else gamma
        decay = torch.arange(half, dtype=like.dtype, device=like.device)
        frequencies = torch.exp(decay * (-math.log(10000.0) / (half - 1)))
        phases = each(lambda p: p * frequencies, position[:, None])
        embedding = concatenate(phases.sin(), phases.cos(), 1)
        embedding = each(
            lambda e: F.pad(e, (0, self.width + 1 - 2 * half)).to(self.dense0.weight.dtype),
            embedding,
        )
        h = affine(self.dense1, silu(affine(self.dense0, embedding)))
        return silu(h if known is None else each(lambda a: a + known, h))


class ResnetBlock(nn.Module):
    """x + conv(dropout(swish(norm(conv(swish(norm(x))) + W c)))), with a 1x1 shortcut where widths differ.

    Args:
        channels: of x.
        out_channels: of the output.
        condition: the length of c.
        groups: of both normalisations.
        dropout: the share that training drops.
        sides: of x: 1 of a signal, 2 of an image, 3 of a volume.
    Raises:
        ValueError: groups do not divide the channels.
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        condition: int,
        *,
        groups: int,
        dropout: float,
        sides: int = 2,
    ) -> None:
        super().__init__()
        conv, self.sides = CONVOLUTION[sides], sides
        self.norm1 = group_norm(groups, channels)
        self.conv1 = lecun_(conv(channels, out_channels, 3, padding=1))
        self.project = zero_(nn.Linear(condition, out_channels, bias=False))
        self.norm2 = group_norm(groups, out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zero_(conv(out_channels, out_channels, 3, padding=1))
        self.shortcut = (
            lecun_(conv(channels, out_channels, 1)) if channels != out_channels else None
        )

    def forward(
        self,
        x: Float[Tensor, "batch channels *sides"] | Jet,
        condition: Float[Tensor, "batch condition"] | Jet,
    ) -> Float[Tensor, "batch out_channels *sides"] | Jet:
        """The formula above.

        Args:
            x: (batch, channels, *sides).
            condition: c, (batch, condition).
        Returns:
            (batch, out_channels, *sides); a jet where either is one.
        """
        h = affine(self.conv1, norm_silu(self.norm1, x))
        everywhere = (slice(None), slice(None), *[None] * self.sides)
        h = add(h, affine(self.project, condition)[everywhere])
        h = affine(self.conv2, dropout(self.dropout, norm_silu(self.norm2, h)))
        return add(h, x if self.shortcut is None else affine(self.shortcut, x))


class AttentionBlock(nn.Module):
    """x + W softmax(q k^T / sqrt(c)) v with one head over all positions, on the normalised input.

    Args:
        channels: c, of input and output.
        groups: of the normalisation.
    Raises:
        ValueError: groups do not divide the channels.
    """

    def __init__(self, channels: int, *, groups: int) -> None:
        super().__init__()
        self.norm = group_norm(groups, channels)
        self.query = lecun_(nn.Linear(channels, channels))
        self.key = lecun_(nn.Linear(channels, channels))
        self.value = lecun_(nn.Linear(channels, channels))
        self.project = zero_(nn.Linear(channels, channels))

    def forward(
        self, x: Float[Tensor, "batch channels *sides"] | Jet
    ) -> Float[Tensor, "batch channels *sides"] | Jet:
        """The formula above.

        Args:
            x: (batch, channels, *sides).
        Returns:
            Of x's shape and kind.
        """
        tokens = each(lambda a: a.flatten(2).transpose(1, 2), norm(self.norm, x))
        q, k, v = (affine(layer, tokens) for layer in (self.query, self.key, self.value))
        h = affine(self.project, attention(q, k, v))
        sides = (x.value if isinstance(x, Jet) else x).shape[2:]
        return add(x, each(lambda a: torch.unflatten(a.transpose(1, 2), 2, sides), h))


def attention(
    q: Float[Tensor, "batch tokens channels"] | Jet,
    k: Float[Tensor, "batch tokens channels"] | Jet,
    v: Float[Tensor, "batch tokens channels"] | Jet,
) -> Float[Tensor, "batch tokens channels"] | Jet:
    """softmax(q k^T / sqrt(channels)) v.

    The fused kernel has no forward-mode derivative, so inside forward-mode differentiation the product is
    written out, the softmax too: the backward pass of torch.softmax's tangent fails ("modified by an in-place
    operation"). Both ways give the same numbers.

    Args:
        q: queries, (batch, tokens, channels).
        k: keys, of q's shape and kind (tensor or jet).
        v: values, of q's shape and kind.
    Returns:
        Of q's shape and kind.
    """
    if isinstance(q, Jet) and isinstance(k, Jet) and isinstance(v, Jet):
        scores = q @ k.each(lambda a: a.transpose(1, 2)) / math.sqrt(q.value.shape[-1])
        return scores.softmax(-1) @ v
    assert not isinstance(q, Jet) and not isinstance(k, Jet) and not isinstance(v, Jet)
    if any(transformed(a) or tangent(a) is not None for a in (q, k, v)):
        return _written_out(q, k, v)
    return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]


def _written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    # The softmax does not change with a shift of its scores, so the shift needs no derivative.
    weights = (scores - scores.amax(-1, keepdim=True).detach()).exp()
    return (weights / weights.sum(-1, keepdim=True)) @ v
