"""One call for every bound on -log p(x)."""

import torch
from jaxtyping import Shaped
from torch import Tensor

from diffenc_ct.elbo.finite import FiniteDepth
from diffenc_ct.elbo.infinite import InfiniteDepth
from diffenc_ct.elbo.terms import Draws, Model, Terms

Bound = InfiniteDepth | FiniteDepth


def elbo(
    model: Model,
    x: Shaped[Tensor, "batch *data"],
    bound: Bound | None = None,
    *,
    draws: Draws | None = None,
    generator: torch.Generator | None = None,
) -> Terms:
    """An unbiased one-sample estimate of every ELBO term, for each example, in nats.

    -log p(x) <= L_0 + L_1 + L_T.

    Args:
        model: DiffEnc.
        x: data, levels or reals as the model's decoder has it.
        bound: InfiniteDepth(...) (the default) or FiniteDepth(...).
        draws: given depths and noises in the place of random ones.
        generator: of everything else.

    Returns:
        Terms: reconstruction, diffusion, latent and their total, (batch,) each.

    Raises:
        TypeError: where levels meet floats or reals meet integers.
        ValueError: where a level is not in 0..V-1, and for bad shapes.

    Example:
        >>> import torch, diffenc_ct as dc
        >>> model = dc.DiffEnc(
        ...     dc.LinearSchedule(), dc.IdentityEncoder(), dc.Single(dc.networks.MLP(4)), dc.Levels(16)
        ... )
        >>> terms = dc.elbo(model, torch.randint(0, 16, (8, 4)), dc.FiniteDepth(50, ratio=1.05))
        >>> terms.bits_per_dimension().total.shape
        torch.Size([8])
    """
    model.decoder.check(x)
    return (InfiniteDepth() if bound is None else bound).terms(model, x, draws, generator)
