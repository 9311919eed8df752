"""The command line: `diffenc COMMAND ...`, thin over the library.

A command is one module with EPILOG, `add_arguments(parser)` and `run(arguments)`, and a line of COMMANDS. It is
imported when it is chosen: `diffenc --help` loads neither torch nor the library. Everything that a user can cause
ends as one line "diffenc: error: cause; remedy" with exit code 2 (DIFFENC_TRACEBACK=1 shows where it came from). Of
several processes the first one speaks; another says only what it alone can have met.
"""

import argparse
import difflib
import importlib
import importlib.metadata
import os
import re
import signal
import sys
import warnings
from collections.abc import Container, Sequence
from typing import NoReturn, TextIO

import diffenc_ct

# The help of each command, by its name; the module is diffenc_ct.cli.NAME with _ for -.
COMMANDS = {
    "train": "Train a model, or go on training one; metrics and checkpoints go to the run's folder.",
    "evaluate": "Every ELBO term on every test example, in bits per dimension with standard errors.",
    "sample": "Draw samples from a trained model: a PNG grid (of images) and an .npz file.",
    "verify": "Check the identities between finite and infinite depth, on a trained model or a closed-form world.",
    "calibrate": "Fit variance ratios, noise levels and the best grid of T steps to training data.",
    "export": "Write one set of weights of a run, without optimiser: a small file that every command takes as RUN.",
    "fit-head": "Fit a head for E[x_t | z_t] to a trained model, for the likelihood of its probability flow.",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line like all others."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"diffenc: error: {message}; see `{self.prog} --help`\n")


def make_parser(chosen: Container[str] = COMMANDS) -> Parser:
    """The parser of all commands. Only the modules of those chosen are imported, the others have no arguments."""
    parser = Parser(
        prog="diffenc",
        description="Variational diffusion models in continuous time with a learned encoder (DiffEnc).",
        epilog="Begin with: diffenc train --preset digits --run runs/digits",
    )
    parser.add_argument("--version", action="version", version=f"diffenc {_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if name in chosen:
            command = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
            command.add_arguments(sub)
            sub.epilog = command.EPILOG
            sub.set_defaults(run_command=command.run, command_parser=sub)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command line; ends the program, with a line of its own, where they are not possible."""
    arguments, unknown = make_parser(argv[:1]).parse_known_args(argv)
    if unknown:
        parser: Parser = arguments.command_parser
        flags = re.findall(r"--[a-z0-9-]+", parser.format_usage())
        near = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=1)
        meant = f"; did you mean {near[0]}?" if near else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
        try:
            arguments = parse(sys.argv[1:] if argv is None else argv)
            return int(arguments.run_command(arguments) or 0)
        except KeyboardInterrupt:
            print("diffenc: interrupted", file=sys.stderr)
            return 128 + signal.SIGINT
        except Exception as error:
            return _report(error)


def _report(error: Exception) -> int:
    """Say in one line what stopped a command, and return its exit code; what is no user's doing is raised again."""
    from diffenc_ct.distributed import TrainingStopped, launched_rank  # imports torch

    rank = launched_rank()
    if isinstance(error, TrainingStopped):
        if rank == 0:  # every process stops, with the same words
            kind = "error: " if error.exit_code < 128 else ""
            print(f"diffenc: {kind}{error}", file=sys.stderr)
        return error.exit_code
    users = isinstance(error, ValueError | TypeError | OSError | ImportError)
    if not users or os.environ.get("DIFFENC_TRACEBACK"):
        raise error
    speaker = f"diffenc (process {rank})" if rank else "diffenc"
    print(f"{speaker}: error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _version() -> str:
    """The version that is installed, or that of a source tree which is not."""
    try:
        return importlib.metadata.version("diffenc-ct")
    except importlib.metadata.PackageNotFoundError:
        return diffenc_ct.__version__


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"diffenc: warning: {' '.join(str(message).split())}", file=sys.stderr)
