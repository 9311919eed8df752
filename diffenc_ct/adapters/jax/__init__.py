"""The authors' checkpoints and configurations, in and out, without JAX."""

from diffenc_ct.adapters.jax.checkpoints import load, save

__all__ = ["load", "save"]
