"""DiffEnc in continuous time: variational diffusion with a learned, depth-dependent encoder.

import diffenc_ct as dc
model = dc.DiffEnc(dc.LinearSchedule(), dc.TrainableEncoder(encoder_network), dc.Single(network), dc.Levels(256))
terms = model(x)                                      # the infinite-depth ELBO: nats, (batch,) each, with gradients
terms = dc.elbo(model, x, dc.FiniteDepth(50, ratio=1.05))
out = dc.log_likelihood(model, x, solver=dc.Adams(atol=1e-5), divergence=dc.Rademacher(probes=4))
xs = dc.sample(model, 64, shape=x.shape[1:], solver=dc.Exponential(order=3, steps=30))

Names are imported when they are first used (PEP 562): `import diffenc_ct` alone loads no room, and no torch.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOMS = (
    "adapters",
    "coding",
    "networks",
    "worlds",
)  # modules that are names of the root themselves
_NAMES = {  # the other names, by the module that defines them
    "adapters": ("adapt",),
    "calibration": ("Calibration", "CalibrationOptions", "calibrate", "tightness"),
    "distributed": ("Work",),
    "dynamics": ("ProbabilityFlow", "ReverseSDE"),
    "elbo": (
        "Draws",
        "FiniteDepth",
        "InfiniteDepth",
        "elbo",
    ),
    "encoders": (
        "Encoder",
        "Encoding",
        "IdentityEncoder",
        "NonTrainableEncoder",
        "ResidualEncoder",
        "TrainableEncoder",
    ),
    "likelihood": (
        "Adams",
        "Exact",
        "ModelNoise",
        "Rademacher",
        "SciPy",
        "TorchDiffEq",
        "TorchDiffEqFixed",
        "TruncatedNormal",
        "log_likelihood",
        "sample_with_log_prob",
    ),
    "likelihood.classification": ("Classification", "classify"),
    "model": (
        "DiffEnc",
        "Heads",
        "Levels",
        "MixturePosterior",
        "Paired",
        "Posterior",
        "Reals",
        "Separate",
        "Single",
    ),
    "process": (
        "Estimates",
        "NoiseLevel",
        "NonTrainableNoiseLevel",
        "TabulatedNoiseLevel",
    ),
    "sampling": (
        "Ancestral",
        "Exponential",
        "GridSolver",
        "Solver",
        "TorchSDE",
        "sample",
    ),
    "schedules": (
        "LearnedLinearSchedule",
        "LinearSchedule",
        "MonotoneSchedule",
        "PolynomialSchedule",
        "Schedule",
        "SchedulePoint",
    ),
    "training.heads": ("HeadFitting", "fit_head"),
    "training.runs": ("load",),
}
_HOME = {name: room for room, names in _NAMES.items() for name in names}

__all__ = [*_ROOMS, *_HOME]

if TYPE_CHECKING:  # the names once more, for type checkers and editors; a test compares the two
    import diffenc_ct.adapters  # noqa: F401
    import diffenc_ct.coding  # noqa: F401
    import diffenc_ct.networks  # noqa: F401
    import diffenc_ct.worlds  # noqa: F401
    from diffenc_ct.adapters import adapt as adapt
    from diffenc_ct.calibration import Calibration as Calibration
    from diffenc_ct.calibration import CalibrationOptions as CalibrationOptions
    from diffenc_ct.calibration import calibrate as calibrate
    from diffenc_ct.calibration import tightness as tightness
    from diffenc_ct.distributed import Work as Work
    from diffenc_ct.dynamics import ProbabilityFlow as ProbabilityFlow
    from diffenc_ct.dynamics import ReverseSDE as ReverseSDE
    from diffenc_ct.elbo import Draws as Draws
    from diffenc_ct.elbo import FiniteDepth as FiniteDepth
    from diffenc_ct.elbo import InfiniteDepth as InfiniteDepth
    from diffenc_ct.elbo import elbo as elbo
    from diffenc_ct.encoders import Encoder as Encoder
    from diffenc_ct.encoders import Encoding as Encoding
    from diffenc_ct.encoders import IdentityEncoder as IdentityEncoder
    from diffenc_ct.encoders import NonTrainableEncoder as NonTrainableEncoder
    from diffenc_ct.encoders import ResidualEncoder as ResidualEncoder
    from diffenc_ct.encoders import TrainableEncoder as TrainableEncoder
    from diffenc_ct.likelihood import Adams as Adams
    from diffenc_ct.likelihood import Exact as Exact
    from diffenc_ct.likelihood import ModelNoise as ModelNoise
    from diffenc_ct.likelihood import Rademacher as Rademacher
    from diffenc_ct.likelihood import SciPy as SciPy
    from diffenc_ct.likelihood import TorchDiffEq as TorchDiffEq
    from diffenc_ct.likelihood import TorchDiffEqFixed as TorchDiffEqFixed
    from diffenc_ct.likelihood import TruncatedNormal as TruncatedNormal
    from diffenc_ct.likelihood import log_likelihood as log_likelihood
    from diffenc_ct.likelihood import sample_with_log_prob as sample_with_log_prob
    from diffenc_ct.likelihood.classification import Classification as Classification
    from diffenc_ct.likelihood.classification import classify as classify
    from diffenc_ct.model import DiffEnc as DiffEnc
    from diffenc_ct.model import Heads as Heads
    from diffenc_ct.model import Levels as Levels
    from diffenc_ct.model import MixturePosterior as MixturePosterior
    from diffenc_ct.model import Paired as Paired
    from diffenc_ct.model import Posterior as Posterior
    from diffenc_ct.model import Reals as Reals
    from diffenc_ct.model import Separate as Separate
    from diffenc_ct.model import Single as Single
    from diffenc_ct.process import Estimates as Estimates
    from diffenc_ct.process import NoiseLevel as NoiseLevel
    from diffenc_ct.process import NonTrainableNoiseLevel as NonTrainableNoiseLevel
    from diffenc_ct.process import TabulatedNoiseLevel as TabulatedNoiseLevel
    from diffenc_ct.sampling import Ancestral as Ancestral
    from diffenc_ct.sampling import Exponential as Exponential
    from diffenc_ct.sampling import GridSolver as GridSolver
    from diffenc_ct.sampling import Solver as Solver
    from diffenc_ct.sampling import TorchSDE as TorchSDE
    from diffenc_ct.sampling import sample as sample
    from diffenc_ct.schedules import LearnedLinearSchedule as LearnedLinearSchedule
    from diffenc_ct.schedules import LinearSchedule as LinearSchedule
    from diffenc_ct.schedules import MonotoneSchedule as MonotoneSchedule
    from diffenc_ct.schedules import PolynomialSchedule as PolynomialSchedule
    from diffenc_ct.schedules import Schedule as Schedule
    from diffenc_ct.schedules import SchedulePoint as SchedulePoint
    from diffenc_ct.training.heads import HeadFitting as HeadFitting
    from diffenc_ct.training.heads import fit_head as fit_head
    from diffenc_ct.training.runs import load as load


if not TYPE_CHECKING:  # else every misspelt name would have type Any

    def __getattr__(name: str) -> Any:
        if name in _ROOMS:
            return importlib.import_module(f"{__name__}.{name}")
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
        globals()[name] = value  # found at once from now on
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Root(ModuleType):
    """A module whose names are not overwritten by packages of the same name.

    Importing `diffenc_ct.elbo` makes the import system set the package as the root's attribute `elbo`, which is the
    function. The package stays where `import diffenc_ct.elbo.terms` and `from diffenc_ct.elbo import ...` look for it.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Root
