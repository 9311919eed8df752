"""What all closed-form worlds share: an encoder, the optimal heads, and the model made of them."""

from typing import Literal

from torch import Tensor, nn

from diffenc_ct.encoders import Encoder
from diffenc_ct.model import DiffEnc, Heads
from diffenc_ct.schedules import Schedule, expand

HeadKind = Literal["paired", "single"]


class World(nn.Module):
    """A data distribution with an encoder and its optimal predictions `heads(z, gamma)`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def heads(self, z: Tensor, gamma: Tensor) -> Heads:
        raise NotImplementedError

    def forward(self, z: Tensor, gamma: Tensor) -> Heads:
        return self.heads(z, gamma)

    def model(self, schedule: Schedule, *, heads: HeadKind = "paired") -> DiffEnc:
        """A DiffEnc of real data whose network is optimal.

        "paired": E[x_t | z] and E[x_t' | z]. "single": x_hat* = E[x_t + x_t' | z] / (1 + c) and r_hat = c x_hat*,
        the minimiser of the paper's L_inf. Theorem: calibration.optimal_head.
        """
        if heads == "paired":
            return DiffEnc(schedule, self.encoder, self, levels=None, prediction="heads")
        return DiffEnc(schedule, self.encoder, _SingleHead(self), levels=None, prediction="x")


class _SingleHead(nn.Module):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        heads = self.world.heads(z, gamma)
        return (heads.x_hat + heads.r_hat) / (1 + expand(self.world.encoder.rate_factor(gamma), z))
