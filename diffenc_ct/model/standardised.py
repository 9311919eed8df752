"""Reals of any scale: standardised for the model, with a density that is the data's own.

    y = (x - mean)/deviation,   log p(x | z_0) = log N(y; z_0/alpha_0, exp(gamma_0) I) - sum_i ln deviation_i

mean and deviation are those of training examples, of each dimension of vectors and of each channel of images. They are
part of the model, as its weights are: other data are scaled by the same numbers, and every bound and density is one
of the data as they are given.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffenc_ct.model.decoder import Data, Decoder, Latents, Reals, Scalar


class Standardised(nn.Module, Decoder):
    """Floats of any scale, less their mean and over their deviation.

    Args:
        mean: of each dimension (d,), or of each channel (C,) of images.
        deviation: of the same, positive.
    Raises:
        ValueError: for different shapes, and for what is constant: it has no density.
    Example:
        >>> decoder = Standardised(torch.tensor([10.0]), torch.tensor([2.0]))
        >>> decoder.scale(torch.tensor([[12.0], [10.0]]), torch.float32).tolist()
        [[1.0], [0.0]]
    """

    levels = None
    mean: Tensor
    deviation: Tensor

    def __init__(
        self, mean: Float[Tensor, " channels"], deviation: Float[Tensor, " channels"]
    ) -> None:
        super().__init__()
        if mean.shape != deviation.shape or mean.ndim != 1:
            raise ValueError(
                f"mean of shape {tuple(mean.shape)}, deviation {tuple(deviation.shape)}; give one of each for every "
                "dimension or channel"
            )
        if not bool((deviation > 0).all()):
            constant = int((~(deviation > 0)).nonzero()[0])
            raise ValueError(
                f"dimension or channel {constant} has deviation {deviation[constant].item():g}: what is constant has "
                "no density; remove it from the data"
            )
        self.reals = Reals()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    def check(self, x: Data) -> None:
        """Refuse integers."""
        self.reals.check(x)

    def scale(self, x: Data, dtype: torch.dtype) -> Latents:
        """(x - mean)/deviation."""
        x = self.reals.scale(x, dtype)
        return (x - self._along(self.mean, x)) / self._along(self.deviation, x)

    def log_jacobian(self, x: Data) -> Scalar:
        """-sum ln deviation over all dimensions of an example."""
        each = x[0].numel() // len(self.deviation)
        return -each * self.deviation.double().log().sum()

    def log_probs(
        self, x: Data, u: Latents, gamma_0: Scalar, start: float | None = None
    ) -> Latents:
        """The Gaussian's log-density of the data as they are given. Theorem: model.continuous_decoder."""
        standard = self.reals.log_probs(self.scale(x, u.dtype), u, gamma_0, start)
        return standard - self._along(self.deviation.double().log(), standard)

    def most_probable(self, u: Latents) -> Latents:
        """mean + deviation u."""
        return self._along(self.mean, u) + self._along(self.deviation, u) * u

    def draw(
        self, u: Latents, gamma_0: Scalar, generator: torch.Generator | None = None
    ) -> Latents:
        """mean + deviation (u + exp(gamma_0/2) eps)."""
        return self.most_probable(self.reals.draw(u, gamma_0, generator))

    def _along(self, values: Tensor, x: Tensor) -> Tensor:
        """Beside examples (batch, channels, ...)."""
        return values.to(x).reshape(-1, *[1] * (x.ndim - 2))
