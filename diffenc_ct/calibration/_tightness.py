"""How tight the ELBO is, and the noise level that makes it tightest, from a trained model's residuals.

At every depth, with residuals x_t - x_hat and x_t' - r_hat of the model's two predictions,

    a = E||x_t - x_hat||^2,   b = E||x_t' - r_hat||^2,   c = E<x_t - x_hat, x_t' - r_hat>
    rate of L_inf,eta = SNR/2 (kappa^2 a + 2 kappa c + b)/eta^2      per unit of lambda, kappa = (1 + eta^2)/2
    eta*^2 = sqrt(1 + 4 (b + c)/a)                                   the lowest rate, at every depth apart

Every eta gives a valid bound, so eta* fitted on training data is safe whatever the model. If the heads are the
posterior means, a, b, c are the posterior covariances, and the ELBO exceeds L_0 + I(x; z_0) - I(x; z_1) + L_1 by

    gap at eta = 1     1/2 int SNR b dlambda
    gap at eta*        int SNR (a (eta*^2 - 1)/4 - c/2) dlambda

Their difference, the gain, is exact for any heads. Integrals over lambda are trapezoidal on the table of depths;
standard errors are those of the mean over examples.

Reference: Nielsen et al. 2024 (the ELBO at eta = 1); theory/calibration.py proves each formula.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffenc_ct.model import DiffEnc, Heads
from diffenc_ct.process import (
    ConstantNoiseLevel,
    NoiseLevel,
    TabulatedNoiseLevel,
    as_noise_level,
    marginal,
    normal_like,
)
from diffenc_ct.schedules import snr


@dataclass(frozen=True)
class Tightness:
    """a, b, c at depths gamma, (J,) each, with standard errors; integrals in nats with theirs.

    gap: the ELBO's excess at eta = 1 (if the heads are posterior means). gain: how much lower the ELBO is at
    eta*.
    """

    gamma: Tensor
    a: Tensor
    b: Tensor
    c: Tensor
    a_error: Tensor
    b_error: Tensor
    c_error: Tensor
    gap: float
    gap_error: float
    gain: float
    gain_error: float
    dimensions: int
    examples: int

    @property
    def eta_squared(self) -> Tensor:
        """eta*^2 at every depth of the table, (J,). Theorem: calibration.optimal_noise_level."""
        return optimal_eta_squared(self.a, self.b, self.c)

    @property
    def noise_level(self) -> TabulatedNoiseLevel:
        """eta* as a noise level for `elbo` and `sample`."""
        return TabulatedNoiseLevel(self.gamma, self.eta_squared)

    @property
    def remaining_gap(self) -> float:
        """The gap at eta*, nats: gap - gain."""
        return self.gap - self.gain

    def rate(self, noise_level: float | NoiseLevel = 1.0) -> Tensor:
        """The rate of L_inf,eta per unit of lambda at every depth, nats, (J,). Theorem: calibration.gap."""
        return _rate(
            self.a, self.b, self.c, self.gamma, as_noise_level(noise_level).squared(self.gamma)
        )

    def save(self, path: str | Path) -> None:
        """Write as JSON, beside a checkpoint, where `diffenc_ct.load` finds it for noise_level="optimal"."""
        plain = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in asdict(self).items()}
        Path(path).write_text(json.dumps(plain) + "\n", encoding="utf-8")

    @staticmethod
    def load(path: str | Path) -> "Tightness":
        """Read what `save` wrote; ValueError where a field is missing."""
        plain = json.loads(Path(path).read_text(encoding="utf-8"))
        names = [f.name for f in fields(Tightness)]
        if not isinstance(plain, dict) or set(plain) != set(names):
            raise ValueError(f"{path} is no saved tightness: its fields must be {', '.join(names)}")
        values: dict[str, Any] = {
            k: torch.tensor(v, dtype=torch.float64) if isinstance(v, list) else v
            for k, v in plain.items()
        }
        return Tightness(**values)


def optimal_eta_squared(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """eta*^2 = sqrt(1 + 4 (b + c)/a), the minimiser of the rate. Theorem: calibration.optimal_noise_level."""
    return torch.sqrt((1 + 4 * (b + c) / a).clamp(min=1e-6))


def _rate(a: Tensor, b: Tensor, c: Tensor, gamma: Tensor, eta_squared: Tensor) -> Tensor:
    kappa = (1 + eta_squared) / 2
    return 0.5 * snr(gamma) * (kappa**2 * a + 2 * kappa * c + b) / eta_squared


class RunningNoiseLevel(NoiseLevel):
    """eta* from running estimates of a, b, c in equal bins of gamma, for training at the optimal noise level.

    `moments` (bins, 3) holds exponentially decayed sums of them; only their ratios matter. eta is 1 until every bin
    has been seen, and eta^2 stays within 1/4 and 16 whatever a young model does. Theorem:
    calibration.optimal_noise_level.
    """

    def __init__(
        self, gamma_min: float, gamma_max: float, *, bins: int = 20, decay: float = 0.99
    ) -> None:
        if bins < 2 or not 0 < decay < 1:
            raise ValueError(f"bins={bins} >= 2 and decay={decay} in (0, 1) are required")
        edges = torch.linspace(gamma_min, gamma_max, bins + 1, dtype=torch.float64)
        self.edges, self.decay = edges, decay
        self.moments = torch.zeros(bins, 3, dtype=torch.float64)

    def count(self, gamma: Tensor, errors: Heads) -> Tensor:
        """Sums of ||x_t - x_hat||^2, ||x_t' - r_hat||^2 and their inner product over a batch, by bin: (bins, 3)."""
        cell = torch.bucketize(gamma.detach().double().cpu(), self.edges[1:-1])
        squares = [v.double().cpu() for v in _squares(errors)]
        return torch.zeros_like(self.moments).index_add_(0, cell, torch.stack(squares, 1))

    def update(self, counted: Tensor) -> None:
        """Take in what `count` returned, of one batch or summed over several."""
        self.moments = self.decay * self.moments + counted

    def table(self) -> NoiseLevel:
        """The present eta* as a table."""
        a, b, c = self.moments.unbind(1)
        if not (a > 0).all():
            return ConstantNoiseLevel(1.0)
        centres = (self.edges[1:] + self.edges[:-1]) / 2
        return TabulatedNoiseLevel(centres, optimal_eta_squared(a, b, c).clamp(0.25, 16))

    def squared(self, gamma: Tensor) -> Tensor:
        return self.table().squared(gamma)

    def integral(self, gamma_s: Tensor, gamma_t: Tensor) -> Tensor:
        return self.table().integral(gamma_s, gamma_t)


