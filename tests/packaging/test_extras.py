"""What is optional is asked for where it is needed, in one line that says what to install."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from diffenc_ct.report.extras import EXTRAS, MissingExtra, require

ROOT = Path(__file__).resolve().parents[2]

# Import name -> the distribution that pyproject.toml names. sympy, mpmath and jinja2 come with torch, but are no
# need of ours.
OPTIONAL = {
    "azula": "azula",
    "constriction": "constriction",
    "denoising_diffusion_pytorch": "denoising-diffusion-pytorch",
    "diffusers": "diffusers",
    "flow_matching": "flow-matching",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "mpmath": "mpmath",
    "msgpack": "msgpack",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "sympy": "sympy",
    "tensorboard": "tensorboard",
    "tomli": "tomli",
    "torchvision": "torchvision",
}


class Hidden:
    """A finder of modules that does not find some packages, as if they were not installed."""

    def __init__(self, finder, names):
        self.finder, self.names = finder, names

    def find_spec(self, name, path=None, target=None):
        hidden = name.split(".")[0] in self.names
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


def pyproject():
    """Extra -> its requirements by name, and the required dependencies under ""."""
    toml = require("tomllib" if sys.version_info >= (3, 11) else "tomli", "cli")
    project = toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {"": project["dependencies"], **project["optional-dependencies"]}
    return {name: {re.split(r"[>\[]", each)[0] for each in lines} for name, lines in found.items()}


def test_every_extra_has_its_reason_and_every_reason_its_extra():
    assert EXTRAS.keys() == pyproject().keys() - {"", "all", "dev", "docs"}


def test_an_optional_package_is_in_an_extra_and_not_required():
    extras = pyproject()
    assert not extras[""] & set(OPTIONAL.values())
    assert set(OPTIONAL.values()) == set().union(*(extras[name] for name in EXTRAS))


@pytest.mark.parametrize(
    ("module", "extra", "distribution"),
    [
        ("matplotlib.figure", "figures", "matplotlib"),
        ("PIL.Image", "data", "pillow"),
        ("sklearn.datasets", "data", "scikit-learn"),
        ("msgpack", "jax", "msgpack"),
        ("constriction", "coding", "constriction"),
    ],
)
def test_a_missing_package_is_one_line_that_says_what_to_install(
    monkeypatch, module, extra, distribution
):
    package = module.partition(".")[0]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden(each, {package}) for each in sys.meta_path])
    with pytest.raises(MissingExtra) as error:
        require(module, extra)
    assert str(error.value).startswith(f"{distribution} is needed for {EXTRAS[extra]}: ")
    assert str(error.value).endswith(f"pip install 'diffenc-ct[{extra}]'")
    assert len(str(error.value).splitlines()) == 1


def test_what_is_installed_is_returned(tmp_path, monkeypatch):
    assert require("os.path", "data") is os.path
    (tmp_path / "halfway.py").write_text("import not_to_be_found_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ModuleNotFoundError
    ) as error:  # the package is there: installing it again would not help
        require("halfway", "data")
    assert not isinstance(error.value, MissingExtra)
    with pytest.raises(KeyError):
        require("os", "an extra that pyproject.toml does not have")


def hidden(code, cwd):
    """Run code in a new process where no optional package is installed."""
    names = sorted(OPTIONAL.keys() - {"mpmath", "sympy"})
    hide = f"import sys\n{inspect.getsource(Hidden)}\n"
    hide += f"sys.meta_path[:] = [Hidden(each, {names}) for each in sys.meta_path]\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", hide + code],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_library_and_its_command_line_need_no_extra(tmp_path):
    code = """
import diffenc_ct as dc, numpy as np
from diffenc_ct.cli import main
assert all(getattr(dc, name) is not None for name in dc.__all__)
np.save("x.npy", np.arange(64, dtype=np.uint8).reshape(32, 2) % 8)
networks = "--network-options width=8 layers=1 --encoder-network-options width=8 layers=1".split()
steps = "--steps 2 --batch-size 8 --eval-examples 4 --device cpu --quiet".split()
raise SystemExit(main(["train", "--data", "x.npy", "--run", "run", *networks, *steps]))
"""
    done = hidden(code, tmp_path)
    assert done.returncode == 0, done.stderr


LACKING = {
    "train --preset digits --run digits": "data",
    "train --data swirl --run seen --tensorboard": "tensorboard",
    "evaluate digits-vdm": "figures",
    "sample digits-vdm": "figures",
    "verify --world gaussian": "figures",
    "compress digits-vdm x.npy -o x": "coding",
    "decompress x -o x": "coding",
    "report digits-vdm": "report",
}


def test_a_command_says_which_extra_it_lacks(tmp_path):
    """Before it works for minutes, in one line, with the exit code of a mistake."""
    code = f"""
from diffenc_ct.cli import main
print([main(arguments.split()) for arguments in {list(LACKING)}])
"""
    done = hidden(code, tmp_path)
    assert done.stdout.splitlines()[-1:] == [str([2] * len(LACKING))], done.stderr
    lines = done.stderr.strip().splitlines()
    for line, (arguments, extra) in zip(lines, LACKING.items(), strict=True):
        assert line.startswith("diffenc: error: "), (arguments, line)
        assert line.endswith(f"pip install 'diffenc-ct[{extra}]'"), (arguments, line)
