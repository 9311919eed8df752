"""Heads that ask somebody else's network, in its own time and scaling, and read what it says.

At z = a x + b eps every parameterisation is the estimate of one combination u = p x + q eps:

    "eps"       p = 0,  q = 1               "x0", "denoiser"   p = 1,  q = 0
    "v"         p = -b, q = a               "score"            p = 0,  q = -1/b
    "velocity"  p = a', q = b'   (u = dz/dt along x and eps, primes in the native time)

Two equations for two unknowns, so with D = a q - b p

    x_hat = (q z - b u)/D,        x - x_hat = (b/D) (u - p x - q eps)

The second is how errors are computed: nothing in it cancels at small noise but what the network's own output does.

Theorem: adapters.parameterisations.
Reference: Ho et al. 2020 (eps); Salimans and Ho 2022 (v); Song et al. 2021 (score); Karras et al. 2022 (denoiser);
Lipman et al. 2023 (velocity).
"""

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from diffenc_ct.adapters.native import NativePoint, NativeProcess
from diffenc_ct.encoders import Encoder, Encoding
from diffenc_ct.model import Heads, evaluating
from diffenc_ct.process import Errors, Estimates
from diffenc_ct.schedules import expand

NativePredicts = Literal["eps", "x0", "v", "score", "velocity", "denoiser"]
Data = Float[Tensor, "batch *data"]
Gammas = Float[Tensor, " batch"]
# call(network, z, t): the network's output at its own latents z (batch, *data) and times t (batch,); or, of a model
# that is given conditions, call(network, z, t, condition).
Call = Callable[..., Any]

# p and q of what the network estimates.
_READINGS: dict[NativePredicts, Callable[[NativePoint], tuple[Tensor, Tensor]]] = {
    "eps": lambda at: (torch.zeros_like(at.a), torch.ones_like(at.a)),
    "x0": lambda at: (torch.ones_like(at.a), torch.zeros_like(at.a)),
    "denoiser": lambda at: (torch.ones_like(at.a), torch.zeros_like(at.a)),
    "v": lambda at: (-at.b, at.a),
    "score": lambda at: (torch.zeros_like(at.a), -1 / at.b),
    "velocity": lambda at: at.slopes(),
}


