"""The authors' U-Nets: score networks and encoder networks, all net(z, gamma) on (batch, channels, height, width).

    embedding of gamma  --------------------+
                                            v
    input  --  convolution 3x3  --  body (see `bodies`)  --  silu(norm(.))  --  convolution 3x3, zero at first

Reference: Kingma et al. 2021 (VDM), appendix; Nielsen et al. 2024 (DiffEnc), appendix.
"""

from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from diffenc_ct.networks.blocks import (
    DepthEmbedding,
    fourier_features,
    group_norm,
    lecun_,
    zero_,
)
from diffenc_ct.networks.bodies import Body, Pooling
from diffenc_ct.networks.body_options import BodyOptions, make_body
from diffenc_ct.networks.conditions import Conditional, ConditionEmbedding
from diffenc_ct.networks.jets import Jet, TensorOrJet, affine, multiply
from diffenc_ct.networks.norm_silu import norm_silu


class _UNet(nn.Module):
    """Embedding of the depth, input convolution, body, normalisation and output convolution."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        gamma_range: tuple[float, float],
        groups: int,
        options: BodyOptions,
        condition: ConditionEmbedding | None = None,
    ) -> None:
        super().__init__()
        if condition is not None:
            self.condition = condition
        width = options.width
        self.embed = DepthEmbedding(width, gamma_range)
        self.conv_in = lecun_(nn.Conv2d(inputs, width, 3, padding=1))
        self.body = make_body(options, condition=4 * width)
        self.norm_out = group_norm(groups, width)
        self.conv_out = zero_(nn.Conv2d(width, outputs, 3, padding=1))


class ScoreUNet(_UNet, Conditional):
    """The authors' score network: (z, gamma) -> z + U-Net(z, Fourier features of z; gamma).

    With more output channels than channels, as paired heads want them, z is added to the first of them.
    The last convolution starts at zero, so an untrained network returns z.

    The Fourier features have periods of one and two distances between neighbours of `levels` levels; the authors'
    are those of 256, whatever the data.

    Args:
        channels: of z.
        width: channels of the body's first level, at least 4.
        layers: blocks of a flat body down, levels of the others.
        gamma_range: the gammas mapped to 0 and 1 by the depth embedding.
        out_channels: a multiple of `channels`, which it is unless given.
        body: "flat", "pooled" or "multiresolution".
        height: of the images in pixels; decides the levels of a multi-resolution body.
        blocks: a level of a multi-resolution body, instead of `height`.
        groups: of the output's normalisation, and of the middle's in a pooled body.
        block_groups: of every residual block's normalisations.
        dropout: the share that training drops.
        attention: after every block of a flat body, not in the middle only.
        fourier: whether the network sees Fourier features of z.
        residual: whether z is added to the output, as a prediction of v or eps wants it.
        levels: of the data, None for reals.
        pooling: "max", "convolution" or "none" between the levels of a body that is not flat.
        doubling: each level of a body that is not flat is twice as wide as the one above.
        classes: labels of a condition, None for a network without.
        conditions: the length of vectors that are conditions, None for a network without.
    Raises:
        ValueError: an impossible option (see `BodyOptions`), groups that do not divide a width, or out_channels that
            are no multiple of channels.
    Example:
        >>> network = ScoreUNet(3, width=8, layers=1, groups=4, block_groups=4)
        >>> z, gamma = torch.randn(2, 3, 4, 4), torch.tensor([-5.0, 1.0])
        >>> torch.equal(network(z, gamma), z)  # untrained
        True
    """

    def __init__(
        self,
        channels: int,
        *,
        width: int = 32,
        layers: int = 2,
        gamma_range: tuple[float, float] = (-13.3, 5.0),
        out_channels: int | None = None,
        body: Body = "flat",
        height: int | None = None,
        blocks: int | None = None,
        groups: int = 32,
        block_groups: int = 32,
        dropout: float = 0.1,
        attention: bool = False,
        fourier: bool = True,
        residual: bool = True,
        levels: int | None = 256,
        pooling: Pooling = "max",
        doubling: bool = False,
        classes: int | None = None,
        conditions: int | None = None,
    ) -> None:
        out_channels = channels if out_channels is None else out_channels
        if out_channels % channels:
            raise ValueError(
                f"out_channels={out_channels} must be a multiple of channels={channels}"
            )
        options = BodyOptions(
            body=body,
            width=width,
            layers=layers,
            height=height,
            blocks=blocks,
            groups=block_groups,
            middle_groups=groups,
            dropout=dropout,
            attention=attention,
            pooling=pooling,
            doubling=doubling,
        )
        inputs = channels * (5 if fourier else 1)
        known = ConditionEmbedding(4 * width, classes=classes, dimensions=conditions)
        super().__init__(inputs, out_channels, gamma_range, groups, options, known)
        self.channels, self.fourier, self.residual = channels, fourier, residual
        self.fourier_scale = 1.0 if levels is None else levels / 256

    def forward(
        self,
        z: Float[Tensor, "batch channels height width"],
        gamma: Float[Tensor, " batch"],
        condition: Shaped[Tensor, "batch *condition"] | None = None,
    ) -> Float[Tensor, "batch out_channels height width"]:
        """The network's output.

        Args:
            z: (batch, channels, height, width).
            gamma: (batch,).
            condition: of each example, None for none.
        Returns:
            (batch, out_channels, height, width).
        """
        embedding = self.embed(gamma, self.condition(condition, z.flatten(1)))
        features = (
            torch.cat([z, fourier_features(z * self.fourier_scale, 6, 8)], dim=1)
            if self.fourier
            else z
        )
        h: Tensor = self.body(self.conv_in(features), embedding)
        out: Tensor = self.conv_out(norm_silu(self.norm_out, h))
        if not self.residual:
            return out
        return torch.cat([out[:, : self.channels] + z, out[:, self.channels :]], dim=1)


class EncoderUNet(_UNet):
    """The authors' encoder network y(x, gamma) = scale tanh(damping(gamma) U-Net(x; gamma)).

    With u = (gamma - lo)/(hi - lo) the damping is 1 (no `damping`), u ("start"), 1 - u ("end") or their product, so y
    vanishes at the depths 0 or 1. The last convolution starts at zero, so an untrained encoder returns 0.

    Args:
        channels: of x and y.
        width: channels of the body's first level, at least 4.
        layers: blocks of a flat body down, levels of the others.
        gamma_range: (lo, hi), the gammas mapped to 0 and 1 by the depth embedding and by the damping.
        body: "flat", "pooled" or "multiresolution".
        height: of the images in pixels; decides the levels of a multi-resolution body.
        blocks: a level of a multi-resolution body, instead of `height`.
        groups: of the output's normalisation, and of the middle's in a pooled body.
        block_groups: of every residual block's normalisations.
        dropout: the share that training drops.
        attention: after every block of a flat body, not in the middle only.
        pooling: "max", "convolution" or "none" between the levels of a body that is not flat.
        doubling: each level of a body that is not flat is twice as wide as the one above.
        bounded: ends in tanh, which keeps y in (-scale, scale).
        scale: the factor of y.
        damping: the ends of the depth at which y vanishes.
    Raises:
        ValueError: an impossible option (see `BodyOptions`), or groups that do not divide a width.
    Example:
        >>> network = EncoderUNet(3, width=8, layers=1, groups=4, block_groups=4)
        >>> x, gamma = torch.randn(2, 3, 4, 4), torch.tensor([-5.0, 1.0])
        >>> network(x, gamma).shape
        torch.Size([2, 3, 4, 4])
        >>> network(x, Jet(gamma, torch.ones(2))).rate.shape  # dy/dgamma
        torch.Size([2, 3, 4, 4])
    """

    takes_jets = True

    def __init__(
        self,
        channels: int,
        *,
        width: int = 32,
        layers: int = 2,
        gamma_range: tuple[float, float] = (-13.3, 5.0),
        body: Body = "pooled",
        height: int | None = None,
        blocks: int | None = None,
        groups: int = 16,
        block_groups: int = 32,
        dropout: float = 0.1,
        attention: bool = False,
        pooling: Pooling = "max",
        doubling: bool = True,
        bounded: bool = True,
        scale: float = 1.0,
        damping: frozenset[Literal["start", "end"]] = frozenset(),
    ) -> None:
        options = BodyOptions(
            body=body,
            width=width,
            layers=layers,
            height=height,
            blocks=blocks,
            groups=block_groups,
            middle_groups=groups,
            dropout=dropout,
            attention=attention,
            pooling=pooling,
            doubling=doubling,
        )
        super().__init__(channels, channels, gamma_range, groups, options)
        self.bounded, self.scale, self.damping = bounded, scale, damping

    def forward(
        self,
        x: Float[Tensor, "batch channels height width"],
        gamma: Float[Tensor, " batch"] | Jet,
    ) -> Float[Tensor, "batch channels height width"] | Jet:
        """The network's output, and its derivative beside it for a jet of gamma.

        Args:
            x: (batch, channels, height, width).
            gamma: (batch,).
        Returns:
            y, of x's shape and gamma's kind.
        """
        h: TensorOrJet = self.body(self.conv_in(x), self.embed(gamma))
        y = affine(self.conv_out, norm_silu(self.norm_out, h))
        low, high = self.embed.gamma_range
        u = ((gamma - low) / (high - low))[:, None, None, None]
        if "start" in self.damping:
            y = multiply(y, u)
        if "end" in self.damping:
            y = multiply(y, 1 - u)
        return (y.tanh() if self.bounded else y) * self.scale
