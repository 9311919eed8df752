"""What README and docs tell a reader to type is accepted by the program named, and run where that is cheap."""

import re
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffenc_ct.cli import main, make_parser
from diffenc_ct.data import load_dataset
from tests.docs.commands import (
    ROOT,
    Command,
    blocks,
    collect,
    lines,
    problem,
    script_problem,
    sources,
)

COMMANDS = collect()


# Lines that are wrong as they stand, and why: each goes from here when its page is put right.
KNOWN: dict[str, str] = {}


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_line_is_accepted(command):
    assert (problem(command) is not None) == (str(command) in KNOWN)


def test_there_are_command_lines():
    assert len(COMMANDS) > 60
    assert {"README.md", "docs/training.md", "docs/likelihood.md"} <= {
        each.file for each in COMMANDS
    }


@pytest.mark.parametrize(
    "line",
    [
        "diffenc evaluate RUN --dephts 8",
        "diffenc evaluat RUN",
        "diffenc sample RUN --steps many",
        "make tests",
        "pip install 'diffenc-ct[everything]'",
        "python examples/none.py",
        "python benchmarks/samplers.py --digit",
        "python -m theory --sections elbo",
        "torchrun --nproc-per-node 2 -m diffenc_ct.cli train --preset digits --foldr runs/x",
        "torchrun --nproc-per-knot 2 -m diffenc_ct.cli train --preset digits",
    ],
)
def test_a_command_line_that_is_wrong_is_refused(line):
    (words,) = lines(line)
    assert problem(Command("", words, True))


def test_a_block_is_read_as_a_shell_reads_it():
    text = "```\ndiffenc sample RUN \\\n    --steps 4   # few\n# nothing\nls\n```\n\n```python\nmake = 1\n```\n"
    (block,) = blocks(text, "")
    assert lines(block) == [("diffenc", "sample", "RUN", "--steps", "4")]


@given(st.text("abcdefgh-", min_size=1, max_size=8))
def test_a_script_knows_its_own_options_only(name):
    source = "import argparse\np = argparse.ArgumentParser()\np.add_argument('--known', type=int)\n"
    found = script_problem(source, [f"--{name}", "1"])
    assert (found is None) == (name == "known")


# Running them ---------------------------------------------------------------------------------------

# What is not run, by what stands in the line, and why.
NOT_RUN = {
    "--download": "fetches data",
    "cifar10": "a model for GPUs; the command is tested with small ones",
    "imagenet32": "a model for GPUs",
    "mnist": "no data here",
    "kodak": "no photographs here",
    "torchrun": "tests/distributed starts processes",
    "--likelihood": "seconds an image; tests/cli solves flows",
    "diffenc report": "half a minute; tests/report writes them",
    "make": "the suite itself, or minutes of training",
    "pip": "installs",
    "tensorboard": "a server",
    "python benchmarks": "minutes; each has its options checked above",
    "python examples": "tests/test_examples.py runs them",
    "python docs": "needs data that are not here",
    "python -m": "tests/theory proves, tests/test_mutants.py runs mutants",
}
# Fewer of everything, where a command has such an option and the line does not give it.
SMALL = {
    "train": {"--steps": "2", "--batch-size": "4", "--eval-examples": "4", "--network-options": "width=8"},
    "evaluate": {"--examples": "2"},
    "calibrate": {"--examples": "16", "--candidates": "16"},
    "classify": {"--examples": "2", "--draws": "2"},
    "sample": {"--count": "2"},
    "fit-head": {"--examples": "8", "--steps": "2", "--batch-size": "4"},
    "verify": {"--examples": "16", "--draws": "2"},
    "compress": {"--examples": "2"},
}  # fmt: skip
# An option that is refused without another, or beside it.
NEEDS = {("compress", "--examples"): "--split"}
CLASHES = {("train", "--network-options"): "--resume"}
# Where the reader's line has a number that takes long.
SMALLER = {"--examples": "2", "--draws": "2", "--depth": "4", "--steps": "4"}


def reason_not_to_run(words):
    line = " ".join(words)
    return next(
        (why for part, why in NOT_RUN.items() if line.startswith(part) or f" {part}" in f" {line}"),
        None,
    )


@dataclass(frozen=True)
class Block:
    file: str
    number: int
    commands: tuple[tuple[str, ...], ...]

    def __str__(self):
        return f"{self.file} {self.number}"


