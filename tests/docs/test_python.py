"""The Python of README and docs: it compiles, and runs where nothing of the reader's own is in it."""

import ast
import builtins
import re

import pytest
import torch

import diffenc_ct as dc
from diffenc_ct.data import load_dataset
from tests.docs.commands import ROOT, blocks, sources

# Names of the reader's own: blocks that use one are compiled, and not run.
READERS = {
    "betas": "of a network that was trained elsewhere",
    "config": "of a training",
    "network": "trained elsewhere",
    "pictures": "a data set",
    "scheduler": "of diffusers",
    "unet": "of diffusers",
}
# What would take long or is not there, and what stands in its place.
INSTEAD = [
    (r"\(1, 28, 28\)", "(1, 8, 8)"),
    (r"model, 64\b", "model, 2"),
    (r"model, 16\b(?=[,)].*(?:solver|samples))", "model, 2"),
    (r"steps=\d{2,}", "steps=4"),
    (r"draws=\d{2,}", "draws=8"),
    (r"(Rademacher|TruncatedNormal)\([^)]*\)", r"\1()"),
    (r'TorchDiffEq\("dopri5"[^)]*\)', 'TorchDiffEq("dopri5", rtol=0.1, atol=0.1)'),
    (r"atol=1e-5", "atol=0.1"),
    (r"calibrate\(model, train, 16\b", "calibrate(model, train, 4"),
    (r'CalibrationOptions\(ratio="value"', 'CalibrationOptions(ratio="value", candidates=16'),
    (r"runs/digits", "digits-vdm"),
    (
        r"log_likelihood\((\w+), ([\w.:\[\]]+)\)",
        r"log_likelihood(\1, \2, divergence=dc.Rademacher(), solver=dc.Adams(atol=0.1))",
    ),
]
FILES = ("weights.msgpack",)  # files of the reader's own


def found():
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        for number, block in enumerate(blocks(path.read_text(encoding="utf-8"), "python")):
            yield pytest.param(block, id=f"{name} {number}")


BLOCKS = list(found())


def free_names(source):
    """Names that a block reads and neither makes nor Python has."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    made = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    made |= {alias.asname or alias.name.split(".")[0] for node in nodes
             if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}  # fmt: skip
    made |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    made |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return {node.id for node in names if node.id not in made | set(dir(builtins))}


@pytest.fixture
def reader():
    """What the prose around a block says that there is: a model, data, labels."""
    torch.manual_seed(0)
    data, model = load_dataset("digits"), dc.load("digits-vdm")
    train, x = data.train[:32], data.test[:2]
    return {"torch": torch, "dc": dc, "model": model, "data": data, "train": train, "x": x,
            "labels": torch.tensor([3, 8]), "net": dc.networks.MLP(2)}  # fmt: skip


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_python_runs(block, reader, tmp_path, monkeypatch):
    if any(name in block for name in FILES):
        pytest.skip("reads files of the reader's own")
    own = free_names(block) & READERS.keys()
    if own:
        pytest.skip(", ".join(f"{name}: {READERS[name]}" for name in sorted(own)))
    assert free_names(block) <= reader.keys()
    for pattern, instead in INSTEAD:
        block = re.sub(pattern, instead, block)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "a block of the documentation", "exec"), reader)


def test_most_blocks_run():
    run = [p for p in BLOCKS if not free_names(p.values[0]) & READERS.keys()]
    assert len(run) >= 8


def test_free_names_are_the_readers():
    assert free_names("import a.b as c\nd = c(e)\nfor f in [g]: print(f)\n") == {"e", "g"}
