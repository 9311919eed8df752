"""diffenc evaluate"""

import argparse
from typing import Any

from torch import Tensor

from diffenc_ct.calibration import Calibration
from diffenc_ct.cli.likelihood import compare, fitted_depths, fitted_tightness
from diffenc_ct.cli.options import (
    add_data,
    add_device,
    add_timeout,
    data_of,
    load_calibration,
    output_path,
    use_device,
)
from diffenc_ct.cli.progress import progress
from diffenc_ct.data import Dataset
from diffenc_ct.distributed import Processes, Work, launched
from diffenc_ct.elbo import Bound, FiniteDepth, InfiniteDepth
from diffenc_ct.process import NoiseLevel
from diffenc_ct.report.figures import loss_by_depth
from diffenc_ct.report.files import as_json, write_atomically
from diffenc_ct.training.build import named_noise_level
from diffenc_ct.training.evaluation import (
    TERMS,
    baselines,
    evaluate,
    report,
)
from diffenc_ct.training.runs import TIGHTNESS, OpenedRun, open_run

EPILOG = """\
Writes evaluation.json and loss-by-depth.png to the run's folder (see --out).
The noise depends on --seed alone: evaluations with other settings or models see the same draws.

examples:
  diffenc evaluate runs/digits
  diffenc evaluate runs/mnist --draws 4             # four depths an image: smaller errors
  diffenc evaluate runs/photos --depths importance  # smaller errors for as many draws
  diffenc evaluate runs/mnist --depth 100           # a model of 100 steps instead of infinitely many
  diffenc evaluate runs/mnist --depth 100 --ratio 1.1
  diffenc evaluate runs/mnist --calibration         # the grid, w* and eta* of `diffenc calibrate`
  diffenc evaluate runs/digits --likelihood both      # exact likelihood and bounds, one table
  diffenc evaluate runs/mnist-nt --noise-level tight  # eta^2 = 1 + 2 sigma^2
  diffenc evaluate runs/mnist --noise-level optimal   # eta* of tightness.json, fitted to training data if missing
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "run",
        metavar="RUN",
        help="folder of a run, a checkpoint file, or the name of a pretrained model",
    )
    parser.add_argument(
        "--draws", type=int, default=1, help="draws of depth and noise an image (default 1)"
    )
    parser.add_argument(
        "--depths",
        choices=("low-discrepancy", "importance"),
        default="low-discrepancy",
        help="how t is drawn: evenly (default), or denser where the loss of training examples is larger, which makes "
        "the error smaller and leaves the mean",
    )
    parser.add_argument("--depth", type=int, help="number of steps T (default: infinite)")
    parser.add_argument(
        "--ratio",
        type=float,
        help="variance ratio w of the steps, with --depth (default 1)",
    )
    parser.add_argument(
        "--noise-level",
        default="1",
        help="eta: a number, tight for eta^2 = 1 + 2 sigma^2, or optimal for the model's eta* (default 1)",
    )
    parser.add_argument(
        "--calibration",
        nargs="?",
        const="",
        metavar="FILE",
        help="steps, w* and eta* as `diffenc calibrate` fitted them to training examples (RUN/calibration.json)",
    )
    parser.add_argument(
        "--weights", default="ema", help="ema, raw, or the rate of an average (default ema)"
    )
    parser.add_argument(
        "--checkpoint", default="latest", help="latest, best, or a step (default latest)"
    )
    parser.add_argument(
        "--split", choices=("test", "train"), default="test", help="which examples (default test)"
    )
    parser.add_argument(
        "--likelihood",
        choices=("ode", "elbo", "both"),
        help="instead: a table of bounds, the ODE's likelihood (K = --draws samples), the ELBO at eta = 1 and eta* (16 "
        "draws for each of those samples)",
    )
    parser.add_argument(
        "--divergence",
        choices=("exact", "rademacher", "gaussian"),
        help="of the ODE's flow: exact takes as many directional derivatives as dimensions, the others --probes "
        "(default exact up to 16 dimensions, else rademacher; its error is in the table)",
    )
    parser.add_argument(
        "--probes", type=int, default=4, help="an image, of an estimated divergence (default 4)"
    )
    parser.add_argument(
        "--solver",
        default="adams",
        help="of the ODE: adams (default), torchdiffeq:METHOD, scipy:METHOD",
    )
    parser.add_argument(
        "--atol",
        type=float,
        help="the solver's tolerance; of adams, in nats a dimension and step (default 1e-5)",
    )
    parser.add_argument("--rtol", type=float, help="of torchdiffeq's adaptive methods")
    parser.add_argument(
        "--solver-steps", type=int, help="of torchdiffeq's fixed grids (default 64)"
    )
    parser.add_argument("--examples", type=int, help="only the first so many examples")
    parser.add_argument(
        "--batch-size", type=int, default=250, help="examples at a time (default 250)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default 0)")
    add_data(parser)
    parser.add_argument(
        "--out",
        help="where to write the JSON (default RUN/evaluation.json); the plot goes beside it",
    )
    add_device(parser)
    add_timeout(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, print, write."""
    device = use_device(arguments)
    opened = open_run(arguments.run, weights=arguments.weights, checkpoint=arguments.checkpoint)
    data = data_of(opened, arguments)
    calibration = _calibration(arguments, opened)
    images = (data.test if arguments.split == "test" else data.train)[: arguments.examples]
    opened.model.to(device)
    level = _noise_level(arguments, opened, data)
    with launched(device, timeout=arguments.process_timeout) as processes:
        if arguments.likelihood == "ode" and arguments.depths != "low-discrepancy":
            raise ValueError(
                f"--depths {arguments.depths} is of bounds, of which --likelihood ode has none; leave it out"
            )
        if arguments.likelihood:
            return compare(arguments, opened, data, images, processes)
        bound = _bound(arguments, level, calibration)
        return _evaluate(arguments, opened, data, images, bound, calibration, processes)


