"""Noise schedules: how the log signal-to-noise ratio falls with depth.

A schedule is an increasing function gamma(t) of depth t in [0, 1] (0 = data, 1 = noise). Everything else
follows from it, variance preserving:

    lambda = -gamma = log SNR,      SNR = exp(-gamma)
    alpha^2 = sigmoid(-gamma),      sigma^2 = sigmoid(gamma),      alpha^2 + sigma^2 = 1
    beta = sigma^2 gamma'(t),       alpha'/alpha = -beta/2,        (sigma^2)' = alpha^2 beta

A schedule returns gamma(t) and gamma'(t) together, evaluated once. All functions of gamma use sigmoid,
never 1 - alpha^2, and are accurate over the whole range of float32 from gamma = -20 to 20.

Reference: Kingma, Salimans, Poole, Ho, "Variational Diffusion Models", 2021, section 3 and appendix H.
"""

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

# Gammas or depths: a scalar, one for each example, or a whole grid.
Depths = Float[Tensor, "*shape"]


def alpha2(gamma: Depths) -> Depths:
    """alpha^2 = sigmoid(-gamma), the signal's variance. Theorem: schedules.variance."""
    return torch.sigmoid(-gamma)


def sigma2(gamma: Depths) -> Depths:
    """sigma^2 = sigmoid(gamma), the noise's variance. Theorem: schedules.variance."""
    return torch.sigmoid(gamma)


def alpha(gamma: Depths) -> Depths:
    """alpha = sqrt(sigmoid(-gamma)), the signal's scale. Theorem: schedules.stable_forms."""
    return alpha2(gamma).sqrt()


def sigma(gamma: Depths) -> Depths:
    """sigma = sqrt(sigmoid(gamma)), the noise's scale. Theorem: schedules.stable_forms."""
    return sigma2(gamma).sqrt()


def snr(gamma: Depths) -> Depths:
    """SNR = alpha^2 / sigma^2 = exp(-gamma). Theorem: schedules.snr."""
    return torch.exp(-gamma)


