"""The process that somebody else's network was trained on, in its own time and scaling.

    z = a(t) x + b(t) eps,      a, b >= 0,      lambda = 2 ln(a/b) = -gamma monotone in t

is this library's z_VP = alpha x + sigma eps times s = sqrt(a^2 + b^2), at gamma = 2 ln(b/a):

    alpha = a/s,      sigma = b/s,      t = the time at which gamma is reached

A time may run either way, and be told to the network on another scale, or rounded to whole numbers. Nothing here
depends on z: times are found without gradients, in float64.

Theorem: adapters.native_process.
Reference: Kingma et al. 2021, section 5.1 (processes of one log SNR differ by a scaling); Karras et al. 2022.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from diffenc_ct.adapters.tabulated import TabulatedSchedule
from diffenc_ct.schedules import alpha, sigma

Times = Float[Tensor, "*shape"]

# Where the log SNR is looked at, and how often an interval between two of these is halved: beyond float64's resolution.
_NODES, _HALVINGS = 1025, 54


@dataclass(frozen=True)
class NativePoint:
    """A native process at the gammas of a batch.

    Attributes:
        told: the time as the network is told it, (batch,), integers where it is rounded.
        a: the signal's scale, (batch,), in gamma's dtype.
        b: the noise's scale.
        slopes: gives da/dt and db/dt, where they are asked for.
    """

    told: Shaped[Tensor, " batch"]
    a: Float[Tensor, " batch"]
    b: Float[Tensor, " batch"]
    slopes: Callable[[], tuple[Tensor, Tensor]]


class NativeProcess(nn.Module, ABC):
    """z = a(t) x + b(t) eps from the time of least noise to that of most.

    Args:
        start: the time of least noise that the network was trained on.
        end: the time of most noise; it may be the smaller number.
        told: from a time t to what the network is told, such as `lambda t: 1000 * t`; t itself by default.
        rounded: whether the network takes whole numbers only. The rounded time is then told, at the exact gamma.
    Raises:
        ValueError: where the log SNR does not fall from start to end, or is infinite at one of them.
    """

    def __init__(
        self,
        start: float,
        end: float,
        *,
        told: Callable[[Tensor], Tensor] | None = None,
        rounded: bool = False,
    ) -> None:
        super().__init__()
        self.start, self.end = float(start), float(end)
        self.told, self.rounded = told, rounded

    @abstractmethod
    def coefficients(self, t: Times) -> tuple[Times, Times]:
        """a and b at native times, of t's shape, in torch's own operations.

        Args:
            t: times, float64.
        """

    def gamma(self, t: Times) -> Times:
        """2 ln(b/a) at native times."""
        a, b = self.coefficients(t)
        return 2 * (b.log() - a.log())

    def nodes(self) -> Float[Tensor, " n"]:
        """Times from the least noise to the most, at which the log SNR is looked at: float64."""
        return torch.linspace(self.start, self.end, _NODES, dtype=torch.float64)

    def check(self) -> None:
        """Refuse a log SNR that does not fall from `start` to `end`.

        Raises:
            ValueError: saying where, and by how much.
        """
        t = self.nodes()
        gamma = self.gamma(t)
        bad = (~gamma.isfinite()).nonzero()
        if len(bad):
            i = int(bad[0])
            a, b = (float(c[i]) for c in self.coefficients(t))
            raise ValueError(
                f"schedule: the log SNR at time {float(t[i]):g} is not finite (a = {a:g}, b = {b:g}); give times where "
                "there are signal and noise"
            )
        if not bool((gamma.diff() > 0).all()):
            i = int((gamma.diff() <= 0).nonzero()[0])
            raise ValueError(
                f"schedule: not monotone: the log SNR must fall from the time of least noise to that of most, but goes "
                f"from {-float(gamma[i]):.6g} to {-float(gamma[i + 1]):.6g} between times {float(t[i]):g} and "
                f"{float(t[i + 1]):g}"
            )

    def time(self, gamma: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The native time at which gamma is reached, by halving to the last digit; within [start, end].

        Args:
            gamma: float64.
        """
        t = self.nodes().to(gamma.device)
        cell = torch.searchsorted(self.gamma(t), gamma.contiguous()).clamp(1, len(t) - 1)
        low, high = t[cell - 1], t[cell]
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            below = self.gamma(middle) < gamma
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    @torch.no_grad()
    def forward(self, gamma: Float[Tensor, " batch"]) -> NativePoint:
        """The process at the gammas of this library's latents.

        Args:
            gamma: depths.
        """
        t = self.time(gamma.double())
        own_a, own_b = self.coefficients(t)
        # By the exact gamma: whatever rounding t has, latents of this library are of that noise.
        scale = torch.hypot(own_a, own_b).to(gamma)
        told = t if self.told is None else self.told(t)
        return NativePoint(
            told.round().long() if self.rounded else told,
            scale * alpha(gamma),
            scale * sigma(gamma),
            lambda: self._slopes(t, gamma),
        )

    def _slopes(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        da, db = torch.func.jvp(self.coefficients, (t,), (torch.ones_like(t),))[1]
        return da.to(like), db.to(like)

    def schedule(self) -> TabulatedSchedule:
        """gamma(t) of the model in its own depth t in [0, 1]: linear over the network's range of noise."""
        ends = torch.tensor([self.start, self.end], dtype=torch.float64)
        return TabulatedSchedule(self.gamma(ends))

    @property
    def mark(self) -> str:
        """What tells this process from others, for `fingerprint`."""
        return f"{type(self).__name__} {self.start} {self.end} {self.rounded}"


class Pair(NativeProcess):
    """Any pair of functions a(t), b(t); the time of a gamma is found numerically, to the last digit.

    Args:
        a: of times, a tensor; in torch's operations.
        b: likewise.
        start: the time of least noise.
        end: the time of most noise.
        told: from a time to what the network is told.
        rounded: whether the network takes whole numbers only.
    Raises:
        ValueError: where a/b does not fall from start to end.
    Example:
        >>> process = Pair(lambda t: 1 - t**2, lambda t: t, 0.001, 0.999)
        >>> point = process(torch.tensor([0.0], dtype=torch.float64))  # a = b at the golden ratio
        >>> point.told.round(decimals=6)
        tensor([0.6180], dtype=torch.float64)
    """

    def __init__(
        self,
        a: Callable[[Tensor], Tensor],
        b: Callable[[Tensor], Tensor],
        start: float,
        end: float,
        *,
        told: Callable[[Tensor], Tensor] | None = None,
        rounded: bool = False,
    ) -> None:
        super().__init__(start, end, told=told, rounded=rounded)
        self.a, self.b = a, b
        self.check()

    def coefficients(self, t: Times) -> tuple[Times, Times]:
        """a(t) and b(t)."""
        return self.a(t), self.b(t)
