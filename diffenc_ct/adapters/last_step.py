"""DDPM's own last step: a decoder that asks the network once more.

Where the least noise hides levels, p(x | z_0) of `Levels` cannot tell neighbours apart. Ho et al. let the network look
at z_0 and take the mass of each level's bin under what it says,

    p(x | z_0) = prod_i [Phi((x_i + h/2 - x_hat_i)/sigma_0) - Phi((x_i - h/2 - x_hat_i)/sigma_0)],    x_hat = x_hat(z_0)

with h the levels' distance and the outer bins open to infinity. Any p(x | z_0) makes a bound. With it the bound of a
table's own steps is DDPM's variational bound, term by term.

Reference: Ho et al. 2020, equation 13; its mean mu_theta(x_1, 1) is x_hat, its variance beta_1 = sigma_0^2.
"""

import copy
import math

import torch
from torch import Tensor, nn

from diffenc_ct.encoders import IdentityEncoder
from diffenc_ct.model import Decoder, DiffEnc, Heads, Levels
from diffenc_ct.model.decoder import Data, Latents, Scalar
from diffenc_ct.process import Estimates
from diffenc_ct.schedules import alpha, sigma


class LastStep(nn.Module, Decoder):
    """Levels decoded from what heads say at z_0.

    Args:
        levels: where they lie.
        heads: of the model, of data that are not encoded.
        gamma_0: where the model begins.
    """

    levels: int

    def __init__(self, levels: Levels, heads: Heads, gamma_0: float) -> None:
        super().__init__()
        self.levels, self.width, self.mark = levels.levels, levels.width, levels.mark + "last step"
        self.places, self.heads, self.gamma_0 = levels, heads, gamma_0

    def check(self, x: Data) -> None:
        """As of the levels."""
        self.places.check(x)

    def scale(self, x: Data, dtype: torch.dtype) -> Latents:
        """As of the levels."""
        return self.places.scale(x, dtype)

    def log_probs(
        self, x: Data, u: Latents, gamma_0: Scalar, start: float | None = None
    ) -> Latents:
        """The bins' log masses about x_hat."""
        off = self.scale(x, u.dtype) - self._estimate(u, gamma_0)
        low, high = ((off + side * self.places.width / 2) / sigma(gamma_0) for side in (-1, 1))
        low = torch.where(x == 0, -math.inf, low)
        high = torch.where(x == self.levels - 1, math.inf, high)
        return _log_mass(low, high)

    def most_probable(self, u: Latents) -> Data:
        """The level nearest to x_hat."""
        return self.places.most_probable(self._estimate(u, u.new_tensor(self.gamma_0)))

    def draw(self, u: Latents, gamma_0: Scalar, generator: torch.Generator | None = None) -> Data:
        """The level nearest to x_hat + sigma_0 eps."""
        x_hat = self._estimate(u, gamma_0)
        noise = torch.randn(u.shape, dtype=u.dtype, device=u.device, generator=generator)
        return self.places.most_probable(x_hat + sigma(gamma_0) * noise)

    def _estimate(self, u: Tensor, gamma_0: Tensor) -> Tensor:
        z_0, gamma = alpha(gamma_0) * u, gamma_0.to(u).expand(len(u))
        found: Estimates = self.heads(z_0, gamma, IdentityEncoder())
        return found.x_hat


def with_last_step(model: DiffEnc) -> DiffEnc:
    """The same model with DDPM's own decoder, which asks the network at z_0.

    Args:
        model: of levels and the identity encoder, such as `adapt` makes. Conditions that it is given are the
            decoder's, too; those given afterwards are not.
    Raises:
        ValueError: for a model of reals.
    Example:
        >>> import diffenc_ct as dc
        >>> table = dc.adapters.Table.of_betas(torch.linspace(0.01, 0.3, 50))
        >>> model = dc.adapt(lambda z, t: z, predicts="eps", schedule=table, decoder=dc.Levels(16, ends=True))
        >>> own = with_last_step(model)
        >>> dc.elbo(own, torch.randint(0, 16, (4, 3)), dc.FiniteDepth(table.depths())).total.shape
        torch.Size([4])
    """
    if not isinstance(model.decoder, Levels):
        raise ValueError(
            f"the last step decodes levels, but the model's decoder is {type(model.decoder).__name__}; adapt it with "
            "decoder=dc.Levels(...)"
        )
    start = float(model.schedule.at(0.0, torch.zeros((), dtype=torch.float64)).gamma)
    found = copy.copy(model)
    found._modules = model._modules | {"decoder": LastStep(model.decoder, model.heads, start)}
    found.__dict__.pop("decoder", None)
    return found


def _log_mass(low: Tensor, high: Tensor) -> Tensor:
    """ln(Phi(high) - Phi(low)), high > low, without cancellation in either tail."""
    flip = low + high > 0
    low, high = torch.where(flip, -high, low), torch.where(flip, -low, high)
    top: Tensor = torch.special.log_ndtr(high)
    return top + torch.log1p(-torch.exp(torch.special.log_ndtr(low) - top))
