"""What is shown of images: grey or colour values, encodings over depth."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diffenc_ct.model import DiffEnc, evaluating


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether an example can be shown: channels (one or three), height, width.

    Args:
        shape: of one example.

    Example:
        >>> is_picture((3, 8, 8)), is_picture((2,)), is_picture((2, 8, 8))
        (True, False, False)
    """
    return len(shape) == 3 and shape[0] in (1, 3)


def as_values(x: Shaped[Tensor, "*shape"], levels: int | None) -> Float[Tensor, "*shape"]:
    """Grey or colour values in [0, 1].

    Args:
        x: levels 0..levels - 1, or reals, which are cut to (-1, 1).
        levels: how many there are, None for reals.

    Example:
        >>> as_values(torch.tensor([0, 1, 2]), 3)
        tensor([0.0000, 0.5000, 1.0000])
    """
    return (x.clamp(-1, 1) + 1) / 2 if levels is None else x / (levels - 1)


@torch.no_grad()
def encodings(
    model: DiffEnc, images: Shaped[Tensor, "images *data"], depths: int = 8
) -> Float[Tensor, "images depths *data"]:
    """x_t of images at equally spaced t from 0 to 1.

    Args:
        model: whose encoder it is.
        images: levels or reals, as its decoder has them.
        depths: how many.
    """
    x = model.scale(images.to(next(model.parameters()).device))
    gammas = [model.schedule.at(t, x).gamma for t in torch.linspace(0, 1, depths).tolist()]
    with evaluating(model):
        return torch.stack([model.encoder.encode(x, gamma.expand(len(x))) for gamma in gammas], 1)
