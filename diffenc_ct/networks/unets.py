"""The authors' U-Nets: score networks and encoder networks, all net(z, gamma) on (batch, channels, height, width).

Reference: Kingma et al. 2021 (VDM), appendix; Nielsen et al. 2024 (DiffEnc), appendix.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from diffenc_ct.networks.blocks import (
    DepthEmbedding,
    fourier_features,
    group_norm,
    lecun_,
    zero_,
)
from diffenc_ct.networks.bodies import Body, Pooling, make_body
from diffenc_ct.networks.jets import affine
from diffenc_ct.networks.norm_silu import norm_silu


class ScoreUNet(nn.Module):
    """The authors' score network: (z, gamma) -> z + U-Net(z, Fourier features of z; gamma).

    Shapes: z (batch, channels, height, width), gamma (batch,) -> (batch, out_channels, height, width).
    out_channels defaults to channels; twice that for paired heads, where z is added to the first half.
    The last convolution starts at zero, so an untrained network returns z.

    The Fourier features have periods of one and two distances between neighbours of `levels` levels; the authors'
    are those of 256, whatever the data.

    gamma_range: the gammas mapped to 0 and 1 by the depth embedding. groups: groups of the output
    normalisation (and the middle's of a pooled body); block_groups: those of every residual block.
    Raises ValueError where groups do not divide a width.
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
        levels: int | None = 256,
        pooling: Pooling = "max",
        doubling: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.fourier = channels, fourier
        self.fourier_scale = 1.0 if levels is None else levels / 256
        out_channels = channels if out_channels is None else out_channels
        if out_channels % channels:
            raise ValueError(
                f"out_channels={out_channels} must be a multiple of channels={channels}"
            )
        self.embed = DepthEmbedding(width, gamma_range)
        self.conv_in = lecun_(nn.Conv2d(channels * (5 if fourier else 1), width, 3, padding=1))
        self.body = make_body(
            body,
            width,
            layers,
            4 * width,
            height=height,
            blocks=blocks,
            groups=block_groups,
            middle_groups=groups,
            dropout=dropout,
            attention=attention,
            pooling=pooling,
            doubling=doubling,
        )
        self.norm_out = group_norm(groups, width)
        self.conv_out = zero_(nn.Conv2d(width, out_channels, 3, padding=1))

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        condition = self.embed(gamma)
        features = (
            torch.cat([z, fourier_features(z * self.fourier_scale, 6, 8)], dim=1)
            if self.fourier
            else z
        )
        h = self.body(self.conv_in(features), condition)
        out = self.conv_out(norm_silu(self.norm_out, h))
        return torch.cat([out[:, : self.channels] + z, out[:, self.channels :]], dim=1)


class EncoderUNet(nn.Module):
    """The authors' encoder network y(x, gamma): (batch, channels, height, width) -> the same shape.

    `bounded` ends in tanh (keeping y in (-1, 1)), which `scale` multiplies. damping: "start" multiplies by the
    normalised depth u in [0, 1], "end" by 1 - u. gamma (batch,) may be a Jet; then y is one too. The last convolution
    starts at zero, so an untrained encoder returns 0. Raises ValueError where groups do not divide a width.
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
        super().__init__()
        self.bounded, self.scale, self.damping = bounded, scale, damping
        self.embed = DepthEmbedding(width, gamma_range)
        self.conv_in = lecun_(nn.Conv2d(channels, width, 3, padding=1))
        self.body = make_body(
            body,
            width,
            layers,
            4 * width,
            height=height,
            blocks=blocks,
            groups=block_groups,
            middle_groups=groups,
            dropout=dropout,
            attention=attention,
            pooling=pooling,
            doubling=doubling,
        )
        self.norm_out = group_norm(groups, width)
        self.conv_out = zero_(nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, x: Tensor, gamma: Any) -> Any:
        h = self.body(self.conv_in(x), self.embed(gamma))
        y = affine(self.conv_out, norm_silu(self.norm_out, h))
        low, high = self.embed.gamma_range
        u = ((gamma - low) / (high - low))[:, None, None, None]
        if "start" in self.damping:
            y = y * u
        if "end" in self.damping:
            y = y * (1 - u)
        return (y.tanh() if self.bounded else y) * self.scale
