"""Steps that were fitted: a grid with its variance ratio and noise level, and the file that keeps them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.calibration.ratios import RatioPerValue
from diffenc_ct.calibration.stepped import SteppedNoiseLevel


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
        if self.ratio_per_value is not None:
            return "w*(x_hat)"
        return "w*" if self.ratio_per_dimension is None else "w* per dimension"

    @property
    def noise_level(self) -> SteppedNoiseLevel:
        """eta*, constant on each step."""
        return SteppedNoiseLevel(self.gamma, self.eta_squared)

    def save(self, path: str | Path) -> None:
        """Write as JSON, beside a checkpoint.

        Args:
            path: of the file.
        """
        text = json.dumps(asdict(self), default=Tensor.tolist)
        Path(path).write_text(text + "\n", encoding="utf-8")

    @staticmethod
    def load(path: str | Path) -> "Calibration":
        """Read what `save` wrote.

        Args:
            path: of the file.

        Raises:
            ValueError: where it is something else.
        """
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
