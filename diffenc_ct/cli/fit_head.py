"""diffenc fit-head"""

import argparse

import torch

from diffenc_ct.cli import Result
from diffenc_ct.cli.numbers import positive, whole
from diffenc_ct.cli.options import (
    add_batch_size,
    add_data,
    add_device,
    add_seed,
    add_weights,
    data_of,
    open_given,
    use_device,
)
from diffenc_ct.cli.progress import progress
from diffenc_ct.training.examples import told
from diffenc_ct.training.heads import VARIANTS, HeadFitting, fit_head, save_head

EPILOG = """\
Writes head.safetensors to the run's folder; the model and its ELBO stay as they are.
`diffenc evaluate RUN --likelihood ode` finds the head there.

examples:
  diffenc fit-head runs/mnist
  diffenc fit-head runs/mnist --steps 5000 --variant "own network"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("run", metavar="RUN", help="folder of a run, or a pretrained model's name")
    parser.add_argument(
        "--variant", choices=VARIANTS, default=VARIANTS[0], help=f"(default {VARIANTS[0]})"
    )
    parser.add_argument("--steps", type=whole(1), default=1000, help="steps of Adam (default 1000)")
    add_batch_size(parser, 64, "examples a step")
    parser.add_argument(
        "--learning-rate", type=positive, default=1e-3, help="at the start (default 1e-3)"
    )
    add_weights(parser)
    add_seed(parser)
    add_data(parser)
    add_device(parser)


def run(arguments: argparse.Namespace) -> Result:
    """Fit and write."""
    device = use_device(arguments)
    opened = open_given(arguments)
    data = data_of(opened, arguments)
    model = told(opened.model.to(device), data, "train")
    fitting = HeadFitting(
        arguments.variant, arguments.steps, arguments.batch_size, arguments.learning_rate
    )
    with progress("fit", arguments.steps, "step") as shown:
        fitted = fit_head(
            model,
            data.train.to(device),
            fitting,
            generator=torch.Generator(device).manual_seed(arguments.seed),
            progress=shown,
        )
    opened.folder.mkdir(parents=True, exist_ok=True)
    path = opened.folder / "head.safetensors"
    save_head(fitted.model, path)
    some = max(1, len(fitted.losses) // 10)
    first, last = (sum(part) / some for part in (fitted.losses[:some], fitted.losses[-some:]))
    print(f"loss per dimension {first:.4f} -> {last:.4f} (means of {some} steps)")
    print(f"wrote {path}")
    values = {"run": str(arguments.run), "steps": arguments.steps, "averaged_steps": some}
    values |= {"loss_at_start": first, "loss_at_end": last}
    return Result(values, [path])
