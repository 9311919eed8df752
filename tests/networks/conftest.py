"""What the tests of networks share."""

import inspect

import jaxtyping
import pytest
import torch

from diffenc_ct.networks import Jet


@pytest.fixture
def unchecked(monkeypatch):
    """Without checks of shapes and types, as users run the package: they would refuse wrong names before it does."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def traceable(unchecked, monkeypatch):
    """torch.compile cannot trace the checks either, nor those of new jets."""
    torch.compiler.reset()
    monkeypatch.setattr(Jet, "__init__", inspect.unwrap(Jet.__init__))
