"""The bodies of the authors' U-Nets, between an input and an output convolution.

- "flat": VDM's U-Net, which keeps the resolution (skip connections only);
- "pooled": one residual block a level, max pooling or strided convolution between levels;
- "multiresolution": as pooled, but it stops pooling at an odd or small height and spends the remaining
  blocks on the levels it has.

Reference: Kingma et al. 2021 (VDM), appendix; Nielsen et al. 2024 (DiffEnc), appendix.
"""

from typing import Any, Literal

from torch import nn

from diffenc_ct.networks.blocks import AttentionBlock, ResnetBlock, lecun_
from diffenc_ct.networks.jets import affine, concatenate, max_pool

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
