"""--adapter MODULE:FUNCTION in the place of a run: a model that a function of the user's makes, as by `dc.adapt`."""

import argparse
from pathlib import Path

from diffenc_ct.cli.options import refuse_idle
from diffenc_ct.data import NAMES
from diffenc_ct.model import DiffEnc
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.data_record import DataRecord
from diffenc_ct.training.plugins import import_part
from diffenc_ct.training.runs import OpenedRun


def open_adapter(arguments: argparse.Namespace) -> OpenedRun:
    """What --adapter names, as if it were a run: its folder is that of --out, its data those of --data.

    Raises:
        ValueError: naming what is missing or does not go together, a function that cannot be imported, and a model
            that is none or does not know the shape of its data.
    """
    given = f"--adapter {arguments.adapter}"
    if arguments.run is not None:
        raise ValueError(f"{given} stands in the place of a run; leave out {arguments.run}")
    one = "an adapted model has one set of weights"
    refuse_idle(arguments, {"weights": one, "checkpoint": one})
    if arguments.out is None:
        raise ValueError(
            f"{given} has no run's folder; say where results and what is fitted go: --out FILE"
        )
    data = getattr(arguments, "data", "")
    if data is None:
        raise ValueError(f"{given} says nothing of data; name them: --data")
    model = import_part("--adapter", arguments.adapter)()
    if not isinstance(model, DiffEnc):
        raise ValueError(
            f"{given} returned a {type(model).__name__}; it must return a model, such as dc.adapt makes"
        )
    if model.shape is None:
        raise ValueError(
            f"{given}: the model does not know the shape of its data; give dc.adapt(..., shape=...)"
        )
    settings = {"model.prediction": "x", "encoder.kind": "identity", "training.check_parts": False}
    if data:
        settings["data.name"] = data
        settings["data.levels"] = None if data in NAMES else model.decoder.levels
    arguments.run = given  # as messages and files name it
    shape = tuple(model.shape)
    record = DataRecord(shape, model.decoder.levels)
    folder = Path(arguments.out).parent
    return OpenedRun(model.eval(), replace(Config(), settings), 0, shape, folder, record, None)
