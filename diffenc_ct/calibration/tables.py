"""E||Delta||^2 of every step between N + 1 candidate depths, from one network evaluation an example and depth.

A step from t to s has, divided by alpha_s and with D = gamma_t - gamma_s (see `products`),

    Delta = k e + (x_s - x_t) - D r,      e = x_t - x_hat,  r = r_hat

e and r belong to t alone, so the inner products of e, r with themselves and with all x_s, and those of the x_s, hold
E||Delta||^2 for every pair (s, t) and every noise level. They are summed in groups of examples: the spread over groups
is the standard error of whatever is computed from them.

Reference: theory/calibration.py (finite depth); MATH section 5 of the theory's page.
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from diffenc_ct.calibration.products import Products, squared_difference
from diffenc_ct.distributed import Progress, silent
from diffenc_ct.elbo import uniform_grid
from diffenc_ct.encoders import Encoding
from diffenc_ct.model import DiffEnc, evaluating
from diffenc_ct.process import AnyNoiseLevel, as_noise_level, marginal, normal_like
from diffenc_ct.schedules import snr


@dataclass(frozen=True)
class StepTables:
    """Means over the examples of each group, float64.

    Attributes:
        t: candidate depths, (N + 1,), increasing.
        gamma: there.
        ee: <e, e> at t, (groups, N + 1).
        er: <e, r>, likewise.
        rr: <r, r>, likewise.
        rate_error: ||x_t' - r||^2, likewise.
        error_rate: <e, x_t' - r>, likewise.
        ex: <e_t, x_s> by (t, s), (groups, N + 1, N + 1).
        rx: <r_t, x_s>, likewise.
        xx: <x_t, x_s>, likewise.
        dimensions: d.
        examples: how many.
        kept: single values, where they were asked for.
    """

    t: Float[Tensor, " nodes"]
    gamma: Float[Tensor, " nodes"]
    ee: Float[Tensor, "groups nodes"]
    er: Float[Tensor, "groups nodes"]
    rr: Float[Tensor, "groups nodes"]
    rate_error: Float[Tensor, "groups nodes"]
    error_rate: Float[Tensor, "groups nodes"]
    ex: Float[Tensor, "groups nodes nodes"]
    rx: Float[Tensor, "groups nodes nodes"]
    xx: Float[Tensor, "groups nodes nodes"]
    dimensions: int
    examples: int
    kept: "Kept | None" = None

    def excess(
        self, noise_level: AnyNoiseLevel = 1.0, *, groups: bool = False
    ) -> Float[Tensor, "*groups nodes nodes"]:
        """E||Delta||^2 / (d S^2) = w* - 1 for all steps, indexed (s, t); 0 unless s < t.

        Theorem: elbo.optimal_ratio.

        Args:
            noise_level: eta.
            groups: one table a group of examples, else their mean.
        """
        level, n = as_noise_level(noise_level), len(self.gamma)
        gamma_t = self.gamma.expand(n, n).contiguous()
        gamma_s = gamma_t.mT.contiguous()
        tables = (self.ee, self.er, self.rr, self.ex, self.rx, self.xx)
        ee, er, rr, ex, rx, xx = (v if groups else v.mean(0, keepdim=True) for v in tables)
        ex, rx = ex.mT, rx.mT  # to (s, t)
        own = torch.diagonal(xx, dim1=1, dim2=2)
        moved = own[:, :, None] + own[:, None, :] - 2 * xx  # ||x_s - x_t||^2
        e_moved = ex - torch.diagonal(ex, dim1=1, dim2=2)[:, None, :]
        r_moved = rx - torch.diagonal(rx, dim1=1, dim2=2)[:, None, :]
        ee, er, rr = (v[:, None, :] for v in (ee, er, rr))
        products = Products(ee, er, rr, moved, e_moved, r_moved)
        square = squared_difference(gamma_s, gamma_t, level, products)
        step = torch.ones_like(gamma_s, dtype=torch.bool).triu(1)
        share = torch.where(step, square / self.dimensions, 0.0)
        return share if groups else share[0]

    def smoothed(self) -> "StepTables":
        """The errors at each depth t averaged over the N/16 + 1 candidates around it; x_s as they are.

        For choosing a grid. Where errors are rare and large (a posterior that takes one mode for another, once in many
        examples), the mean over examples at one depth misses them; they are more frequent a little deeper.
        """
        reach = (len(self.t) - 1) // 32

        def mean(table: Tensor) -> Tensor:
            rows = table.movedim(1, -1)
            padded = F.pad(rows.flatten(0, -2)[:, None], (reach, reach), mode="replicate")
            return F.avg_pool1d(padded, 2 * reach + 1, 1).view(rows.shape).movedim(-1, 1)

        ee, er, rr = mean(self.ee), mean(self.er), mean(self.rr)
        return replace(self, ee=ee, er=er, rr=rr, ex=mean(self.ex), rx=mean(self.rx))

    def infinite_depth_loss(self, noise_level: AnyNoiseLevel = 1.0) -> Float[Tensor, " groups"]:
        """L_inf,eta in nats by the trapezoidal rule over the candidates.

        Theorem: elbo.girsanov.

        Args:
            noise_level: eta.
        """
        eta_squared = as_noise_level(noise_level).squared(self.gamma)
        kappa = (1 + eta_squared) / 2
        square = kappa**2 * self.ee + 2 * kappa * self.error_rate + self.rate_error
        return torch.trapezoid(0.5 * snr(self.gamma) * square / eta_squared, self.gamma)


@dataclass(frozen=True)
class Measurement:
    """How steps are measured.

    Attributes:
        candidates: N, at least 2; N + 1 uniform depths are looked at.
        examples_at_once: whose inner products are formed together.
        batch_size: rows of the network at a time.
        groups: of examples, whose spread is the standard error; at least 2.
        shared_noise: an example has the same noise at all depths, for choosing among depths: what is chosen is then not
            the depth that happened to draw small errors. Sums over depths are more exact without.
        keep: how many single values, of all examples' dimensions together, are kept at every depth (see Kept).

    Raises:
        ValueError: for fewer than 2 candidates or groups, and for sizes below 1.

    Example:
        >>> Measurement(candidates=128, keep=1000).groups
        16
    """

    candidates: int = 256
    examples_at_once: int = 16
    batch_size: int = 64
    groups: int = 16
    shared_noise: bool = False
    keep: int = 0

    def __post_init__(self) -> None:
        if self.candidates < 2:
            raise ValueError(f"candidates={self.candidates}; at least 2 depths are needed")
        if self.groups < 2:
            raise ValueError(f"groups={self.groups} must be at least 2")
        for name, least in (("examples_at_once", 1), ("batch_size", 1), ("keep", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}")

    def check(self, data: Shaped[Tensor, "examples *data"]) -> None:
        """Refuse fewer examples than groups.

        Args:
            data: what is to be measured.

        Raises:
            ValueError: naming both.
        """
        if self.groups > len(data):
            raise ValueError(
                f"groups={self.groups} must be at least 2 and at most the {len(data)} examples"
            )


@dataclass(frozen=True)
class Kept:
    """Single values, of some dimensions of the examples, at all candidate depths.

    Attributes:
        e: x_t - x_hat, (N + 1, kept).
        r: r_hat, likewise.
        x: x_t, likewise.
    """

    e: Float[Tensor, "nodes kept"]
    r: Float[Tensor, "nodes kept"]
    x: Float[Tensor, "nodes kept"]


@torch.no_grad()
def measure_steps(
    model: DiffEnc,
    data: Shaped[Tensor, "examples *data"],
    how: Measurement | None = None,
    *,
    generator: torch.Generator | None = None,
    progress: Progress = silent,
) -> StepTables:
    """Tables over data for candidates + 1 uniform depths, one network and one encoder evaluation an example and depth.

    Args:
        model: DiffEnc.
        data: levels or reals.
        how: Measurement() by default.
        generator: of the noise.
        progress: called with the number of examples that were done.

    Raises:
        ValueError: for fewer examples than groups.
    """
    how = Measurement() if how is None else how
    how.check(data)
    sums: list[dict[str, Tensor]] = [{} for _ in range(how.groups)]
    counts, kept = [0] * how.groups, []
    picked, share = torch.Generator().manual_seed(0), min(1.0, how.keep / data.numel())
    first = model.scale(data[:1])
    t = uniform_grid(how.candidates, first)
    gamma = model.schedule(t).gamma
    parts = [
        (g, part)
        for g in range(how.groups)
        for part in torch.split(torch.arange(g, len(data), how.groups), how.examples_at_once)
    ]
    for g, part in parts:
        x = model.scale(data[part.to(data.device)])
        rows = x.repeat_interleave(len(t), 0)
        each = gamma.repeat(len(x))
        noise = normal_like(x if how.shared_noise else rows, generator)
        noise = noise.repeat_interleave(len(t), 0) if how.shared_noise else noise
        whose = part.repeat_interleave(len(t))
        values = (whose, rows, each, noise)
        batches = zip(*(torch.split(v, how.batch_size) for v in values), strict=True)
        found_rows = [_evaluate(model.rows(some), *batch) for some, *batch in batches]
        e, r, x_t, rate = (
            torch.unflatten(torch.cat(v), 0, (len(x), len(t)))
            for v in zip(*found_rows, strict=True)
        )
        if how.keep:
            kept.append(_some((e, r, x_t), share, picked))
        counts[g] += len(x)
        found = _inner_products(e, r, x_t, rate)
        sums[g] = {name: value + sums[g].get(name, 0) for name, value in found.items()}
        progress(len(x))
    means = {
        name: torch.stack([s[name] / n for s, n in zip(sums, counts, strict=True)]).cpu()
        for name in sums[0]
    }
    return StepTables(
        t=t.double().cpu(),
        gamma=gamma.double().cpu(),
        dimensions=math.prod(first.shape[1:]),
        examples=len(data),
        kept=Kept(*(torch.cat(v, 1) for v in zip(*kept, strict=True))) if kept else None,
        **means,
    )


def _inner_products(e: Tensor, r: Tensor, x_t: Tensor, rate: Tensor) -> dict[str, Tensor]:
    """The tables' sums over examples, of values (batch, N + 1, d)."""
    return {
        "ee": (e * e).sum((0, 2)),
        "er": (e * r).sum((0, 2)),
        "rr": (r * r).sum((0, 2)),
        "rate_error": ((rate - r) ** 2).sum((0, 2)),
        "error_rate": (e * (rate - r)).sum((0, 2)),
        "ex": (e @ x_t.mT).sum(0),
        "rx": (r @ x_t.mT).sum(0),
        "xx": (x_t @ x_t.mT).sum(0),
    }


def _some(
    values: tuple[Tensor, ...], share: float, generator: torch.Generator
) -> tuple[Tensor, ...]:
    """That share of the examples' dimensions of each (batch, N + 1, d): (N + 1, kept), float32."""
    count = len(values[0]) * values[0].shape[2]
    order = torch.randperm(count, generator=generator)
    some = order[: max(1, round(share * count))].to(values[0].device)
    return tuple(v.transpose(0, 1).flatten(1)[:, some].float().cpu() for v in values)


def _evaluate(model: DiffEnc, x: Tensor, gamma: Tensor, noise: Tensor) -> tuple[Tensor, ...]:
    """e, r, x_t and x_t' of each row, (rows, d), float64."""
    with evaluating(model):
        encoding = model.encoder(x, gamma)
        z = marginal(encoding.value, gamma).sample(noise=noise)
        # With x_t' = 0 the second error is -r_hat itself.
        still = Encoding(encoding.value, torch.zeros_like(encoding.value))
        errors = model.errors(z, noise, still, gamma)
    values = (errors.x, -errors.r, encoding.value, encoding.rate)
    return tuple(v.flatten(1).double() for v in values)
