"""Networks for vectors: the authors' small score network and a plain MLP, both net(z, gamma)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffenc_ct.networks.blocks import fourier_features, lecun_, zero_


def _normalised(gamma: Tensor, gamma_range: tuple[float, float]) -> Tensor:
    low, high = gamma_range
    return (2 * (gamma - low) / (high - low) - 1)[:, None]


class VectorNetwork(nn.Module):
    """The authors' small score network: dense layers of 2 width units on (z, gamma) and their Fourier features.

    z is flattened, gamma mapped to [-1, 1]; base-2 frequencies 2 pi 2^k, k = 0..7, of every input.
    shape: the data's shape without the batch. (batch, *shape), (batch,) -> (batch, *shape).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int = 32,
        layers: int = 2,
        gamma_range: tuple[float, float] = (-13.3, 5.0),
    ) -> None:
        super().__init__()
        dimensions = torch.Size(shape).numel()
        self.gamma_range = gamma_range
        inputs = [(dimensions + 1) * 17] + [2 * width] * (layers - 1)
        self.dense = nn.ModuleList(lecun_(nn.Linear(n, 2 * width)) for n in inputs)
        self.out = lecun_(nn.Linear(2 * width, dimensions))

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        h = torch.cat([z.flatten(1), _normalised(gamma, self.gamma_range)], dim=1)
        h = torch.cat([h, fourier_features(h, 0, 8)], dim=1)
        for layer in self.dense:
            h = F.silu(layer(h))
        return self.out(h).unflatten(1, z.shape[1:])


class MLP(nn.Module):
    """A residual-free multilayer perceptron on (z, gamma), its last layer zero: (batch, d) -> (batch, outputs).

    outputs: d unless given (2 d for paired heads). bounded ends in tanh, as encoders want. gamma enters
    as sinusoids of gamma/8 2^k, smooth over the whole range, at k = 0..3.
    """

    def __init__(
        self,
        dimensions: int,
        *,
        width: int = 128,
        layers: int = 3,
        outputs: int | None = None,
        bounded: bool = False,
    ) -> None:
        super().__init__()
        self.bounded = bounded
        sizes = [dimensions + 9] + [width] * layers
        self.dense = nn.ModuleList(
            lecun_(nn.Linear(a, b)) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.out = zero_(nn.Linear(width, dimensions if outputs is None else outputs))

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        phase = gamma[:, None] / 8
        features = [phase] + [f(phase * 2**k) for k in range(4) for f in (torch.sin, torch.cos)]
        h = torch.cat([z, *features], dim=1)
        for layer in self.dense:
            h = F.silu(layer(h))
        y = self.out(h)
        return torch.tanh(y) if self.bounded else y
