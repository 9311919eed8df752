"""Networks of other packages: what their objects say of themselves, read once and given to `adapt`.

    diffusers                      a network and its scheduler: alphas_cumprod and prediction_type, EDM's
                                   preconditioning, or flow matching's straight line
    edm                            D(z; sigma), as NVIDIA's networks and all that are preconditioned like them
    denoising_diffusion_pytorch    GaussianDiffusion: its table, objective and scaling of images
    azula                          a denoiser, the posterior mean at (z, t), and its schedule's alpha and sigma
    flow_matching                  a velocity from noise at t = 0 to data at t = 1: flow_matching, torchcfm

Objects come from packages that whoever has them has installed: none is imported here. What they are is told by what
they have, not by their classes, so that a user's own scheduler of the same face will do.

Everything a package does at sampling only (thresholds, clipping, guidance, spacings of steps) is left out: it has no
likelihood.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from diffenc_ct.adapters.adapt import adapt
from diffenc_ct.adapters.heads import Call, NativePredicts
from diffenc_ct.adapters.native import NativeProcess, Pair
from diffenc_ct.adapters.processes import RectifiedFlow, Table, VarianceExploding
from diffenc_ct.model import Decoder, DiffEnc, Levels, Reals
from diffenc_ct.schedules import expand

_DIFFUSERS: dict[str, NativePredicts] = {
    "epsilon": "eps",
    "sample": "x0",
    "original_sample": "x0",
    "v_prediction": "v",
    "flow_prediction": "velocity",
}
_LUCIDRAINS: dict[str, NativePredicts] = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}
# Of bytes that a network sees as x/127.5 - 1, which all packages here do with images.
BYTES = Levels(256, ends=True)


def diffusers(
    network: nn.Module,
    scheduler: Any,
    *,
    decoder: Decoder = BYTES,
    conditions: Mapping[str, Any] | None = None,
    rounded: bool = False,
    shape: tuple[int, ...] | None = None,
) -> DiffEnc:
    """A network of Hugging Face diffusers with the scheduler that it was trained with, as a model.

    Args:
        network: UNet2DModel, UNet2DConditionModel, DiTTransformer2DModel, or another that is called as
            network(z, t, **conditions) and returns its output first.
        scheduler: DDPM's, DDIM's, Euler's and others that have `alphas_cumprod`; EDM's; flow matching's.
        decoder: of the data on the network's scale.
        conditions: keywords for every call, such as class_labels or encoder_hidden_states; tensors of one example are
            those of all.
        rounded: whether times are whole numbers, for networks that embed them by a table.
        shape: of one example, where the network's configuration does not say it.
    Raises:
        ValueError: for a scheduler of another kind, and as `adapt`.
    """
    facts = scheduler.config
    call: Call = _first_output(conditions or {})
    predicts = _DIFFUSERS.get(getattr(facts, "prediction_type", "flow_prediction"))
    if predicts is None:
        raise ValueError(
            f"prediction_type {facts.prediction_type!r} is none of {', '.join(_DIFFUSERS)}; call dc.adapt(network, ...)"
        )
    process: NativeProcess
    if hasattr(facts, "sigma_data"):
        process, predicts = VarianceExploding(facts.sigma_min, facts.sigma_max), "denoiser"
        call = _preconditioned(scheduler, call)
    elif hasattr(scheduler, "alphas_cumprod"):
        process = Table.of_alphas_cumprod(scheduler.alphas_cumprod, rounded=rounded)
    elif hasattr(facts, "shift") and not getattr(facts, "invert_sigmas", False):
        steps, predicts = facts.num_train_timesteps, "velocity"
        # Shifts say which times are trained more, not what a time means.
        process = RectifiedFlow(margin=1 / steps, told=lambda t: steps * t)
    else:
        raise ValueError(
            f"scheduler {type(scheduler).__name__} has neither alphas_cumprod, nor EDM's sigma_data, nor flow "
            "matching's shift; describe its process to dc.adapt(network, schedule=..., predicts=...)"
        )
    return adapt(
        network,
        predicts=predicts,
        schedule=process,
        decoder=decoder,
        call=call,
        shape=shape or _shape_of(network),
    )


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
    given = _expanded(conditions or {})
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
    given = _expanded(conditions or {})
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
    given = _expanded(conditions or {})
    return adapt(
        velocity,
        predicts="velocity",
        schedule=RectifiedFlow(data_at=data_at, margin=margin),
        decoder=decoder or Reals(),
        call=call or (lambda net, z, t: net(z, t, **given(z))),
        shape=shape,
    )


def _expanded(conditions: Mapping[str, Any]) -> Callable[[Tensor], dict[str, Any]]:
    """The conditions of a batch: tensors of one example for all of its examples."""

    def of(z: Tensor) -> dict[str, Any]:
        return {
            name: value.to(z.device).expand(len(z), *value.shape[1:])
            if isinstance(value, Tensor) and value.ndim and len(value) == 1
            else value
            for name, value in conditions.items()
        }

    return of


def _first_output(conditions: Mapping[str, Any]) -> Call:
    given = _expanded(conditions)
    return lambda net, z, t: net(z, t, return_dict=False, **given(z))[0]


def _preconditioned(scheduler: Any, inner: Call) -> Call:
    """D(z; sigma) of a network that EDM's scheduler preconditions."""

    def call(network: Any, z: Tensor, sigma: Tensor) -> Tensor:
        noise = expand(sigma.to(z), z)
        out = inner(
            network, scheduler.precondition_inputs(z, noise), scheduler.precondition_noise(sigma)
        )
        found: Tensor = scheduler.precondition_outputs(z, out, noise)
        return found

    return call


def _shape_of(network: nn.Module) -> tuple[int, ...] | None:
    """(channels, height, width), as a diffusers network's configuration says it."""
    facts: Any = getattr(network, "config", None)
    size = getattr(facts, "sample_size", None)
    if size is None:
        return None
    return (facts.in_channels, *((size, size) if isinstance(size, int) else size))


def _finite(network: Any, name: str, given: float | None, otherwise: float) -> float:
    own = float(getattr(network, name, otherwise)) if given is None else given
    return own if 0 < own < math.inf else otherwise
