"""The bodies of the authors' U-Nets, between an input and an output convolution.

- "flat": VDM's U-Net, which keeps the resolution (skip connections only);
- "pooled": one residual block a level, max pooling or strided convolution between levels;
- "multiresolution": as pooled, but it stops pooling at an odd or small height and spends the remaining
  blocks on the levels it has.

Reference: Kingma et al. 2021 (VDM), appendix; Nielsen et al. 2024 (DiffEnc), appendix.
"""

import math
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from diffenc_ct.networks.blocks import CONVOLUTION, TRANSPOSED, AttentionBlock, ResnetBlock, lecun_
from diffenc_ct.networks.jets import Jet, TensorOrJet, affine, concatenate, max_pool

Body = Literal["flat", "pooled", "multiresolution"]
Pooling = Literal["max", "convolution", "none"]


class Middle(nn.Module):
    """Residual block, attention, residual block.

    Args:
        width: channels of input and output.
        condition: the length of the depth's embedding.
        groups: of the residual blocks' normalisations.
        attention_groups: of the attention's.
        dropout: the share that training drops.
        sides: 1 of signals, 2 of images, 3 of volumes.
    """

    def __init__(
        self,
        width: int,
        condition: int,
        *,
        groups: int,
        attention_groups: int,
        dropout: float,
        sides: int = 2,
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {"groups": groups, "dropout": dropout, "sides": sides}
        self.block1 = ResnetBlock(width, width, condition, **options)
        self.attention = AttentionBlock(width, groups=attention_groups)
        self.block2 = ResnetBlock(width, width, condition, **options)

    def forward(
        self,
        h: Float[Tensor, "batch channels *sides"] | Jet,
        condition: Float[Tensor, "batch condition"] | Jet,
    ) -> Float[Tensor, "batch channels *sides"] | Jet:
        """The three blocks one after the other.

        Args:
            h: (batch, channels, *sides).
            condition: the embedding of the depth, (batch, condition).
        Returns:
            Of h's shape; a jet where either is one.
        """
        out: TensorOrJet = self.block2(self.attention(self.block1(h, condition)), condition)
        return out


class FlatBody(nn.Module):
    """VDM's U-Net body: `layers` blocks down, a middle, `layers` + 1 blocks up, all at full resolution.

    Args:
        width: channels everywhere.
        layers: blocks down.
        condition: the length of the depth's embedding.
        groups: of every normalisation.
        dropout: the share that training drops.
        attention: after every block, not in the middle only.
    """

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

    def forward(
        self,
        h: Float[Tensor, "batch channels height width"] | Jet,
        condition: Float[Tensor, "batch condition"] | Jet,
    ) -> Float[Tensor, "batch channels height width"] | Jet:
        """Down, middle and up, each block up beside the output of its block down.

        Args:
            h: (batch, channels, height, width).
            condition: the embedding of the depth, (batch, condition).
        Returns:
            Of h's shape; a jet where either is one.
        """
        skips: list[TensorOrJet] = [h]
        for block, attend in zip(self.down, self.down_attention, strict=True):
            skips.append(attend(block(skips[-1], condition)))
        out: TensorOrJet = self.middle(skips[-1], condition)
        for block, attend in zip(self.up, self.up_attention, strict=True):
            out = attend(block(concatenate(out, skips.pop(), 1), condition))
        return out


class PooledBody(nn.Module):
    """U-Net body with one or more residual blocks a level and direction, and pooling between levels.

    Args:
        widths: channels of each level, from the top.
        blocks: residual blocks a level and direction.
        condition: the length of the depth's embedding.
        groups: of the residual blocks' normalisations.
        middle_groups: of those of the middle, which differ in the authors' encoder.
        dropout: the share that training drops.
        pooling: how a level's sides are halved, if they are.
        sides: how many: 1 of signals, 2 of images, 3 of volumes.
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
        sides: int = 2,
    ) -> None:
        super().__init__()

        def stack(channels: int, width: int) -> nn.ModuleList:
            return nn.ModuleList(
                ResnetBlock(
                    channels if i == 0 else width,
                    width,
                    condition,
                    groups=groups,
                    dropout=dropout,
                    sides=sides,
                )
                for i in range(blocks)
            )

        self.factor = 1 if pooling == "none" else 2 ** len(widths)
        self.pooling, self.levels, self.blocks = pooling, len(widths), blocks
        self.down = nn.ModuleList(
            stack(widths[max(i - 1, 0)], width) for i, width in enumerate(widths)
        )
        self.shrink = nn.ModuleList(
            lecun_(CONVOLUTION[sides](w, w, 2, stride=2))
            if pooling == "convolution"
            else nn.Identity()
            for w in widths
        )
        self.middle = Middle(
            widths[-1],
            condition,
            groups=middle_groups,
            attention_groups=groups,
            dropout=dropout,
            sides=sides,
        )
        self.grow, self.up = nn.ModuleList(), nn.ModuleList()
        below = widths[-1]
        for width in reversed(widths):
            if pooling == "none":
                self.grow.append(nn.Identity())
                self.up.append(stack(below + width, width))
            else:
                self.grow.append(lecun_(TRANSPOSED[sides](below, width, 2, stride=2)))
                self.up.append(stack(2 * width, width))
            below = width

    def forward(
        self,
        h: Float[Tensor, "batch channels *sides"],
        condition: Float[Tensor, "batch condition"] | Jet,
    ) -> Float[Tensor, "batch channels *sides"] | Jet:
        """Down, middle and up, each level up beside the output of its level down.

        Args:
            h: (batch, channels, *sides); all sides multiples of 2^levels where there is pooling.
            condition: the embedding of the depth, (batch, condition).
        Returns:
            Of h's shape; a jet where the condition is one.
        Raises:
            ValueError: a side cannot be halved that often.
        """
        if any(side % self.factor for side in h.shape[2:]):
            fits, shown = halvings_of(*h.shape[2:]), "x".join(map(str, h.shape[2:]))
            raise ValueError(
                f"images of {shown} cannot be halved {self.levels} times: height and width must be multiples "
                f"of {self.factor}; give the network "
                + (f"layers={fits}" if fits else "body=flat, which takes any size,")
                + " (--network-options; an encoder's: --encoder-network-options)"
            )
        out: TensorOrJet = h
        skips: list[TensorOrJet] = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            for block in blocks.children():
                out = block(out, condition)
            skips.append(out)
            out = max_pool(out) if self.pooling == "max" else affine(shrink, out)
        out = self.middle(out, condition)
        for grow, blocks in zip(self.grow, self.up, strict=True):
            out = concatenate(affine(grow, out), skips.pop(), 1)
            for block in blocks.children():
                out = block(out, condition)
        return out


def halvings_of(*sides: int) -> int:
    """How often all sides can be halved.

    Args:
        sides: in pixels.

    Example:
        >>> halvings_of(24, 28), halvings_of(27, 32)
        (2, 0)
    """
    common = math.gcd(*sides)
    return (common & -common).bit_length() - 1


def multiresolution_levels(layers: int, height: int) -> tuple[int, int]:
    """How a multi-resolution body spends its blocks: it halves until the height is odd or at most 8.

    Args:
        layers: the blocks in all, and the levels at most.
        height: of the images, in pixels.
    Returns:
        Levels, and blocks a level.
    """
    for level in range(1, layers):
        smaller = height / 2**level
        if smaller % 2 == 1 or smaller <= 8:
            return level, layers // level
    return layers, 1
