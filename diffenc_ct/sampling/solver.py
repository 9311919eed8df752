"""What a solver is: an object that carries its options and takes latents from noise to data.

    solver(problem, z, grid) -> z_0

`problem` is the reverse process of a model at a noise level, with noise that belongs to each image (see `problem`);
`grid` holds depths from 1 down to 0.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from diffenc_ct.model import DiffEnc
from diffenc_ct.process import AnyNoiseLevel, ConstantNoiseLevel, NoiseLevel, as_noise_level
from diffenc_ct.sampling.grids import Placement, check_placement, make_grid
from diffenc_ct.sampling.problem import Grid, Problem
from diffenc_ct.schedules import Schedule


class Solver(ABC):
    """Base class of all solvers: frozen dataclasses of their options.

    A solver of one's own derives from `GridSolver`, and implements `__call__`.
    """

    @abstractmethod
    def __call__(
        self, problem: Problem, z: Float[Tensor, "batch *data"], grid: Grid
    ) -> Float[Tensor, "batch *data"]:
        """z_0 from z at the grid's first depth.

        Args:
            problem: the reverse process.
            z: latents at depth 1.
            grid: depths from 1 to 0.

        Returns:
            latents at depth 0.
        """

    @abstractmethod
    def level(self, model: DiffEnc) -> NoiseLevel:
        """The noise level at which a model is sampled."""

    @abstractmethod
    def grid(self, schedule: Schedule) -> Grid:
        """Depths from 1 down to 0 with their gammas."""

    @property
    def name(self) -> str:
        """What logs and messages call it."""
        return type(self).__name__

    @property
    def adaptive(self) -> bool:
        """Whether it chooses its steps by a tolerance."""
        return False

    @property
    def batch_matters(self) -> bool:
        """Whether the examples of a batch share their steps, so that results depend on it within the tolerance."""
        return False

    @property
    def depths_are_shared(self) -> bool:
        """Whether all images are at one depth at a time, so that a path of several can be shown."""
        return True

    def convergence_order(self, stochastic: bool) -> float:
        """The order in the step's length.

        Args:
            stochastic: of the weak error where there is noise (of the strong one for TorchSDE), else of the flow's.
        """
        return 1


@dataclass(frozen=True, eq=False, kw_only=True)
class GridSolver(Solver):
    """Base class of solvers whose steps are given: how many, where, and with how much noise.

    Attributes:
        steps: how many.
        noise_level: eta, a number, a NoiseLevel or a function of gamma; None for the solver's own choice.
        placement: where the steps lie: "uniform", "log-snr", "balanced", or steps + 1 depths increasing from 0 to 1.

    Raises:
        ValueError: for steps below 1, a negative noise level, or an unknown placement.

    Example:
        >>> import diffenc_ct as dc
        >>> from dataclasses import dataclass
        >>> @dataclass(frozen=True, eq=False, kw_only=True)
        ... class Euler(dc.GridSolver):
        ...     noise_level: float = 0.0
        ...     def __call__(self, problem, z, grid):
        ...         for t, s in zip(grid.t[:-1], grid.t[1:]):
        ...             z = z + (s - t).to(z) * problem.drift(z, t)
        ...         return z
        >>> Euler(steps=64).steps
        64
    """

    steps: int = 256
    noise_level: AnyNoiseLevel | None = None
    placement: Placement | Float[Tensor, " nodes"] = "uniform"

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps={self.steps!r}; a solver needs a whole number of at least 1")
        if self.noise_level is not None:
            as_noise_level(self.noise_level)
        check_placement(self.placement, self.steps)

    def level(self, model: DiffEnc) -> NoiseLevel:
        """The given noise level, else 1."""
        return as_noise_level(1.0 if self.noise_level is None else self.noise_level)

    def grid(self, schedule: Schedule) -> Grid:
        """The steps' depths."""
        return Grid.of(schedule, make_grid(schedule, self.steps, self.placement))


def deterministic_where_exact(given: AnyNoiseLevel | None, model: DiffEnc) -> NoiseLevel:
    """The given noise level; else 0 where the model's flow keeps its marginals, 1 where only the reverse SDE does."""
    if given is not None:
        return as_noise_level(given)
    return ConstantNoiseLevel(0.0 if model.flow_is_exact else 1.0)
