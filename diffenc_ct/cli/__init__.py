"""The command line: `diffenc COMMAND ...`, thin over the library.

A command is one module with EPILOG, `add_arguments(parser)` and `run(arguments)`, which prints for people and returns
a Result, and a line of COMMANDS. It is imported when it is chosen: `diffenc --help` loads neither torch nor the
library. With --json the Result alone is printed, as one JSON object, and what is said to people goes to standard error.
Everything that a user can cause ends as one line "diffenc: error: cause; remedy" with exit code 2 (DIFFENC_TRACEBACK=1
shows where it came from). Of several processes the first one speaks; another says only what it alone can have met.
"""

import argparse
import contextlib
import difflib
import importlib
import importlib.metadata
import os
import re
import signal
import sys
import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TextIO

import diffenc_ct

# The help of each command, by its name; the module is diffenc_ct.cli.NAME with _ for -.
COMMANDS = {
    "train": "Train a model, or go on training one; metrics and checkpoints go to the run's folder.",
    "evaluate": "Every ELBO term on every test example, in bits per dimension with standard errors.",
    "sample": "Draw samples from a trained model: a PNG grid (of images) and an .npz file.",
    "classify": "p(label | x) of every test example by the bounds of a model with labels; accuracy and calibration.",
    "verify": "Check the identities between finite and infinite depth, on a trained model or a closed-form world.",
    "calibrate": "Fit variance ratios, noise levels and the best grid of T steps to training data.",
    "compress": "Code images losslessly with a trained model: one file, as long as the model's bound.",
    "decompress": "The images that were compressed, bit for bit.",
    "export": "Write one set of weights of a run, without optimiser: a small file that every command takes as RUN.",
    "report": "One HTML page of a run, or of several side by side: bounds, curves, pictures, differences.",
    "fit-head": "Fit a head for E[x_t | z_t] to a trained model, for the likelihood of its probability flow.",
}


_NOT_GIVEN = object()
# ~ where a path begins: a word, or what stands after --out= or calibrated:
_HOME = re.compile(r"(?<![^=:])~(?=/|$)")
# What uses less memory, in the order in which it is proposed.
_SMALLER = ("--batch-size", "--accumulate", "--examples", "--candidates")


@dataclass(frozen=True)
class Result:
    """What a command found.

    Attributes:
        values: the numbers that it shows, plain and by name, for --json.
        written: files and folders that it wrote.
        code: the exit code, 0 where all is well.

    Example:
        >>> Result({"bpd": 1.5}, ["a.json"]).json
        '{"bpd": 1.5, "written": ["a.json"]}'
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    written: Iterable[object] = ()
    code: int = 0

    @property
    def json(self) -> str:
        """One line of JSON; numbers that are not finite are null, and named by "not_finite"."""
        from diffenc_ct.report.files import as_json  # imports torch

        return as_json({**self.values, "written": [str(path) for path in self.written]})


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line like all others."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"diffenc: error: {message}; see `{self.prog} --help`\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As the parent's, with `given`: the names of what stands on the line, whatever the defaults are."""
        found, rest = super().parse_known_args(args, namespace)
        if not hasattr(found, "given"):
            # once more, with marks for defaults: what is no mark then was given
            marked = argparse.Namespace(**dict.fromkeys(vars(found), _NOT_GIVEN))
            again = vars(super().parse_known_args(args, marked)[0])
            found.given = {name for name, value in again.items() if value is not _NOT_GIVEN}
        return found, rest


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
            sub.add_argument(
                "--json",
                action="store_true",
                help="print the numbers as one JSON object; what is meant for people goes to standard error",
            )
            sub.epilog = command.EPILOG
            sub.set_defaults(run_command=command.run, command_parser=sub)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command line; ends the program, with a line of its own, where they are not possible."""
    words = [_HOME.sub(lambda _: os.path.expanduser("~"), word) for word in argv]
    arguments: argparse.Namespace
    arguments, unknown = make_parser(argv[:1]).parse_known_args(words)
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
        arguments = None
        if os.getcwd() not in (os.path.abspath(folder) for folder in sys.path):
            sys.path.append(os.getcwd())  # where plug-ins are looked for, as with python -m
        try:
            arguments = parse(sys.argv[1:] if argv is None else argv)
            return _run(arguments)
        except KeyboardInterrupt:
            print("diffenc: interrupted", file=sys.stderr)
            return 128 + signal.SIGINT
        except Exception as error:
            return _report(error, arguments)


def _run(arguments: argparse.Namespace) -> int:
    """Run the command that was parsed; returns its exit code."""
    aside = contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext()
    with aside:
        result: Result = arguments.run_command(arguments)
    if arguments.json:
        from diffenc_ct.distributed import launched_rank  # imports torch

        if launched_rank() == 0:
            print(result.json)
    return result.code


def _report(error: Exception, arguments: argparse.Namespace | None) -> int:
    """Say in one line what stopped a command, and return its exit code; what is no user's doing is raised again."""
    from diffenc_ct.distributed import TrainingStopped, launched_rank  # imports torch

    rank = launched_rank()
    if isinstance(error, TrainingStopped):
        if rank == 0:  # every process stops, with the same words
            kind = "error: " if error.exit_code < 128 else ""
            print(f"diffenc: {kind}{error}", file=sys.stderr)
        return error.exit_code
    message, code = str(error), 2
    if _is_out_of_memory(error):
        message, code = _out_of_memory(error, arguments), 1
    elif type(error).__name__ == "SolverError":
        code = 1
    elif not isinstance(error, ValueError | TypeError | OSError | ImportError):
        raise error
    if os.environ.get("DIFFENC_TRACEBACK"):
        raise error
    speaker = f"diffenc (process {rank})" if rank else "diffenc"
    print(f"{speaker}: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory of a device or of the machine ran out: the CPU's allocator has no exception of its own."""
    words = r"DefaultCPUAllocator|not enough memory|can't allocate memory|out of memory"
    own = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return own or (isinstance(error, RuntimeError) and re.search(words, str(error)) is not None)


def _out_of_memory(error: Exception, arguments: argparse.Namespace | None) -> str:
    """What the user can do about it: the flags of this command that make it smaller."""
    usage = "" if arguments is None else arguments.command_parser.format_usage()
    flags = [flag for flag in _SMALLER if re.search(rf"{flag}\b", usage)]
    remedy = {"--accumulate": "a larger --accumulate"}
    shown = " or ".join(remedy.get(flag, f"a smaller {flag}") for flag in flags)
    reason = str(error).split("\n")[0][:120]
    return f"out of memory ({reason}); give {shown or 'a smaller model'}, or another --device"


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
