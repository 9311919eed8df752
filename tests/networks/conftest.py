"""What the tests of networks share."""

import inspect

import jaxtyping
import pytest
import torch

from diffenc_ct.networks import Jet


@pytest.fixture
def traceable(monkeypatch):
    """torch.compile cannot trace the checks of shapes and types, so they are off: those of calls, and of new jets."""
    torch.compiler.reset()
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.setattr(Jet, "__init__", inspect.unwrap(Jet.__init__))
