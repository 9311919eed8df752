"""Hypothesis: the same examples in every run. HYPOTHESIS_PROFILE=explore and =soak search anew, =mutants shrinks
nothing."""

import os

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from tests import check_anew
from tests.browser import browser  # noqa: F401 (a fixture of every test)

# Before the package is imported for the first time: shapes and types of every signature are checked.
jaxtyping.install_import_hook("diffenc_ct", "tests.check")


@pytest.fixture(autouse=True)
def types_are_checked():
    """Of the first calls of every test."""
    check_anew()


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
