"""What a report says of one run: its bounds on test examples, what was fitted to it, its training, its pictures.

Bounds are those of `evaluate`, with its seeds and batches: the same numbers as `diffenc evaluate` gives of as many
examples and draws, and of several runs on the same draws.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxtyping import Shaped
from torch import Tensor

from diffenc_ct.calibration import Calibration, Tightness
from diffenc_ct.data import Dataset
from diffenc_ct.distributed import Progress, Work, silent
from diffenc_ct.elbo import Bound, FiniteDepth, InfiniteDepth
from diffenc_ct.model import DiffEnc
from diffenc_ct.report.album import Album, album
from diffenc_ct.report.metrics import read_metrics
from diffenc_ct.report.rows import Row
from diffenc_ct.training.cost import PARTS
from diffenc_ct.training.evaluation import Evaluation, baselines, evaluate
from diffenc_ct.training.examples import told
from diffenc_ct.training.runs import TIGHTNESS, OpenedRun
from diffenc_ct.training.state import count_parameters


@dataclass(frozen=True)
class Effort:
    """How much is computed.

    Attributes:
        examples: the first so many of the test examples.
        draws: of depth and noise an example.
        batch_size: examples at a time; as the seed it is part of which draws are made.
        seed: of the draws.

    Example:
        >>> Effort(examples=50).draws
        4
    """

    examples: int = 200
    draws: int = 4
    batch_size: int = 250
    seed: int = 0


@dataclass(frozen=True)
class Fitted:
    """What was fitted to a run's weights and lies beside it.

    Attributes:
        tightness: a, b, c and eta* over depth.
        calibration: a grid of steps with its ratios and eta*.
        remarks: files that are of no use, and why.
    """

    tightness: Tightness | None
    calibration: Calibration | None
    remarks: tuple[str, ...] = ()

    @property
    def bounds(self) -> dict[str, tuple[Bound, str]]:
        """What is evaluated, by its name: the bound, and the options of `diffenc evaluate` that give it."""
        found: dict[str, tuple[Bound, str]] = {"infinite depth, η = 1": (InfiniteDepth(), "")}
        if self.tightness is not None:
            level = self.tightness.noise_level
            found["infinite depth, η*"] = (InfiniteDepth(level), " --noise-level optimal")
        if self.calibration is not None:
            name = f"{self.calibration.depth} calibrated {self.calibration.step_name}"
            found[name] = (FiniteDepth(self.calibration), " --calibration")
        return found


@dataclass(frozen=True)
class Findings:
    """Of one run.

    Attributes:
        name: as it was asked for.
        opened: the run itself.
        data: their name, and what must be said of them.
        images: the examples that were evaluated.
        effort: how much was computed.
        evaluation: at infinite depth and eta = 1.
        rows: bounds, and likelihoods where they were asked for.
        options: of `diffenc evaluate` that give each row of `fitted.bounds`.
        baselines: bits per dimension of models without learning.
        fitted: to its weights.
        metrics: columns of metrics.csv, nothing where there is none.
        album: its pictures; None where the data are no images.
    """

    name: str
    opened: OpenedRun
    data: Dataset = field(repr=False)
    images: Shaped[Tensor, "images *data"] = field(repr=False)
    effort: Effort
    evaluation: Evaluation = field(repr=False)
    rows: tuple[Row, ...]
    options: tuple[str, ...]
    baselines: dict[str, float]
    fitted: Fitted
    metrics: dict[str, list[float]] = field(repr=False)
    album: Album | None = field(repr=False)

    @property
    def parameters(self) -> dict[str, int]:
        """Numbers that are trained, by part of the model."""
        return {part: count_parameters(getattr(self.opened.model, part)) for part in PARTS}

    def with_rows(self, rows: list[Row]) -> "Findings":
        """The same with further rows."""
        return replace(self, rows=(*self.rows, *rows))


def fitted_to(opened: OpenedRun) -> Fitted:
    """What lies in a run's folder; a file that is of other weights, or cannot be read, becomes a remark.

    Args:
        opened: the run.
    """
    found: dict[str, Tightness | Calibration | None] = {}
    remarks = []
    for name, kind in ((TIGHTNESS, Tightness), ("calibration.json", Calibration)):
        path: Path = opened.folder / name
        try:
            found[name] = kind.load(path, model=opened.model) if path.exists() else None
        except ValueError as error:
            remarks.append(str(error))
    tightness, calibration = found.get(TIGHTNESS), found.get("calibration.json")
    assert tightness is None or isinstance(tightness, Tightness)
    assert calibration is None or isinstance(calibration, Calibration)
    return Fitted(tightness, calibration, tuple(remarks))


def examples_of(opened: OpenedRun, data: Dataset, effort: Effort) -> tuple[DiffEnc, Tensor]:
    """The model, given their labels where it takes some, and the test examples of a report.

    Args:
        opened: the run.
        data: of its kind.
        effort: how many.
    """
    images = data.test[: effort.examples]
    return told(opened.model, data, "test", len(images)), images


def find(
    name: str,
    opened: OpenedRun,
    data: Dataset,
    effort: Effort,
    fitted: Fitted | None = None,
    progress: Progress = silent,
) -> Findings:
    """Evaluate a run and gather what is known of it.

    Args:
        name: of the run, for the reader.
        opened: the run, its model on the device where it is to be computed.
        data: of its kind.
        effort: how much is computed.
        fitted: to its weights; what lies in its folder by default.
        progress: counts examples, once a bound.

    Example:
        >>> from diffenc_ct.data import load_dataset
        >>> from diffenc_ct.training.runs import open_run
        >>> few = Effort(examples=4, draws=1)
        >>> found = find("digits-vdm", open_run("digits-vdm"), load_dataset("digits"), few)
        >>> found.rows[0].name, len(found.rows[0].solved)
        ('infinite depth, η = 1', 4)
    """
    fitted = fitted_to(opened) if fitted is None else fitted
    model, images = examples_of(opened, data, effort)
    work = Work(effort.batch_size, progress)
    found = {
        title: evaluate(model, images, bound, draws=effort.draws, seed=effort.seed, work=work)
        for title, (bound, _) in fitted.bounds.items()
    }
    rows = [Row(title, each.terms["total"], "the SDE model", {}) for title, each in found.items()]
    return Findings(
        name=name,
        opened=opened,
        data=data,
        images=images,
        effort=effort,
        evaluation=next(iter(found.values())),
        rows=tuple(rows),
        options=tuple(options for _, options in fitted.bounds.values()),
        baselines=baselines(data),
        fitted=fitted,
        metrics=read_metrics(opened.folder / "metrics.csv"),
        album=album(opened, data, effort.seed),
    )