def expand(a: Shaped[Tensor, "*batch"], like: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """A tensor with trailing dimensions of length 1, so that it multiplies another one example by example.

    Args:
        a: (batch,), or a scalar, which stays one.
        like: what it is to multiply, (batch, *data).
    Returns:
        (batch, 1, ..., 1) with as many dimensions as `like`.
    Example:
        >>> expand(torch.ones(2), torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 1, 1, 1])
    """
    return a.reshape(a.shape + (1,) * (like.ndim - a.ndim)) if a.ndim else a


@dataclass(frozen=True)
class SchedulePoint:
    """A schedule at depth t.

    Attributes:
        gamma: gamma(t), of t's shape.
        rate: gamma'(t), of t's shape.
        interior: tensors of t's shape on the way to both, through which gradients reach nothing but what a schedule
            learns between its end points.
    Example:
        >>> point = LinearSchedule(-4.0, 4.0)(torch.tensor([0.5]))
        >>> point.gamma, point.beta  # sigma^2 gamma' = 8/2
        (tensor([0.]), tensor([4.]))
    """

    gamma: Depths
    rate: Depths
    interior: tuple[Tensor, ...] = ()

    @property
    def alpha(self) -> Tensor:
        """alpha, the signal's scale."""
        return alpha(self.gamma)

    @property
    def sigma(self) -> Tensor:
        """sigma, the noise's scale."""
        return sigma(self.gamma)

    @property
    def alpha2(self) -> Tensor:
        """alpha^2, the signal's variance."""
        return alpha2(self.gamma)

    @property
    def sigma2(self) -> Tensor:
        """sigma^2, the noise's variance."""
        return sigma2(self.gamma)

    @property
    def snr(self) -> Tensor:
        """alpha^2 / sigma^2."""
        return snr(self.gamma)

    @property
    def beta(self) -> Tensor:
        """beta = g^2 = sigma^2 gamma', the squared diffusion coefficient. Theorem: schedules.beta."""
        return self.sigma2 * self.rate


class Schedule(nn.Module):
    """Base class: implement `forward(t) -> SchedulePoint` with gamma increasing and rate = dgamma/dt.

    Example:
        >>> class Square(Schedule):
        ...     def forward(self, t):
        ...         return SchedulePoint(-8 + 4 * (t + t**2), 4 * (1 + 2 * t))
        >>> Square()(torch.tensor(1.0)).rate
        tensor(12.)
    """

    def forward(self, t: Depths) -> SchedulePoint:
        """gamma and gamma' at depths t in [0, 1], of t's shape."""
        raise NotImplementedError("a schedule implements forward(t) -> SchedulePoint")

    @property
    def fixed_start(self) -> float | None:
        """gamma(0) as a number where nobody need fetch it from a device: nothing learned or stored can move it."""
        if next(itertools.chain(self.parameters(), self.buffers()), None) is not None:
            return None
        return float(self(torch.zeros((), dtype=torch.float64)).gamma)

    def at(self, t: float, like: Float[Tensor, "..."]) -> SchedulePoint:
        """The schedule at one depth t, as scalars of `like`'s dtype and device."""
        point: SchedulePoint = self(torch.full((), t, dtype=like.dtype, device=like.device))
        return point


def _check_range(gamma_min: float, gamma_max: float) -> None:
    if not gamma_min < gamma_max:
        raise ValueError(
            f"gamma must increase with depth: gamma_min={gamma_min} is not below gamma_max={gamma_max}"
        )


class LinearSchedule(Schedule):
    """gamma(t) = gamma_min + (gamma_max - gamma_min) t, the paper's schedule.

    Args:
        gamma_min: gamma(0).
        gamma_max: gamma(1).
    Raises:
        ValueError: where gamma_min is not below gamma_max.
    """

    def __init__(self, gamma_min: float = -13.3, gamma_max: float = 5.0) -> None:
        super().__init__()
        _check_range(gamma_min, gamma_max)
        self.gamma_min, self.gamma_max = float(gamma_min), float(gamma_max)

    @property
    def fixed_start(self) -> float:
        """gamma_min."""
        return self.gamma_min

    def forward(self, t: Depths) -> SchedulePoint:
        slope = self.gamma_max - self.gamma_min
        return SchedulePoint(self.gamma_min + slope * t, torch.full_like(t, slope))


class LearnedLinearSchedule(Schedule):
    """gamma(t) = start + |slope| t with both numbers learned (the end points move the ELBO).

    Args:
        gamma_min: gamma(0) before training.
        gamma_max: gamma(1) before training.
    Raises:
        ValueError: where gamma_min is not below gamma_max.
    """

    def __init__(self, gamma_min: float = -13.3, gamma_max: float = 5.0) -> None:
        super().__init__()
        _check_range(gamma_min, gamma_max)
        self.start = nn.Parameter(torch.tensor(float(gamma_min)))
        self.slope = nn.Parameter(torch.tensor(float(gamma_max - gamma_min)))

    def forward(self, t: Depths) -> SchedulePoint:
        slope = self.slope.abs().to(t.dtype)
        return SchedulePoint(self.start.to(t.dtype) + slope * t, slope.expand_as(t))


class PolynomialSchedule(Schedule):
    """gamma(t) = gamma_min + (gamma_max - gamma_min) ((1 - weight) t + weight t^degree).

    Args:
        gamma_min: gamma(0).
        gamma_max: gamma(1).
        degree: of the power.
        weight: by default gamma_max / (2 (gamma_max - gamma_min)), which at degree 10 is the authors' "poly10":
            gamma_max/2 t^10 + (gamma_max/2 - gamma_min) t + gamma_min.
    Raises:
        ValueError: where gamma would not increase: gamma_min >= gamma_max, weight outside [0, 1] or degree below 1.
    """

    def __init__(
        self,
        gamma_min: float = -13.3,
        gamma_max: float = 5.0,
        *,
        degree: int = 10,
        weight: float | None = None,
    ) -> None:
        super().__init__()
        _check_range(gamma_min, gamma_max)
        self.gamma_min, self.gamma_max, self.degree = float(gamma_min), float(gamma_max), degree
        self.weight = gamma_max / (2 * (gamma_max - gamma_min)) if weight is None else weight
        if not 0 <= self.weight <= 1 or degree < 1:
            raise ValueError(
                f"a polynomial schedule with weight={self.weight}, degree={degree} is not increasing; "
                "weight must lie in [0, 1] and degree be at least 1"
            )

    @property
    def fixed_start(self) -> float:
        """gamma_min."""
        return self.gamma_min

    def forward(self, t: Depths) -> SchedulePoint:
        width, w, n = self.gamma_max - self.gamma_min, self.weight, self.degree
        gamma = self.gamma_min + width * ((1 - w) * t + w * t**n)
        return SchedulePoint(gamma, width * ((1 - w) + w * n * t ** (n - 1)))


class MonotoneSchedule(Schedule):
    """VDM's monotone network between end points that are pinned, or parameters of their own.

    m(t) = l(t) + sum_k c_k sigmoid(a_k l(t) + b_k) with l(t) = a_0 t + b_0 and positive a, c (through softplus);
    gamma(t) = gamma_min + (gamma_max - gamma_min) (m(t) - m(0)) / (m(1) - m(0)).

    The fraction and its derivative are the point's `interior`.

    Args:
        gamma_min: gamma(0), where the ends are learned before training.
        gamma_max: gamma(1), likewise.
        hidden: the number of terms k.
        learn_ends: whether gamma_min and gamma_max are parameters, too.
    Raises:
        ValueError: where gamma_min is not below gamma_max.
    """

    def __init__(
        self,
        gamma_min: float = -13.3,
        gamma_max: float = 5.0,
        *,
        hidden: int = 1024,
        learn_ends: bool = False,
    ) -> None:
        super().__init__()
        _check_range(gamma_min, gamma_max)
        self.gamma_min: float | nn.Parameter = float(gamma_min)
        self.gamma_max: float | nn.Parameter = float(gamma_max)
        if learn_ends:
            self.gamma_min = nn.Parameter(torch.tensor(self.gamma_min))
            self.gamma_max = nn.Parameter(torch.tensor(self.gamma_max))
        # softplus(0.5413) = 1: an untrained schedule is close to linear.
        self.outer_slope = nn.Parameter(torch.full((), 0.5413))
        self.outer_bias = nn.Parameter(torch.zeros(()))
        self.slopes = nn.Parameter(torch.linspace(-3.0, 3.0, hidden))
        self.biases = nn.Parameter(torch.randn(hidden))
        self.heights = nn.Parameter(torch.full((hidden,), -7.0))

    @property
    def fixed_start(self) -> float | None:
        """gamma_min where it is pinned."""
        return self.gamma_min if isinstance(self.gamma_min, float) else None

    def _monotone(self, t: Tensor) -> tuple[Tensor, Tensor]:
        outer = F.softplus(self.outer_slope).to(t)
        slopes, heights = F.softplus(self.slopes).to(t), F.softplus(self.heights).to(t)
        line = outer * t + self.outer_bias.to(t)
        gates = torch.sigmoid(slopes * line.unsqueeze(-1) + self.biases.to(t))
        value = line + (heights * gates).sum(-1)
        rate = outer * (1 + (heights * slopes * gates * (1 - gates)).sum(-1))
        return value, rate

    def forward(self, t: Depths) -> SchedulePoint:
        low, high = self._monotone(torch.stack([torch.zeros_like(t), torch.ones_like(t)]))[0]
        value, rate = self._monotone(t)
        share, slope = (value - low) / (high - low), rate / (high - low)
        width = self.gamma_max - self.gamma_min
        return SchedulePoint(self.gamma_min + width * share, width * slope, (share, slope))
