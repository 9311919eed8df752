"""Anybody's network as a model of this library: the ELBO, the exact likelihood of its flow, samples, calibration.

    noise = dc.adapters.Table.of_betas(betas)
    model = dc.adapt(network, predicts="eps", schedule=noise, decoder=dc.Levels(256, ends=True))

The network was trained at z = a(t) x + b(t) eps; see `native` for its process, `heads` for how its output is read. What
comes out is a DiffEnc with the identity encoder, and nothing else in the library knows where it came from.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffenc_ct.adapters.heads import AdaptedHeads, Call, NativePredicts
from diffenc_ct.adapters.native import NativeProcess
from diffenc_ct.encoders import IdentityEncoder
from diffenc_ct.model import Decoder, DiffEnc


class _Function(nn.Module):
    """A function in the place of a network."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *arguments: Tensor) -> Any:
        return self.function(*arguments)


def adapt(
    network: nn.Module | Callable[..., Tensor],
    *,
    predicts: NativePredicts,
    schedule: NativeProcess,
    decoder: Decoder,
    call: Call | None = None,
    shape: tuple[int, ...] | None = None,
) -> DiffEnc:
    """A model made of a network that was trained elsewhere, in evaluation mode.

    Bounds and likelihoods are those of data from the network's least noise on: where that is coarse beside the levels
    of the data, the reconstruction term says what it costs, and a warning does.

    Args:
        network: a module, or a function, network(z, t) -> z's shape, in its own scaling of z and its own time t.
        predicts: what it estimates: "eps", "x0", "v" (a eps - b x), "score" (of z), "velocity" (a' x + b' eps), or
            "denoiser" (D(z; sigma), the same as "x0").
        schedule: the process that it was trained on, such as Table.of_betas(betas), Cosine(), VarianceExploding(),
            RectifiedFlow(), Pair(a, b, start, end), all of `dc.adapters`.
        decoder: of the data on the network's scale: Levels(256, ends=True) for bytes that it saw as x/127.5 - 1,
            Levels(256) for the centres of their bins, Reals() for floats as they are, or Standardised(mean, deviation)
            for floats that it saw as (x - mean)/deviation.
        call: call(network, z, t) where network(z, t) is not how it is called: labels, keywords, outputs in a wrapper.
            With a fourth argument, condition=None, it is what `model.given(condition)` says of each example.
        shape: of one example, where it is known; then the network is tried at once.
    Returns:
        DiffEnc: a model whose gamma is linear in depth over the network's range of noise. `FiniteDepth(table.depths())`
            is the bound of a table's own steps.
    Raises:
        TypeError: for a schedule or decoder of another kind.
        ValueError: for an unknown `predicts`, and where the network cannot be called or returns another shape, at once
            where the shape is given, else at the first call.
    Example:
        >>> import torch, diffenc_ct as dc
        >>> network = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.SiLU(), torch.nn.Linear(16, 2))
        >>> flow = dc.adapters.RectifiedFlow(data_at=1)  # the convention of torchcfm
        >>> model = dc.adapt(
        ...     network, predicts="velocity", schedule=flow, decoder=dc.Reals(), call=lambda net, z, t: net(z)
        ... )
        >>> dc.log_likelihood(model, torch.zeros(3, 2)).nats.shape
        torch.Size([3])
    """
    if not isinstance(schedule, NativeProcess):
        raise TypeError(
            f"schedule is a {type(schedule).__name__}; give a process of dc.adapters, such as Table.of_betas(betas), "
            "VarianceExploding() or RectifiedFlow()"
        )
    module = network if isinstance(network, nn.Module) else _Function(network)
    heads = AdaptedHeads(module, schedule, predicts, call)
    depths = schedule.schedule()
    kinds = [t.dtype for t in module.parameters()] or [t.dtype for t in module.buffers()]
    floats = [kind for kind in kinds if kind.is_floating_point]
    # In single precision where the network's is lower, in double where nothing says otherwise.
    dtype = torch.promote_types(floats[0], torch.float32) if floats else torch.float64
    device = next((t.device for t in (*module.parameters(), *module.buffers())), None)
    model = DiffEnc(depths.to(device, dtype), IdentityEncoder(), heads, decoder, shape=shape)
    _warn_of_coarse_noise(decoder, depths.fixed_start)
    if shape is not None:
        heads.try_on(shape, dtype, device)
    return model.eval()


def _warn_of_coarse_noise(decoder: Decoder, gamma_0: float) -> None:
    """Say what it costs where the least noise is wider than half the distance of two levels."""
    width, noise = decoder.width, math.exp(gamma_0 / 2)
    if width is None or noise <= width / 2:
        return
    # What is left of a value's entropy under noise of that many levels, at most that of all levels.
    levels = noise / width * math.sqrt(2 * math.pi * math.e)
    lost = math.log2(min(max(levels, 1.0), decoder.levels or math.inf))
    warnings.warn(
        f"the network's least noise, sigma_0 = {noise:.3g}, is more than half the distance {width:.3g} of two levels: "
        "no decoder can tell neighbouring levels apart, which costs every bound about "
        f"{lost:.1f} bits per dimension; see its `reconstruction`",
        stacklevel=3,
    )
