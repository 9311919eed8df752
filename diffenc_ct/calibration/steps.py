"""Steps that were fitted: a grid with its variance ratio and noise level, and the file that keeps them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.calibration.kept import read_fit
from diffenc_ct.calibration.ratios import RatioPerValue
from diffenc_ct.calibration.stepped import SteppedNoiseLevel
from diffenc_ct.elbo import StepKind
from diffenc_ct.model import DiffEnc
from diffenc_ct.model.fingerprint import check_fitted_to
from diffenc_ct.report.files import as_json, write_atomically

AGAIN = "fit it again with `diffenc calibrate RUN`"


@dataclass(frozen=True)
class Calibration:
    """A grid for `depth` steps with its ratio and noise level: FiniteDepth and Ancestral.of take it.

    Attributes:
        grid: depths from 0 to 1, (T + 1,).
        gamma: there.
        ratio: w*, (T,), counted from the data.
        ratio_error: its standard errors.
        eta_squared: eta*^2, (T,).
        ratio_per_dimension: w_i*, (T, *data), or None.
        ratio_per_value: w*(x_hat), or None.
        loss: the fitted L_T in nats an example, with one ratio a step.
        loss_error: its standard error.
        examples: how many it was fitted to.
        fitted_to: fingerprint of the model's weights.
        step: "gaussian" or "mixture"; mixture steps have the ratio 1.
    """

    grid: Float[Tensor, " nodes"]
    gamma: Float[Tensor, " nodes"]
    ratio: Float[Tensor, " steps"]
    ratio_error: Float[Tensor, " steps"]
    eta_squared: Float[Tensor, " steps"]
    ratio_per_dimension: Float[Tensor, "steps *data"] | None
    ratio_per_value: RatioPerValue | None
    loss: float
    loss_error: float
    examples: int
    fitted_to: str | None = None
    step: StepKind = "gaussian"

    @property
    def depth(self) -> int:
        """T."""
        return len(self.ratio)

    @property
    def finest_ratio(self) -> Tensor | RatioPerValue:
        """w*(x_hat) where it was fitted, else w_i* (T, *data), else w* (T,)."""
        fitted = (self.ratio_per_value, self.ratio_per_dimension, self.ratio)
        return next(ratio for ratio in fitted if ratio is not None)

    @property
    def ratio_name(self) -> str:
        """What finest_ratio is, in words."""
        if self.step == "mixture":
            return "w = 1"
        if self.ratio_per_value is not None:
            return "w*(x_hat)"
        return "w*" if self.ratio_per_dimension is None else "w* per dimension"

    @property
    def step_name(self) -> str:
        """What its steps are called."""
        return "mixture steps" if self.step == "mixture" else "steps"

    @property
    def noise_level(self) -> SteppedNoiseLevel:
        """eta*, constant on each step."""
        return SteppedNoiseLevel(self.gamma, self.eta_squared)

    def save(self, path: str | Path) -> None:
        """Write as JSON, beside a checkpoint.

        Args:
            path: of the file.
        """
        write_atomically(Path(path), (as_json(_plain(asdict(self))) + "\n").encode())

    @staticmethod
    def load(path: str | Path, *, model: DiffEnc | None = None) -> "Calibration":
        """Read what `save` wrote.

        Args:
            path: of the file.
            model: that it is to be used with, if it must be the one it was fitted to.

        Raises:
            ValueError: where it is something else, or of other weights than the model's.
        """
        plain = read_fit(path, Calibration, "calibration", AGAIN)
        if model is not None:
            check_fitted_to(plain["fitted_to"], model, str(path), AGAIN)
        fields = _tensors(plain)
        if fields["ratio_per_value"] is not None:
            fields["ratio_per_value"] = RatioPerValue(**_tensors(fields["ratio_per_value"]))
        return Calibration(**fields)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Tensors as lists, also in tables."""
    return {
        k: _plain(v) if isinstance(v, dict) else v.tolist() if isinstance(v, Tensor) else v
        for k, v in fields.items()
    }


def _tensors(plain: dict[str, Any]) -> dict[str, Any]:
    return {
        k: torch.tensor(v, dtype=torch.float64) if isinstance(v, list) else v
        for k, v in plain.items()
    }
