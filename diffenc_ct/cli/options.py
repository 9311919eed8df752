"""Arguments that commands share."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import torch

from diffenc_ct.calibration import Calibration
from diffenc_ct.cli.numbers import positive, seed, whole
from diffenc_ct.data import Dataset, load_dataset
from diffenc_ct.data.named import IN_ROOT
from diffenc_ct.distributed import TIMEOUT, own_device
from diffenc_ct.elbo import StepKind
from diffenc_ct.training.checkpoints import EXPORTED
from diffenc_ct.training.config import DataConfig
from diffenc_ct.training.runs import OpenedRun, open_run, pretrained_names
from diffenc_ct.verification import check_parts


def refuse_idle(arguments: argparse.Namespace, idle: Mapping[str, str]) -> None:
    """Refuse an option that was given where it says nothing.

    Args:
        arguments: as given.
        idle: why each option has no effect here, by its name in `arguments`.

    Raises:
        ValueError: naming the option and the reason.
    """
    for name, reason in idle.items():
        if name in arguments.given:
            value = getattr(arguments, name)
            shown = "" if value is True or value == "" else f" {value}"
            raise ValueError(
                f"--{name.replace('_', '-')}{shown} has no effect here: {reason}; leave it out"
            )


def add_run(parser: argparse.ArgumentParser) -> None:
    """RUN, or --adapter in its place."""
    parser.add_argument(
        "run",
        metavar="RUN",
        nargs="?",
        help="folder of a run, a checkpoint file, or the name of a pretrained model",
    )
    parser.add_argument(
        "--adapter",
        metavar="MODULE:FUNCTION",
        help="in the place of RUN: a function that returns a model, such as dc.adapt makes of another package's "
        "network; with --data and --out",
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """--weights and --checkpoint, which `open_given` reads."""
    parser.add_argument(
        "--weights", default="ema", help="ema, raw, or the rate of an average (default ema)"
    )
    parser.add_argument(
        "--checkpoint", default="latest", help="latest, best, or a step (default latest)"
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """--seed."""
    parser.add_argument(
        "--seed", type=seed, default=0, help="seed of all that is random (default 0)"
    )


def add_batch_size(
    parser: argparse.ArgumentParser, default: int, what: str = "examples at a time"
) -> None:
    """--batch-size.

    Args:
        parser: of the command.
        default: how many.
        what: it counts, and what depends on it.
    """
    text = f"{what} (default {default})"
    parser.add_argument("--batch-size", type=whole(1), default=default, help=text)


def open_given(arguments: argparse.Namespace) -> OpenedRun:
    """The run of a command, with its --weights and --checkpoint; or what --adapter makes.

    Raises:
        ValueError: also for neither, and for a --checkpoint of what has one set of weights only.
    """
    if getattr(arguments, "adapter", None) is not None:
        from diffenc_ct.cli.adapters import open_adapter  # needs this module

        return open_adapter(arguments)
    if arguments.run is None:
        raise ValueError("give a run, or --adapter MODULE:FUNCTION")
    run = Path(arguments.run)
    choice = (run / "checkpoints").is_dir() and not (run / EXPORTED).exists()
    if not choice and (run.exists() or arguments.run in pretrained_names()):
        refuse_idle(arguments, {"checkpoint": f"{run} is one set of weights"})
    return open_run(arguments.run, weights=arguments.weights, checkpoint=arguments.checkpoint)


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device and --threads."""
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, or auto: a GPU where there is one"
    )
    parser.add_argument(
        "--threads", type=whole(1), default=None, help="CPU threads (default: all cores)"
    )


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """--process-timeout."""
    parser.add_argument(
        "--process-timeout",
        type=positive,
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


def add_step(parser: argparse.ArgumentParser, where: str) -> None:
    """--step.

    Args:
        parser: of the command.
        where: it applies.
    """
    parser.add_argument(
        "--step",
        choices=get_args(StepKind),
        default="gaussian",
        help=f"{where}: gaussian, around the estimates (default); mixture, each value the process of its own level or "
        "Gaussian, for posterior heads",
    )


def check_values(arguments: argparse.Namespace, opened: OpenedRun) -> None:
    """Refuse --step mixture of a run whose heads estimate means only.

    Raises:
        ValueError: naming the run's prediction and what mixture steps need.
    """
    if arguments.step == "mixture" and not opened.model.heads.knows_values:
        raise ValueError(
            f"--step mixture: {arguments.run} predicts {opened.config.model.prediction}, means only; mixture steps "
            "need a model of --prediction posterior; leave --step out"
        )


def add_data(parser: argparse.ArgumentParser) -> None:
    """--data, --data-root and --download, of commands that read a run's data again."""
    parser.add_argument(
        "--data",
        help="in the place of the run's: where a folder of images or a file of arrays lies",
    )
    parser.add_argument("--data-root", help="folder of downloaded data sets, if not the run's")
    parser.add_argument(
        "--download", action="store_true", help="fetch MNIST or CIFAR-10 if missing"
    )


def data_of(opened: OpenedRun, arguments: argparse.Namespace) -> Dataset:
    """The data of a run, from where --data and --data-root say.

    Args:
        opened: the run.
        arguments: as given.
    Raises:
        ValueError: for data of another kind than the model was trained on, or a --data-root that they do not lie in.
        FileNotFoundError: there are none.
    """
    config = opened.config.data
    if arguments.data is not None:
        config = config.model_copy(update={"name": arguments.data})
    if config.name not in IN_ROOT:
        why = f"{config.name} is none of {', '.join(IN_ROOT)}"
        refuse_idle(arguments, dict.fromkeys(("data_root", "download"), why))
    config = config.model_copy(update={"download": arguments.download})
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


def output_path(given: str | None, run: Path, name: str, *endings: str) -> Path:
    """Where a result goes, before there is one: --out, or NAME in the run's folder. Makes the folder.

    Args:
        given: --out.
        run: the run's folder.
        name: of the file there.
        endings: which --out may have; that of `name` by default.

    Raises:
        ValueError: for another ending, a folder, or where nothing can be written.
    """
    path = Path(given) if given else run / name
    endings = endings or (Path(name).suffix,)
    if path.suffix not in endings:
        raise ValueError(f"--out {path}: give a name that ends in {' or '.join(endings)}")
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder; give a file's name in it")
    make_folder(path.parent)
    return path


def make_folder(folder: Path) -> None:
    """Make a folder for results, with those above it.

    Raises:
        ValueError: where a file is in the way, or nothing can be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"no folder can be made at {folder} ({error})") from None
    if not os.access(folder, os.W_OK):
        raise ValueError(f"nothing can be written to {folder}; give another folder")
