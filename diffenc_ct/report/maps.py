"""Where the bits of an example are, and at which noise level: the bound's terms of every dimension, split by depth."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diffenc_ct.distributed import Work
from diffenc_ct.elbo import Bound, Draws, InfiniteDepth, Maps, elbo
from diffenc_ct.model import DiffEnc, evaluating
from diffenc_ct.training.randomness import EVALUATION, generator_for


@dataclass(frozen=True)
class BitMaps:
    """Bits of every dimension: their mean over an example's dimensions is its bits per dimension.

    Attributes:
        reconstruction: L_0, (N, *data).
        diffusion: L_T or L_inf between neighbouring edges, (N, bins, *data); its sum over bins is the whole.
        latent: L_1, (N, *data).
        gamma: -log SNR at the edges, (bins + 1,), from the data's end.
    """

    reconstruction: Float[Tensor, "N *data"]
    diffusion: Float[Tensor, "N bins *data"]
    latent: Float[Tensor, "N *data"]
    gamma: Float[Tensor, " edges"]

    @property
    def total(self) -> Float[Tensor, "N *data"]:
        """All of a dimension's bits."""
        return self.reconstruction + self.diffusion.sum(1) + self.latent

    @property
    def by_depth(self) -> Float[Tensor, "N bins"]:
        """Bits per dimension of each example between neighbouring edges: its spectrum over noise levels."""
        return self.diffusion.flatten(2).mean(2)


@torch.no_grad()
def bit_maps(
    model: DiffEnc,
    images: Shaped[Tensor, "N *data"],
    bound: Bound | None = None,
    *,
    bins: int = 8,
    draws: int = 64,
    seed: int = 0,
    work: Work | None = None,
) -> BitMaps:
    """The bound's terms before their sum over dimensions, means over draws.

    Each example has draws of its own, stratified over depth; bins are equal in depth t.

    Args:
        model: DiffEnc, given the images' conditions if it takes some.
        images: levels or reals.
        bound: InfiniteDepth() by default, or FiniteDepth(...), whose steps belong to the bin that t falls into.
        bins: of depth.
        draws: of depth and noise an image, at least as many as bins.
        seed: of the draws.
        work: batches (of 250 by default), progress (counts images), processes.

    Raises:
        ValueError: for no images, no bin, or fewer draws than bins.

    Example:
        >>> import diffenc_ct as dc
        >>> from diffenc_ct.data import load_dataset
        >>> found = bit_maps(dc.load("digits-vdm"), load_dataset("digits").test[:2], bins=4, draws=8)
        >>> found.total.shape, found.by_depth.shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 4]))
    """
    if bins < 1 or draws < bins or not len(images):
        raise ValueError(
            f"{len(images)} images, bins={bins}, draws={draws}: at least 1 each, and as many draws as bins"
        )
    work, bound = Work(250) if work is None else work, InfiniteDepth() if bound is None else bound
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def part(start: int) -> list[Tensor]:
        """Of a batch: reconstruction, diffusion by bin, latent, on the CPU."""
        some = slice(start, start + work.batch_size)
        x, told = images[some].to(device), model.rows(some)
        generator = generator_for(seed, EVALUATION, start, device=device)
        first = torch.rand(len(x), generator=generator, device=device)
        ends = [torch.zeros(()), torch.zeros(())]
        diffusion: Tensor | None = None
        for draw in range(draws):
            t = (first + draw / draws) % 1
            terms = elbo(told, x, bound, draws=Draws(t=t), generator=generator).bits_per_dimension()
            each = terms.per_dimension
            assert isinstance(each, Maps)
            if diffusion is None:
                diffusion = each.diffusion.new_zeros(len(x), bins, *each.diffusion.shape[1:])
            cell = (t * bins).long().clamp(max=bins - 1)
            diffusion[torch.arange(len(x), device=device), cell] += each.diffusion / draws
            ends = [
                total.to(each.latent) + term / draws
                for total, term in zip(ends, (each.reconstruction, each.latent), strict=True)
            ]
        assert diffusion is not None
        work.progress(len(x))
        return [values.cpu() for values in (ends[0], diffusion, ends[1])]

    with evaluating(model):
        found = work.processes.spread(part, range(0, len(images), work.batch_size))
        like = model.scale(images[:1].to(device))
        edges = torch.linspace(0, 1, bins + 1, dtype=like.dtype, device=device)
        gamma = model.schedule(edges).gamma.cpu()
    reconstruction, diffusion, latent = (torch.cat(each) for each in zip(*found, strict=True))
    return BitMaps(reconstruction, diffusion, latent, gamma)
