"""Sampling."""

from diffenc_ct.sampling.samples import DEFAULT, Samples, Trajectory, flow_is_exact, sample

__all__ = ["DEFAULT", "Samples", "Trajectory", "flow_is_exact", "sample"]
