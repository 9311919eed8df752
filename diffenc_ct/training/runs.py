"""Opening what was trained: the folder of a run, a checkpoint file, or a pretrained example by name."""

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor

from diffenc_ct.calibration import Tightness
from diffenc_ct.data import Dataset
from diffenc_ct.distributed import launched_rank
from diffenc_ct.model import DiffEnc
from diffenc_ct.process import NoiseLevel
from diffenc_ct.report.files import write_atomically
from diffenc_ct.training.checkpoints import (
    EXPORTED,
    Checkpoint,
    best,
    checkpoint_path,
    latest,
    list_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.data_record import DataRecord
from diffenc_ct.training.restored import restore_model, restore_noise_level, weights_of

PRETRAINED = Path(__file__).parents[1] / "pretrained"
TIGHTNESS = "tightness.json"  # in a run's folder: its fitted eta*


@dataclass(frozen=True)
class OpenedRun:
    """A trained model with what is known about it.

    Attributes:
        model: in evaluation mode.
        config: of its training.
        step: of the checkpoint.
        shape: of one example.
        folder: where results belong.
        data: what it was trained on.
        last_noise_level: eta*, as a training at it estimated it last, else None.
    """

    model: DiffEnc
    config: Config
    step: int
    shape: tuple[int, ...]
    folder: Path
    data: DataRecord
    last_noise_level: NoiseLevel | None = field(repr=False)

    @cached_property
    def optimal_noise_level(self) -> NoiseLevel | None:
        """eta*, as `tightness` fitted it (tightness.json of the folder), else as training at it estimated it last.

        Raises:
            ValueError: where the file cannot be read, or was fitted to other weights.
        """
        path = self.folder / TIGHTNESS
        if not path.exists():
            return self.last_noise_level
        return Tightness.load(path, model=self.model).noise_level

    @property
    def classes(self) -> int | None:
        """Of the labels that the model was trained with, None where it was without."""
        found: int | None = self.data.parts.get("train", {}).get("classes")
        return found

    def check(self, data: Dataset) -> None:
        """Refuse data of another kind than the model was trained on; warn of other examples.

        Args:
            data: to be given to it.

        Raises:
            ValueError: for another shape, other levels or, where labels are given, other classes.
        """
        if data.shape != self.shape or data.levels != self.model.decoder.levels:
            levels = self.model.decoder.levels
            raise ValueError(
                f"the model was trained on examples of shape {self.shape} and {levels or 'no'} levels, but "
                f"data {data.name!r} have shape {data.shape} and {data.levels or 'no'} levels; give it data of its kind"
            )
        if not self.data.parts:
            return
        given = DataRecord.of(data)
        if data.labels is not None and (others := self.data.other_classes(given)):
            raise ValueError(
                f"data {data.name!r} are of other classes than the model ({others[0]}); give it data of its classes"
            )
        unlike = self.data.unlike(given)
        if unlike and launched_rank() == 0:
            warnings.warn(
                f"data {data.name!r} are not those of the training: {'; '.join(unlike)}",
                stacklevel=2,
            )


def pretrained_names() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{EXPORTED}"))


def load(run: str | Path, *, weights: str = "ema", checkpoint: str | int = "latest") -> DiffEnc:
    """The model of a run, in evaluation mode on the CPU.

    Nothing in the files is executed, except that a configuration with plug-ins imports the modules it names.

    Args:
        run: a run's folder, a checkpoint file, or a name of pretrained_names().
        weights: "ema", "raw", or the rate of an average as text.
        checkpoint: "latest", "best" or a step.

    Raises:
        FileNotFoundError: where there is nothing, naming the remedy.
        ValueError: for weights or a step that are not there; CorruptCheckpoint for a file that was altered.

    Example:
        >>> import diffenc_ct as dc
        >>> dc.load("mnist-diffenc").shape
        (1, 28, 28)
    """
    return open_run(run, weights=weights, checkpoint=checkpoint).model


def open_run(
    run: str | Path, *, weights: str = "ema", checkpoint: str | int = "latest"
) -> OpenedRun:
    """As `load`, with what else is known about the model.

    Args:
        run: as in `load`.
        weights: as in `load`.
        checkpoint: as in `load`.

    Raises:
        FileNotFoundError: as `load`.
        ValueError: as `load`.
    """
    saved, folder = _find(run, str(checkpoint))
    config = Config.from_dict(saved.config, where=f"configuration of {run}")
    model, data = restore_model(saved, weights), DataRecord(saved.shape, saved.levels, saved.data)
    level = restore_noise_level(saved)
    return OpenedRun(model, config, saved.step, saved.shape, folder, data, level)


def initial_weights(run: str | Path) -> dict[str, Tensor]:
    """The averaged weights that a run or pretrained model ended with, by name.

    Args:
        run: as in `load`.

    Raises:
        FileNotFoundError: as `load`.
        ValueError: as `load`.
    """
    return weights_of(_find(run, "latest")[0])


def export(
    run: str | Path,
    folder: Path,
    *,
    weights: str = "ema",
    checkpoint: str | int = "latest",
    half: bool = False,
) -> Path:
    """Write one set of weights of a run, without optimiser, to FOLDER/weights.safetensors; also its config.json.

    The folder where this machine keeps its data sets is not written.

    Args:
        run: as in `load`.
        folder: for both files.
        weights: as in `load`.
        checkpoint: as in `load`.
        half: rounded to 16 bits (11 of precision), half the size; they are float32 again when loaded.

    Returns:
        The path of the weights.

    Raises:
        ValueError: where the file exists, and where the folder is a run's.
    """
    saved, _ = _find(run, str(checkpoint))
    tensors = {
        # What data are standardised by belongs to the data's numbers, not to the weights.
        f"ema/export/{name}": t.half()
        if half and t.is_floating_point() and not name.startswith("decoder.")
        else t
        for name, t in restore_model(saved, weights).state_dict().items()
    }
    config = replace(Config.from_dict(saved.config), {"data.root": None})
    path = folder / EXPORTED
    if path.exists():
        raise ValueError(f"{path} exists; delete it or choose another folder")
    if list_checkpoints(folder / "checkpoints"):
        raise ValueError(f"{folder} holds a run, whose place this is; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(
        path,
        Checkpoint(
            tensors,
            config.to_dict(),
            saved.step,
            saved.shape,
            saved.levels,
            saved.metrics,
            data=saved.data,
        ),
    )
    write_atomically(folder / "config.json", config.to_json().encode())
    return path


def _find(run: str | Path, which: str) -> tuple[Checkpoint, Path]:
    path = Path(run)
    if path.is_file():
        return read_checkpoint(path), path.parent
    packaged = PRETRAINED / str(run) / EXPORTED
    if not path.exists() and packaged.exists():
        return read_checkpoint(packaged), Path("runs") / str(run)
    if (path / EXPORTED).exists():
        return read_checkpoint(path / EXPORTED), path
    folder = path / "checkpoints"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no run at {run}; give the folder of a run, a checkpoint file, or one of the pretrained models "
            f"({', '.join(pretrained_names()) or 'none installed'})"
        )
    if which == "latest":
        found = latest(folder)
    elif which == "best":
        scored = best(folder)
        if scored is None:
            raise ValueError(
                f"no checkpoint in {folder} was evaluated to a number; use latest or the step of one"
            )
        found = (scored, read_checkpoint(scored))
    elif which.isdigit() and checkpoint_path(folder, int(which)).exists():
        found = (
            checkpoint_path(folder, int(which)),
            read_checkpoint(checkpoint_path(folder, int(which))),
        )
    else:
        raise ValueError(
            f"checkpoint={which!r} is not in {folder}; use latest, best or the step of a file there"
        )
    if found is None:
        raise FileNotFoundError(
            f"no intact checkpoint in {folder}; train with: diffenc train --run {run} --resume"
        )
    return found[1], path
