"""diffenc calibrate"""

import argparse

import torch

from diffenc_ct.calibration import CalibrationOptions, calibrate
from diffenc_ct.cli import Result
from diffenc_ct.cli.numbers import whole
from diffenc_ct.cli.options import (
    add_data,
    add_device,
    add_run,
    add_seed,
    add_step,
    add_weights,
    check_values,
    data_of,
    open_given,
    output_path,
    refuse_idle,
    use_device,
)
from diffenc_ct.cli.progress import progress
from diffenc_ct.training.examples import told

EPILOG = """\
Writes calibration.json to the run's folder (see --out), which `diffenc sample --schedule calibrated` and
`diffenc evaluate --calibration` read. It sees training examples only: what was chosen on them is to be reported on
others, as `evaluate` does.

examples:
  diffenc calibrate runs/digits --depth 16
  diffenc calibrate runs/mnist --depth 64 --examples 1000
  diffenc calibrate runs/mnist --depth 16 --step mixture  # of posterior heads: the fewest bits at few steps
  diffenc calibrate runs/mnist --depth 64 --ratio dimension --out runs/mnist/per-dimension.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_run(parser)
    parser.add_argument("--depth", type=whole(1), default=16, help="number of steps T (default 16)")
    parser.add_argument(
        "--candidates",
        type=whole(2),
        help="depths to choose from (default 256, of mixture steps 64)",
    )
    parser.add_argument(
        "--examples", type=whole(16), default=512, help="training examples to use (default 512)"
    )
    parser.add_argument(
        "--noise-level", choices=("optimal", "1"), default="optimal", help="eta of each step"
    )
    parser.add_argument(
        "--ratio",
        choices=("step", "dimension", "value"),
        default="value",
        help="w*: one number a step, one a step and dimension, or a function of the predicted value x_hat, the best "
        "(default); the last two take a second pass",
    )
    add_step(parser, "how p(z_s | z_t) is made")
    parser.add_argument("--uniform", action="store_true", help="keep the uniform grid")
    add_weights(parser)
    add_seed(parser)
    add_data(parser)
    parser.add_argument("--out", help="where to write (default RUN/calibration.json)")
    add_device(parser)


def run(arguments: argparse.Namespace) -> Result:
    """Calibrate, print, write."""
    device = use_device(arguments)
    opened = open_given(arguments)
    mixture = arguments.step == "mixture"
    if mixture:
        refuse_idle(arguments, {"ratio": "mixture steps have w = 1"})
    check_values(arguments, opened)
    data = data_of(opened, arguments)
    path = output_path(arguments.out, opened.folder, "calibration.json")
    some = data.train[: arguments.examples].to(device)
    options = CalibrationOptions(
        noise_level=None if arguments.noise_level == "optimal" else 1.0,
        ratio="step" if mixture else arguments.ratio,
        grid="uniform" if arguments.uniform else "best",
        candidates=arguments.candidates,
        step=arguments.step,
    )
    with progress("calibrate", len(some)) as shown:
        found = calibrate(
            told(opened.model.to(device), data, "train", len(some)),
            some,
            arguments.depth,
            options,
            generator=torch.Generator(device).manual_seed(arguments.seed),
            progress=shown,
        )
    print(f"{'t from':>8}{'to':>8}{'w*':>10}{'s.e.':>9}{'eta*':>8}")
    rows = zip(
        found.grid[1:],
        found.grid[:-1],
        found.ratio,
        found.ratio_error,
        found.eta_squared,
        strict=True,
    )
    for t, s, w, error, eta_squared in rows:
        print(f"{t:>8.4f}{s:>8.4f}{w:>10.4f}{error:>9.4f}{eta_squared**0.5:>8.3f}")
    found.save(path)
    print(
        f"with {'mixture steps' if mixture else 'one ratio a step'}: diffusion loss {found.loss:.2f} ± "
        f"{found.loss_error:.2f} nats an example on the "
        f"{found.examples} training examples it was fitted to\nwrote {path}, with {found.ratio_name}"
    )
    file = "" if arguments.out is None else str(path)
    print(f"on test examples: diffenc evaluate {arguments.run} --calibration {file}".rstrip())
    print(
        f"samples: diffenc sample {arguments.run} --schedule calibrated{file and ':'}{file}".rstrip()
    )
    columns = {"grid": found.grid, "ratio": found.ratio, "ratio_error": found.ratio_error}
    columns["eta"] = found.eta_squared.sqrt()
    values = {name: column.tolist() for name, column in columns.items()} | {
        "run": str(arguments.run),
        "step": opened.step,
        "step_kind": found.step,
        "ratio_kind": found.ratio_name,
        "examples": found.examples,
        "loss_in_nats": found.loss,
        "loss_error": found.loss_error,
    }
    return Result(values, [path])
