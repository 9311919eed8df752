"""What the words "optimal", "per dimension" and "per value" mean for a model's steps: numbers fitted elsewhere.

A calibration brings a grid with its variance ratios and noise levels; a model may know its noise level at infinite
depth (see `tightness`).
"""

from collections.abc import Callable
from typing import Literal, Protocol

from torch import Tensor

from diffenc_ct.model import DiffEnc, Heads
from diffenc_ct.process import NoiseLevel

# A ratio that depends on the state: from steps (batch,), 0 next to the data, and the heads at z_t to w (batch, *data).
StateRatio = Callable[[Tensor, Heads], Tensor]
Ratio = float | Tensor | StateRatio | Literal["optimal", "per dimension", "per value"]
Level = float | NoiseLevel | Literal["optimal"]


class CalibratedSteps(Protocol):
    """What `elbo` takes of a calibration."""

    grid: Tensor
    ratio: Tensor
    ratio_per_dimension: Tensor | None
    ratio_per_value: StateRatio | None
    noise_level: NoiseLevel


def named_steps(
    model: DiffEnc,
    calibration: CalibratedSteps | None,
    depth: int | None,
    grid: Tensor | None,
    ratio: Ratio,
    noise_level: Level,
) -> tuple[int | None, Tensor | None, float | Tensor | StateRatio, float | NoiseLevel]:
    """Depth, grid, ratio and noise level with numbers in the place of words.

    Raises ValueError for a word without a fit behind it, and for a grid or depth beside a calibration's.
    """
    if calibration is None:
        if isinstance(ratio, str):
            raise ValueError(
                f"ratio={ratio!r}: words for a ratio need a calibration; pass calibration=calibrate(...)"
            )
        return depth, grid, ratio, _level(noise_level, model.optimal_noise_level)
    known = len(calibration.ratio)
    if grid is not None or depth not in (None, known):
        raise ValueError(
            f"the calibration brings its grid of {known} steps; leave grid and depth out"
        )
    if isinstance(ratio, str):
        fitted = {
            "optimal": calibration.ratio,
            "per dimension": calibration.ratio_per_dimension,
            "per value": calibration.ratio_per_value,
        }
        found = fitted.get(ratio)
        if found is None:
            raise ValueError(
                f'ratio={ratio!r}; choose "optimal", or "per dimension" or "per value" if the calibration was made '
                "with per_dimension=True or per_value=True"
            )
        ratio = found
    return known, calibration.grid, ratio, _level(noise_level, calibration.noise_level)


def _level(noise_level: Level, fitted: NoiseLevel | None) -> float | NoiseLevel:
    if not isinstance(noise_level, str):
        return noise_level
    if noise_level != "optimal" or fitted is None:
        raise ValueError(
            f'noise_level={noise_level!r}; give a number, a NoiseLevel, or "optimal" where it was fitted: '
            "model.optimal_noise_level = tightness(model, training_data).noise_level, or calibration=calibrate(...)"
        )
    return fitted
