"""The wheel that a stranger installs: what it holds, what it says of itself, and that it works far from its sources."""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import theory
from theory._page import render

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "diffenc_ct", "theory", "tests")


def call(*arguments, cwd, **environment):
    """What the command prints; its errors where it fails."""
    done = subprocess.run(
        list(map(str, arguments)),
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built without a network from a copy of the sources, so that no old build folder gets into it."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            skip = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, folder / "sources" / name, ignore=skip)
        else:
            (folder / "sources").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / "sources" / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    build = ("wheel", "--no-deps", "--no-build-isolation", "-w", folder, folder / "sources")
    call(*pip, *build, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """`python ...` on the installed wheel, whose dependencies are those of the tests, in a folder of its own."""
    site, cwd = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    call(*pip, "install", "--no-deps", "--no-index", "--target", site, wheel, cwd=cwd)

    def run(*arguments):
        # PYTHONPATH comes before an editable installation, which must not answer in the wheel's place.
        return call(sys.executable, *arguments, cwd=cwd, PYTHONPATH=str(site))

    return run


FACTS = """
import json
import diffenc_ct as dc
from diffenc_ct import theory
from diffenc_ct.theory._page import render
model = dc.load("digits-vdm")
files = [dc.__file__, theory.__file__]
print(json.dumps({"files": files, "model": type(model).__name__, "page": render(theory.sections())}))
"""


@pytest.fixture(scope="module")
def facts(installed):
    """What a program finds that imports the installed wheel."""
    return json.loads(installed("-c", FACTS))


@pytest.fixture(scope="module")
def names(wheel):
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def metadata(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(archive.read(name))


def test_the_wheel_holds_every_module_and_what_belongs_to_it(names):
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "diffenc_ct").rglob("*.py")}
    modules |= {f"diffenc_ct/theory/{path.name}" for path in (ROOT / "theory").glob("*.py")}
    assert modules == {name for name in names if name.endswith(".py")}
    weights = {
        p.relative_to(ROOT).as_posix() for p in (ROOT / "diffenc_ct/pretrained").rglob("*.*")
    }
    assert any(name.endswith(".safetensors") for name in weights)
    pages = {p.relative_to(ROOT).as_posix() for p in (ROOT / "diffenc_ct/report").rglob("page.*")}
    assert {Path(page).suffix for page in pages} >= {".html", ".css", ".js"}
    assert weights | pages | {"diffenc_ct/py.typed"} <= names


def test_the_wheel_puts_one_package_on_the_path(names):
    """No `theory` and no `tests` that would be imported in the place of a user's own."""
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"diffenc_ct"}
    assert not [name for name in names if "tests" in name.split("/")]


def test_the_wheel_says_whose_it_is_and_under_which_license(metadata, names):
    assert metadata["Name"] == "diffenc-ct"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Author"] == "The diffenc_ct developers"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "Typing :: Typed" in metadata.get_all("Classifier")


def test_the_wheel_requires_no_extra(metadata):
    """Whoever installs the library alone gets what `import diffenc_ct` needs, and no plots, data sets or proofs."""
    required = {
        line.split(">")[0] for line in metadata.get_all("Requires-Dist") if "extra ==" not in line
    }
    assert required == {
        "jaxtyping",
        "numpy",
        "pydantic",
        "safetensors",
        "torch",
        "torchdiffeq",
        "torchsde",
        "tqdm",
    }


def test_the_version_is_said(installed, metadata):
    assert metadata["Version"] in installed("-m", "diffenc_ct.cli", "--version")


def test_a_model_is_trained_and_evaluated(installed):
    tiny = "--preset digits --steps 3 --batch-size 8 --eval-examples 10 --device cpu --quiet"
    installed("-m", "diffenc_ct.cli", "train", *tiny.split(), "--run", "run")
    evaluate = "evaluate run --examples 10 --device cpu"
    assert "total" in installed("-m", "diffenc_ct.cli", *evaluate.split())


def test_the_wheel_is_what_is_imported(facts, tmp_path_factory):
    """And not the sources, which an editable installation would offer."""
    folder = tmp_path_factory.getbasetemp()
    assert all(Path(file).is_relative_to(folder) for file in facts["files"]), facts["files"]


def test_the_pretrained_models_are_found(facts):
    assert facts["model"] == "DiffEnc"


def test_the_theory_finds_the_code_that_it_links_to(facts):
    page = re.sub(r"\n\*Tests\.\*[^\n]*\n", "", render(theory.sections()))  # a wheel has no tests
    assert facts["page"] == page


def test_the_theory_is_proved(installed):
    """By several processes, which import it by its installed name."""
    proofs = installed("-m", "diffenc_ct.theory", "--section", "schedules", "--jobs", "2")
    assert "schedules.drift: proved" in proofs and "all proved, every control caught" in proofs
