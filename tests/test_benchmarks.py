"""The training step's benchmark runs, with everything small, and ends in the JSON that it promises."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "train_step.py"
SMALL = ["--threads", "1", "--rounds", "1", "--matmul", "64"]
CARD = [f"{data}-{kind} {arithmetic}" for data in ("mnist", "cifar10") for kind in ("vdm", "diffenc")
        for arithmetic in ("float32", "bf16", "bf16 + compile")]  # fmt: skip


@pytest.mark.parametrize(
    "options, keys",
    [
        (
            ["--width", "8", "--side", "8", "--batch-size", "4"],
            ["images_per_second", "vdm_images_per_second", "matmul_gflops", "flops_fraction"]
            + ["authors_images_per_second"],
        ),
        (
            ["--paper", "--tiny", "--minutes", "1e-6"],
            ["device", "bf16_matmul_tflops", *CARD, "mnist-vdm bpd", "mnist-diffenc bpd"],
        ),
    ],
    ids=["CPU", "the card's part, on the CPU"],
)
def test_the_step_is_timed(options, keys):
    # Compiling is tested elsewhere; here it would take minutes.
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1]), "TORCHDYNAMO_DISABLE": "1"}
    environment.pop("AUTHORS_CODE", None)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *SMALL, *options],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result) == keys
    for name, value in result.items():
        if name == "authors_images_per_second":
            assert value is None
        elif name != "device":
            assert value > 0
