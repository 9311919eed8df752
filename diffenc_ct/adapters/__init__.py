"""Other people's networks and checkpoints as models."""

from diffenc_ct.adapters import jax

__all__ = ["jax"]
