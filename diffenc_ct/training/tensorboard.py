"""Scalars and pictures for TensorBoard, in RUN/tensorboard, beside metrics.csv.

    train/NAME, test/NAME    every number of a row of metrics.csv
    loss by depth            at evaluations: the diffusion loss over t, with standard errors
    samples                  of images, at evaluations: always from the same noise
    encodings                of images, at evaluations: a row each, x_t at depths t from 0 to 1

Nothing here draws from the training's random numbers.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffenc_ct.data import Dataset
from diffenc_ct.model import DiffEnc
from diffenc_ct.report.extras import require
from diffenc_ct.report.values import as_values, encodings, is_picture
from diffenc_ct.sampling import sample
from diffenc_ct.training.evaluation import Evaluation

SAMPLES, ENCODED, DEPTHS = 16, 8, 8


def require_tensorboard() -> None:
    """Ask for what the events need before the training, not at its first figure.

    Raises:
        MissingExtra: where a package is not installed.
    """
    for package in ("tensorboard", "matplotlib", "PIL"):
        require(package, "tensorboard")


class Events:
    """The event files of a run.

    Args:
        writer: a torch.utils.tensorboard.SummaryWriter.
        data: whose test images are shown.
    """

    def __init__(self, writer: Any, data: Dataset) -> None:
        self.writer = writer
        self.images = data.test[:ENCODED] if is_picture(data.shape) else None

    def add(
        self, step: int, model: DiffEnc, row: dict[str, Any], evaluation: Evaluation | None
    ) -> None:
        """A row of metrics.csv; with an evaluation also the figure and the pictures of `model`.

        Args:
            step: of the row.
            model: that is shown.
            row: of metrics.csv.
            evaluation: made at this step, if any.
        """
        for name, value in row.items():
            part, _, rest = name.partition("_")
            tag = f"test/{rest}" if part == "test" else f"train/{name}"
            if math.isfinite(value):
                self.writer.add_scalar(tag, value, step)
        if evaluation is not None:
            from diffenc_ct.report.figures import loss_by_depth

            self.writer.add_figure("loss by depth", loss_by_depth(evaluation), step)
            if self.images is not None:
                self._add_pictures(step, model, self.images)
        self.writer.flush()

    def _add_pictures(self, step: int, model: DiffEnc, images: Tensor) -> None:
        pictures = as_values(encodings(model, images, DEPTHS).flatten(0, 1), None).float().cpu()
        self.writer.add_images("encodings", pictures, step)
        try:
            drawn = sample(model, SAMPLES, generator=torch.Generator().manual_seed(0)).samples
        except ValueError as error:  # a young model's samples can be infinite
            self.writer.add_text("samples", str(error), step)
        else:
            shown = as_values(drawn, model.decoder.levels).float().cpu()
            self.writer.add_images("samples", shown, step)


@contextmanager
def open_events(folder: Path, data: Dataset, *, after: int) -> Iterator[Events]:
    """Write to `folder` while the context lasts.

    Args:
        folder: of the events.
        data: whose test images are shown.
        after: what the folder shows of later steps is forgotten.
    """
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder), purge_step=after + 1)
    try:
        yield Events(writer, data)
    finally:
        writer.close()
