"""Scalars and pictures for TensorBoard, in RUN/tensorboard, beside metrics.csv.

    train/NAME, test/NAME    every number of a row of metrics.csv
    loss by depth            at evaluations: the diffusion loss over t, with standard errors
    samples                  of images, at evaluations: always from the same noise
    encodings                of images, at evaluations: a row each, x_t at depths t from 0 to 1

Nothing here draws from the training's random numbers.
"""

import importlib.util
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffenc_ct.data import Dataset
from diffenc_ct.model import DiffEnc
from diffenc_ct.report.figures import loss_by_depth
from diffenc_ct.sampling import sample
from diffenc_ct.training.evaluation import Evaluation

SAMPLES, ENCODED, DEPTHS = 16, 8, 8


def require_tensorboard() -> None:
    """Raise ValueError where the package is missing."""
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError(
            "training.tensorboard needs the package tensorboard: pip install 'diffenc-ct[tensorboard]', or leave it out"
        )


class Events:
    """The event files of a run. writer: a torch.utils.tensorboard.SummaryWriter."""

    def __init__(self, writer: Any, data: Dataset) -> None:
        self.writer = writer
        pictures = len(data.shape) == 3 and data.shape[0] in (1, 3)
        self.images = data.test[:ENCODED] if pictures else None

    def add(
        self, step: int, model: DiffEnc, row: dict[str, Any], evaluation: Evaluation | None
    ) -> None:
        """A row of metrics.csv; with an evaluation also the figure and the pictures of `model`."""
        for name, value in row.items():
            part, _, rest = name.partition("_")
            tag = f"test/{rest}" if part == "test" else f"train/{name}"
            if math.isfinite(value):
                self.writer.add_scalar(tag, value, step)
        if evaluation is not None:
            self.writer.add_figure("loss by depth", loss_by_depth(evaluation), step)
            if self.images is not None:
                self._add_pictures(step, model, self.images)
        self.writer.flush()

    def _add_pictures(self, step: int, model: DiffEnc, images: Tensor) -> None:
        pictures = as_pictures(encodings(model, images).flatten(0, 1), None)
        self.writer.add_images("encodings", pictures, step)
        try:
            drawn = sample(model, SAMPLES, generator=torch.Generator().manual_seed(0)).samples
        except ValueError as error:  # a young model's samples can be infinite
            self.writer.add_text("samples", str(error), step)
        else:
            self.writer.add_images("samples", as_pictures(drawn, model.decoder.levels), step)


@contextmanager
def open_events(folder: Path, data: Dataset, *, after: int) -> Iterator[Events]:
    """Write to `folder` while the context lasts; what it shows of steps beyond `after` is forgotten."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder), purge_step=after + 1)
    try:
        yield Events(writer, data)
    finally:
        writer.close()


@torch.no_grad()
def encodings(model: DiffEnc, images: Tensor, depths: int = DEPTHS) -> Tensor:
    """x_t of images (N, *data) at equally spaced t from 0 to 1: (N, depths, *data)."""
    x = model.scale(images.to(next(model.parameters()).device))
    gammas = [model.schedule.at(t, x).gamma for t in torch.linspace(0, 1, depths).tolist()]
    return torch.stack([model.encoder.encode(x, gamma.expand(len(x))) for gamma in gammas], 1)


def as_pictures(values: Tensor, levels: int | None) -> Tensor:
    """Levels, or reals cut to (-1, 1), as grey or colour values in [0, 1], on the CPU."""
    shown = (values.clamp(-1, 1) + 1) / 2 if levels is None else values / (levels - 1)
    return shown.float().cpu()