class AdaptedHeads(Heads):
    """x_hat of a network that knows nothing of this library; r_hat = 0, since its data are not encoded.

    Args:
        network: any module, or a function.
        process: what it was trained on.
        predicts: what it estimates.
        call: call(network, z, t), where it is not network(z, t).
    Raises:
        ValueError: for an unknown `predicts`.
    """

    tells_apart = False

    def __init__(
        self,
        network: nn.Module,
        process: NativeProcess,
        predicts: NativePredicts,
        call: Call | None = None,
    ) -> None:
        super().__init__()
        if predicts not in get_args(NativePredicts):
            choices = ", ".join(map(repr, get_args(NativePredicts)))
            raise ValueError(f"predicts={predicts!r}; choose one of {choices}")
        self.network, self.process = network, process
        self.predicts, self.call = predicts, call
        self._tried, self._time_dtype = False, torch.float32

    @property
    def mark(self) -> str:
        """How the network is read."""
        return f"{self.predicts} {self.process.mark}"

    def forward(self, z: Data, gamma: Gammas, encoder: Encoder) -> Estimates:
        """x_hat = (q z - b u)/D at the native latents."""
        at = self.process(gamma.expand(len(z)))
        u = self._ask(z, at)
        p, q, native = *self._reading(at, z), expand(torch.hypot(at.a, at.b), z) * z
        a, b = expand(at.a, z), expand(at.b, z)
        x_hat = (q * native - b * u) / (a * q - b * p)
        return Estimates(x_hat, torch.zeros_like(x_hat))

    def errors(
        self, z: Data, noise: Data, encoding: Encoding, gamma: Gammas, encoder: Encoder
    ) -> Errors:
        """x - x_hat = (b/D) (u - p x - q eps)."""
        at = self.process(gamma.expand(len(z)))
        u = self._ask(z, at)
        p, q = self._reading(at, z)
        a, b = expand(at.a, z), expand(at.b, z)
        missed = u - (p * encoding.value + q * noise)
        return Errors(b / (a * q - b * p) * missed, encoding.rate)

    def _reading(self, at: NativePoint, z: Tensor) -> tuple[Tensor, Tensor]:
        p, q = _READINGS[self.predicts](at)
        return expand(p, z), expand(q, z)

    def _ask(self, z: Tensor, at: NativePoint) -> Tensor:
        """The network's output, of z's shape and dtype."""
        if not self._tried:
            self.try_on(z.shape[1:], z.dtype, z.device)
        native = expand(torch.hypot(at.a, at.b), z) * z
        out = self._output(native, at.told, self.known(z))
        return _first_half(out, z).to(z.dtype)

    def _output(self, native: Tensor, told: Tensor, condition: tuple[Tensor, ...]) -> Any:
        """What the network says in its own precision, whatever its shape."""
        if told.is_floating_point():
            told = told.to(self._time_dtype)
        native = native.to(_dtype(self.network, native.dtype))
        if self.call is None:
            return self.network(native, told, *condition)
        return self.call(self.network, native, told, *condition)

    def given(
        self, condition: Shaped[Tensor, "batch *condition"] | None, *, values: bool = True
    ) -> "Heads":
        """The same heads with what is known of each example, the last argument of `call`, or of the network.

        Args:
            condition: one an example; None for nothing.
            values: look at the condition's values.
        Raises:
            ValueError: where neither takes one.
        """
        if condition is None or self.call is None:
            return super().given(condition, values=values)
        try:
            inspect.signature(self.call).bind(self.network, condition, condition, condition)
        except TypeError:
            raise ValueError(
                "call takes no condition; give it call(network, z, t, condition=None)"
            ) from None
        found = copy.copy(self)
        found.condition = condition
        return found

    @torch.no_grad()
    def try_on(
        self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | None = None
    ) -> None:
        """Ask the network once, at both ends of its times and between them: what does not fit is said in one line.

        Times are given in single precision or better; to a network that takes none but its own lower precision, in
        that one.

        Args:
            shape: of an example.
            dtype: of the latents.
            device: where the network is.
        Raises:
            ValueError: where the network cannot be called, or returns another shape.
        """
        ends = self.process.schedule().table.detach()[[0, -1]]
        gamma = torch.stack([ends[0], ends.mean(), ends[1]]).to(device=device, dtype=dtype)
        at, values = self.process(gamma), 3 * torch.Size(shape).numel()
        z = torch.linspace(-1, 1, values, dtype=dtype, device=device).reshape(3, *shape)
        own, last = _dtype(self.network, dtype), None
        known = self.condition
        condition = () if known is None else (known[:1].expand(3, *known.shape[1:]).to(z.device),)
        for self._time_dtype in dict.fromkeys((torch.promote_types(own, torch.float32), own)):
            try:
                with evaluating(self.network):
                    out = self._output(z, at.told, condition)
            except Exception as error:
                # Memory is no fault of the network's, and who differentiates has other ways.
                if isinstance(error, MemoryError | torch.OutOfMemoryError) or "vmap" in str(error):
                    raise
                last = last or error
                continue
            break
        else:
            kind = "" if self.process.rounded else "; a network of whole times takes rounded=True"
            raise ValueError(
                f"the network cannot be called with z of shape {tuple(z.shape)}, {own}, and times "
                f"{[round(t, 6) for t in at.told.tolist()]} ({' '.join(str(last).split())[:200]}); give what it needs "
                f"by call=lambda network, z, t: ..., with labels in its range{kind}"
            ) from last
        if _first_half(out, z) is not out:
            warnings.warn(
                f"the network returned twice the channels, {tuple(out.shape)} for z of shape {tuple(z.shape)}: the "
                "second half, a learned variance, is ignored",
                stacklevel=2,
            )
        self._tried = True


def _dtype(network: nn.Module, otherwise: torch.dtype) -> torch.dtype:
    """In which the network computes."""
    tensors: Iterator[Tensor] = (
        t for part in (network.parameters(), network.buffers()) for t in part
    )
    return next((t.dtype for t in tensors if t.is_floating_point()), otherwise)


def _first_half(out: Any, z: Tensor) -> Tensor:
    """The output itself, or the first half of twice the channels."""
    if not isinstance(out, Tensor):
        raise ValueError(
            f"the network returned a {type(out).__name__}; let call= take the tensor out of it"
        )
    if out.shape == z.shape:
        return out
    if z.ndim > 1 and out.shape == (len(z), 2 * z.shape[1], *z.shape[2:]):
        return out[:, : z.shape[1]]
    raise ValueError(
        f"the network returned {tuple(out.shape)} for latents {tuple(z.shape)}; it must be their shape, or twice the "
        "channels where it learned a variance, too"
    )
