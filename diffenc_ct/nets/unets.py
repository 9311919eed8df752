"""The authors' U-Nets: score networks and encoder networks, all net(z, gamma) on (batch, channels, height, width).

Three bodies lie between an input and an output convolution:

- "flat": VDM's U-Net, which keeps the resolution (skip connections only);
- "pooled": one residual block a level, max pooling or strided convolution between levels;
- "multiresolution": as pooled, but it stops pooling at an odd or small height and spends the remaining
  blocks on the levels it has.

Reference: Kingma et al. 2021 (VDM), appendix; Nielsen et al. 2024 (DiffEnc), appendix.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from diffenc_ct.nets.blocks import (
    AttentionBlock,
    DepthEmbedding,
    ResnetBlock,
    fourier_features,
    group_norm,
    lecun_,
    zero_,
)
from diffenc_ct.nets.jets import affine, concatenate, max_pool
from diffenc_ct.nets.norm_silu import norm_silu

Body = Literal["flat", "pooled", "multiresolution"]
Pooling = Literal["max", "convolution", "none"]


class Middle(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(
        self, width: int, condition: int, *, groups: int, attention_groups: int, dropout: float
    ) -> None:
        super().__init__()
        self.block1 = ResnetBlock(width, width, condition, groups=groups, dropout=dropout)
        self.attention = AttentionBlock(width, groups=attention_groups)
        self.block2 = ResnetBlock(width, width, condition, groups=groups, dropout=dropout)

    def forward(self, h: Any, condition: Any) -> Any:
        return self.block2(self.attention(self.block1(h, condition)), condition)


class FlatBody(nn.Module):
    """VDM's U-Net body: `layers` blocks down, a middle, `layers` + 1 blocks up, all at full resolution."""

    def __init__(
        self,
        width: int,
        layers: int,
        condition: int,
        *,
        groups: int,
        dropout: float,
        attention: bool,
    ) -> None:
        super().__init__()

        def block(channels: int) -> ResnetBlock:
            return ResnetBlock(channels, width, condition, groups=groups, dropout=dropout)

        def attend() -> nn.Module:
            return AttentionBlock(width, groups=groups) if attention else nn.Identity()

        self.down = nn.ModuleList(block(width) for _ in range(layers))
        self.down_attention = nn.ModuleList(attend() for _ in range(layers))
        self.middle = Middle(
            width, condition, groups=groups, attention_groups=groups, dropout=dropout
        )
        self.up = nn.ModuleList(block(2 * width) for _ in range(layers + 1))
        self.up_attention = nn.ModuleList(attend() for _ in range(layers + 1))

    def forward(self, h: Any, condition: Any) -> Any:
        skips = [h]
        for block, attend in zip(self.down, self.down_attention, strict=True):
            skips.append(attend(block(skips[-1], condition)))
        h = self.middle(skips[-1], condition)
        for block, attend in zip(self.up, self.up_attention, strict=True):
            h = attend(block(concatenate(h, skips.pop(), 1), condition))
        return h


class PooledBody(nn.Module):
    """U-Net body with `levels` resolutions and `blocks` residual blocks a level and direction.

    widths[i] is the width of level i; `middle_groups` may differ from the blocks' `groups` (it does in the
    authors' encoder). Heights and widths must be divisible by 2^levels unless pooling is "none".
    """

    def __init__(
        self,
        widths: list[int],
        blocks: int,
        condition: int,
        *,
        groups: int,
        middle_groups: int,
        dropout: float,
        pooling: Pooling,
    ) -> None:
        super().__init__()

        def stack(channels: int, width: int) -> nn.ModuleList:
            return nn.ModuleList(
                ResnetBlock(
                    channels if i == 0 else width, width, condition, groups=groups, dropout=dropout
                )
                for i in range(blocks)
            )

        self.factor = 1 if pooling == "none" else 2 ** len(widths)
        self.pooling, self.levels, self.blocks = pooling, len(widths), blocks
        self.down = nn.ModuleList(
            stack(widths[max(i - 1, 0)], width) for i, width in enumerate(widths)
        )
        self.shrink = nn.ModuleList(
            lecun_(nn.Conv2d(w, w, 2, stride=2)) if pooling == "convolution" else nn.Identity()
            for w in widths
        )
        self.middle = Middle(
            widths[-1], condition, groups=middle_groups, attention_groups=groups, dropout=dropout
        )
        self.grow, self.up = nn.ModuleList(), nn.ModuleList()
        below = widths[-1]
        for width in reversed(widths):
            if pooling == "none":
                self.grow.append(nn.Identity())
                self.up.append(stack(below + width, width))
            else:
                self.grow.append(lecun_(nn.ConvTranspose2d(below, width, 2, stride=2)))
                self.up.append(stack(2 * width, width))
            below = width

    def forward(self, h: Any, condition: Any) -> Any:
        if h.shape[2] % self.factor or h.shape[3] % self.factor:
            raise ValueError(
                f"images of {h.shape[2]}x{h.shape[3]} cannot be halved {len(self.down)} times; "
                f"height and width must be multiples of {self.factor} (use fewer layers)"
            )
        skips = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            for block in blocks.children():
                h = block(h, condition)
            skips.append(h)
            h = max_pool(h) if self.pooling == "max" else affine(shrink, h)
        h = self.middle(h, condition)
        for grow, blocks in zip(self.grow, self.up, strict=True):
            h = concatenate(affine(grow, h), skips.pop(), 1)
            for block in blocks.children():
                h = block(h, condition)
        return h


def multiresolution_levels(layers: int, height: int) -> tuple[int, int]:
    """(levels, blocks a level) of the multi-resolution body: halve until the height is odd or at most 8."""
    for level in range(1, layers):
        smaller = height / 2**level
        if smaller % 2 == 1 or smaller <= 8:
            return level, layers // level
    return layers, 1


def make_body(
    body: Body,
    width: int,
    layers: int,
    condition: int,
    *,
    height: int | None,
    blocks: int | None,
    groups: int,
    middle_groups: int,
    dropout: float,
    attention: bool,
    pooling: Pooling,
    doubling: bool,
) -> nn.Module:
    """The named body. "multiresolution" needs the images' `height`, or `blocks` a level with `layers` levels."""
    if layers < 1:
        raise ValueError(f"layers={layers}; a U-Net needs at least one")
    if body == "flat":
        return FlatBody(
            width, layers, condition, groups=groups, dropout=dropout, attention=attention
        )
    levels, blocks_a_level = layers, 1
    if body == "multiresolution":
        middle_groups = groups
        if blocks is not None:
            blocks_a_level = blocks
        elif height is not None:
            levels, blocks_a_level = multiresolution_levels(layers, height)
        else:
            raise ValueError('body="multiresolution" needs the images\' height, or blocks a level')
    elif body != "pooled":
        raise ValueError(f'body={body!r}; choose "flat", "pooled" or "multiresolution"')
    widths = [width * 2**i if doubling else width for i in range(levels)]
    return PooledBody(
        widths,
        blocks_a_level,
        condition,
        groups=groups,
        middle_groups=middle_groups,
        dropout=dropout,
        pooling=pooling,
    )


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
