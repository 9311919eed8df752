"""What is fitted to a trained model: the noise level that makes its bound tight, and steps of finite depth.

_tightness: a, b, c, eta* and the gap at infinite depth. running: eta* during training. products, tables: E||Delta||^2
of every step. ratios: variance ratios finer than one a step. stepped: a noise level by steps. fit: grids, ratios and
noise levels of T steps. steps: what was fitted.
"""

from diffenc_ct.calibration._tightness import Tightness, optimal_eta_squared, tightness
from diffenc_ct.calibration.fit import (
    ETA_SQUARED,
    CalibrationOptions,
    calibrate,
    plan,
    shortest_path,
)
from diffenc_ct.calibration.ratios import RatioPerValue, fit_values, step_excess
from diffenc_ct.calibration.running import RunningNoiseLevel
from diffenc_ct.calibration.stepped import SteppedNoiseLevel
from diffenc_ct.calibration.steps import Calibration
from diffenc_ct.calibration.tables import Measurement, StepTables, measure_steps

__all__ = [
    "ETA_SQUARED", "Calibration", "CalibrationOptions", "Measurement", "RatioPerValue", "RunningNoiseLevel",
    "StepTables", "SteppedNoiseLevel", "Tightness", "calibrate", "fit_values", "measure_steps", "optimal_eta_squared",
    "plan", "shortest_path", "step_excess", "tightness",
]  # fmt: skip
