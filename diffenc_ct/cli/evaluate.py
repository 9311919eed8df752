"""diffenc evaluate"""

import argparse
from pathlib import Path
from typing import Any

from torch import Tensor

from diffenc_ct.calibration import Calibration
from diffenc_ct.cli import Result
from diffenc_ct.cli.likelihood import compare, fitted_depths, fitted_tightness, named_solver
from diffenc_ct.cli.numbers import noise_level, positive, whole
from diffenc_ct.cli.options import (
    add_batch_size,
    add_data,
    add_device,
    add_run,
    add_seed,
    add_step,
    add_timeout,
    add_weights,
    check_values,
    data_of,
    load_calibration,
    open_given,
    output_path,
    refuse_idle,
    use_device,
)
from diffenc_ct.cli.progress import progress
from diffenc_ct.data import Dataset
from diffenc_ct.distributed import Processes, Work, launched
from diffenc_ct.elbo import Bound, FiniteDepth, InfiniteDepth
from diffenc_ct.process import NoiseLevel
from diffenc_ct.report.figures import loss_by_depth
from diffenc_ct.report.files import as_csv, as_json, write_atomically
from diffenc_ct.training.build import named_noise_level
from diffenc_ct.training.evaluation import (
    TERMS,
    baselines,
    evaluate,
    report,
)
from diffenc_ct.training.examples import told
from diffenc_ct.training.runs import TIGHTNESS, OpenedRun

EPILOG = """\
Writes evaluation.json, evaluation.csv (bits per dimension of every image) and loss-by-depth.png to the run's folder
(see --out); with --likelihood likelihood.json and likelihood.csv.
The noise depends on --seed alone: evaluations with other settings or models see the same draws.

examples:
  diffenc evaluate runs/digits
  diffenc evaluate runs/mnist --draws 4             # four depths an image: smaller errors
  diffenc evaluate runs/photos --depths importance  # smaller errors for as many draws
  diffenc evaluate runs/mnist --depth 100           # a model of 100 steps instead of infinitely many
  diffenc evaluate runs/mnist --depth 16 --step mixture  # of posterior heads: close to infinitely many
  diffenc evaluate runs/mnist --depth 100 --ratio 1.1
  diffenc evaluate runs/mnist --calibration         # the grid, w* and eta* of `diffenc calibrate`
  diffenc evaluate runs/digits --likelihood both      # exact likelihood and bounds, one table
  diffenc evaluate runs/mnist-nt --noise-level tight  # eta^2 = 1 + 2 sigma^2
  diffenc evaluate runs/mnist --noise-level optimal   # eta* of tightness.json, fitted to training data if missing
  diffenc evaluate --adapter my_module:make_model --data pictures --out results/evaluation.json  # another's network
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_run(parser)
    parser.add_argument(
        "--draws", type=whole(1), default=1, help="draws of depth and noise an image (default 1)"
    )
    parser.add_argument(
        "--depths",
        choices=("low-discrepancy", "importance"),
        default="low-discrepancy",
        help="how t is drawn: evenly (default), or denser where the loss of training examples is larger, which makes "
        "the error smaller and leaves the mean",
    )
    parser.add_argument("--depth", type=whole(1), help="number of steps T (default: infinite)")
    add_step(parser, "with --depth, how p(z_s | z_t) is made")
    parser.add_argument(
        "--ratio",
        type=positive,
        help="variance ratio w of the steps, with --depth (default 1)",
    )
    parser.add_argument(
        "--noise-level",
        type=noise_level,
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
    add_weights(parser)
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
        "--probes",
        type=whole(1),
        default=4,
        help="an image, of an estimated divergence (default 4)",
    )
    parser.add_argument(
        "--solver",
        default="adams",
        help="of the ODE: adams (default), torchdiffeq:METHOD, scipy:METHOD",
    )
    parser.add_argument(
        "--atol",
        type=positive,
        help="the solver's tolerance; of adams, in nats a dimension and step (default 1e-5)",
    )
    parser.add_argument("--rtol", type=positive, help="of torchdiffeq's adaptive methods")
    parser.add_argument(
        "--solver-steps", type=whole(1), help="of torchdiffeq's fixed grids (default 64)"
    )
    parser.add_argument(
        "--max-steps",
        type=whole(1),
        help="of a solver that chooses its steps: how many it tries before an image is given up (default 10000)",
    )
    parser.add_argument("--examples", type=whole(1), help="only the first so many examples")
    add_batch_size(parser, 250)
    add_seed(parser)
    add_data(parser)
    parser.add_argument(
        "--out",
        help="where to write the JSON (default RUN/evaluation.json); the plot and the CSV of all images go beside it",
    )
    add_device(parser)
    add_timeout(parser)


def run(arguments: argparse.Namespace) -> Result:
    """Evaluate, print, write."""
    refuse_idle(arguments, _idle(arguments))
    device = use_device(arguments)
    opened = open_given(arguments)
    check_values(arguments, opened)
    name = "likelihood.json" if arguments.likelihood else "evaluation.json"
    path = output_path(arguments.out, opened.folder, name)
    solver = named_solver(arguments)
    data = data_of(opened, arguments)
    calibration = _calibration(arguments, opened)
    images = (data.test if arguments.split == "test" else data.train)[: arguments.examples]
    opened.model.to(device)
    level = _noise_level(arguments, opened, data)
    with launched(device, timeout=arguments.process_timeout) as processes:
        if arguments.likelihood:
            return compare(arguments, opened, data, images, solver, path, processes)
        bound = _bound(arguments, level, calibration)
        return _evaluate(arguments, opened, data, images, bound, calibration, path, processes)


def _idle(arguments: argparse.Namespace) -> dict[str, str]:
    """Options that have no effect in the mode that the others choose, and why."""
    found: dict[str, str] = {}
    which = arguments.likelihood
    if which not in ("ode", "both"):
        flow = ("divergence", "probes", "solver", "atol", "rtol", "solver_steps", "max_steps")
        found |= dict.fromkeys(flow, "it is of the flow, so of --likelihood ode or both")
    if which is not None:
        bounds = "the bounds of --likelihood are of infinite depth, at eta = 1 and eta*"
        found |= dict.fromkeys(("depth", "ratio", "noise_level", "calibration", "step"), bounds)
    elif arguments.calibration is not None:
        brings = "a calibration brings its own steps, ratios and noise level"
        found |= dict.fromkeys(("depth", "ratio", "noise_level", "step"), brings)
    elif arguments.depth is None:
        found["step"] = "it is of finite depth; give --depth, too"
        found["ratio"] = "at infinite depth only w = 1 gives a finite bound; give --depth, too"
    if which == "ode":
        found["depths"] = "it is of bounds, of which --likelihood ode has none"
    if arguments.divergence == "exact":
        found["probes"] = "the divergence is exact"
    return found


def _noise_level(arguments: argparse.Namespace, opened: OpenedRun, data: Dataset) -> NoiseLevel:
    """eta as an object; "optimal" is the run's eta*, fitted to training data now where it has none."""
    if arguments.noise_level != "optimal":
        return named_noise_level(arguments.noise_level)
    if opened.optimal_noise_level is not None:
        return opened.optimal_noise_level
    path = opened.folder / TIGHTNESS
    return fitted_tightness(opened.model, data, path, arguments).noise_level


