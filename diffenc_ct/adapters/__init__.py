"""Other people's networks and checkpoints as models.

adapt: any network. native, processes: what it was trained on. heads: how it is read. last_step: DDPM's decoder.
hugging_face, packages: networks of diffusers, azula and others. jax: the authors' checkpoints.
"""

from diffenc_ct.adapters import jax
from diffenc_ct.adapters.adapt import adapt
from diffenc_ct.adapters.heads import AdaptedHeads
from diffenc_ct.adapters.hugging_face import diffusers
from diffenc_ct.adapters.last_step import LastStep, with_last_step
from diffenc_ct.adapters.native import NativePoint, NativeProcess, Pair
from diffenc_ct.adapters.packages import (
    azula,
    denoising_diffusion_pytorch,
    edm,
    flow_matching,
)
from diffenc_ct.adapters.processes import Cosine, RectifiedFlow, Table, VarianceExploding
from diffenc_ct.adapters.tabulated import TabulatedSchedule

__all__ = [
    "AdaptedHeads", "Cosine", "LastStep", "NativePoint", "NativeProcess", "Pair", "RectifiedFlow", "Table",
    "TabulatedSchedule", "VarianceExploding", "adapt", "azula", "denoising_diffusion_pytorch", "diffusers", "edm",
    "flow_matching", "jax", "with_last_step",
]  # fmt: skip
