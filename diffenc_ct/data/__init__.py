"""Data sets by name or path."""

from diffenc_ct.data.named import (
    NAMES,
    Dataset,
    check_values,
    checkerboard_points,
    load_dataset,
    swirl_points,
)

__all__ = ["NAMES", "Dataset", "check_values", "checkerboard_points", "load_dataset", "swirl_points"]
