"""How the command line starts: quickly, and with the version; what it catches, and what it does not."""

import os
import shlex
import subprocess
import sys
from importlib import import_module, metadata

import pytest

import diffenc_ct
from diffenc_ct import cli
from diffenc_ct.cli import COMMANDS, main, make_parser

HEAVY = ("torch", "numpy", "matplotlib", "scipy", "pydantic")
LOADED = f"""
import sys
from diffenc_ct.cli import main
try:
    main(sys.argv[1:])
finally:
    print("loaded:", *(name for name in {HEAVY} if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--help"], 0), (["--version"], 0), ([], 2), (["paint"], 2), (["--stepps", "3"], 2)],
)
def test_what_needs_no_command_loads_nothing(words, code):
    found = subprocess.run(
        [sys.executable, "-c", LOADED, *words], capture_output=True, text=True, timeout=60
    )
    assert found.returncode == code, found.stderr
    assert found.stdout.splitlines()[-1] == "loaded:", found.stdout
    assert len(found.stderr.splitlines()) == (code == 2), found.stderr


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert done.value.code == 0
    for name, help in COMMANDS.items():
        assert f"{name} {help}" in text


def test_every_command_teaches_by_example(capsys):
    for command in COMMANDS:
        with pytest.raises(SystemExit) as done:
            main([command, "--help"])
        assert done.value.code == 0
        text = capsys.readouterr().out
        assert "examples:" in text and f"diffenc {command}" in text
        examples = [line for line in text.splitlines() if line.startswith("  diffenc ")]
        assert len(examples) >= 2
        for line in examples:
            words = shlex.split(line, comments=True)
            assert make_parser().parse_args(words[1:]).command in COMMANDS


def test_a_command_is_a_module_with_three_names():
    for name in COMMANDS:
        module = import_module(f"diffenc_ct.cli.{name.replace('-', '_')}")
        assert callable(module.run) and callable(module.add_arguments)
        assert "examples:" in module.EPILOG


def test_only_the_chosen_command_has_arguments(capsys):
    parser = make_parser(["export"])
    assert parser.parse_args(["export", "runs/a", "small"]).run == "runs/a"
    with pytest.raises(SystemExit):
        parser.parse_args(["sample", "runs/a"])


@pytest.mark.parametrize("installed", [True, False])
def test_version(installed, monkeypatch, capsys):
    def version(name):
        if not installed:
            raise metadata.PackageNotFoundError(name)
        return {"diffenc-ct": "9.8.7"}[name]

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    expected = "9.8.7" if installed else diffenc_ct.__version__
    assert capsys.readouterr().out == f"diffenc {expected}\n"


def raising(monkeypatch, error):
    """main(), with a command that raises the error."""

    def run(arguments):
        raise error

    arguments = make_parser(["export"]).parse_args(["export", "runs/a", "small"])
    arguments.run_command = run
    monkeypatch.setattr(cli, "parse", lambda words: arguments)
    return main([])


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a  cause;\n a remedy"),
        TypeError("a cause; a remedy"),
        FileNotFoundError("a cause; a remedy"),
        ImportError("a cause; a remedy"),
    ],
)
def test_what_a_user_can_cause_is_one_line(error, monkeypatch, capsys):
    monkeypatch.delenv("DIFFENC_TRACEBACK", raising=False)
    assert raising(monkeypatch, error) == 2
    assert capsys.readouterr().err == "diffenc: error: a cause; a remedy\n"
    monkeypatch.setenv("DIFFENC_TRACEBACK", "1")
    with pytest.raises(type(error)):
        raising(monkeypatch, error)


def test_our_own_mistakes_are_not_hidden(monkeypatch, capsys):
    with pytest.raises(ZeroDivisionError):
        raising(monkeypatch, ZeroDivisionError())
    assert capsys.readouterr().err == ""


def test_an_interruption_is_one_line(monkeypatch, capsys):
    assert raising(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "diffenc: interrupted\n"


@pytest.mark.parametrize(("code", "said"), [(3, "error: stop"), (143, "stop")])
def test_a_stopped_training_has_its_own_exit_code(code, said, monkeypatch, capsys):
    from diffenc_ct.distributed import TrainingStopped

    assert raising(monkeypatch, TrainingStopped("stop", exit_code=code)) == code
    assert capsys.readouterr().err == f"diffenc: {said}\n"


def test_other_processes_say_only_their_own(monkeypatch, capsys):
    from diffenc_ct.distributed import TrainingStopped

    monkeypatch.setenv("RANK", "1")
    assert raising(monkeypatch, TrainingStopped("stop", exit_code=3)) == 3
    assert capsys.readouterr().err == ""
    assert raising(monkeypatch, ValueError("mine alone")) == 2
    assert capsys.readouterr().err == "diffenc (process 1): error: mine alone\n"


@pytest.mark.parametrize(
    ("error", "command", "words"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "evaluate", "--batch-size"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"),
            "sample",
            "--batch",
        ),
        (MemoryError("Unable to allocate 9 GiB"), "fit-head", "a smaller --batch-size"),
        (RuntimeError("CUDA out of memory. Tried"), "train", "larger --accumulate"),
        (MemoryError(), "calibrate", "a smaller --examples or a smaller --candidates"),
        ("OutOfMemoryError", "train", "a smaller --batch-size or a larger --accumulate"),
    ],
)
def test_out_of_memory_is_one_line_that_names_what_takes_less(
    error, command, words, monkeypatch, capsys
):
    import torch

    error = torch.OutOfMemoryError("no room") if isinstance(error, str) else error
    places = {"train": [], "export": ["runs/a", "b"]}.get(command, ["runs/a"])
    arguments = make_parser([command]).parse_args([command, *places])

    def run(given):
        raise error

    arguments.run_command = run
    monkeypatch.setattr(cli, "parse", lambda given: arguments)
    assert main([]) == 1
    said = capsys.readouterr().err
    assert said.startswith("diffenc: error: out of memory") and words in said
    assert len(said.splitlines()) == 1 and ("--accumulate" in said) == (command == "train")


def test_another_error_of_torch_is_not_taken_for_lack_of_memory(monkeypatch):
    with pytest.raises(RuntimeError, match="shapes"):
        raising(monkeypatch, RuntimeError("shapes do not fit"))


def test_what_a_solver_gives_up_is_one_line(monkeypatch, capsys):
    from diffenc_ct.likelihood import SolverError

    assert raising(monkeypatch, SolverError(["ok", "step limit"])) == 1
    assert "1 of 2 examples could not be solved" in capsys.readouterr().err


def test_plug_ins_of_the_working_directory_are_found(tmp_path):
    """As python -m finds them: the console script has its own folder in sys.path instead."""
    (tmp_path / "own_part.py").write_text("found = 1")
    script = (
        "import sys; sys.path[:] = [p for p in sys.path if p]; from diffenc_ct.cli import main; "
    )
    script += "main(['export', 'nowhere', 'x']); import own_part; print(own_part.found)"
    found = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert found.stdout == "1\n", found.stderr
