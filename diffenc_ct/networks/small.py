"""Networks for vectors: the authors' small score network and a plain MLP, both net(z, gamma)."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from diffenc_ct.networks.blocks import fourier_features, lecun_, zero_
from diffenc_ct.networks.conditions import Conditional, ConditionEmbedding


def _normalised(gamma: Tensor, gamma_range: tuple[float, float]) -> Tensor:
    low, high = gamma_range
    return (2 * (gamma - low) / (high - low) - 1)[:, None]


def _layers(layers: nn.ModuleList, h: Tensor, known: Tensor | None) -> Tensor:
    """Dense layers, each with its nonlinearity; what is known is added before the first one's."""
    for number, layer in enumerate(layers):
        h = layer(h)
        h = F.silu(h if known is None or number else h + known)
    return h


class VectorNetwork(Conditional):
    """The authors' small score network: dense layers of 2 width units on (z, gamma) and their Fourier features.

    z is flattened, gamma mapped to [-1, 1]; base-2 frequencies 2 pi 2^k, k = 0..7, of every input.

    Args:
        shape: the data's shape without the batch.
        width: half the units of a hidden layer.
        layers: hidden layers, at least one.
        gamma_range: the gammas mapped to -1 and 1.
        classes: labels of a condition, None for a network without.
        conditions: the length of vectors that are conditions, None for a network without.
    Example:
        >>> network = VectorNetwork((1, 4, 4), width=8)
        >>> network(torch.zeros(3, 1, 4, 4), torch.tensor([-13.0, 0.0, 5.0])).shape
        torch.Size([3, 1, 4, 4])
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        width: int = 32,
        layers: int = 2,
        gamma_range: tuple[float, float] = (-13.3, 5.0),
        classes: int | None = None,
        conditions: int | None = None,
    ) -> None:
        super().__init__()
        dimensions = torch.Size(shape).numel()
        self.gamma_range = gamma_range
        inputs = [(dimensions + 1) * 17] + [2 * width] * (layers - 1)
        self.dense = nn.ModuleList(lecun_(nn.Linear(n, 2 * width)) for n in inputs)
        self.condition = ConditionEmbedding(2 * width, classes=classes, dimensions=conditions)
        self.out = lecun_(nn.Linear(2 * width, dimensions))

    def forward(
        self,
        z: Float[Tensor, " batch *data"],
        gamma: Float[Tensor, " batch"],
        condition: Shaped[Tensor, "batch *condition"] | None = None,
    ) -> Float[Tensor, " batch *data"]:
        """The network's output.

        Args:
            z: (batch, *shape).
            gamma: (batch,).
            condition: of each example, None for none.
        Returns:
            (batch, *shape).
        """
        h = torch.cat([z.flatten(1), _normalised(gamma, self.gamma_range)], dim=1)
        h = torch.cat([h, fourier_features(h, 0, 8)], dim=1)
        h = _layers(self.dense, h, self.condition(condition, h))
        y: Tensor = self.out(h)
        return torch.unflatten(y, 1, z.shape[1:])


class MLP(Conditional):
    """A multilayer perceptron without shortcuts on (z, gamma), its last layer zero: an untrained one returns 0.

    gamma enters as gamma/8 and as sine and cosine of gamma/8 2^k, k = 0..3, smooth over the whole range.

    Args:
        dimensions: d, the length of z.
        width: units of a hidden layer.
        layers: hidden layers.
        outputs: the length of the output, d unless given (2 d for paired heads).
        bounded: ends in tanh, as encoders want.
        classes: labels of a condition, None for a network without.
        conditions: the length of vectors that are conditions, None for a network without.
    Example:
        >>> network = MLP(3, width=8, outputs=6)
        >>> network(torch.randn(2, 3), torch.tensor([-5.0, 1.0])).shape
        torch.Size([2, 6])
    """

    def __init__(
        self,
        dimensions: int,
        *,
        width: int = 128,
        layers: int = 3,
        outputs: int | None = None,
        bounded: bool = False,
        classes: int | None = None,
        conditions: int | None = None,
    ) -> None:
        super().__init__()
        self.bounded = bounded
        sizes = [dimensions + 9] + [width] * layers
        self.dense = nn.ModuleList(
            lecun_(nn.Linear(a, b)) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.condition = ConditionEmbedding(width, classes=classes, dimensions=conditions)
        self.out = zero_(nn.Linear(width, dimensions if outputs is None else outputs))

    def forward(
        self,
        z: Float[Tensor, "batch dimensions"],
        gamma: Float[Tensor, " batch"],
        condition: Shaped[Tensor, "batch *condition"] | None = None,
    ) -> Float[Tensor, "batch outputs"]:
        """The network's output.

        Args:
            z: (batch, dimensions).
            gamma: (batch,).
            condition: of each example, None for none.
        Returns:
            (batch, outputs).
        """
        phase = gamma[:, None] / 8
        features = [phase] + [f(phase * 2**k) for k in range(4) for f in (torch.sin, torch.cos)]
        h = torch.cat([z, *features], dim=1)
        h = _layers(self.dense, h, self.condition(condition, h))
        y: Tensor = self.out(h)
        return torch.tanh(y) if self.bounded else y
