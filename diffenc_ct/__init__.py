"""DiffEnc in continuous time: variational diffusion with a learned, depth-dependent encoder.

import diffenc_ct as dc
model = dc.DiffEnc(dc.LinearSchedule(), dc.TrainableEncoder(encoder_network), score_network, levels=256)
terms = dc.elbo(model, x)          # .reconstruction .diffusion .latent .total: nats, shape (batch,)
out = dc.log_likelihood(model, x)  # probability-flow ODE: nats, bits per dimension, statistics
xs = dc.sample(model, 64, shape=x.shape[1:])
"""

from diffenc_ct import adapters
from diffenc_ct.calibration import Calibration, Tightness, calibrate, tightness
from diffenc_ct.dynamics import ConditionalReverseSDE, ForwardSDE, ProbabilityFlow, ReverseSDE
from diffenc_ct.elbo import ImportanceDepths, LowDiscrepancyDepths, Terms, UniformDepths, elbo
from diffenc_ct.encoders import (
    Encoder,
    Encoding,
    IdentityEncoder,
    NonTrainableEncoder,
    TrainableEncoder,
)
from diffenc_ct.likelihood import Likelihood, log_likelihood, sample_with_log_prob
from diffenc_ct.model import DiffEnc, Heads
from diffenc_ct.process import (
    ConstantNoiseLevel,
    FunctionNoiseLevel,
    NoiseLevel,
    NonTrainableNoiseLevel,
    TabulatedNoiseLevel,
)
from diffenc_ct.sampling import Samples, sample
from diffenc_ct.schedules import (
    LearnedLinearSchedule,
    LinearSchedule,
    MonotoneSchedule,
    PolynomialSchedule,
    Schedule,
    SchedulePoint,
)
from diffenc_ct.training.heads import fit_head
from diffenc_ct.training.runs import load

__all__ = [
    "Calibration",
    "ConditionalReverseSDE",
    "ConstantNoiseLevel",
    "DiffEnc",
    "Encoder",
    "Encoding",
    "ForwardSDE",
    "FunctionNoiseLevel",
    "Heads",
    "IdentityEncoder",
    "ImportanceDepths",
    "LearnedLinearSchedule",
    "Likelihood",
    "LinearSchedule",
    "LowDiscrepancyDepths",
    "MonotoneSchedule",
    "NoiseLevel",
    "NonTrainableEncoder",
    "NonTrainableNoiseLevel",
    "PolynomialSchedule",
    "ProbabilityFlow",
    "ReverseSDE",
    "Samples",
    "Schedule",
    "SchedulePoint",
    "TabulatedNoiseLevel",
    "Terms",
    "Tightness",
    "TrainableEncoder",
    "UniformDepths",
    "calibrate",
    "elbo",
    "fit_head",
    "adapters",
    "load",
    "log_likelihood",
    "sample",
    "sample_with_log_prob",
    "tightness",
]
