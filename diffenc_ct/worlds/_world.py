"""What all closed-form worlds share: an encoder, the optimal estimates, and the model made of them."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from diffenc_ct.encoders import Encoder
from diffenc_ct.model import DiffEnc, Direct, Reals, Single
from diffenc_ct.process import Estimates
from diffenc_ct.schedules import Schedule, expand

Data = Float[Tensor, "batch *data"]
Gammas = Float[Tensor, " batch"] | Float[Tensor, ""]


class World(nn.Module):
    """A data distribution with an encoder and its optimal `estimates(z, gamma)`.

    Args:
        encoder: x -> x_t.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def estimates(self, z: Data, gamma: Gammas) -> Estimates:
        """E[x_t | z] and E[x_t' | z] at latents z of depths gamma, or of one depth."""
        raise NotImplementedError

    def forward(self, z: Data, gamma: Gammas) -> Estimates:
        """As `estimates`: a world is the network of its model."""
        return self.estimates(z, gamma)

    def model(
        self, schedule: Schedule, *, heads: Literal["paired", "single"] = "paired"
    ) -> DiffEnc:
        """A DiffEnc of real data whose network is optimal. Theorem: calibration.optimal_head.

        Args:
            schedule: gamma(t).
            heads: "paired" gives E[x_t | z] and E[x_t' | z]; "single" x_hat* = E[x_t + x_t' | z] / (1 + c) and
                r_hat = c x_hat*, the minimiser of the paper's L_inf.
        """
        best = Direct(self) if heads == "paired" else Single(_SingleHead(self), predicts="x")
        return DiffEnc(schedule, self.encoder, best, Reals())


class _SingleHead(nn.Module):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        found = self.world.estimates(z, gamma)
        factor = expand(self.world.encoder.rate_factor(gamma), z)
        return (found.x_hat + found.r_hat) / (1 + factor)
