"""What a network is shown of z and of its depth, smooth on the scale of the noise.

Reference: Barron et al. 2021 (mip-NeRF's integrated positional encoding, a relative); for diffusion derived here.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffenc_ct.networks.blocks import lecun_
from diffenc_ct.networks.jets import Jet, TensorOrJet, affine, concatenate, each, silu


def noise_aware_features(
    z: Float[Tensor, "batch channels *sides"],
    gamma: Float[Tensor, " batch"],
    octaves: tuple[float, ...],
    scale: float = 1.0,
) -> Float[Tensor, "batch features *sides"]:
    """E[sin w x], E[cos w x] given z = alpha x + sigma eps alone (a flat prior on x):

        exp(-w^2 exp(gamma)/2) (sin, cos)(w z/alpha),      w = 2 pi 2^k scale,   k of range(*octaves)

    They speak where the noise lets a lattice of that spacing be seen, and are silent elsewhere, where features of z
    itself are random phases. Theorem: encoders.noise_aware_features.

    Args:
        z: latents.
        gamma: their depths.
        octaves: the lowest k, an end that is left out, and the step if it is not 1.
        scale: levels/256 makes k = 6 alternate from level to level, and k = 7 return at each.

    Returns:
        (batch, 2 channels octaves, *sides): all sines first, each channel's frequencies next to each other.
    """
    k = torch.arange(*octaves, dtype=z.dtype, device=z.device)
    w = 2 * math.pi * scale * 2.0**k
    one = (len(z), 1, -1, *[1] * (z.ndim - 2))
    # 1/alpha = sqrt(1 + exp(gamma))
    phases = z.unsqueeze(2) * (w * (1 + gamma.exp()).sqrt()[:, None]).reshape(one)
    left = torch.exp(-0.5 * w.square() * gamma.exp()[:, None]).reshape(one)
    return torch.cat([(left * phases.sin()).flatten(1, 2), (left * phases.cos()).flatten(1, 2)], 1)


class SmoothDepthEmbedding(nn.Module):
    """gamma, (batch,) -> (batch, 4 width): cosines of low frequencies, two dense layers.

    cos(pi j u), j = 1 .. frequencies, and u itself, u = (gamma - lo)/(hi - lo). A network that depends on gamma as
    slowly as this costs a solver of the probability flow few steps, and its derivative (an encoder's rate) stays small.

    Args:
        width: a quarter of the output's length.
        gamma_range: (lo, hi), the gammas of depths 0 and 1.
        frequencies: the highest j.
    """

    def __init__(
        self, width: int, gamma_range: tuple[float, float], *, frequencies: int = 8
    ) -> None:
        super().__init__()
        self.gamma_range, self.frequencies = gamma_range, frequencies
        self.dense0 = lecun_(nn.Linear(frequencies + 1, 4 * width))
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
        u = ((gamma - low) / (high - low))[:, None]
        like = gamma.value if isinstance(gamma, Jet) else gamma
        j = torch.arange(1, self.frequencies + 1, dtype=like.dtype, device=like.device)
        waves = each(lambda a: a * (math.pi * j), u).cos()
        features: TensorOrJet = concatenate(u, waves, 1)
        features = each(lambda a: a.to(self.dense0.weight.dtype), features)
        h = affine(self.dense1, silu(affine(self.dense0, features)))
        return silu(h if known is None else each(lambda a: a + known, h))
