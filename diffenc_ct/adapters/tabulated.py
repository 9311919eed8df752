"""A schedule through a table of gammas: gamma(i/T) = gamma_i, linear between them.

    gamma(t) = gamma_i + (t T - i) (gamma_{i+1} - gamma_i),    gamma'(t) = T (gamma_{i+1} - gamma_i),    i = floor(t T)

Two gammas are a linear schedule, as adapted models have it. With all noise levels of a table, in the place of a model's
schedule, its depths are those of the table: `model.schedule = TabulatedSchedule(table.gamma(table.nodes()))`.
"""

from jaxtyping import Float
from torch import Tensor, nn

from diffenc_ct.schedules import Depths, Schedule, SchedulePoint


class TabulatedSchedule(Schedule):
    """gamma(t) linear between equally spaced depths.

    The table is a parameter that does not train: it goes with the model to a device and says in which precision the
    model computes.

    Args:
        gamma: at depths i/T, i = 0..T, (T + 1,), increasing.
    Raises:
        ValueError: for fewer than two numbers, or where they do not increase.
    Example:
        >>> import torch
        >>> schedule = TabulatedSchedule(torch.tensor([-8.0, -2.0, 0.0]))
        >>> point = schedule(torch.tensor([0.0, 0.25, 0.5, 1.0]))
        >>> point.gamma, point.rate
        (tensor([-8., -5., -2.,  0.]), tensor([12., 12.,  4.,  4.]))
    """

    def __init__(self, gamma: Float[Tensor, " nodes"]) -> None:
        super().__init__()
        if len(gamma) < 2 or not bool((gamma.diff() > 0).all()):
            raise ValueError(
                f"a table of gammas must be two or more that increase; got {len(gamma)} from {float(gamma[0]):g} to "
                f"{float(gamma[-1]):g}"
            )
        self._start = float(gamma[0])
        self.table = nn.Parameter(gamma.clone(), requires_grad=False)

    @property
    def fixed_start(self) -> float:
        """The first gamma, as it was given."""
        return self._start

    def forward(self, t: Depths) -> SchedulePoint:
        table = self.table.to(t)
        steps = len(table) - 1
        place = t * steps
        cell = place.detach().floor().long().clamp(0, steps - 1)
        change = table[cell + 1] - table[cell]
        return SchedulePoint(table[cell] + (place - cell) * change, steps * change)
