"""The choice of a U-Net's body: its options, checked together, and the body that they describe."""

from dataclasses import dataclass
from typing import get_args

from torch import nn

from diffenc_ct.networks.bodies import (
    Body,
    FlatBody,
    PooledBody,
    Pooling,
    multiresolution_levels,
)


@dataclass(frozen=True, kw_only=True)
class BodyOptions:
    """What there is to choose about a body.

    Args:
        body: "flat", "pooled" or "multiresolution".
        width: channels of the first level.
        layers: blocks of a flat body down, levels of the others (where `height` decides, at most).
        height: of the images in pixels; decides the levels of a multi-resolution body.
        blocks: a level of a multi-resolution body, instead of `height`.
        groups: of the residual blocks' normalisations.
        middle_groups: of the middle's in a pooled body.
        dropout: the share that training drops.
        attention: after every block of a flat body.
        pooling: "max", "convolution" or "none" between the levels of the others.
        doubling: each level of the others is twice as wide as the one above.
    Raises:
        ValueError: an unknown name, no layer or block, or a multi-resolution body without height and blocks.
    """

    body: Body
    width: int
    layers: int
    height: int | None
    blocks: int | None
    groups: int
    middle_groups: int
    dropout: float
    attention: bool
    pooling: Pooling
    doubling: bool

    def __post_init__(self) -> None:
        _check_name("body", self.body, get_args(Body))
        _check_name("pooling", self.pooling, get_args(Pooling))
        if self.layers < 1:
            raise ValueError(f"layers={self.layers}; a U-Net needs at least one")
        if self.blocks is not None and self.blocks < 1:
            raise ValueError(f"blocks={self.blocks}; every level needs at least one")
        if self.body == "multiresolution" and self.blocks is None and self.height is None:
            raise ValueError('body="multiresolution" needs the images\' height, or blocks a level')

    def resolutions(self) -> tuple[int, int]:
        """Levels of a pooled or multi-resolution body, and blocks a level."""
        if self.body != "multiresolution":
            return self.layers, 1
        if self.blocks is not None:
            return self.layers, self.blocks
        assert self.height is not None
        return multiresolution_levels(self.layers, self.height)


def _check_name(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        names = ", ".join(f'"{name}"' for name in allowed)
        raise ValueError(f"{option}={value!r}; choose one of {names}")


def make_body(options: BodyOptions, condition: int) -> nn.Module:
    """The body that the options describe: a module body(h, condition) -> h.

    Args:
        options: what was chosen.
        condition: the length of the depth's embedding.
    Returns:
        A FlatBody or a PooledBody, untrained.
    Raises:
        ValueError: groups do not divide a width.
    """
    if options.body == "flat":
        return FlatBody(
            options.width,
            options.layers,
            condition,
            groups=options.groups,
            dropout=options.dropout,
            attention=options.attention,
        )
    levels, blocks = options.resolutions()
    pooled = options.body == "pooled"
    return PooledBody(
        [options.width * 2**i if options.doubling else options.width for i in range(levels)],
        blocks,
        condition,
        groups=options.groups,
        middle_groups=options.middle_groups if pooled else options.groups,
        dropout=options.dropout,
        pooling=options.pooling,
    )
