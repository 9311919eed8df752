"""Calibrating a model of finite depth to data: variance ratios w*, noise levels eta*, and the best T-step grid.

With the best ratio, w* = 1 + E||Delta||^2/(d S^2), a step from t to s costs d/2 ln w*(s, t) nats, and a grid the sum
over its steps. So the best grid of T steps among N + 1 candidate depths is a shortest path with T edges:

    best_k(t) = min_{s < t} best_{k-1}(s) + cost(s, t),     cost(s, t) = min_eta d/2 ln w*_eta(s, t)

Finer ratios, one a dimension or a function of x_hat, cost less (see `ratios`). Every grid, w and eta gives a valid
ELBO; a table is noisy, so what was chosen on training data is to be reported on other data. Mixture steps have costs of
their own (see `mixtures`).

The noise level at infinite depth is `tightness`.

Reference: theory/calibration.py proves ratio, costs and grids.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Shaped
from torch import Tensor

from diffenc_ct.calibration.mixtures import measure_mixture_steps
from diffenc_ct.calibration.paths import shortest_path, uniform_nodes
from diffenc_ct.calibration.ratios import (
    KEPT,
    ErrorSample,
    RatioPerValue,
    fit_values,
    step_excess,
)
from diffenc_ct.calibration.steps import Calibration
from diffenc_ct.calibration.tables import Measurement, StepTables, measure_steps
from diffenc_ct.distributed import Progress, silent
from diffenc_ct.elbo import StepKind, check_step
from diffenc_ct.elbo.infinite import refuse_determinism
from diffenc_ct.model import DiffEnc
from diffenc_ct.model.fingerprint import fingerprint
from diffenc_ct.process import AnyNoiseLevel, NoiseLevel, as_noise_level

# Values whose divergences are taken at every step between candidates, for mixture steps.
INTEGRATED = 2**12
# eta^2 tried for each step.
ETA_SQUARED = tuple(2 ** (k / 4) for k in range(-4, 9))


@dataclass(frozen=True)
class CalibrationOptions:
    """What is fitted.

    Attributes:
        noise_level: eta of all steps; None to fit eta* of each.
        ratio: w*, one number a "step"; one a step and "dimension"; or a function of the predicted "value" x_hat, with
            the grid and eta* that are best for it, the best of the three. The last two take a second pass.
        grid: "best", or "uniform" to keep every (candidates/depth)-th depth.
        candidates: depths to choose from; None for 256, or 64 of mixture steps, which cost more to measure.
        step: "gaussian", or "mixture" for heads that know a distribution of every value: then w = 1, and grid and eta*
            are fitted.

    Raises:
        ValueError: for unknown words, for eta = 0, with which a step's bound is infinite, and for a finer ratio of
            mixture steps.

    Example:
        >>> import diffenc_ct as dc
        >>> dc.CalibrationOptions(ratio="value", candidates=128).grid
        'best'
    """

    noise_level: AnyNoiseLevel | None = None
    ratio: Literal["step", "dimension", "value"] = "step"
    grid: Literal["best", "uniform"] = "best"
    candidates: int | None = None
    step: StepKind = "gaussian"

    def __post_init__(self) -> None:
        check_step(self.step)
        if self.ratio not in ("step", "dimension", "value"):
            raise ValueError(f'ratio={self.ratio!r}; choose "step", "dimension" or "value"')
        if self.grid not in ("best", "uniform"):
            raise ValueError(f'grid={self.grid!r}; choose "best" or "uniform"')
        if self.step == "mixture" and self.ratio != "step":
            raise ValueError(
                f"ratio={self.ratio!r} is of Gaussian steps; mixture steps have w = 1: leave it out, or take "
                'step="gaussian"'
            )
        if self.noise_level is not None:
            refuse_determinism(as_noise_level(self.noise_level))

    @property
    def nodes(self) -> int:
        """How many depths there are to choose from."""
        return self.candidates or (64 if self.step == "mixture" else 256)

    def levels(self, tried: Sequence[float]) -> list[NoiseLevel]:
        """The given noise level, or those that are tried for each step.

        Args:
            tried: eta^2.
        """
        if self.noise_level is not None:
            return [as_noise_level(self.noise_level)]
        return [as_noise_level(e**0.5) for e in tried]


def plan(tables: StepTables, depth: int, options: CalibrationOptions | None = None) -> Calibration:
    """The best grid of `depth` steps among the tables' candidates, with w* and eta* of each step.

    With ratio="value" the grid is the best for such ratios, and ratio_per_value has their bins, with w* of the step on
    all of them: `calibrate` fits them, and ratios a dimension, by a second pass over the data.

    Args:
        tables: of steps between candidates, with values kept where ratios are to be per value.
        depth: number of steps T.
        options: CalibrationOptions() by default; its candidates are the tables'.

    Raises:
        ValueError: where depth does not fit, or no values were kept for ratios per value.
    """
    options = CalibrationOptions() if options is None else options
    given, levels = options.noise_level, options.levels(ETA_SQUARED)
    half = tables.dimensions / 2
    # A grid is chosen on smoothed tables; what it costs is read from the tables themselves.
    source = tables.smoothed() if options.grid == "best" else tables
    expected = torch.stack([source.excess(level) for level in levels])
    edges = None
    if options.ratio != "value":
        costs = half * torch.log1p(expected)
    elif tables.kept is None:
        raise ValueError(
            'ratio="value" needs single values: measure the steps with Measurement(keep=...)'
        )
    else:
        errors = ErrorSample(tables.kept, tables.dimensions, tables.examples)
        costs, edges = errors.costs(tables.gamma, levels, expected)
    cost, which = costs.min(0)
    nodes = (
        uniform_nodes(len(tables.t) - 1, depth)
        if options.grid == "uniform"
        else shortest_path(cost, depth)
    )
    index, gamma = torch.tensor(nodes), tables.gamma[torch.tensor(nodes)]
    s, t = index[:-1], index[1:]
    chosen = which[s, t]
    all_groups = torch.stack([tables.excess(level, groups=True)[:, s, t] for level in levels])
    excess = all_groups[chosen, :, torch.arange(depth)].T  # (groups, T)
    losses = half * torch.log1p(excess).sum(1)
    if given is None:
        eta_squared = torch.tensor(ETA_SQUARED, dtype=torch.float64)[chosen]
    else:
        eta_squared = as_noise_level(given).integral(gamma[:-1], gamma[1:]) / gamma.diff()
    ratio = 1 + excess.mean(0)
    return Calibration(
        grid=tables.t[index],
        gamma=gamma,
        ratio=ratio,
        ratio_error=excess.std(0) / len(excess) ** 0.5,
        eta_squared=eta_squared,
        ratio_per_dimension=None,
        ratio_per_value=None
        if edges is None
        else RatioPerValue(edges[t].double(), ratio[:, None].expand(-1, edges.shape[1] + 1)),
        loss=float(half * torch.log1p(excess.mean(0)).sum()),
        loss_error=float(losses.std() / len(losses) ** 0.5),
        examples=tables.examples,
    )


def calibrate(
    model: DiffEnc,
    data: Shaped[Tensor, "examples *data"],
    depth: int,
    options: CalibrationOptions | None = None,
    *,
    generator: torch.Generator | None = None,
    progress: Progress = silent,
) -> Calibration:
    """w*, eta* and the best grid for a model of `depth` steps, from one pass over training data.

    FiniteDepth(calibration) is the bound, Ancestral.of(calibration) the sampler.

    Args:
        model: DiffEnc.
        data: training examples, levels or reals.
        depth: number of steps T.
        options: what is fitted; CalibrationOptions() by default.
        generator: of the noise.
        progress: called with the number of examples that were done.

    Raises:
        ValueError: as of Measurement, measure_steps and plan.

    Example:
        >>> import torch, diffenc_ct as dc
        >>> world = dc.worlds.GaussianWorld(torch.zeros(2).double(), torch.ones(2).double())
        >>> model = world.model(dc.LinearSchedule())
        >>> found = dc.calibrate(model, world.sample(64), 4, dc.CalibrationOptions(candidates=8))
        >>> terms = dc.elbo(model, world.sample(8), dc.FiniteDepth(found))
        >>> found.depth, found.ratio_name
        (4, 'w*')
    """
    options = CalibrationOptions() if options is None else options
    if options.step == "mixture":
        how = Measurement(options.nodes, shared_noise=True, keep=INTEGRATED)
        levels = options.levels(ETA_SQUARED[::2])
        costs = measure_mixture_steps(
            model, data, levels, how, generator=generator, progress=progress
        )
        best = costs.plan(depth, levels, uniform=options.grid == "uniform")
        return replace(best, fitted_to=fingerprint(model))
    how = Measurement(
        candidates=options.nodes,
        shared_noise=True,
        keep=KEPT if options.ratio == "value" else 0,
    )
    tables = measure_steps(model, data, how, generator=generator, progress=progress)
    found = plan(tables, depth, options)
    steps = (model, data, found.grid, found.noise_level)
    if found.ratio_per_value is not None:
        fitted = fit_values(found.ratio_per_value, *steps, generator=generator)
        found = replace(found, ratio_per_value=fitted)
    if options.ratio == "dimension":
        ratio = 1 + step_excess(*steps, generator=generator).cpu()
        found = replace(found, ratio_per_dimension=ratio)
    return replace(found, fitted_to=fingerprint(model))
