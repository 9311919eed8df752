"""diffenc report"""

import argparse

from diffenc_ct.cli import Result
from diffenc_ct.cli.likelihood import FlowOptions, flows, ode_rows
from diffenc_ct.cli.numbers import whole
from diffenc_ct.cli.options import (
    add_batch_size,
    add_data,
    add_device,
    add_seed,
    add_weights,
    data_of,
    open_given,
    output_path,
    use_device,
)
from diffenc_ct.cli.progress import progress
from diffenc_ct.data import Dataset
from diffenc_ct.distributed import ALONE
from diffenc_ct.likelihood import Adams
from diffenc_ct.report.extras import require
from diffenc_ct.report.files import write_atomically
from diffenc_ct.report.findings import Effort, Findings, examples_of, find, fitted_to
from diffenc_ct.training.runs import OpenedRun

EPILOG = """\
Writes one HTML file that needs no network and no other file: bounds with standard errors, the loss at every depth, the
curves of training, calibration, what the encoder does, samples on their way. Of several runs also the differences from
the first one, example by example on the same draws.

examples:
  diffenc report runs/digits
  diffenc report digits-vdm digits-diffenc -o digits.html
  diffenc report runs/mnist --likelihood --examples 50  # with the exact likelihood of the flow
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="folder of a run, a checkpoint file, or the name of a pretrained model",
    )
    parser.add_argument(
        "-o",
        "--out",
        metavar="FILE",
        help="the page (default report.html in the first run's folder)",
    )
    few = Effort()
    parser.add_argument(
        "--examples",
        type=whole(1),
        default=few.examples,
        help=f"the first so many test examples (default {few.examples})",
    )
    parser.add_argument(
        "--draws",
        type=whole(1),
        default=few.draws,
        help=f"of depth and noise an example (default {few.draws})",
    )
    parser.add_argument(
        "--likelihood",
        action="store_true",
        help="also the likelihood of the probability flow, with its errors: some fifty evaluations of the network an "
        "example, and their derivatives",
    )
    add_batch_size(parser, few.batch_size)
    add_weights(parser)
    add_seed(parser)
    add_data(parser)
    add_device(parser)


def run(arguments: argparse.Namespace) -> Result:
    """Evaluate, write the page, print the bounds."""
    require("jinja2", "report")
    require("PIL", "report")
    from diffenc_ct.report.page import comparisons, render

    device = use_device(arguments)
    opened = [
        open_given(argparse.Namespace(**{**vars(arguments), "run": name}))
        for name in arguments.runs
    ]
    path = output_path(arguments.out, opened[0].folder, "report.html")
    data = [data_of(each, arguments) for each in opened]
    found = []
    for name, run, examples in zip(arguments.runs, opened, data, strict=True):
        run.model.to(device)
        found.append(_find(name, run, examples, arguments))
    page = render(found).encode("utf-8", "replace")  # a folder's name may be no UTF-8
    differences = {
        each.name: [row.plain for row in each.rows] for each in comparisons(found) if each.rows
    }
    for each in found:
        for row in each.rows:
            print(
                f"{each.name:<24}{row.name:<28}{row.mean:>9.4f} ± {row.error:.4f} bits per dimension"
            )
    write_atomically(path, page)
    print(
        f"wrote {path} ({len(page) / 1e6:.2f} MB), from {arguments.examples} test examples at most"
    )
    values = {
        "runs": [
            {"run": each.name, "step": each.opened.step, "images": len(each.images)}
            | {"rows": [row.plain for row in each.rows]}
            for each in found
        ],
        "differences_from_first": differences,
        "bytes": len(page),
    }
    return Result(values, [path])


def _find(name: str, run: OpenedRun, data: Dataset, arguments: argparse.Namespace) -> Findings:
    """What the page says of a run."""
    effort = Effort(arguments.examples, arguments.draws, arguments.batch_size, arguments.seed)
    fitted = fitted_to(run)
    with progress(
        f"report {name}", len(data.test[: effort.examples]) * len(fitted.bounds)
    ) as shown:
        found = find(name, run, data, effort, fitted, shown)
    if not arguments.likelihood:
        return found
    model, images = examples_of(run, data, effort)
    options = FlowOptions(Adams(on_failure="nan"), seed=effort.seed, batch_size=effort.batch_size)
    return found.with_rows(
        ode_rows(flows(model, run.folder / "head.safetensors"), images, options, ALONE)
    )
