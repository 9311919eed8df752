"""Data sets by name or path: integers or reals in memory, with fixed splits.

named: the names. dataset: what a data set is. points: in the plane. files: one's own. patches: crops of images.
readers: formats.
"""

from diffenc_ct.data.dataset import Dataset, check_values
from diffenc_ct.data.named import NAMES, load_dataset
from diffenc_ct.data.patches import Patches
from diffenc_ct.data.points import checkerboard_points, swirl_points

__all__ = [
    "NAMES",
    "Dataset",
    "Patches",
    "check_values",
    "checkerboard_points",
    "load_dataset",
    "swirl_points",
]
