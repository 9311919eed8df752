"""What a solver is given: the reverse process of a model, a grid of depths, and noise that belongs to each image.

A solver takes latents z (batch, *data) of depth 1 to depth 0 by

    problem.reverse(z, grid, i)   a draw from p(z_s | z_t) for the grid's i-th step, at a variance ratio
    problem.mixture_reverse(...)  the same of a mixture step
    problem.estimates(z, gamma)   x_hat and r_hat at one depth; every call counts as one evaluation
    problem.drift(z, t)           b_eta, the drift of the reverse SDE in dz/dt, t running from 1 to 0
    problem.diffusion(t)          eta sqrt(beta)
    problem.noise(z)              standard normal noise of z's shape, drawn image by image
    problem.noise_level           eta; problem.schedule is gamma(t)
    grid.t, grid.gamma            depths from 1 down to 0 and their gammas, float64 (steps + 1,)

Each image draws from a generator of its own, so it does not change with the batch it is computed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffenc_ct.dynamics import Predictor
from diffenc_ct.elbo import Ratio, ratio_at
from diffenc_ct.elbo.ratios import ratio_of_values
from diffenc_ct.model import DiffEnc, reverse_drift, reverse_step
from diffenc_ct.process import Estimates, Gaussian, NoiseLevel, Values
from diffenc_ct.schedules import Schedule, SchedulePoint


@dataclass(frozen=True)
class Grid:
    """Depths from 1 down to 0, float64 on the CPU.

    Attributes:
        t: depths, (steps + 1,).
        gamma: gamma(t), (steps + 1,).

    Example:
        >>> import torch, diffenc_ct as dc
        >>> Grid.of(dc.LinearSchedule(-6.0, 4.0), torch.linspace(0, 1, 3).double()).gamma
        tensor([ 4., -1., -6.], dtype=torch.float64)
    """

    t: Float[Tensor, " nodes"]
    gamma: Float[Tensor, " nodes"]

    @property
    def steps(self) -> int:
        """How many steps."""
        return len(self.t) - 1

    @classmethod
    def of(cls, schedule: Schedule, depths: Float[Tensor, " nodes"]) -> "Grid":
        """From depths increasing from 0 to 1, and the schedule that says their gammas."""
        t = depths.flip(0)
        return cls(t.cpu(), schedule(t).gamma.detach().double().cpu())


class ImageNoise:
    """Noise that belongs to images: image i's draws depend on (seed, i) and on what it drew before, on nothing else.

    Args:
        seed: of all images.
        indices: the images' numbers.
    """

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        words = (np.random.SeedSequence((seed, i)).generate_state(1, np.uint64) for i in indices)
        self.generators = [torch.Generator().manual_seed(int(word[0])) for word in words]

    def __call__(self, like: Float[Tensor, "batch *data"]) -> Float[Tensor, "batch *data"]:
        """Standard normal noise of `like`'s shape, dtype and device.

        Raises:
            ValueError: for another number of images.
        """
        if len(like) != len(self.generators):
            raise ValueError(f"noise for {len(self.generators)} images, asked for {len(like)}")
        draws = [
            torch.randn(like.shape[1:], dtype=like.dtype, generator=g) for g in self.generators
        ]
        return torch.stack(draws).to(like.device)


class Counted(nn.Module):
    """A model's predictions and schedule, with a count of evaluations and, of the first images, their path.

    Args:
        model: DiffEnc.
        recorded: of how many images every evaluation is kept.
    """

    def __init__(self, model: DiffEnc, recorded: int = 0) -> None:
        super().__init__()
        self.model, self.recorded = model, recorded
        self.evaluations = self.images = 0
        self.path: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def schedule(self) -> Schedule:
        """gamma(t)."""
        return self.model.schedule

    def rows(self, index: Int[Tensor, " some"]) -> Predictor:
        """The estimates of some images of the batch alone, counted here.

        Args:
            index: of the images.
        """
        return self if self.model.condition is None else _CountedRows(self, index)

    def predict(
        self,
        z: Float[Tensor, "batch *data"],
        gamma: Float[Tensor, " batch"],
        model: DiffEnc | None = None,
    ) -> Estimates:
        """The model's estimates, or those of a part's model."""
        found = (self.model if model is None else model).predict(z, gamma)
        self._count(z, gamma, lambda: found.x_hat)
        return found

    def values(self, z: Float[Tensor, "batch *data"], gamma: Float[Tensor, " batch"]) -> Values:
        """What the model knows of every value."""
        found = self.model.values(z, gamma)
        self._count(z, gamma, lambda: found.estimates().x_hat)
        return found

    def _count(self, z: Tensor, gamma: Tensor, x_hat: Callable[[], Tensor]) -> None:
        self.evaluations += 1
        self.images += len(z)
        if self.recorded:
            first = slice(self.recorded)
            self.path.append((gamma[0].cpu(), z[first].cpu(), x_hat()[first].cpu()))


class _CountedRows:
    """Some rows of a counted conditional model."""

    def __init__(self, counted: Counted, index: Tensor) -> None:
        self.counted, self.model = counted, counted.model.rows(index)

    @property
    def schedule(self) -> Schedule:
        return self.model.schedule

    def predict(self, z: Float[Tensor, "batch *data"], gamma: Float[Tensor, " batch"]) -> Estimates:
        return self.counted.predict(z, gamma, self.model)


class Problem:
    """The reverse process of a model at a noise level, for one batch of images.

    Args:
        model: DiffEnc.
        noise_level: eta.
        noise: standard normal noise of a tensor's shape.
        recorded: of how many images, the first ones, the path is kept.
    """

    def __init__(
        self,
        model: DiffEnc,
        noise_level: NoiseLevel,
        noise: Callable[[Tensor], Tensor],
        *,
        recorded: int = 0,
    ) -> None:
        self.model = Counted(model, recorded)
        self.noise_level, self.noise = noise_level, noise

    @property
    def schedule(self) -> Schedule:
        """gamma(t)."""
        return self.model.schedule

    @property
    def evaluations(self) -> int:
        """How many evaluations of the network there have been."""
        return self.model.evaluations

    @property
    def evaluated_images(self) -> int:
        """Over how many images they went, together: a solver may have done with some before others."""
        return self.model.images

    @property
    def path(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of the recorded images, at every evaluation: gamma (), z and x_hat (recorded, *data), on the CPU."""
        return self.model.path

    @property
    def stochastic(self) -> bool:
        """Whether eta > 0 anywhere, as far as can be known."""
        return not self.noise_level.deterministic

    def estimates(
        self, z: Float[Tensor, "batch *data"], gamma: Float[Tensor, ""] | float
    ) -> Estimates:
        """x_hat and r_hat at latents z, all at one gamma."""
        gamma = torch.as_tensor(gamma, dtype=z.dtype, device=z.device)
        return self.model.predict(z, gamma.expand(len(z)))

    def _point(self, t: Tensor | float, z: Tensor) -> SchedulePoint:
        point: SchedulePoint = self.schedule(torch.as_tensor(t, dtype=z.dtype, device=z.device))
        return point

    def drift(
        self, z: Float[Tensor, "batch *data"], t: Float[Tensor, ""] | float
    ) -> Float[Tensor, "batch *data"]:
        """b_eta(z, t) = dz/dt of the reverse SDE. Theorem: model.reverse_limit."""
        point = self._point(t, z)
        eta_squared = self.noise_level.squared(point.gamma)
        return reverse_drift(z, self.estimates(z, point.gamma), point, eta_squared)

    def reverse(
        self, z: Float[Tensor, "batch *data"], grid: Grid, step: int, ratio: Ratio = 1.0
    ) -> Float[Tensor, "batch *data"]:
        """A draw from p(z_s | z_t), t and s the ends of the grid's step 0, 1, ... Theorem: model.reverse_mean.

        Args:
            z: latents at t.
            grid: depths from 1 to 0.
            step: number of the step, 0 next to the noise.
            ratio: w as in FiniteDepth, counted from the data.
        """
        gamma_t, gamma_s, index = _ends(z, grid, step)
        found = self.model.predict(z, gamma_t)
        p = reverse_step(z, found, gamma_s, gamma_t, self.noise_level)
        if not self.stochastic:
            return p.mean
        w = torch.as_tensor(ratio_at(ratio, index, found))
        return Gaussian(p.mean, p.std * w.to(z).sqrt()).sample(noise=self.noise(z))

    def mixture_reverse(
        self, z: Float[Tensor, "batch *data"], grid: Grid, step: int, ratio: Ratio = 1.0
    ) -> Float[Tensor, "batch *data"]:
        """The same of a mixture step: a component of every value is drawn, then its process followed.

        Theorem: elbo.mixture_step.

        Args:
            z: latents at t.
            grid: depths from 1 to 0.
            step: number of the step, 0 next to the noise.
            ratio: w as in FiniteDepth, counted from the data.
        """
        gamma_t, gamma_s, index = _ends(z, grid, step)
        values = self.model.values(z, gamma_t)
        w = ratio_of_values(ratio, index, values)
        p = values.step(z, gamma_s, self.noise_level, w)
        return p.sample(choice=self.noise(z), noise=self.noise(z))

    def diffusion(self, t: Float[Tensor, ""] | float, z: Tensor) -> Float[Tensor, ""]:
        """eta sqrt(beta) at depth t, a scalar of z's dtype."""
        point = self._point(t, z)
        return (self.noise_level.squared(point.gamma) * point.beta).sqrt()


def _ends(z: Tensor, grid: Grid, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """gamma_t and gamma_s of each image, and the step's number as it is counted from the data."""
    gamma_t, gamma_s = (g.to(z).expand(len(z)) for g in grid.gamma[step : step + 2])
    return gamma_t, gamma_s, torch.full((len(z),), grid.steps - 1 - step, device=z.device)
