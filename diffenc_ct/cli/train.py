"""diffenc train"""

import argparse
from dataclasses import asdict
from pathlib import Path

from diffenc_ct.cli import Result
from diffenc_ct.cli.flags import add_settings, given_settings
from diffenc_ct.cli.options import add_device, add_timeout, load_data, use_device
from diffenc_ct.data import Dataset
from diffenc_ct.distributed import launched_rank, launched_size
from diffenc_ct.training.build import build_model
from diffenc_ct.training.config import Config, load_config, replace
from diffenc_ct.training.cost import PARTS, Cost, measure_cost
from diffenc_ct.training.loop import train
from diffenc_ct.training.presets import PRESETS, preset
from diffenc_ct.training.state import count_parameters

EPILOG = """\
The configuration is that of --preset, --config, or the run's own with --resume; flags change it. A run that is resumed
may change its learning rate, clipping, accumulation, intervals and length; more with --override.
Fixed-size vectors get an MLP, images the authors' U-Nets, unless --network says otherwise.

examples:
  diffenc train --preset digits --run runs/digits
  diffenc train --data digits --encoder trainable --steps 500 --run runs/mine
  diffenc train --preset mnist-small-diffenc --data-root ~/data --run runs/mnist
  diffenc train --data faces/ --flip --network-options width=64 --run runs/faces
  diffenc train --data photos/ --patch 16 --run runs/photos  # crops of images of any size
  diffenc train --preset digits-vdm --labels --run runs/labelled  # p(image | label); then: diffenc classify
  diffenc train --data points.npy --encoder identity --schedule monotone --run runs/points
  diffenc train --network my_package.nets:Net --network-options width=32 --run runs/own
  diffenc train --run runs/mnist --resume               # go on after an interruption
  diffenc train --run runs/mnist --resume --steps 9000  # longer, where the rate is constant
  diffenc train --run runs/mnist --resume --learning-rate 1e-4 --clip 1  # after numbers that were not finite
  diffenc train --preset digits --init-from runs/digits --run runs/more  # begin with a run's weights
  diffenc train --preset cifar10-diffenc --dry-run      # parameters, memory and FLOPs only
  diffenc train --preset digits --run runs/seen --tensorboard  # then: tensorboard --logdir runs

Several GPUs, or processes, share each batch (docs/training.md):
  torchrun --nproc-per-node 8 -m diffenc_ct.cli train --preset cifar10-diffenc --folder runs/cifar10 --resume

Ctrl-C or SIGTERM saves a checkpoint and ends; --resume goes on, bit for bit as if never stopped.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--preset", help=f"a named configuration: {', '.join(PRESETS)}")
    source.add_argument("--config", help="a .json or .toml configuration file")
    parser.add_argument(
        "--run",
        "--folder",
        help="folder of the run (default runs/DATA-ENCODER); under torchrun, which takes --run for an option of its "
        "own, write --folder",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in the folder, if there is one"
    )
    parser.add_argument(
        "--override",
        action="store_true",
        help="with --resume: allow any change of settings under which the weights still fit, and other examples",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show configuration, parameters, memory and FLOPs, and stop",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no configuration")
    add_device(parser)
    add_timeout(parser)
    add_settings(parser)


def run(arguments: argparse.Namespace) -> Result:
    """Train."""
    settings = given_settings(arguments)
    if arguments.override and not arguments.resume:
        raise ValueError("--override changes a run that is resumed; add --resume, or leave it out")
    if settings.get("encoder.kind") in ("identity", "non-trainable"):
        settings = {"encoder.network.kind": "auto", "encoder.network.options": {}} | settings
    config = replace(_base(arguments, begins="data.name" in settings), settings)
    folder = Path(
        arguments.run or f"runs/{Path(config.data.name).stem}-{config.encoder.kind.split(':')[-1]}"
    )
    device = use_device(arguments)
    data = load_data(config.data)
    first = launched_rank() == 0
    if first and (not arguments.quiet or arguments.dry_run):
        print(
            config.to_json()
            + describe(config, data)
            + f"\nrun: {folder}, device: {device}, processes: {launched_size()}"
        )
    facts = {
        "run": str(folder),
        "config": config.to_dict(),
        "data": {
            "training_examples": len(data.train),
            "test_examples": len(data.test),
            "shape": data.shape,
            "levels": data.levels,
            "remarks": data.remarks,
        },
    }
    if arguments.dry_run:
        if not first:
            return Result()
        cost = measure_cost(config, data)
        print(describe_cost(cost, config))
        return Result(facts | asdict(cost))
    summary = train(
        config,
        folder,
        resume=arguments.resume,
        override=arguments.override,
        device=device,
        data=data,
        progress=not arguments.quiet,
        timeout=arguments.process_timeout,
    )
    if not first:
        return Result()
    metrics = summary.metrics
    print(
        f"{folder}: {summary.steps} steps, {summary.images_per_second:.1f} images/s"
        + (f", {summary.skipped} skipped" if summary.skipped else "")
        + (f", test {metrics['bpd']:.4f} +- {metrics['bpd_error']:.4f} bits/dim" if metrics else "")
        + f"\nnext: diffenc evaluate {folder}; diffenc sample {folder}"
    )
    return Result(facts | asdict(summary), [folder])


def describe(config: Config, data: Dataset) -> str:
    """The data and the size of the model, in words."""
    model = build_model(config, data)
    counts = (f"{name} {count_parameters(getattr(model, name)):,}" for name in PARTS)
    lines = [
        f"{data.name}: {len(data.train):,} training and {len(data.test):,} test examples of shape {data.shape}, "
        f"{f'{data.levels} levels' if data.levels else 'reals'}",
        *data.remarks,
        f"parameters: {', '.join(counts)}",
    ]
    return "\n".join(lines)


def describe_cost(cost: Cost, config: Config) -> str:
    """The cost of a step, in words."""
    return (
        f"a step on {config.training.batch_size} examples: {cost.flops / 1e9:,.1f} GFLOP; weights, gradients, "
        f"moments and averages {cost.state_bytes / 2**20:,.1f} MiB, kept for the backward pass about "
        f"{cost.activation_bytes / 2**20:,.0f} MiB"
    )


def _base(arguments: argparse.Namespace, *, begins: bool) -> Config:
    """The configuration that flags change. begins: they name what to train on."""
    if arguments.preset:
        return preset(arguments.preset)
    if arguments.config:
        return load_config(arguments.config)
    if arguments.resume and arguments.run and (Path(arguments.run) / "config.json").exists():
        return load_config(Path(arguments.run) / "config.json")
    if arguments.resume and not begins:
        raise ValueError(
            f"--resume: there is no run at {arguments.run}; give the folder of one (--run), or say what to begin there "
            "(--preset, --config or --data)"
            if arguments.run
            else "--resume of which run? give its folder (--run)"
        )
    return Config()
