"""The house as it is promised: few rooms, one front door each, no call with a crowd of parameters."""

import ast
import importlib
import inspect
import pkgutil
import re
import types
from pathlib import Path

import pytest

import diffenc_ct as dc
import theory
from tests.mutants import load, modules

ROOT = Path(__file__).resolve().parents[1] / "diffenc_ct"
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(ROOT)], "diffenc_ct.")
    if not module.name.endswith("__main__") and not module.name.startswith("diffenc_ct.theory")
)
MOST = 8


def test_the_root_holds_at_most_twenty_names():
    names = {
        path.name
        for path in ROOT.iterdir()
        if path.name not in ("__init__.py", "py.typed", "__pycache__")
    }
    assert len(names) <= 20, sorted(names)


def public_callables(module):
    """Functions and methods that the module defines under public names; constructors are options of one choice."""
    for name, item in vars(module).items():
        if name.startswith("_") or getattr(item, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(item):
            yield name, item
        elif inspect.isclass(item):
            for method, function in vars(item).items():
                function = getattr(function, "__func__", function)
                if inspect.isfunction(function) and (
                    not method.startswith("_") or method == "__call__"
                ):
                    yield f"{name}.{method}", function


@pytest.mark.parametrize("name", MODULES)
def test_no_public_function_has_more_than_eight_parameters(name):
    for called, function in public_callables(importlib.import_module(name)):
        parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
        assert len(parameters) <= MOST, f"{name}.{called} has {len(parameters)}: {parameters}"


def test_functions_are_counted_at_all():
    class Crowd:
        def call(self, a, b, c, d, e, f, g, h, i): ...

    module = types.ModuleType(__name__)
    module.Crowd = Crowd
    ((name, function),) = public_callables(module)
    assert name == "Crowd.call" and len(inspect.signature(function).parameters) - 1 > MOST


@pytest.mark.parametrize("name", dc.__all__)
def test_every_public_name_explains_itself(name):
    item = getattr(dc, name)
    text = inspect.getdoc(item) or ""
    assert len(text.split("\n\n")[0]) > 10, f"dc.{name} has no docstring"
    if inspect.isfunction(item) and len(inspect.signature(item).parameters) > 1:
        for parameter in inspect.signature(item).parameters:
            assert f"{parameter}:" in text, f"dc.{name}: parameter {parameter} is not explained"


def test_files_can_be_read_in_one_sitting():
    for path in ROOT.rglob("*.py"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 300, f"{path.relative_to(ROOT)} has {lines} lines"


PRIVATE = ("torch._C", "torch._dynamo", "torch._functorch", "torch._foreach", "torchdiffeq._impl")


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.stem)
def test_no_private_function_of_torch(path):
    """No attribute whose name starts with one underscore on torch or what it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert not any(node.module.startswith(p) for p in PRIVATE), f"{path}: {node.module}"
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and node.attr[1:2] != "_":
            owner = ast.unparse(node.value)
            allowed = owner in ("self", "cls") or owner.startswith("torch.ops.aten")
            assert allowed or owner.split(".")[0] not in ("torch", "forward_ad", "nn", "F"), (
                f"{path.name}:{node.lineno}: {owner}.{node.attr}"
            )


def test_readme_counts_what_there_is():
    text = (ROOT.parent / "README.md").read_text(encoding="utf-8")
    found = re.search(r"(\d+) theorems by sympy.*?(\d+) wrong versions of the code", text)
    assert found, "README says how many theorems and mutants there are"
    mutants = sum(len(load(name)) for name in modules())
    assert [int(count) for count in found.groups()] == [len(theory.theorems()), mutants]