def _noise_level(arguments: argparse.Namespace, opened: OpenedRun, data: Dataset) -> NoiseLevel:
    """eta as an object; "optimal" is the run's eta*, fitted to training data now where it has none."""
    if arguments.noise_level != "optimal":
        return named_noise_level(arguments.noise_level)
    if opened.optimal_noise_level is not None:
        return opened.optimal_noise_level
    path = opened.folder / TIGHTNESS
    return fitted_tightness(opened.model, data.train, path, arguments).noise_level


def _bound(
    arguments: argparse.Namespace, level: NoiseLevel, calibration: Calibration | None
) -> Bound:
    if calibration is not None:
        return FiniteDepth(calibration)
    if arguments.depth is not None:
        return FiniteDepth(arguments.depth, arguments.ratio, level)
    if arguments.ratio is not None:
        raise ValueError(
            f"--ratio {arguments.ratio:g}: at infinite depth only w = 1 gives a finite bound; give --depth, too"
        )
    return InfiniteDepth(level)


def _calibration(arguments: argparse.Namespace, opened: OpenedRun) -> Calibration | None:
    """What --calibration names; ValueError beside options that it decides."""
    if arguments.calibration is None:
        return None
    decided = {"depth": None, "ratio": None, "noise_level": "1", "likelihood": None}
    for name, default in decided.items():
        if getattr(arguments, name) != default:
            raise ValueError(
                f"--calibration and --{name.replace('_', '-')} exclude each other: a calibration brings its own "
                "steps, ratios and noise level"
            )
    return load_calibration(arguments.calibration, opened, arguments.run)


def _evaluate(
    arguments: argparse.Namespace,
    opened: OpenedRun,
    data: Dataset,
    images: Tensor,
    bound: Bound,
    calibration: Calibration | None,
    processes: Processes,
) -> int:
    depths = fitted_depths(opened.model, data.train, bound, arguments, processes)
    with progress("evaluate", len(images)) as shown:
        evaluation = evaluate(
            opened.model,
            images,
            bound,
            draws=arguments.draws,
            depths=depths,
            seed=arguments.seed,
            work=Work(arguments.batch_size, shown, processes),
        )
    if not processes.first:
        return 0
    facts: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in (
            "run",
            "split",
            "draws",
            "depths",
            "depth",
            "ratio",
            "noise_level",
            "calibration",
            "weights",
            "seed",
            "batch_size",
        )
    }
    facts["ratio"] = 1.0 if arguments.ratio is None else arguments.ratio
    result = report(evaluation, step=opened.step, **facts) | {
        "remarks": data.remarks,
        "baselines": baselines(data),
    }
    depth = (
        "infinite depth"
        if arguments.depth is None
        else f"depth {arguments.depth}, ratio {facts['ratio']:g}"
    ) + f", noise level {arguments.noise_level}"
    if calibration is not None:
        depth = (
            f"{calibration.depth} calibrated steps with {calibration.ratio_name} and eta*, fitted to "
            f"{calibration.examples:,} training examples"
        )
    print(
        f"{arguments.run} at step {opened.step}: {len(images):,} {arguments.split} examples of {data.name}, "
        f"{arguments.draws} draw{'s' if arguments.draws > 1 else ''}, {depth}"
    )
    print("\n".join(data.remarks), end="\n" * bool(data.remarks))
    print(f"{'bits per dimension':<24}{'mean':>10}{'std. error':>12}")
    for term in TERMS:
        print(f"{term:<24}{evaluation.mean(term):>10.4f}{evaluation.error(term):>12.4f}")
    for name, value in result["baselines"].items():
        words = {"uniform": "(uniform)", "independent": "(independent dimensions)"}
        print(f"{words[name]:<24}{value:>10.4f}")
    path = output_path(arguments.out, opened.folder, "evaluation.json")
    write_atomically(path, (as_json(result, indent=1) + "\n").encode())
    picture = path.with_name("loss-by-depth.png" if arguments.out is None else path.stem + ".png")
    loss_by_depth(evaluation).savefig(picture, dpi=150)
    print(f"wrote {path} and {picture}")
    return 0
