"""Calibrating a model of finite depth to data: variance ratios w*, noise levels eta*, and the best T-step grid.

With the best ratio, w* = 1 + E||Delta||^2/(d S^2), a step from t to s costs d/2 ln w*(s, t) nats, and a grid the sum
over its steps. So the best grid of T steps among N + 1 candidate depths is a shortest path with T edges:

    best_k(t) = min_{s < t} best_{k-1}(s) + cost(s, t),     cost(s, t) = min_eta d/2 ln w*_eta(s, t)

One ratio a dimension, w_i* = 1 + E[Delta_i^2]/S^2, costs 1/2 sum_i ln w_i* <= d/2 ln w*. Every grid, w and eta gives a
valid ELBO; a table is noisy, so what was chosen on training data is to be reported on other data.

The noise level at infinite depth is `tightness`.

Reference: theory/calibration.py proves ratio, costs and grids.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from diffenc_ct.depths import uniform_grid
from diffenc_ct.elbo import mean_difference
from diffenc_ct.encoders import Encoding
from diffenc_ct.model import DiffEnc
from diffenc_ct.process import NoiseLevel, as_noise_level, marginal, normal_like
from diffenc_ct.schedules import snr
from diffenc_ct.step_tables import StepTables, measure_steps
from diffenc_ct.tightness import Tightness, optimal_eta_squared, tightness

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
    of w*; ratio_per_dimension: (T, *data) or None; loss, loss_error: the fitted L_T in nats an example.
    """

    grid: Tensor
    gamma: Tensor
    ratio: Tensor
    ratio_error: Tensor
    eta_squared: Tensor
    ratio_per_dimension: Tensor | None
    loss: float
    loss_error: float
    examples: int

    @property
    def depth(self) -> int:
        return len(self.ratio)

    @property
    def finest_ratio(self) -> Tensor:
        """w_i* (T, *data) where it was fitted, else w* (T,)."""
        return self.ratio if self.ratio_per_dimension is None else self.ratio_per_dimension

    @property
    def noise_level(self) -> SteppedNoiseLevel:
        """eta*, constant on each step."""
        return SteppedNoiseLevel(self.gamma, self.eta_squared)

    def save(self, path: str | Path) -> None:
        """Write as JSON, beside a checkpoint."""
        plain = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in vars(self).items()}
        Path(path).write_text(json.dumps(plain) + "\n", encoding="utf-8")

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
        fields: dict[str, Any] = {
            k: torch.tensor(v, dtype=torch.float64) if isinstance(v, list) else v
            for k, v in plain.items()
        }
        return Calibration(**fields)


def plan(
    tables: StepTables,
    depth: int,
    *,
    noise_level: float | NoiseLevel | Literal["optimal"] = 1.0,
    grid: Literal["best", "uniform"] = "best",
) -> Calibration:
    """The best grid of `depth` steps among the tables' candidates, with w* and, if "optimal", eta* of each step.

    grid="uniform" keeps every (N/depth)-th candidate. Raises ValueError where depth does not fit.
    """
    levels = [e**0.5 for e in ETA_SQUARED] if noise_level == "optimal" else [noise_level]
    half = tables.dimensions / 2
    # A grid is chosen on smoothed tables; what it costs is read from the tables themselves.
    source = tables.smoothed() if grid == "best" else tables
    costs = torch.stack([half * torch.log1p(source.excess(level)) for level in levels])
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
    return Calibration(
        grid=tables.t[index],
        gamma=gamma,
        ratio=1 + excess.mean(0),
        ratio_error=excess.std(0) / len(excess) ** 0.5,
        eta_squared=eta_squared,
        ratio_per_dimension=None,
        loss=float(half * torch.log1p(excess.mean(0)).sum()),
        loss_error=float(losses.std() / len(losses) ** 0.5),
        examples=tables.examples,
    )


@torch.no_grad()
def step_excess(
    model: DiffEnc,
    data: Tensor,
    grid: Tensor,
    noise_level: float | NoiseLevel = 1.0,
    *,
    batch_size: int = 64,
    generator: torch.Generator | None = None,
) -> Tensor:
    """E[Delta_i^2]/S^2 of every step and dimension, (T, *data): w_i* - 1. One evaluation an example and step."""
    level, total = as_noise_level(noise_level), torch.zeros(())
    for part in data.split(batch_size):
        x = model.scale(part)
        gamma = model.schedule(grid.to(x)).gamma
        sums = []
        x_s = model.encoder.encode(x, gamma[0].expand(len(x)))
        for gamma_s, gamma_t in zip(gamma[:-1], gamma[1:], strict=True):
            s, t = gamma_s.expand(len(x)), gamma_t.expand(len(x))
            x_t, noise = model.encoder.encode(x, t), normal_like(x, generator)
            encoding = Encoding(x_t, torch.zeros_like(x_t))
            errors = model.errors(marginal(x_t, t).sample(noise=noise), noise, encoding, t)
            difference = mean_difference(errors, encoding, x_s, s, t, level)
            variance = -torch.expm1(-level.integral(gamma_s, gamma_t)) / snr(gamma_s)
            sums.append((difference.double() ** 2).sum(0) / variance.double())
            x_s = x_t
        total = total.to(x.device) + torch.stack(sums)
    return total / len(data)


def calibrate(
    model: DiffEnc,
    data: Tensor,
    *,
    depth: int,
    candidates: int = 256,
    noise_level: float | NoiseLevel | Literal["optimal"] = "optimal",
    per_dimension: bool = False,
    grid: Literal["best", "uniform"] = "best",
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] | None = None,
) -> Calibration:
    """w*, eta* and the best grid for a model of `depth` steps, from training data (examples, *data), one pass.

    per_dimension: also w_i*, from a second pass over the chosen steps alone. Errors as in measure_steps and plan.
    """
    tables = measure_steps(
        model,
        data,
        candidates=candidates,
        shared_noise=True,
        generator=generator,
        progress=progress,
    )
    found = plan(tables, depth, noise_level=noise_level, grid=grid)
    if not per_dimension:
        return found
    excess = step_excess(model, data, found.grid, found.noise_level, generator=generator)
    return Calibration(**(vars(found) | {"ratio_per_dimension": 1 + excess.cpu()}))


__all__ = [
    "Calibration",
    "SteppedNoiseLevel",
    "StepTables",
    "Tightness",
    "calibrate",
    "measure_steps",
    "optimal_eta_squared",
    "plan",
    "shortest_path",
    "step_excess",
    "tightness",
    "uniform_grid",
]