def runnable():
    """The lines of each block that are run, in the block's order."""
    found = []
    for path in sources():
        for number, block in enumerate(blocks(path.read_text(encoding="utf-8"), "")):
            kept = tuple(words for words in lines(block) if not reason_not_to_run(words))
            if kept:
                found.append(Block(path.relative_to(ROOT).as_posix(), number, kept))
    return found


ANOTHERS = """
import torch
import diffenc_ct as dc


def make_model():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    table = dc.adapters.Table.of_betas(torch.linspace(1e-4, 0.02, 100))
    return dc.adapt(network, predicts="eps", schedule=table, decoder=dc.Levels(256, ends=True), shape=(1, 8, 8),
                    call=lambda network, z, t: network(z))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the lines' names exist: a run of two steps, pictures of its size, another's network."""
    from PIL import Image

    made = tmp_path_factory.mktemp("commands")
    small = [word for pair in SMALL["train"].items() for word in pair]
    run = [
        "--data",
        "digits",
        "--encoder",
        "residual",
        "--network",
        "unet",
        "--run",
        str(made / "RUN"),
    ]
    kinds = ["--encoder-network", "unet", "--encoder-network-options", "width=8"]
    assert main(["train", *run, *kinds, *small, "--quiet"]) == 0
    digits = load_dataset("digits").train[:48, 0].numpy().astype(np.uint8)
    for number, digit in enumerate(digits):
        part = "train" if number % 2 else "test"
        folders = [made / "pictures" / part, made / "images" / part] + [made / "folder"] * (
            number < 3
        )
        for path in folders:
            path.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digit).save(path / f"{number}.png")
    large = np.random.default_rng(0).integers(0, 256, (6, 20, 20), dtype=np.uint8)
    for name in ("photos", "faces"):
        (made / name).mkdir()
        for number, picture in enumerate(large):
            Image.fromarray(picture).save(made / name / f"{number}.png")
    Image.fromarray(digits[0]).save(made / "image.png")
    np.save(made / "array.npy", digits[:4, None])
    (made / "my_module.py").write_text(ANOTHERS)
    return made


def smaller(words):
    """The same line with fewer of everything."""
    command, rest = words[1], list(words[2:])
    for option, value in SMALLER.items():
        if option in rest and rest[rest.index(option) + 1].isdigit():
            rest[rest.index(option) + 1] = value
    known = {name for action in _actions(command) for name in action.option_strings}
    for option, value in SMALL.get(command, {}).items():
        lacking = NEEDS.get((command, option), option) not in [*rest, option]
        if (
            option in known
            and option not in rest
            and not lacking
            and CLASHES.get((command, option)) not in rest
        ):
            rest += [option, value]
    return [command, *rest]


def _actions(command):
    (subparsers,) = make_parser({command})._subparsers._group_actions
    return subparsers.choices[command]._actions


@pytest.mark.parametrize("block", runnable(), ids=str)
def test_the_lines_of_a_block_run(block, folder, tmp_path, monkeypatch, capsys):
    work = tmp_path / "work"
    shutil.copytree(folder, work)
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(work))
    for words in block.commands:
        argv = smaller(words)
        made_here = argv[0] == "train" and ("--resume" not in argv or "--preset" in argv)
        for name in {word for word in argv if re.fullmatch(r"runs/\w+", word)}:
            if not (work / name).exists() and not (
                made_here and name == argv[argv.index("--run") + 1]
            ):
                shutil.copytree(folder / "RUN", work / name)
        if any("calibrat" in word for word in argv[1:]) and argv[0] != "calibrate":
            _calibrate(argv, work)
        assert main(argv) == 0, f"{' '.join(words)}\n{capsys.readouterr().err}"


def _calibrate(argv, work):
    """What `--calibration` reads, where no line before has written it."""
    if "RUN" in argv and not (work / "RUN" / "calibration.json").exists():
        assert main(smaller(["diffenc", "calibrate", "RUN", "--depth", "4"])) == 0


def test_what_is_not_run_has_a_reason_and_the_rest_is_run():
    run = sum(len(block.commands) for block in runnable())
    whole = [each for each in COMMANDS if each.whole]
    assert run >= 20
    assert all(reason_not_to_run(each.words) or each.words[0] == "diffenc" for each in whole)
