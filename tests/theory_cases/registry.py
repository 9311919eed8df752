"""Where theorems and code are compared: random points, the registry of cases, and models with given outputs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from diffenc_ct import encoders, process, schedules
from diffenc_ct.model import DiffEnc, Direct, Heads, Reals, Single
from diffenc_ct.model.readings import Predicts
from diffenc_ct.schedules import SchedulePoint
from tests.strategies import normal, seeds


@dataclass(frozen=True)
class Points:
    """Two examples of two dimensions: depths and scalars (2,), data-like tensors (2, 2) by number."""

    gamma_s: Tensor
    gamma_t: Tensor
    rate: Tensor
    eta: float
    ratio: float
    seed: int

    def data(self, number: int) -> Tensor:
        return normal(self.seed + number, 2, 2, dtype=self.gamma_t.dtype)

    @property
    def point(self) -> SchedulePoint:
        return SchedulePoint(self.gamma_t, self.rate)

    @property
    def level(self) -> process.ConstantNoiseLevel:
        return process.ConstantNoiseLevel(self.eta)


@st.composite
def points(draw, dtype: torch.dtype) -> Points:
    low = [draw(st.floats(-20, 19.875, width=32)) for _ in range(2)]
    step = [(20 - each) * 10 ** draw(st.floats(-3, 0)) for each in low]
    seed = draw(seeds)
    return Points(
        torch.tensor(low, dtype=dtype),
        torch.tensor([a + b for a, b in zip(low, step, strict=True)], dtype=dtype),
        normal(seed, 2, dtype=dtype).exp(),
        draw(st.floats(0.25, 2, width=32)),
        draw(st.floats(0.25, 4, width=32)),
        seed,
    )


# The code's results, and the arguments for which the theorem's formula must give the same.
Result = tuple[tuple[Tensor, ...], tuple[Tensor | float, ...]]
CASES: dict[str, Callable[[Points], Result]] = {}


def case(name: str) -> Callable[[Callable[[Points], Result]], Callable[[Points], Result]]:
    def register(function: Callable[[Points], Result]) -> Callable[[Points], Result]:
        CASES[name] = function
        return function

    return register


class Fixed(nn.Module):
    """A network with the same output everywhere; `slope` is its derivative by lambda = -gamma."""

    def __init__(self, value: Tensor, slope: Tensor | None = None, gamma: Tensor | None = None):
        super().__init__()
        self.value, self.slope, self.gamma = value, slope, gamma

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        if self.slope is None or self.gamma is None:
            return self.value
        return self.value + self.slope * (self.gamma - gamma)[:, None]


def model(heads: Heads, encoder: encoders.Encoder) -> DiffEnc:
    return DiffEnc(schedules.LinearSchedule(), encoder, heads, Reals())


def single(output: Tensor, encoder: encoders.Encoder, predicts: Predicts) -> DiffEnc:
    """A model whose network always says `output`."""
    return model(Single(Fixed(output), predicts=predicts), encoder)


def knowing(x_hat: Tensor, r_hat: Tensor) -> DiffEnc:
    """A model whose estimates are given."""
    module = nn.Module()
    module.forward = lambda z, gamma: process.Estimates(x_hat, r_hat)  # type: ignore[method-assign]
    return model(Direct(module), encoders.IdentityEncoder())
