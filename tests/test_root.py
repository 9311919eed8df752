"""The names of the root: imported when they are used, and never hidden by a package of the same name."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import diffenc_ct as dc

# Ways of importing the package that share its name with a function, and the root; forked so that torch loads once.
ORDERS = """
import os, sys, traceback, torch

orders = [
    "import diffenc_ct as dc; import diffenc_ct.elbo.terms",
    "import diffenc_ct.elbo.terms; import diffenc_ct as dc",
    "import diffenc_ct as dc; dc.elbo; import diffenc_ct.elbo.terms",
    "from diffenc_ct.elbo.terms import Terms; import diffenc_ct as dc",
    "from diffenc_ct.elbo import Terms, elbo as kept; import diffenc_ct as dc; assert dc.elbo is kept",
    "from diffenc_ct import elbo as kept; import diffenc_ct as dc; assert dc.elbo is kept",
    "import importlib; importlib.import_module('diffenc_ct.elbo'); import diffenc_ct as dc",
    "import diffenc_ct.training.runs; import diffenc_ct as dc",
    "import importlib, diffenc_ct as dc; dc.elbo; importlib.reload(dc)",
    "import importlib, diffenc_ct.elbo.terms, diffenc_ct as dc; importlib.reload(dc)",
    "from diffenc_ct import *; import diffenc_ct as dc; assert elbo is dc.elbo",
]
check = '''
assert type(dc.elbo).__name__ == "function" and dc.elbo.__name__ == "elbo", dc.elbo
import diffenc_ct.elbo.terms
from diffenc_ct.elbo import Terms
from diffenc_ct import elbo
assert elbo is dc.elbo is diffenc_ct.elbo and Terms is sys.modules["diffenc_ct.elbo"].Terms
'''
for order in orders:
    assert not [name for name in sys.modules if name.startswith("diffenc_ct")]
    child = os.fork()
    if not child:
        try:
            exec(order + check, {"sys": sys})
        except BaseException:
            print(order, traceback.format_exc(), flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, order
"""


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)


def test_a_function_is_not_hidden_by_the_package_of_its_name():
    found = python(ORDERS)
    assert found.returncode == 0, found.stdout + found.stderr


def test_importing_the_root_loads_nothing():
    found = python(
        "import sys, diffenc_ct; diffenc_ct.__version__, dir(diffenc_ct);"
        "print(*(n for n in ('torch', 'numpy', 'pydantic') if n in sys.modules))"
    )
    assert found.stdout.strip() == "" and found.returncode == 0, found


def test_every_name_is_there_and_no_other():
    assert len(set(dc.__all__)) == len(dc.__all__)
    for name in dc.__all__:
        assert getattr(dc, name) is not None
    assert set(dc.__all__) <= set(dir(dc))
    with pytest.raises(AttributeError, match="'diffenc_ct' has no attribute 'Elbow'"):
        dc.Elbow  # noqa: B018


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(dc.__file__).read_text(encoding="utf-8"))
    (static,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    rooms, names = set(), {}
    for node in static.body:
        if isinstance(node, ast.Import):
            rooms |= {alias.name.removeprefix("diffenc_ct.") for alias in node.names}
            continue
        for alias in node.names:
            assert alias.asname == alias.name  # else it is not re-exported
            names.setdefault(node.module.removeprefix("diffenc_ct."), set()).add(alias.name)
    assert rooms == set(dc._ROOMS)
    assert names == {room: set(found) for room, found in dc._NAMES.items()}


def test_the_version_is_that_of_the_project():
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{dc.__version__}"\n' in project
