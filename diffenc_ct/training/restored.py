"""From a checkpoint back to a model: its weights, and the noise level of its training."""

from torch import Tensor

from diffenc_ct.calibration import RunningNoiseLevel
from diffenc_ct.model import DiffEnc
from diffenc_ct.process import NoiseLevel
from diffenc_ct.training.build import build_model_for, gamma_range
from diffenc_ct.training.checkpoints import Checkpoint, as_plain
from diffenc_ct.training.config import Config
from diffenc_ct.training.state import MOMENTS


def weights_of(saved: Checkpoint, weights: str = "ema") -> dict[str, Tensor]:
    """One set of weights of a checkpoint, in float32.

    Args:
        saved: the checkpoint.
        weights: as in `restore_model`.

    Raises:
        ValueError: where it has no such weights.
    """
    rates = saved.ema_rates()
    choices = {"raw": "model/", **{rate: f"ema/{rate}/" for rate in rates}}
    if rates:
        choices["ema"] = choices[rates[0]]
    tensors = saved.under(choices[weights]) if weights in choices else {}
    if not tensors:
        have = [name for name, prefix in choices.items() if saved.under(prefix)]
        raise ValueError(
            f"weights={weights!r} are not in this checkpoint; it has {', '.join(have)}"
        )
    return as_plain(tensors)


def restore_model(saved: Checkpoint, weights: str = "ema") -> DiffEnc:
    """The model of a checkpoint, in evaluation mode.

    Args:
        saved: the checkpoint.
        weights: "ema" (its first average), "raw", or a rate as text.

    Raises:
        ValueError: where it has no such weights, or they do not fit the model of its configuration.
    """
    tensors = weights_of(saved, weights)
    model = build_model_for(
        Config.from_dict(saved.config),
        saved.shape,
        saved.levels,
        classes=saved.data.get("train", {}).get("classes"),
    )
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"the weights do not fit the model of their configuration ({error}); "
            "use the diffenc_ct release and plug-ins that wrote them"
        ) from error
    return model.eval()


def restore_noise_level(saved: Checkpoint) -> NoiseLevel | None:
    """eta* as a training at the optimal noise level estimated it last; None for another training."""
    if MOMENTS not in saved.tensors:
        return None
    # Its bins are those of the untrained schedule, as in training.
    schedule = build_model_for(Config.from_dict(saved.config), saved.shape, saved.levels).schedule
    level = RunningNoiseLevel(*gamma_range(schedule))
    level.moments = saved.tensors[MOMENTS]
    return level
