"""What a model says of the unknown x_t and x_t', and by how much it errs."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Estimates:
    """x_hat ~ E[x_t | z_t] and r_hat ~ E[x_t' | z_t], each of z's shape (batch, *data).

    Attributes:
        x_hat: the estimate of encoded data.
        r_hat: the estimate of their rate in log-SNR.
    """

    x_hat: Float[Tensor, "batch *data"]
    r_hat: Float[Tensor, "batch *data"]


@dataclass(frozen=True)
class Errors:
    """x_t - x_hat and x_t' - r_hat, each of z's shape (batch, *data).

    Attributes:
        x: the error of x_hat.
        r: the error of r_hat.
    """

    x: Float[Tensor, "batch *data"]
    r: Float[Tensor, "batch *data"]
