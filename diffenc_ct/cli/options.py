"""Arguments that commands share."""

import argparse
from pathlib import Path

import torch

from diffenc_ct.calibration import Calibration
from diffenc_ct.data import Dataset, load_dataset
from diffenc_ct.distributed import TIMEOUT, own_device
from diffenc_ct.training.config import DataConfig
from diffenc_ct.training.runs import OpenedRun
from diffenc_ct.verification import check_parts


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device and --threads."""
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, or auto: a GPU where there is one"
    )
    parser.add_argument(
        "--threads", type=int, default=None, help="CPU threads (default: all cores)"
    )


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """--process-timeout."""
    parser.add_argument(
        "--process-timeout",
        type=float,
        default=TIMEOUT,
        metavar="SECONDS",
        help=f"under torchrun: how long to wait for another process (default {TIMEOUT:g})",
    )


def use_device(arguments: argparse.Namespace) -> torch.device:
    """The torch device of --device, with the threads of --threads.

    Raises:
        ValueError: there is no such device here.
    """
    if arguments.threads is not None:
        if arguments.threads < 1:
            raise ValueError(f"--threads {arguments.threads}; give at least 1")
        torch.set_num_threads(arguments.threads)
    name = arguments.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = own_device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used ({reason}); use --device cpu") from None
    return device


def add_data(parser: argparse.ArgumentParser) -> None:
    """--data and --data-root, of commands that read a run's data again."""
    parser.add_argument(
        "--data",
        help="in the place of the run's: where a folder of images or a file of arrays lies",
    )
    parser.add_argument("--data-root", help="folder of downloaded data sets, if not the run's")


def data_of(opened: OpenedRun, arguments: argparse.Namespace) -> Dataset:
    """The data of a run, from where --data and --data-root say.

    Args:
        opened: the run.
        arguments: as given.
    Raises:
        ValueError: for data of another kind than the model was trained on.
        FileNotFoundError: there are none.
    """
    config = opened.config.data
    if arguments.data is not None:
        config = config.model_copy(update={"name": arguments.data})
    data = load_data(config, root=arguments.data_root)
    opened.check(data)
    if opened.config.training.check_parts:
        check_parts(opened.model, data.test[:3])
    return data


def load_data(config: DataConfig, *, root: str | None = None) -> Dataset:
    """The data set of a configuration, from another root where one is given."""
    return load_dataset(**config.model_dump() | {"root": root or config.root})


def load_calibration(file: str, opened: OpenedRun, run: str) -> Calibration:
    """What `diffenc calibrate` wrote.

    Args:
        file: its file; empty for calibration.json in the run's folder.
        opened: the run.
        run: its name on the command line.
    Raises:
        FileNotFoundError: there is none; the message names the command that makes one.
        ValueError: it was fitted to other weights or data of another shape.
    """
    path = Path(file or opened.folder / "calibration.json")
    if not path.exists():
        raise FileNotFoundError(f"no calibration at {path}; make one with: diffenc calibrate {run}")
    found = Calibration.load(path, model=opened.model)
    each = found.ratio_per_dimension
    if each is not None and each.shape[1:] != opened.shape:
        raise ValueError(
            f"{path} has ratios of shape {tuple(each.shape[1:])}, the run's data {opened.shape}: it is another model's"
        )
    return found


def output_path(given: str | None, run: Path, name: str) -> Path:
    """Where a result goes: --out, or NAME in the run's folder."""
    path = Path(given) if given else run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
