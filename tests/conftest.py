"""Hypothesis: the same examples in every run. HYPOTHESIS_PROFILE=explore and =soak search anew, =mutants shrinks
nothing."""

import os

import torch
from hypothesis import HealthCheck, Phase, settings
from jaxtyping import install_import_hook

# Before the package is imported for the first time: shapes and types of every signature are checked in every test.
install_import_hook("diffenc_ct", "tests.check")

common = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", common, derandomize=True, database=None, max_examples=20)
settings.register_profile(
    "mutants", settings.get_profile("ci"), phases=[Phase.explicit, Phase.generate]
)
settings.register_profile("explore", common, max_examples=200, print_blob=True)
settings.register_profile(
    "soak", common, database=None, print_blob=True, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

torch.set_num_threads(1)
