"""Data sets by name or path: integers or reals, with fixed splits.

named: the names. dataset: what a data set is. points: in the plane. files: folders of images. arrays: .npy and .npz.
torch_datasets: torch's. patches: crops of images. splits: what is for tests. source: examples that are read when they
are needed. moments: range and scale of reals. images, readers: formats.
"""

from diffenc_ct.data.dataset import Dataset, check_values
from diffenc_ct.data.labels import Labels
from diffenc_ct.data.moments import Moments
from diffenc_ct.data.named import NAMES, load_dataset
from diffenc_ct.data.patches import Patches
from diffenc_ct.data.points import checkerboard_points, swirl_points
from diffenc_ct.data.source import AT_ONCE, Source
from diffenc_ct.data.torch_datasets import from_torch

__all__ = [
    "AT_ONCE",
    "NAMES",
    "Dataset",
    "Labels",
    "Moments",
    "Patches",
    "Source",
    "check_values",
    "checkerboard_points",
    "from_torch",
    "load_dataset",
    "swirl_points",
]
