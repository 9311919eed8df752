"""Hypothesis: deterministic in CI and by default, `HYPOTHESIS_PROFILE=explore` searches anew each run."""

import os

import torch
from hypothesis import HealthCheck, settings

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("ci", derandomize=True, database=None, max_examples=20, **_COMMON)
settings.register_profile("explore", max_examples=200, print_blob=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

torch.set_num_threads(1)
