"""diffenc export"""

import argparse
from pathlib import Path

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
    parser.add_argument(
        "--weights", default="ema", help="ema, raw, or the rate of an average (default ema)"
    )
    parser.add_argument(
        "--checkpoint", default="latest", help="latest, best, or a step (default latest)"
    )
    parser.add_argument(
        "--half", action="store_true", help="round the weights to 16 bits: half the size"
    )


def run(arguments: argparse.Namespace) -> int:
    """Export."""
    path = export(
        arguments.run,
        Path(arguments.folder),
        weights=arguments.weights,
        checkpoint=arguments.checkpoint,
        half=arguments.half,
    )
    print(f"wrote {path} ({path.stat().st_size / 1e6:.2f} MB)")
    return 0
