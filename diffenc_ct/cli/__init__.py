"""The command line: `diffenc COMMAND ...`, thin over the library.

A command is one module of this package with NAME, HELP, EPILOG, `add_arguments(parser)` and `run(arguments)`,
listed in COMMANDS. Everything that a user can cause ends as one line "diffenc: error: cause; remedy" with exit
code 2 (DIFFENC_TRACEBACK=1 shows where it came from). Of several processes the first one speaks; another says only
what it alone can have met.
"""

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from diffenc_ct.cli import calibrate, evaluate, export, fit_head, sample, train, verify
from diffenc_ct.distributed import TrainingStopped, launched_rank

COMMANDS = (train, evaluate, sample, verify, calibrate, export, fit_head)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line like all others."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(2, f"diffenc: error: {message}; see `{self.prog} --help`\n")


def make_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="diffenc",
        description="Variational diffusion models in continuous time with a learned encoder (DiffEnc).",
        epilog="Begin with: diffenc train --preset digits --run runs/digits",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = commands.add_parser(
            command.NAME,
            help=command.HELP,
            description=command.HELP,
            epilog=command.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(sub)
        sub.set_defaults(run_command=command.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    try:
        arguments = make_parser().parse_args(argv)
        return arguments.run_command(arguments) or 0
    except TrainingStopped as stopped:
        if launched_rank() == 0:  # every process stops, with the same words
            error = "error: " if stopped.exit_code < 128 else ""
            print(f"diffenc: {error}{stopped}", file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        print("diffenc: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("DIFFENC_TRACEBACK"):
            raise
        speaker = f"diffenc (process {rank})" if (rank := launched_rank()) else "diffenc"
        print(f"{speaker}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"diffenc: warning: {' '.join(str(message).split())}", file=sys.stderr)
