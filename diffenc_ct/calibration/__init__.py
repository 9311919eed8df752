"""Calibration."""

from diffenc_ct.calibration._tightness import Tightness, optimal_eta_squared, tightness
from diffenc_ct.calibration.plan import (
    ETA_SQUARED,
    Calibration,
    SteppedNoiseLevel,
    calibrate,
    plan,
    shortest_path,
)
from diffenc_ct.calibration.ratios import RatioPerValue, fit_values, step_excess
from diffenc_ct.calibration.tables import StepTables, measure_steps

__all__ = [
    "ETA_SQUARED", "Calibration", "RatioPerValue", "StepTables", "SteppedNoiseLevel", "Tightness", "calibrate",
    "fit_values", "measure_steps", "optimal_eta_squared", "plan", "shortest_path", "step_excess", "tightness",
]  # fmt: skip
