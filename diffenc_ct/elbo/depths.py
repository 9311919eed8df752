"""How the depth t of each example is drawn: estimators of an integral over [0, 1].

A sampler returns depths t of density p and the weights 1/p(t), so that the mean of weight x integrand is
unbiased for int_0^1 integrand dt:

    uniform            t_i ~ U(0, 1), independent
    low-discrepancy    t_i = (u + i/B) mod 1 with one u ~ U(0, 1): each t_i is uniform, together they cover [0, 1]
    importance         t = F^-1(u) for low-discrepancy u, with density proportional to sqrt(E[integrand^2 | t])

A model of finite depth has a grid of depths instead.

Reference: Kingma et al. 2021, appendix I.1 (low-discrepancy).
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Depths(Protocol):
    """A way of drawing t: draw(batch) -> (t, weight), both (batch,)."""

    def draw(
        self, batch: int, *, like: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]: ...


def _uniform(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.rand(shape, dtype=like.dtype, device=like.device, generator=generator)


class UniformDepths:
    """Independent t ~ U(0, 1)."""

    def draw(
        self, batch: int, *, like: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        t = _uniform((batch,), like, generator)
        return t, torch.ones_like(t)


class LowDiscrepancyDepths:
    """t_i = (u + (rank batch + i)/(processes batch)) mod 1, stratified over all processes that share u's generator."""

    def __init__(self, rank: int = 0, processes: int = 1) -> None:
        if not 0 <= rank < processes:
            raise ValueError(f"rank={rank} must lie in 0..{processes - 1}")
        self.rank, self.processes = rank, processes

    def draw(
        self, batch: int, *, like: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        index = self.rank * batch + torch.arange(batch, dtype=like.dtype, device=like.device)
        t = (_uniform((1,), like, generator) + index / (self.processes * batch)) % 1
        return t, torch.ones_like(t)


class ImportanceDepths:
    """t with a piecewise constant density learned from the integrand's second moment.

    bins: equal cells of [0, 1]. `update(t, integrand)` feeds what was seen (an exponential average with `decay`);
    until every cell has been seen the density is uniform. A fraction `floor` of the mass stays uniform, which bounds
    the weights by 1/floor.
    """

    def __init__(self, bins: int = 64, *, decay: float = 0.99, floor: float = 0.1) -> None:
        if bins < 1 or not 0 < decay < 1 or not 0 < floor <= 1:
            raise ValueError(
                f"bins={bins} >= 1, decay={decay} in (0, 1), floor={floor} in (0, 1] are required"
            )
        self.bins, self.decay, self.floor = bins, decay, floor
        self.second_moment = torch.zeros(bins, dtype=torch.float64)
        self.seen = torch.zeros(bins, dtype=torch.float64)

    def update(self, t: Tensor, integrand: Tensor) -> None:
        """Take in integrand values (batch,), before weighting, seen at depths t."""
        cell = (t.detach().double().cpu() * self.bins).long().clamp(0, self.bins - 1)
        squares = integrand.detach().double().cpu() ** 2
        self.second_moment = self.decay * self.second_moment + torch.zeros_like(
            self.seen
        ).index_add_(0, cell, squares)
        self.seen = self.decay * self.seen + torch.bincount(cell, minlength=self.bins)

    def density(self) -> Tensor:
        """The density's value in each cell, (bins,), of mean 1."""
        if (self.seen == 0).any():
            return torch.ones(self.bins, dtype=torch.float64)
        weight = (self.second_moment / self.seen).sqrt()
        if weight.sum() == 0:
            return torch.ones(self.bins, dtype=torch.float64)
        return self.floor + (1 - self.floor) * weight / weight.mean()

    def draw(
        self, batch: int, *, like: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        u, _ = LowDiscrepancyDepths().draw(batch, like=like, generator=generator)
        density = self.density()
        edges = F.pad(density.cumsum(0) / self.bins, (1, 0))
        u_ = u.double().cpu() * edges[-1]
        cell = (torch.searchsorted(edges, u_, right=True) - 1).clamp(0, self.bins - 1)
        t = (cell + (u_ - edges[cell]) / (edges[cell + 1] - edges[cell])) / self.bins
        return t.to(like).clamp(0, 1), (1 / density[cell]).to(like)


def uniform_grid(depth: int, like: Tensor) -> Tensor:
    """The T + 1 depths i/T of a model of T = `depth` steps."""
    if depth < 1:
        raise ValueError(f"depth={depth}; a model needs at least one step")
    return torch.linspace(0, 1, depth + 1, dtype=like.dtype, device=like.device)


def check_grid(grid: Tensor, depth: int, like: Tensor) -> Tensor:
    """`grid` in `like`'s dtype, if it holds depth + 1 depths increasing from 0 to 1; ValueError if not."""
    if grid.shape != (depth + 1,) or grid[0] != 0 or grid[-1] != 1 or not (grid.diff() > 0).all():
        raise ValueError(
            f"grid must hold depth + 1 = {depth + 1} depths, strictly increasing from 0 to 1; got {grid}"
        )
    return grid.to(like)
