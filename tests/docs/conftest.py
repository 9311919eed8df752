"""The site, built once for all tests: tutorials as they stand, without executing them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT / "docs" / "_ext") not in sys.path:
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))


@pytest.fixture(scope="session")
def site(tmp_path_factory, worker_id):
    """The folder of the built site; every warning of the build is an error."""
    for module in ("sphinx", "furo", "myst_nb", "latex2mathml"):
        pytest.importorskip(module, reason="the site needs the extra docs")
    from filelock import FileLock

    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent  # processes of one run build it once
    folder, log = shared / "site", shared / "site.log"
    with FileLock(shared / "site.lock"):
        if not log.exists():
            environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            options = ("-W", "--keep-going", "-q", "-D", "nb_execution_mode=off")
            done = subprocess.run(
                [sys.executable, "-m", "sphinx", *options, "-d", shared / "doctrees", ROOT / "docs", folder],
                env=environment, capture_output=True, text=True,
            )  # fmt: skip
            log.write_text(
                "" if done.returncode == 0 else done.stderr or "failed", encoding="utf-8"
            )
    problems = log.read_text(encoding="utf-8")
    if problems:
        pytest.fail(f"the site is not built:\n{problems}", pytrace=False)
    return folder
