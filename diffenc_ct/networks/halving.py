"""A U-Net that sees the whole image: resolutions are halved, attention at the lowest.

    embedding of gamma (smooth)  -------------------------------+
                                                                v
    z and its noise-aware features  --  patches to channels  --  halving body  --  silu(norm(.))  --  1x1, zero at first

It serves as score network and, for jets of gamma, as encoder's network. Its output is not added to z and is zero at
first: an untrained posterior head says what its prior says, an untrained residual encoder is the identity.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from diffenc_ct.networks.blocks import CONVOLUTION, group_norm, lecun_, zero_
from diffenc_ct.networks.bodies import PooledBody, halvings_of
from diffenc_ct.networks.conditions import Conditional, ConditionEmbedding
from diffenc_ct.networks.features import SmoothDepthEmbedding, noise_aware_features
from diffenc_ct.networks.jets import Jet, TensorOrJet, affine, each
from diffenc_ct.networks.norm_silu import norm_silu

# Of the features: from two turns over the data's range to one from level to level, in half octaves.
OCTAVES = (0.0, 7.5, 0.5)


class UNet(Conditional):
    """net(z, gamma, condition) on (batch, channels, *sides), zero at first.

    Images, or signals and volumes (sides 1 and 3). All sides must be multiples of patch 2^halvings.

    Args:
        channels: of z.
        out_channels: of the output; `channels` unless given.
        width: of the body's first level, a multiple of 4, at least 8.
        halvings: how often the body halves its resolution; the attention is behind the last one.
        blocks: residual blocks a level and direction.
        doubling: each level is twice as wide as the one above.
        patch: squares of patch x patch pixels are one position of the body's first level.
        dropout: the share that training drops.
        features: whether the network sees noise-aware Fourier features of z, from coarse to the levels' own lattice:
            without them differences between neighbours that are small beside the data's range are hard to see.
        levels: of the data, None for reals; the features' scale.
        gamma_range: the gammas mapped to 0 and 1 by the depth embedding.
        bounded: ends in tanh, as encoders' networks should.
        classes: labels of a condition, None for a network without.
        conditions: the length of vectors that are conditions, None for a network without.
        sides: how many: 1 of signals, 2 of images, 3 of volumes.
    Raises:
        ValueError: an impossible option, or images whose sides cannot be halved that often.
    Example:
        >>> network = UNet(1, width=8)
        >>> network(torch.randn(2, 1, 8, 8), torch.tensor([-5.0, 1.0])).abs().max().item()  # untrained
        0.0
    """

    def __init__(
        self,
        channels: int,
        *,
        out_channels: int | None = None,
        width: int = 32,
        halvings: int = 2,
        blocks: int = 1,
        doubling: bool = True,
        patch: int = 1,
        dropout: float = 0.0,
        features: bool = True,
        levels: int | None = 256,
        gamma_range: tuple[float, float] = (-13.3, 5.0),
        bounded: bool = False,
        classes: int | None = None,
        conditions: int | None = None,
        sides: int = 2,
    ) -> None:
        super().__init__()
        if width < 8 or width % 4:
            raise ValueError(f"width={width} must be a multiple of 4, at least 8")
        if halvings < 1 or blocks < 1 or patch < 1:
            raise ValueError(
                f"halvings={halvings}, blocks={blocks} and patch={patch} must be at least 1"
            )
        if sides not in CONVOLUTION or (patch > 1 and sides != 2):
            raise ValueError(f"sides={sides}, patch={patch}: give 1, 2 or 3 sides, patches of 2")
        self.patch, self.features, self.bounded = patch, features, bounded
        self.sides = sides
        self.takes_jets = not features  # those depend on gamma themselves: forward mode knows them
        self.scale = 1.0 if levels is None else levels / 256
        inputs = channels * (1 + 2 * len(torch.arange(*OCTAVES)) * features) * patch**2
        outputs = (channels if out_channels is None else out_channels) * patch**2
        # Groups of one channel would take away what the depth adds to it.
        groups = 2 if width == 8 else 4 if width % 8 else 8
        self.embed = SmoothDepthEmbedding(width, gamma_range)
        self.condition = ConditionEmbedding(4 * width, classes=classes, dimensions=conditions)
        self.conv_in = lecun_(CONVOLUTION[sides](inputs, width, 3, padding=1))
        self.body = PooledBody(
            [width * 2**i if doubling else width for i in range(halvings)],
            blocks,
            condition=4 * width,
            groups=groups,
            middle_groups=groups,
            dropout=dropout,
            pooling="convolution",
            sides=sides,
        )
        self.norm_out = group_norm(groups, width)
        self.conv_out = zero_(CONVOLUTION[sides](width, outputs, 1))

    def forward(
        self,
        z: Float[Tensor, "batch channels *sides"],
        gamma: Float[Tensor, " batch"] | Jet,
        condition: Shaped[Tensor, "batch *condition"] | None = None,
    ) -> Float[Tensor, "batch out_channels *sides"] | Jet:
        """The network's output, and its derivative beside it for a jet of gamma.

        Args:
            z: (batch, channels, *sides).
            gamma: (batch,).
            condition: of each example, None for none.
        Returns:
            (batch, out_channels, *sides), of gamma's kind.
        """
        self._check_sides(*z.shape[2:])
        h = z
        if self.features:
            assert not isinstance(gamma, Jet)  # see takes_jets
            h = torch.cat([z, noise_aware_features(z, gamma, OCTAVES, self.scale)], dim=1)
        if self.patch > 1:
            h = F.pixel_unshuffle(h, self.patch)
        known = self.condition(condition, z.flatten(1))
        body: TensorOrJet = self.body(self.conv_in(h), self.embed(gamma, known))
        out = affine(self.conv_out, norm_silu(self.norm_out, body))
        if self.patch > 1:
            out = each(lambda a: F.pixel_shuffle(a, self.patch), out)
        if not self.bounded:
            return out
        return out.tanh()

    def _check_sides(self, *sides: int) -> None:
        """Refuse images that the network cannot halve, naming options with which it could."""
        unit, shown = self.patch * self.body.factor, "x".join(map(str, sides))
        if len(sides) != self.sides:
            raise ValueError(
                f"examples of {shown} have {len(sides)} sides; give sides={len(sides)}"
            )
        if not any(side % unit for side in sides):
            return
        if not halvings_of(*sides):
            raise ValueError(
                f"images of {shown} cannot be halved; crop or pad them to even sides, or take networks of any "
                "size: score-unet, for an encoder encoder-unet with body=flat (--network score-unet --encoder-network "
                "encoder-unet --encoder-network-options body=flat)"
            )
        patch = self.patch
        if any(side % patch for side in sides) or not halvings_of(*(s // patch for s in sides)):
            patch = 1
        fits = min(self.body.levels, halvings_of(*(side // patch for side in sides)))
        options = f"halvings={fits}" + " patch=1" * (patch < self.patch)
        raise ValueError(
            f"images of {shown}: height and width must be multiples of patch 2^halvings = {unit}; give the "
            f"network (--network-options) and an encoder's of this kind (--encoder-network-options) {options}"
        )
