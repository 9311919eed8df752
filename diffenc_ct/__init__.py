"""DiffEnc in continuous time: variational diffusion with a learned, depth-dependent encoder.

import diffenc_ct as dc
model = dc.DiffEnc(dc.LinearSchedule(), dc.TrainableEncoder(encoder_network), score_network, levels=256)
terms = dc.elbo(model, x)          # .reconstruction .diffusion .latent .total: nats, shape (batch,)
"""

from diffenc_ct.depths import ImportanceDepths, LowDiscrepancyDepths, UniformDepths
from diffenc_ct.elbo import Terms, elbo
from diffenc_ct.encoders import (
    Encoder,
    Encoding,
    IdentityEncoder,
    NonTrainableEncoder,
    TrainableEncoder,
)
from diffenc_ct.model import DiffEnc, Heads
from diffenc_ct.process import (
    ConstantNoiseLevel,
    FunctionNoiseLevel,
    NoiseLevel,
    NonTrainableNoiseLevel,
    TabulatedNoiseLevel,
)
from diffenc_ct.schedules import (
    LearnedLinearSchedule,
    LinearSchedule,
    MonotoneSchedule,
    PolynomialSchedule,
    Schedule,
    SchedulePoint,
)
from diffenc_ct.training.runs import load

__all__ = [
    "ConstantNoiseLevel",
    "DiffEnc",
    "Encoder",
    "Encoding",
    "FunctionNoiseLevel",
    "Heads",
    "IdentityEncoder",
    "ImportanceDepths",
    "LearnedLinearSchedule",
    "LinearSchedule",
    "LowDiscrepancyDepths",
    "MonotoneSchedule",
    "NoiseLevel",
    "NonTrainableEncoder",
    "NonTrainableNoiseLevel",
    "PolynomialSchedule",
    "Schedule",
    "SchedulePoint",
    "TabulatedNoiseLevel",
    "Terms",
    "TrainableEncoder",
    "UniformDepths",
    "elbo",
    "load",
]
