"""The generative model: heads, decoder, the reverse step."""

from diffenc_ct.model.diffenc import DiffEnc, Heads, Prediction, reverse_drift

__all__ = ["DiffEnc", "Heads", "Prediction", "reverse_drift"]
