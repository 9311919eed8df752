"""Calibrating a model of finite depth to data: variance ratios w*, noise levels eta*, and the best T-step grid.

With the best ratio, w* = 1 + E||Delta||^2/(d S^2), a step from t to s costs d/2 ln w*(s, t) nats, and a grid the sum
over its steps. So the best grid of T steps among N + 1 candidate depths is a shortest path with T edges:

    best_k(t) = min_{s < t} best_{k-1}(s) + cost(s, t),     cost(s, t) = min_eta d/2 ln w*_eta(s, t)

Finer ratios, one a dimension or a function of x_hat, cost less (see `ratios`). Every grid, w and eta gives a valid
ELBO; a table is noisy, so what was chosen on training data is to be reported on other data.

The noise level at infinite depth is `tightness`.

Reference: theory/calibration.py proves ratio, costs and grids.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from diffenc_ct.calibration._tightness import Tightness, optimal_eta_squared, tightness
from diffenc_ct.calibration.ratios import ErrorSample, RatioPerValue, fit_values, step_excess
from diffenc_ct.calibration.tables import StepTables, measure_steps
from diffenc_ct.elbo import uniform_grid
from diffenc_ct.model import DiffEnc
from diffenc_ct.process import NoiseLevel, as_noise_level

# eta^2 tried for each step.
ETA_SQUARED = tuple(2 ** (k / 4) for k in range(-4, 9))


class SteppedNoiseLevel(NoiseLevel):
    """eta^2 constant on each interval of `gamma` (T + 1,), `eta_squared` (T,); its ends' values go on outside."""

    def __init__(self, gamma: Tensor, eta_squared: Tensor) -> None:
        if gamma.ndim != 1 or eta_squared.shape != (len(gamma) - 1,):
            raise ValueError(
                f"gamma {tuple(gamma.shape)} must be (T + 1,), eta_squared {tuple(eta_squared.shape)} (T,)"
            )
        if not (gamma.diff() > 0).all() or not (eta_squared > 0).all():
            raise ValueError("gamma must be strictly increasing and eta_squared positive")
        self.gamma, self.eta_squared = gamma.double(), eta_squared.double()
        self.cumulative = F.pad((self.gamma.diff() * self.eta_squared).cumsum(0), (1, 0))

    def _cell(self, gamma: Tensor) -> Tensor:
        inner = self.gamma[1:-1].to(gamma.device)
        return torch.searchsorted(inner, gamma.detach().double().contiguous(), right=True)

    def squared(self, gamma: Tensor) -> Tensor:
        return self.eta_squared.to(gamma.device)[self._cell(gamma)].to(gamma.dtype)

    def _primitive(self, gamma: Tensor) -> Tensor:
        cell = self._cell(gamma)
        start, total, slope = (
            v.to(gamma.device)[cell] for v in (self.gamma, self.cumulative, self.eta_squared)
        )
        return total + slope * (gamma.double() - start)

    def integral(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
        return (self._primitive(gamma_t) - self._primitive(gamma_s)).to(gamma_t.dtype)


def shortest_path(cost: Tensor, steps: int) -> list[int]:
    """The nodes 0 = i_0 < i_1 < ... < i_steps = N of the cheapest path; cost (N + 1, N + 1), indexed (from, to).

    Theorem: calibration.grid_cost. Raises ValueError where there are fewer than `steps` intervals.
    """
    n = len(cost) - 1
    if not 1 <= steps <= n:
        raise ValueError(f"a path of {steps} steps through {n} intervals; give 1 to {n}")
    allowed = torch.ones_like(cost, dtype=torch.bool).triu(1)
    cost = cost.masked_fill(~allowed, torch.inf)
    best, came = cost[0], []
    for _ in range(steps - 1):
        best, source = (best[:, None] + cost).min(0)
        came.append(source)
    path = [n]
    for source in reversed(came):
        path.append(int(source[path[-1]]))
    return [0, *reversed(path)]


@dataclass(frozen=True)
class Calibration:
    """A grid for `depth` steps with its ratio and noise level, fitted on `examples` examples.

    grid: depths (T + 1,) from 0 to 1; gamma: there; ratio: w* (T,); eta_squared (T,); ratio_error: standard errors
    of w*; ratio_per_dimension: (T, *data) or None; ratio_per_value: w*(x_hat) or None; loss, loss_error: the fitted
    L_T in nats an example with one ratio a step.
    """

    grid: Tensor
    gamma: Tensor
    ratio: Tensor
    ratio_error: Tensor
    eta_squared: Tensor
    ratio_per_dimension: Tensor | None
    ratio_per_value: RatioPerValue | None
    loss: float
    loss_error: float
    examples: int

    @property
    def depth(self) -> int:
        return len(self.ratio)

    @property
    def finest_ratio(self) -> Tensor | RatioPerValue:
        """w*(x_hat) where it was fitted, else w_i* (T, *data), else w* (T,)."""
        fitted = (self.ratio_per_value, self.ratio_per_dimension, self.ratio)
        return next(ratio for ratio in fitted if ratio is not None)

    @property
    def ratio_name(self) -> str:
        """What finest_ratio is, in words."""
        if self.ratio_per_value is not None:
            return "w*(x_hat)"
        return "w*" if self.ratio_per_dimension is None else "w* per dimension"

    @property
    def noise_level(self) -> SteppedNoiseLevel:
        """eta*, constant on each step."""
        return SteppedNoiseLevel(self.gamma, self.eta_squared)

    def save(self, path: str | Path) -> None:
        """Write as JSON, beside a checkpoint."""
        text = json.dumps(asdict(self), default=Tensor.tolist)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @staticmethod
    def load(path: str | Path) -> "Calibration":
        """Read what `save` wrote; ValueError where it is something else."""
        try:
            plain = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is no calibration: it is not JSON ({error})") from None
        names = set(Calibration.__dataclass_fields__)
        if not isinstance(plain, dict) or set(plain) != names:
            raise ValueError(
                f"{path} is no calibration: its fields must be {', '.join(sorted(names))}"
            )
        fields = _tensors(plain)
        if fields["ratio_per_value"] is not None:
            fields["ratio_per_value"] = RatioPerValue(**_tensors(fields["ratio_per_value"]))
        return Calibration(**fields)


def _tensors(plain: dict[str, Any]) -> dict[str, Any]:
    return {
        k: torch.tensor(v, dtype=torch.float64) if isinstance(v, list) else v
        for k, v in plain.items()
    }


def plan(
    tables: StepTables,
    depth: int,
    *,
    noise_level: float | NoiseLevel | Literal["optimal"] = 1.0,
    grid: Literal["best", "uniform"] = "best",
    errors: ErrorSample | None = None,
) -> Calibration:
    """The best grid of `depth` steps among the tables' candidates, with w* and, if "optimal", eta* of each step.

    grid="uniform" keeps every (N/depth)-th candidate. errors: for ratios per value: grid and noise levels are then the
    best for those, and ratio_per_value has their edges, with w* of the step on all bins. Raises ValueError where depth
    does not fit.
    """
    levels = [e**0.5 for e in ETA_SQUARED] if noise_level == "optimal" else [noise_level]
    half = tables.dimensions / 2
    # A grid is chosen on smoothed tables; what it costs is read from the tables themselves.
    source = tables.smoothed() if grid == "best" else tables
    expected = torch.stack([source.excess(level) for level in levels])
    edges = None
    if errors is None:
        costs = half * torch.log1p(expected)
    else:
        costs, edges = errors.costs(tables.gamma, [as_noise_level(v) for v in levels], expected)
    cost, which = costs.min(0)
    if grid == "uniform":
        n = len(tables.t) - 1
        if n % depth:
            raise ValueError(
                f"a uniform grid of {depth} steps needs candidates={n} to be a multiple"
            )
        nodes = list(range(0, n + 1, n // depth))
    else:
        nodes = shortest_path(cost, depth)
    index, gamma = torch.tensor(nodes), tables.gamma[torch.tensor(nodes)]
    s, t = index[:-1], index[1:]
    chosen = which[s, t]
    all_groups = torch.stack([tables.excess(level, groups=True)[:, s, t] for level in levels])
    excess = all_groups[chosen, :, torch.arange(depth)].T  # (groups, T)
    losses = half * torch.log1p(excess).sum(1)
    if noise_level == "optimal":
        eta_squared = torch.tensor(ETA_SQUARED, dtype=torch.float64)[chosen]
    else:
        eta_squared = as_noise_level(noise_level).integral(gamma[:-1], gamma[1:]) / gamma.diff()
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
    data: Tensor,
    *,
    depth: int,
    candidates: int = 256,
    noise_level: float | NoiseLevel | Literal["optimal"] = "optimal",
    per_dimension: bool = False,
    per_value: bool = False,
    grid: Literal["best", "uniform"] = "best",
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> Calibration:
    """w*, eta* and the best grid for a model of `depth` steps, from training data (examples, *data), one pass.

    per_value: also w*(x_hat), and the grid and eta* that are best for it; per_dimension: also w_i*. Each from a second
    pass over the chosen steps alone. Errors as in measure_steps and plan.
    """
    errors = ErrorSample(data[0].numel(), len(data)) if per_value else None
    tables = measure_steps(
        model,
        data,
        candidates=candidates,
        shared_noise=True,
        observe=None if errors is None else errors.observe,
        generator=generator,
        progress=progress,
    )
    found = plan(tables, depth, noise_level=noise_level, grid=grid, errors=errors)
    steps = (model, data, found.grid, found.noise_level)
    if found.ratio_per_value is not None:
        fitted = fit_values(found.ratio_per_value, *steps, generator=generator)
        found = replace(found, ratio_per_value=fitted)
    if per_dimension:
        ratio = 1 + step_excess(*steps, generator=generator).cpu()
        found = replace(found, ratio_per_dimension=ratio)
    return found


__all__ = [
    "Calibration",
    "RatioPerValue",
    "SteppedNoiseLevel",
    "StepTables",
    "Tightness",
    "calibrate",
    "fit_values",
    "measure_steps",
    "optimal_eta_squared",
    "plan",
    "shortest_path",
    "step_excess",
    "tightness",
    "uniform_grid",
]
