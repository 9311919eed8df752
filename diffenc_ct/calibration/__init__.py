"""What is fitted to a trained model: the noise level that makes its bound tight, and steps of finite depth.

_tightness: a, b, c, eta* and the gap at infinite depth. running: eta* during training. products, tables: E||Delta||^2
of every step. mixtures: what mixture steps cost. paths: grids. ratios: variance ratios finer than one a step. stepped:
a noise level by steps. fit: grids, ratios and noise levels of T steps. steps: what was fitted.
"""

from diffenc_ct.calibration._tightness import Tightness, optimal_eta_squared, tightness
from diffenc_ct.calibration.fit import (
    ETA_SQUARED,
    CalibrationOptions,
    calibrate,
    plan,
)
from diffenc_ct.calibration.mixtures import MixtureCosts, measure_mixture_steps
from diffenc_ct.calibration.paths import shortest_path
from diffenc_ct.calibration.ratios import RatioPerValue, fit_values, step_excess
from diffenc_ct.calibration.running import RunningNoiseLevel
from diffenc_ct.calibration.stepped import SteppedNoiseLevel
from diffenc_ct.calibration.steps import Calibration
from diffenc_ct.calibration.tables import Measurement, StepTables, measure_steps

__all__ = [
    "ETA_SQUARED", "Calibration", "CalibrationOptions", "Measurement", "MixtureCosts", "RatioPerValue",
    "RunningNoiseLevel", "StepTables", "SteppedNoiseLevel", "Tightness", "calibrate", "fit_values",
    "measure_mixture_steps", "measure_steps", "optimal_eta_squared", "plan", "shortest_path", "step_excess",
    "tightness",
]  # fmt: skip
