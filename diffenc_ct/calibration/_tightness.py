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

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diffenc_ct.calibration.kept import read_fit
from diffenc_ct.distributed import Work
from diffenc_ct.model import DiffEnc, evaluating
from diffenc_ct.model.fingerprint import check_fitted_to, fingerprint
from diffenc_ct.process import (
    AnyNoiseLevel,
    Errors,
    TabulatedNoiseLevel,
    as_noise_level,
    marginal,
    normal_like,
)
from diffenc_ct.report.files import as_json, write_atomically
from diffenc_ct.schedules import snr

AGAIN = "delete it, and `diffenc evaluate RUN --noise-level optimal` fits it again"


@dataclass(frozen=True)
class Tightness:
    """a, b, c of a model at a table of depths, with standard errors, and what they integrate to.

    Attributes:
        gamma: the table's depths, (J,).
        a: E||x_t - x_hat||^2, (J,).
        b: E||x_t' - r_hat||^2, (J,).
        c: E<x_t - x_hat, x_t' - r_hat>, (J,).
        a_error: standard error of a.
        b_error: standard error of b.
        c_error: standard error of c.
        gap: the ELBO's excess at eta = 1 in nats, if the estimates are posterior means.
        gap_error: its standard error.
        gain: how much lower the ELBO is at eta*, nats.
        gain_error: its standard error.
        dimensions: d.
        examples: how many it was measured on.
        fitted_to: fingerprint of the model's weights.
    """

    gamma: Float[Tensor, " depths"]
    a: Float[Tensor, " depths"]
    b: Float[Tensor, " depths"]
    c: Float[Tensor, " depths"]
    a_error: Float[Tensor, " depths"]
    b_error: Float[Tensor, " depths"]
    c_error: Float[Tensor, " depths"]
    gap: float
    gap_error: float
    gain: float
    gain_error: float
    dimensions: int
    examples: int
    fitted_to: str | None = None

    @property
    def eta_squared(self) -> Float[Tensor, " depths"]:
        """eta*^2 at every depth of the table. Theorem: calibration.optimal_noise_level."""
        return optimal_eta_squared(self.a, self.b, self.c)

    @property
    def noise_level(self) -> TabulatedNoiseLevel:
        """eta* as a noise level for `elbo` and `sample`."""
        return TabulatedNoiseLevel(self.gamma, self.eta_squared)

    @property
    def remaining_gap(self) -> float:
        """The gap at eta*, nats: gap - gain."""
        return self.gap - self.gain

    def rate(self, noise_level: AnyNoiseLevel = 1.0) -> Float[Tensor, " depths"]:
        """The rate of L_inf,eta per unit of lambda at every depth, nats.

        Theorem: calibration.gap.

        Args:
            noise_level: eta.
        """
        return _rate(
            self.a, self.b, self.c, self.gamma, as_noise_level(noise_level).squared(self.gamma)
        )

    def save(self, path: str | Path) -> None:
        """Write as JSON, beside a checkpoint, where the command line finds it.

        Args:
            path: of the file.
        """
        plain = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in asdict(self).items()}
        write_atomically(Path(path), (as_json(plain) + "\n").encode())

    @staticmethod
    def load(path: str | Path, *, model: DiffEnc | None = None) -> "Tightness":
        """Read what `save` wrote.

        Args:
            path: of the file.
            model: that it is to be used with, if it must be the one it was fitted to.

        Raises:
            ValueError: where it is something else, or of other weights than the model's.
        """
        plain = read_fit(path, Tightness, "saved tightness", AGAIN)
        if model is not None:
            check_fitted_to(plain["fitted_to"], model, str(path), AGAIN)
        values: dict[str, Any] = {
            k: torch.tensor(v, dtype=torch.float64) if isinstance(v, list) else v
            for k, v in plain.items()
        }
        return Tightness(**values)


def optimal_eta_squared(
    a: Float[Tensor, "*shape"], b: Float[Tensor, "*shape"], c: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """eta*^2 = sqrt(1 + 4 (b + c)/a), the minimiser of the rate.

    Theorem: calibration.optimal_noise_level.

    Args:
        a: E||x_t - x_hat||^2.
        b: E||x_t' - r_hat||^2.
        c: E<x_t - x_hat, x_t' - r_hat>.
    """
    return torch.sqrt((1 + 4 * (b + c) / a).clamp(min=1e-6))


def _rate(a: Tensor, b: Tensor, c: Tensor, gamma: Tensor, eta_squared: Tensor) -> Tensor:
    kappa = (1 + eta_squared) / 2
    return 0.5 * snr(gamma) * (kappa**2 * a + 2 * kappa * c + b) / eta_squared


def squares(errors: Errors) -> list[Float[Tensor, " batch"]]:
    """||x_t - x_hat||^2, ||x_t' - r_hat||^2, <x_t - x_hat, x_t' - r_hat> of each example.

    Args:
        errors: x_t - x_hat and x_t' - r_hat.
    """
    left, right = (e.detach().flatten(1).double() for e in (errors.x, errors.r))
    return [(left**2).sum(1), (right**2).sum(1), (left * right).sum(1)]


@torch.no_grad()
def tightness(
    model: DiffEnc,
    data: Shaped[Tensor, "examples *data"],
    *,
    depths: int = 33,
    generator: torch.Generator | None = None,
    work: Work | None = None,
) -> Tightness:
    """a, b, c, eta* and the gap of a model, from one draw of noise an example and depth.

    Theorem: calibration.optimal_noise_level.

    Args:
        model: DiffEnc.
        data: levels or reals; training data, so that a bound read at eta* on other data owes them nothing.
        depths: of the table, equal in gamma from end to end.
        generator: of the noise.
        work: batches (250 at a time by default) and progress; costs examples x depths network evaluations.

    Raises:
        ValueError: for fewer than 2 examples or depths.

    Example:
        >>> import torch, diffenc_ct as dc
        >>> world = dc.worlds.GaussianWorld(torch.zeros(2).double(), torch.ones(2).double())
        >>> found = dc.tightness(world.model(dc.LinearSchedule()), world.sample(100), depths=5)
        >>> terms = dc.elbo(world.model(dc.LinearSchedule()), world.sample(8), dc.InfiniteDepth(found.noise_level))
    """
    if len(data) < 2 or depths < 2:
        raise ValueError(f"{len(data)} examples, depths={depths}: both must be at least 2")
    work = Work(250) if work is None else work
    moments = torch.empty(len(data), depths, 3, dtype=torch.float64)
    with evaluating(model):
        for start in range(0, len(data), work.batch_size):
            some = slice(start, start + work.batch_size)
            x, part = model.scale(data[some]), model.rows(some)
            first, last = (model.schedule.at(end, x).gamma for end in (0.0, 1.0))
            table = first + (last - first) * torch.linspace(
                0, 1, depths, dtype=x.dtype, device=x.device
            )
            for j, depth in enumerate(table):
                gamma, noise = depth.expand(len(x)), normal_like(x, generator)
                encoding = model.encoder(x, gamma)
                z = marginal(encoding.value, gamma).sample(noise=noise)
                found = squares(part.errors(z, noise, encoding, gamma))
                moments[start : start + len(x), j] = torch.stack(found, 1).cpu()
            work.progress(len(x))
    summary = _summarise(moments, table.double().cpu(), x[0].numel())
    return replace(summary, fitted_to=fingerprint(model))


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
