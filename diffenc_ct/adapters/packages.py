"""Networks of other packages: what their objects say of themselves, read once and given to `adapt`. See `hugging_face`.

    edm                            D(z; sigma), as NVIDIA's networks and all that are preconditioned like them
    denoising_diffusion_pytorch    GaussianDiffusion: its table, objective and scaling of images
    azula                          a denoiser, the posterior mean at (z, t), and its schedule's alpha and sigma
    flow_matching                  a velocity from noise at t = 0 to data at t = 1: flow_matching, torchcfm

Objects come from packages that whoever has them has installed: none is imported here. What they are is told by what
they have, not by their classes, so that a user's own scheduler of the same face will do.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffenc_ct.adapters.adapt import adapt
from diffenc_ct.adapters.heads import Call, NativePredicts
from diffenc_ct.adapters.native import Pair
from diffenc_ct.adapters.processes import RectifiedFlow, Table, VarianceExploding
from diffenc_ct.model import Decoder, DiffEnc, Levels, Reals

_LUCIDRAINS: dict[str, NativePredicts] = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}
# Of bytes that a network sees as x/127.5 - 1, which all packages here do with images.
BYTES = Levels(256, ends=True)


def edm(
    network: nn.Module | Callable[..., Tensor],
    *,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    decoder: Decoder = BYTES,
    conditions: Mapping[str, Any] | None = None,
    call: Call | None = None,
    shape: tuple[int, ...] | None = None,
) -> DiffEnc:
    """A denoiser D(z; sigma) of z = x + sigma eps, preconditioned, as a model.

    Args:
        network: called as network(z, sigma, **conditions).
        sigma_min: the least noise; by default the network's own, or EDM's 0.002.
        sigma_max: the most; by default the network's own, or EDM's 80.
        decoder: of the data on the network's scale.
        conditions: keywords for every call, such as class_labels (one-hot in EDM); tensors of one example are those of
            all.
        call: call(network, z, sigma), where that is not how it is called.
        shape: of one example; by default the network's img_channels and img_resolution.
    Raises:
        ValueError: as `adapt`.
    Example:
        >>> import torch, diffenc_ct as dc
        >>> data = lambda z, sigma: z / (1 + sigma[:, None] ** 2)  # E[x | z] of standard normal data
        >>> model = edm(data, decoder=dc.Reals(), shape=(2,))
        >>> found = dc.log_likelihood(model, torch.zeros(1, 2, dtype=torch.float64)).nats
        >>> found.round(decimals=2)  # -ln 2 pi
        tensor([-1.8400], dtype=torch.float64)
    """
    ends = (
        _finite(network, "sigma_min", sigma_min, 0.002),
        _finite(network, "sigma_max", sigma_max, 80.0),
    )
    facts: Any = network
    if shape is None and hasattr(facts, "img_resolution"):
        shape = (facts.img_channels, facts.img_resolution, facts.img_resolution)
    given = expanded(conditions or {})
    return adapt(
        network,
        predicts="denoiser",
        schedule=VarianceExploding(*ends),
        decoder=decoder,
        call=call or (lambda net, z, sigma: net(z, sigma, **given(z))),
        shape=shape,
    )


def denoising_diffusion_pytorch(
    diffusion: Any, *, decoder: Decoder | None = None, rounded: bool = False
) -> DiffEnc:
    """lucidrains' GaussianDiffusion, as a model of images.

    Its images are in (0, 1) and, with auto_normalize, 2 x - 1 for the network: bytes k there are 2 k/255 - 1.

    Args:
        diffusion: GaussianDiffusion or GaussianDiffusion1D.
        decoder: of the data on the network's scale; Levels(256, ends=True) by default.
        rounded: whether times are whole numbers, as in its own training.
    Raises:
        ValueError: where images are not scaled to (-1, 1) and no decoder is given, and as `adapt`.
    """
    half = torch.full((1,), 0.5)
    if decoder is None and float(diffusion.normalize(half)) != 0:
        raise ValueError(
            "auto_normalize=False: the network sees data as they are given; say by decoder= what they are, such as "
            "Reals() or Standardised(mean, deviation)"
        )
    size = getattr(diffusion, "image_size", None) or (diffusion.seq_length,)
    return adapt(
        diffusion.model,
        predicts=_LUCIDRAINS[diffusion.objective],
        schedule=Table.of_alphas_cumprod(diffusion.alphas_cumprod, rounded=rounded),
        decoder=decoder or BYTES,
        shape=(diffusion.channels, *size),
    )


def azula(
    denoiser: nn.Module,
    *,
    decoder: Decoder = BYTES,
    conditions: Mapping[str, Any] | None = None,
    shape: tuple[int, ...] | None = None,
) -> DiffEnc:
    """A denoiser of azula, the mean of its posterior at (z, t), on its own schedule, as a model.

    Args:
        denoiser: with a `schedule`, t -> (alpha, sigma) on [0, 1].
        decoder: of the data on the denoiser's scale.
        conditions: keywords for every call; tensors of one example are those of all.
        shape: of one example, where it is known.
    Raises:
        ValueError: as `adapt`.
    """
    schedule: Any = denoiser.schedule
    given = expanded(conditions or {})
    return adapt(
        denoiser,
        predicts="x0",
        schedule=Pair(lambda t: schedule(t)[0], lambda t: schedule(t)[1], 0.0, 1.0),
        decoder=decoder,
        call=lambda net, z, t: net(z, t, **given(z)).mean,
        shape=shape,
    )


def flow_matching(
    velocity: nn.Module | Callable[..., Tensor],
    *,
    decoder: Decoder | None = None,
    margin: float = 1e-5,
    data_at: int = 1,
    conditions: Mapping[str, Any] | None = None,
    call: Call | None = None,
    shape: tuple[int, ...] | None = None,
) -> DiffEnc:
    """A velocity on straight lines from noise at t = 0 to data at t = 1, as a model: flow_matching, torchcfm.

    Its flow is the network's own ODE. Where pairs of noise and data were matched in training (minibatch optimal
    transport) the likelihood of the flow is as good as ever, but the ELBO, whose noise is independent of the data, is
    loose.

    Args:
        velocity: called as velocity(z, t, **conditions).
        decoder: of the data on the network's scale; Reals() by default.
        margin: how far from the lines' ends, where the log SNR is infinite, the model stays.
        data_at: 0 where the data are at t = 0.
        conditions: keywords for every call; tensors of one example are those of all.
        call: call(velocity, z, t) where that is not how it is called.
        shape: of one example, where it is known.
    Raises:
        ValueError: as `adapt`.
    Example:
        >>> import torch, diffenc_ct as dc
        >>> at_rest = lambda z, t: z * ((2 * t - 1) / (t**2 + (1 - t) ** 2))[:, None]  # standard normal data
        >>> model = flow_matching(at_rest, shape=(1,))
        >>> found = dc.log_likelihood(model, torch.zeros(1, 1, dtype=torch.float64)).nats
        >>> found.round(decimals=3)  # -ln(2 pi)/2
        tensor([-0.9190], dtype=torch.float64)
    """
    given = expanded(conditions or {})
    return adapt(
        velocity,
        predicts="velocity",
        schedule=RectifiedFlow(data_at=data_at, margin=margin),
        decoder=decoder or Reals(),
        call=call or (lambda net, z, t: net(z, t, **given(z))),
        shape=shape,
    )


def expanded(conditions: Mapping[str, Any]) -> Callable[[Tensor], dict[str, Any]]:
    """The conditions of a batch: tensors of one example for all of its examples."""

    def of(z: Tensor) -> dict[str, Any]:
        return {
            name: value.to(z.device).expand(len(z), *value.shape[1:])
            if isinstance(value, Tensor) and value.ndim and len(value) == 1
            else value
            for name, value in conditions.items()
        }

    return of


def _finite(network: Any, name: str, given: float | None, otherwise: float) -> float:
    own = float(getattr(network, name, otherwise)) if given is None else given
    return own if 0 < own < math.inf else otherwise
