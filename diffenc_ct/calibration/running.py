"""eta* from running estimates, for training at the optimal noise level.

Everything stays on the device of what is counted: a training step does not wait for it.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.calibration._tightness import optimal_eta_squared, squares
from diffenc_ct.process import Errors, NoiseLevel, TabulatedNoiseLevel


class RunningNoiseLevel(NoiseLevel):
    """eta* from running estimates of a, b, c in equal bins of gamma.

    eta is 1 until every bin has been seen, and eta^2 stays within 1/4 and 16 whatever a young model does. Theorem:
    calibration.optimal_noise_level.

    Args:
        gamma_min: where the bins begin.
        gamma_max: where they end.
        bins: how many, at least 2.
        decay: of what was seen, at every update.

    Attributes:
        moments: exponentially decayed sums of a, b, c, (bins, 3); only their ratios matter.

    Raises:
        ValueError: for fewer than two bins, or a decay outside (0, 1).
    """

    def __init__(
        self, gamma_min: float, gamma_max: float, *, bins: int = 20, decay: float = 0.99
    ) -> None:
        if bins < 2 or not 0 < decay < 1:
            raise ValueError(f"bins={bins} >= 2 and decay={decay} in (0, 1) are required")
        self.edges = torch.linspace(gamma_min, gamma_max, bins + 1, dtype=torch.float64)
        self.decay = decay
        self.moments = torch.zeros(bins, 3, dtype=torch.float64)

    def to(self, device: str | torch.device) -> "RunningNoiseLevel":
        """Itself, with its numbers on that device.

        Args:
            device: of the tensors that `count` is to see.
        """
        self.edges, self.moments = self.edges.to(device), self.moments.to(device)
        return self

    def count(self, gamma: Float[Tensor, " batch"], errors: Errors) -> Float[Tensor, "bins 3"]:
        """Sums of ||x_t - x_hat||^2, ||x_t' - r_hat||^2 and their inner product over a batch, by bin.

        Args:
            gamma: of each example.
            errors: there.
        """
        cell = torch.bucketize(gamma.detach().double(), self.edges[1:-1])
        found = torch.stack([v.double() for v in squares(errors)], 1)
        return torch.zeros_like(self.moments).index_add_(0, cell, found)

    def update(self, counted: Float[Tensor, "bins 3"]) -> None:
        """Take in what was counted.

        Args:
            counted: what `count` returned, of one batch or summed over several.
        """
        self.moments = self.decay * self.moments + counted

    def table(self) -> TabulatedNoiseLevel:
        """The present eta* as a table."""
        a, b, c = self.moments.unbind(1)
        found = optimal_eta_squared(a, b, c).clamp(0.25, 16)
        eta_squared = torch.where((a > 0).all(), found, torch.ones_like(found))
        return TabulatedNoiseLevel.unchecked((self.edges[1:] + self.edges[:-1]) / 2, eta_squared)

    def squared(self, gamma: Tensor) -> Tensor:
        return self.table().squared(gamma)

    def integral(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
        return self.table().integral(gamma_s, gamma_t)