def _squares(errors: Heads) -> list[Tensor]:
    """||x_t - x_hat||^2, ||x_t' - r_hat||^2, <x_t - x_hat, x_t' - r_hat> of each example, (batch,)."""
    left, right = (e.detach().flatten(1).double() for e in (errors.x_hat, errors.r_hat))
    return [(left**2).sum(1), (right**2).sum(1), (left * right).sum(1)]


@torch.no_grad()
def tightness(
    model: DiffEnc,
    data: Tensor,
    *,
    depths: int = 33,
    batch_size: int = 250,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Tightness:
    """a, b, c, eta* and the gap of a model, from one draw of noise an example and depth.

    data: (N, *data), levels or reals as the model expects; training data, so that a bound read at eta* on
    other data owes them nothing. depths: of the table, equal in gamma from end to end. Costs N x depths
    network evaluations. Raises ValueError for fewer than 2 examples or depths. Theorem:
    calibration.optimal_noise_level.
    """
    if len(data) < 2 or depths < 2:
        raise ValueError(f"{len(data)} examples, depths={depths}: both must be at least 2")
    training = model.training
    model.eval()
    moments = torch.empty(len(data), depths, 3, dtype=torch.float64)
    for start in progress(range(0, len(data), batch_size)):
        x = model.scale(data[start : start + batch_size])
        first, last = (model.schedule.at(end, x).gamma for end in (0.0, 1.0))
        table = first + (last - first) * torch.linspace(
            0, 1, depths, dtype=x.dtype, device=x.device
        )
        for j, depth in enumerate(table):
            gamma, noise = depth.expand(len(x)), normal_like(x, generator)
            encoding = model.encoder(x, gamma)
            z = marginal(encoding.value, gamma).sample(noise=noise)
            squares = _squares(model.errors(z, noise, encoding, gamma))
            moments[start : start + len(x), j] = torch.stack(squares, 1).cpu()
    model.train(training)
    return _summarise(moments, table.double().cpu(), x[0].numel())


def _summarise(moments: Tensor, gamma: Tensor, dimensions: int) -> Tightness:
    n = len(moments)
    means, errors = moments.mean(0), moments.std(0) / n**0.5
    a, b, c = means.unbind(1)
    eta_squared = optimal_eta_squared(a, b, c)
    each_a, each_b, each_c = moments.unbind(2)
    # an example's share of each integral; eta* is held fixed, where the gain is stationary
    at_one = _rate(each_a, each_b, each_c, gamma, torch.ones_like(gamma))
    gains = at_one - _rate(each_a, each_b, each_c, gamma, eta_squared)
    gain, gap = (torch.trapezoid(f, gamma, dim=1) for f in (gains, 0.5 * snr(gamma) * each_b))
    a_error, b_error, c_error = errors.unbind(1)
    return Tightness(
        gamma=gamma,
        a=a,
        b=b,
        c=c,
        a_error=a_error,
        b_error=b_error,
        c_error=c_error,
        gap=gap.mean().item(),
        gap_error=gap.std().item() / n**0.5,
        gain=gain.mean().item(),
        gain_error=gain.std().item() / n**0.5,
        dimensions=dimensions,
        examples=n,
    )