def _bound(
    arguments: argparse.Namespace, level: NoiseLevel, calibration: Calibration | None
) -> Bound:
    if calibration is not None:
        return FiniteDepth(calibration)
    if arguments.depth is not None:
        return FiniteDepth(arguments.depth, arguments.ratio, level, step=arguments.step)
    return InfiniteDepth(level)


def _calibration(arguments: argparse.Namespace, opened: OpenedRun) -> Calibration | None:
    """What --calibration names."""
    if arguments.calibration is None:
        return None
    return load_calibration(arguments.calibration, opened, arguments.run)


def _evaluate(
    arguments: argparse.Namespace,
    opened: OpenedRun,
    data: Dataset,
    images: Tensor,
    bound: Bound,
    calibration: Calibration | None,
    path: Path,
    processes: Processes,
) -> Result:
    depths = fitted_depths(opened.model, data, bound, arguments, processes)
    with progress("evaluate", len(images)) as shown:
        evaluation = evaluate(
            told(opened.model, data, arguments.split, len(images)),
            images,
            bound,
            draws=arguments.draws,
            depths=depths,
            seed=arguments.seed,
            work=Work(arguments.batch_size, shown, processes),
        )
    if not processes.first:
        return Result()
    facts: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in (
            "run", "split", "draws", "depths", "depth", "ratio", "noise_level", "calibration", "weights", "seed",
            "batch_size",
        )
    }  # fmt: skip
    facts["step_kind"] = bound.step_kind if isinstance(bound, FiniteDepth) else None
    facts["ratio"] = 1.0 if arguments.ratio is None else arguments.ratio
    result = report(evaluation, step=opened.step, **facts) | {
        "remarks": data.remarks,
        "baselines": baselines(data),
    }
    depth = (
        "infinite depth"
        if arguments.depth is None
        else f"depth {arguments.depth}, {arguments.step} steps, ratio {facts['ratio']:g}"
    ) + f", noise level {arguments.noise_level}"
    if calibration is not None:
        depth = (
            f"{calibration.depth} calibrated {calibration.step_name} with {calibration.ratio_name} and eta*, fitted "
            f"to {calibration.examples:,} training examples"
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
    write_atomically(path, (as_json(result, indent=1) + "\n").encode())
    picture = path.with_name("loss-by-depth.png" if arguments.out is None else path.stem + ".png")
    loss_by_depth(evaluation).savefig(picture, dpi=150)
    table = path.with_suffix(".csv")
    write_atomically(table, as_csv(evaluation.terms).encode())
    print(f"wrote {path}, {table} and {picture}")
    return Result(result, (path, table, picture))
