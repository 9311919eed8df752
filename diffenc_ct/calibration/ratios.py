"""Variance ratios finer than one number a step: one a dimension, or a function of the predicted value x_hat.

The step p(z_s | z_t) = N(mu_P, S^2 diag w) may take any positive w(z_t), since z_t is known when z_s is drawn: the
divergence is that of `elbo`, term by term. Among constants, and among functions of x_hat_i, the best are

    w_i* = 1 + E[Delta_i^2]/S^2,       w*(x_hat) = 1 + E[Delta_i^2 | x_hat_i = x_hat]/S^2,

and 1/2 sum_i E ln w*, which a step then costs, is at most d/2 ln w*. x_hat needs no further evaluation and says most of
what a dimension's spread depends on: a pixel predicted black is black, one in between is one or the other.

Theorems: elbo.optimal_ratio_per_dimension, elbo.optimal_ratio_of_the_state.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from diffenc_ct.calibration.products import Products, squared_difference
from diffenc_ct.calibration.tables import Kept
from diffenc_ct.elbo import mean_difference
from diffenc_ct.encoders import Encoding
from diffenc_ct.model import DiffEnc, evaluating
from diffenc_ct.process import (
    AnyNoiseLevel,
    Estimates,
    NoiseLevel,
    as_noise_level,
    marginal,
    normal_like,
)
from diffenc_ct.schedules import snr

# Dimensions kept at all depths, of examples taken in turn: enough to choose edges and a grid by.
KEPT = 2**14
# A bin holds at least so many values on average, and there are at most so many bins.
VALUES_A_BIN, BINS = 256, 128
# How many values of the overall mean a bin starts from.
PRIOR = 4


@dataclass(frozen=True)
class RatioPerValue:
    """w of T steps as a function of x_hat, constant on bins.

    Attributes:
        edges: of the bins, increasing, (T, bins - 1).
        values: w in each, (T, bins).
    """

    edges: Float[Tensor, "steps edges"]
    values: Float[Tensor, "steps bins"]

    def __call__(
        self, step: Int[Tensor, " batch"], estimates: Estimates
    ) -> Float[Tensor, "batch *data"]:
        """w of every dimension.

        Args:
            step: of each example, 0 next to the data.
            estimates: there, (batch, *data).
        """
        x_hat = estimates.x_hat.flatten(1)
        edges, values = (v.to(x_hat)[step.to(x_hat.device)] for v in (self.edges, self.values))
        return values.gather(1, torch.searchsorted(edges, x_hat)).view_as(estimates.x_hat)

    def fitted(
        self, sums: Float[Tensor, "steps bins"], counts: Float[Tensor, "steps bins"]
    ) -> "RatioPerValue":
        """The same bins with 1 + sums/counts in each.

        A bin's mean counts its step's as PRIOR values, so that a bin that few visit is not believed.

        Args:
            sums: of Delta_i^2/S^2 in each bin.
            counts: how many values that are.
        """
        mean = sums.sum(1, keepdim=True) / counts.sum(1, keepdim=True)
        return replace(self, values=1 + (sums + PRIOR * mean) / (counts + PRIOR))


class ErrorSample:
    """Edges and grids for ratios per value, chosen by what `measure_steps` kept.

    Args:
        kept: e, r and x_t of some values at all candidate depths.
        dimensions: d.
        examples: how many the values come from.
    """

    def __init__(self, kept: Kept, dimensions: int, examples: int) -> None:
        self.kept, self.dimensions = kept, dimensions
        self.bins = max(1, min(BINS, dimensions * examples // VALUES_A_BIN))

    def edges(
        self, x_hat: Float[Tensor, " kept"], e: Float[Tensor, " kept"]
    ) -> Float[Tensor, " edges"]:
        """Edges with the same mass in each bin, half of it for values and half for their errors |e|.

        Args:
            x_hat: estimates at one depth.
            e: x_t - x_hat of each.
        """
        order = x_hat.argsort()
        error = e[order].abs().double()
        mass = (1 / len(e) + error / error.sum().clamp(min=1e-300)).cumsum(0)
        wanted = torch.linspace(0, 1, self.bins + 1, dtype=torch.float64)[1:-1] * mass[-1]
        at = torch.searchsorted(mass, wanted).clamp(max=len(e) - 1)
        return x_hat[order][at]

    def costs(
        self,
        gamma: Float[Tensor, " nodes"],
        levels: Sequence[NoiseLevel],
        excess: Float[Tensor, "levels nodes nodes"],
    ) -> tuple[Float[Tensor, "levels nodes nodes"], Float[Tensor, "nodes edges"]]:
        """1/2 sum_i E ln w*(x_hat_i) of every step by (s, t), and the edges of the bins at every depth.

        Args:
            gamma: of the candidate depths.
            levels: eta, the noise levels tried.
            excess: w* - 1 by (s, t) for each, from all of the data: the sample says how it spreads over values only.
        """
        e, r, x = self.kept.e, self.kept.r, self.kept.x
        found = torch.zeros_like(excess)
        edges = torch.stack([self.edges(x[t] - e[t], e[t]) for t in range(len(gamma))])
        for t in range(1, len(gamma)):
            cell = torch.searchsorted(edges[t], x[t] - e[t])
            binned = binning(cell, self.bins)
            share = binned(torch.ones_like(e[t])) / len(cell)
            ee, er, rr = binned(e[t] ** 2), binned(e[t] * r[t]), binned(r[t] ** 2)
            moved = x[:t] - x[t]
            mm = em = rm = torch.zeros(())
            if moved.any():  # not the identity encoder
                mm, em, rm = (binned(v) for v in (moved**2, e[t] * moved, r[t] * moved))
            gamma_s, gamma_t = gamma[:t, None], gamma[t].expand(t, 1)
            for found_l, excess_l, level in zip(found, excess, levels, strict=True):
                square = squared_difference(
                    gamma_s, gamma_t, level, Products(ee, er, rr, mm, em, rm)
                )
                square = square / share.clamp(min=1 / len(cell))
                spread = square / (share * square).sum(1, keepdim=True).clamp(min=1e-300)
                terms = share * torch.log1p(excess_l[:t, t, None] * spread)
                found_l[:t, t] = self.dimensions / 2 * terms.sum(1)
        return found, edges


def binning(cell: Int[Tensor, " values"], bins: int) -> Callable[[Tensor], Tensor]:
    """A function that sums over the last axis by bin, (..., values) to (..., bins), float64.

    Args:
        cell: the bin of each value.
        bins: how many there are.
    """
    return lambda v: torch.zeros(*v.shape[:-1], bins, dtype=torch.float64).index_add_(
        -1, cell, v.double()
    )


def _squares(
    model: DiffEnc,
    data: Tensor,
    grid: Tensor,
    noise_level: AnyNoiseLevel,
    batch_size: int,
    generator: torch.Generator | None,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """For each batch and step: the step, x_hat and Delta_i^2/S^2 (batch, *data), float64."""
    level = as_noise_level(noise_level)
    for some in torch.split(torch.arange(len(data)), batch_size):
        x, part = model.scale(data[some.to(data.device)]), model.rows(some)
        gamma = model.schedule(grid.to(x)).gamma
        x_s = model.encoder.encode(x, gamma[0].expand(len(x)))
        for step, (gamma_s, gamma_t) in enumerate(zip(gamma[:-1], gamma[1:], strict=True)):
            s, t = gamma_s.expand(len(x)), gamma_t.expand(len(x))
            x_t, noise = model.encoder.encode(x, t), normal_like(x, generator)
            encoding = Encoding(x_t, torch.zeros_like(x_t))
            errors = part.errors(marginal(x_t, t).sample(noise=noise), noise, encoding, t)
            difference = mean_difference(errors, encoding, x_s, s, t, level)
            variance = -torch.expm1(-level.integral(gamma_s, gamma_t)) / snr(gamma_s)
            yield step, x_t - errors.x, difference.double() ** 2 / variance.double()
            x_s = x_t


@torch.no_grad()
def step_excess(
    model: DiffEnc,
    data: Shaped[Tensor, "examples *data"],
    grid: Float[Tensor, " nodes"],
    noise_level: AnyNoiseLevel = 1.0,
    *,
    batch_size: int = 64,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "steps *data"]:
    """E[Delta_i^2]/S^2 = w_i* - 1 of every step and dimension. One evaluation an example and step.

    Theorem: elbo.optimal_ratio_per_dimension.

    Args:
        model: DiffEnc.
        data: levels or reals.
        grid: T + 1 depths.
        noise_level: eta.
        batch_size: examples at a time.
        generator: of the noise.
    """
    sums = [torch.zeros(())] * (len(grid) - 1)
    with evaluating(model):
        for step, _, squares in _squares(model, data, grid, noise_level, batch_size, generator):
            sums[step] = sums[step] + squares.sum(0)
    return torch.stack(sums) / len(data)


@torch.no_grad()
def fit_values(
    ratio: RatioPerValue,
    model: DiffEnc,
    data: Shaped[Tensor, "examples *data"],
    grid: Float[Tensor, " nodes"],
    noise_level: AnyNoiseLevel = 1.0,
    *,
    batch_size: int = 64,
    generator: torch.Generator | None = None,
) -> RatioPerValue:
    """w*(x_hat) = 1 + E[Delta_i^2 | x_hat]/S^2 on given bins. One evaluation an example and step.

    Theorem: elbo.optimal_ratio_of_the_state.

    Args:
        ratio: whose bins they are.
        model: DiffEnc.
        data: levels or reals.
        grid: T + 1 depths.
        noise_level: eta.
        batch_size: examples at a time.
        generator: of the noise.
    """
    sums, counts = (torch.zeros_like(ratio.values) for _ in range(2))
    with evaluating(model):
        for step, x_hat, squares in _squares(model, data, grid, noise_level, batch_size, generator):
            cell = torch.searchsorted(ratio.edges[step].to(x_hat), x_hat.flatten()).cpu()
            add = binning(cell, counts.shape[1])
            sums[step] += add(squares.flatten().cpu())
            counts[step] += add(torch.ones(len(cell)))
    return ratio.fitted(sums, counts)
