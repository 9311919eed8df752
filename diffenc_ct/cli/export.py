"""diffenc export"""

import argparse
from pathlib import Path

from diffenc_ct.cli import Result
from diffenc_ct.cli.options import add_weights
from diffenc_ct.training.runs import export

EPILOG = """\
examples:
  diffenc export runs/mnist small/mnist
  diffenc export runs/mnist small/mnist --checkpoint best
  diffenc export runs/mnist small/mnist --half
  diffenc evaluate small/mnist                 # what was exported is a RUN
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("run", metavar="RUN", help="folder of a run, or a checkpoint file")
    parser.add_argument(
        "folder", metavar="FOLDER", help="where to write weights.safetensors and config.json"
    )
    add_weights(parser)
    parser.add_argument(
        "--half", action="store_true", help="round the weights to 16 bits: half the size"
    )


def run(arguments: argparse.Namespace) -> Result:
    """Export."""
    path = export(
        arguments.run,
        Path(arguments.folder),
        weights=arguments.weights,
        checkpoint=arguments.checkpoint,
        half=arguments.half,
    )
    size = path.stat().st_size
    print(f"wrote {path} ({size / 1e6:.2f} MB)")
    return Result({"run": arguments.run, "bytes": size}, [path])
