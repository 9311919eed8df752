"""Hypothesis: the same examples in every run. HYPOTHESIS_PROFILE=explore and =soak search anew, =mutants shrinks
nothing."""

import os
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from tests.browser import browser  # noqa: F401 (a fixture of every test)

# Before the package is imported for the first time: shapes and types of every signature are checked.
jaxtyping.install_import_hook("diffenc_ct", "tests.check")

# Where the point is thousands of small evaluations, checks of every call take four fifths of the time. What these rooms
# compute is called with checks by test_types.py, the docstrings' examples and the commands.
UNCHECKED = ("calibration", "coding", "docs", "likelihood", "sampling", "verification")


@pytest.fixture(autouse=True)
def types_are_checked(request):
    """In every test but those of the rooms named above."""
    unchecked = Path(request.node.fspath).parent.name in UNCHECKED
    jaxtyping.config.update("jaxtyping_disable", unchecked)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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
