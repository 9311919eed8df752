"""The generative model: heads (what networks predict), decoder (p(x | z_0) and the scale of data), the reverse step.

heads: what all have. plain: Single, Paired, Separate, Direct. posterior: Posterior, MixturePosterior. guidance: beyond
the condition. decoder: Levels, Reals. standardised: reals of any scale. reverse: the reverse SDE's drift. diffenc:
DiffEnc. mode: evaluation in evaluation mode.

Reference: Nielsen et al. 2024, sections 2 to 4; Kingma et al. 2021.
"""

from diffenc_ct.model.decoder import Decoder, Levels, Reals
from diffenc_ct.model.diffenc import DiffEnc
from diffenc_ct.model.heads import Heads
from diffenc_ct.model.mode import evaluating
from diffenc_ct.model.plain import Direct, Paired, Separate, Single
from diffenc_ct.model.posterior import MixturePosterior, Posterior, log_histogram
from diffenc_ct.model.readings import Predicts, read_error, read_output, regression_loss
from diffenc_ct.model.reverse import reverse_drift, reverse_step
from diffenc_ct.model.standardised import Standardised

__all__ = [
    "Decoder", "DiffEnc", "Direct", "Heads", "Levels", "MixturePosterior", "Paired", "Posterior", "Predicts",
    "Reals", "Separate", "Single", "Standardised", "evaluating", "log_histogram", "read_error", "read_output",
    "regression_loss", "reverse_drift", "reverse_step",
]  # fmt: skip
