"""How the depth t of each example is drawn: estimators of an integral over [0, 1].

A sampler returns depths t of density p and the weights 1/p(t), so that the mean of weight x integrand is
unbiased for int_0^1 integrand dt:

    uniform            t_i ~ U(0, 1), independent
    low-discrepancy    t_i = (u + i/B) mod 1 with one u ~ U(0, 1): each t_i is uniform, together they cover [0, 1]
    importance         t = F^-1(u) for low-discrepancy u, with density proportional to sqrt(E[integrand^2 | t])

A model of finite depth has a grid of depths instead.

Reference: Kingma et al. 2021, appendix I.1 (low-discrepancy).
"""

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Depths(Protocol):
    """A way of drawing t."""

    def draw(
        self, batch: int, *, like: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, " {batch}"], Float[Tensor, " {batch}"]]:
        """Depths t in [0, 1] and their weights 1/p(t), (batch,) each.

        Args:
            batch: how many.
            like: a tensor whose dtype and device they have.
            generator: of what is drawn.
        """


def _uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(shape, dtype=like.dtype, device=like.device, generator=generator)


class UniformDepths:
    """Independent t ~ U(0, 1).

    Example:
        >>> import torch
        >>> from diffenc_ct.elbo import UniformDepths
        >>> UniformDepths().draw(4, like=torch.zeros(()))[1]
        tensor([1., 1., 1., 1.])
    """

    def draw(
        self, batch: int, *, like: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, " {batch}"], Float[Tensor, " {batch}"]]:
        """See Depths."""
        t = _uniform((batch,), like, generator)
        return t, torch.ones_like(t)


class LowDiscrepancyDepths:
    """t_i = (u + (rank batch + i)/(processes batch)) mod 1, stratified over all processes that share u's generator.

    Args:
        rank: of this process, from 0.
        processes: how many there are.

    Raises:
        ValueError: for a rank outside 0..processes - 1.

    Example:
        >>> import torch
        >>> from diffenc_ct.elbo import LowDiscrepancyDepths
        >>> t, _ = LowDiscrepancyDepths().draw(4, like=torch.zeros((), dtype=torch.float64))
        >>> (t.sort().values.diff() * 4).round(decimals=6)
        tensor([1., 1., 1.], dtype=torch.float64)
    """

    def __init__(self, rank: int = 0, processes: int = 1) -> None:
        if not 0 <= rank < processes:
            raise ValueError(f"rank={rank} must lie in 0..{processes - 1}")
        self.rank, self.processes = rank, processes

    def draw(
        self, batch: int, *, like: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, " {batch}"], Float[Tensor, " {batch}"]]:
        """See Depths."""
        index = self.rank * batch + torch.arange(batch, dtype=like.dtype, device=like.device)
        t = (_uniform((1,), like, generator) + index / (self.processes * batch)) % 1
        return t, torch.ones_like(t)


class ImportanceDepths:
    """t with a piecewise constant density learned from the integrand's second moment.

    `update` takes in what `count` saw; until every cell has been seen the density is uniform. Nothing waits for the
    device.

    Args:
        bins: equal cells of [0, 1], at least 1.
        decay: of what was seen, at every update, in (0, 1).
        floor: the fraction of the mass that stays uniform, in (0, 1], which bounds the weights by 1/floor.

    Attributes:
        moments: exponentially decayed sums of the integrand's square and of 1, (bins, 2).

    Raises:
        ValueError: for values out of range.

    Example:
        >>> import torch
        >>> from diffenc_ct.elbo import ImportanceDepths
        >>> depths = ImportanceDepths(2, floor=0.5)
        >>> depths.update(depths.count(torch.tensor([0.2, 0.7]), torch.tensor([1.0, 3.0])))
        >>> depths.density()
        tensor([0.7500, 1.2500], dtype=torch.float64)
    """

    def __init__(self, bins: int = 64, *, decay: float = 0.99, floor: float = 0.1) -> None:
        if bins < 1 or not 0 < decay < 1 or not 0 < floor <= 1:
            raise ValueError(
                f"bins={bins} >= 1, decay={decay} in (0, 1), floor={floor} in (0, 1] are required"
            )
        self.bins, self.decay, self.floor = bins, decay, floor
        self.moments = torch.zeros(bins, 2, dtype=torch.float64)

    def to(self, device: str | torch.device) -> "ImportanceDepths":
        """Itself, with its numbers on that device.

        Args:
            device: of the tensors that `count` is to see.
        """
        self.moments = self.moments.to(device)
        return self

    def count(
        self, t: Float[Tensor, " batch"], integrand: Float[Tensor, " batch"]
    ) -> Float[Tensor, "bins 2"]:
        """Sums of the integrand's square and of 1 over a batch, by cell.

        Args:
            t: depths.
            integrand: its values there, before weighting, nats.
        """
        cell = (t.detach().double() * self.bins).long().clamp(0, self.bins - 1)
        squares = integrand.detach().double().square()
        found = torch.stack([squares, torch.ones_like(squares)], 1)
        return torch.zeros_like(self.moments, device=t.device).index_add_(0, cell, found)

    def update(self, counted: Float[Tensor, "bins 2"]) -> None:
        """Take in what was counted.

        Args:
            counted: what `count` returned, of one batch or summed over several.
        """
        self.moments = self.decay * self.moments + counted

    def density(self) -> Float[Tensor, " bins"]:
        """The density's value in each cell, of mean 1."""
        squares, seen = self.moments.unbind(1)
        weight = (squares / seen).sqrt()
        density = self.floor + (1 - self.floor) * weight / weight.mean()
        known = (seen > 0).all() & (squares.sum() > 0)
        return torch.where(known, density, torch.ones_like(density))

    def draw(
        self, batch: int, *, like: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, " {batch}"], Float[Tensor, " {batch}"]]:
        """See Depths."""
        u, _ = LowDiscrepancyDepths().draw(batch, like=like, generator=generator)
        density = self.density().to(u.device)
        edges = F.pad(density.cumsum(0) / self.bins, (1, 0))
        u_ = u.double() * edges[-1]
        cell = (torch.searchsorted(edges, u_, right=True) - 1).clamp(0, self.bins - 1)
        t = (cell + (u_ - edges[cell]) / (edges[cell + 1] - edges[cell])) / self.bins
        return t.to(like).clamp(0, 1), (1 / density[cell]).to(like)


def uniform_grid(depth: int, like: Tensor) -> Float[Tensor, " {depth}+1"]:
    """The T + 1 depths i/T of a model of T steps.

    Args:
        depth: T.
        like: a tensor whose dtype and device they have.

    Raises:
        ValueError: for fewer than one step.
    """
    if depth < 1:
        raise ValueError(f"depth={depth}; a model needs at least one step")
    return torch.linspace(0, 1, depth + 1, dtype=like.dtype, device=like.device)


def check_grid(grid: Float[Tensor, "..."], depth: int, like: Tensor) -> Float[Tensor, " {depth}+1"]:
    """A grid that was given, in `like`'s dtype and on its device. Looks at its values.

    Args:
        grid: depths.
        depth: how many steps T it is to have.
        like: a tensor of the wanted kind.

    Raises:
        ValueError: where it does not hold T + 1 >= 2 depths, strictly increasing from 0 to 1.
    """
    right = depth > 0 and grid.shape == (depth + 1,) and bool((grid.diff() > 0).all())
    if not right or grid[0] != 0 or grid[-1] != 1:
        raise ValueError(
            f"grid must hold depth + 1 = {max(depth, 1) + 1} depths, strictly increasing from 0 to 1; got {grid}"
        )
    return grid.to(like)
