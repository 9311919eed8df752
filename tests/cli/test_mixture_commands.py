"""--step mixture, of a packaged model and of a run that predicts means."""

import json

import pytest

from diffenc_ct.cli import main

SMALL = ["--device", "cpu", "--threads", "1"]


def said(capsys, words):
    code = main([*words, *SMALL])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_calibrate_evaluate_and_sample(tmp_path, capsys):
    file = str(tmp_path / "c.json")
    calibrate = [
        "calibrate",
        "digits-vdm",
        "--step",
        "mixture",
        "--depth",
        "2",
        "--candidates",
        "4",
    ]
    code, out, _ = said(
        capsys, [*calibrate, "--examples", "16", "--noise-level", "1", "--out", file]
    )
    assert code == 0 and "with mixture steps: diffusion loss" in out and "with w = 1" in out
    assert json.loads(open(file).read())["step"] == "mixture"
    totals = {}
    for name, words in {
        "calibrated": ["--calibration", file],
        "mixture": ["--depth", "2", "--step", "mixture"],
        "gaussian": ["--depth", "2"],
    }.items():
        path = str(tmp_path / f"{name}.json")
        evaluate = ["evaluate", "digits-vdm", "--examples", "24", "--out", path]
        code, out, _ = said(capsys, [*evaluate, *words])
        assert code == 0
        result = json.loads(open(path).read())
        totals[name] = result["bits_per_dimension"]["total"]["mean"]
        assert result["step_kind"] == ("gaussian" if name == "gaussian" else "mixture")
        shown = "2 calibrated mixture steps with w = 1" if name == "calibrated" else f"{name} steps"
        assert shown in out
    assert max(totals["mixture"], totals["calibrated"]) < totals["gaussian"] / 3
    sample = ["sample", "digits-vdm", "--count", "2", "--out", str(tmp_path / "s.png")]
    for words in (
        ["--solver", "ancestral", "--step", "mixture", "--steps", "2"],
        ["--schedule", f"calibrated:{file}"],
    ):
        code, out, _ = said(capsys, [*sample, *words])
        assert code == 0 and "2 evaluations" in out


@pytest.mark.parametrize(
    "words, line",
    [
        (["calibrate", "digits-vdm", "--step", "mixture", "--ratio", "value"], "--ratio value has no effect here"),
        (["evaluate", "digits-vdm", "--step", "mixture"], "--step mixture has no effect here: it is of finite depth"),
        (["sample", "digits-vdm", "--step", "mixture"], "--step mixture has no effect here: solver 'exponential'"),
        (["evaluate", "RUN", "--depth", "2", "--step", "mixture"], "predicts v, means only; mixture steps need"),
        (["sample", "RUN", "--solver", "ancestral", "--step", "mixture"], "predicts v, means only"),
        (["calibrate", "RUN", "--step", "mixture"], "predicts v, means only"),
    ],
)  # fmt: skip
def test_refusals(words, line, small_run, capsys):
    code, _, err = said(capsys, [w.replace("RUN", str(small_run)) for w in words])
    assert code == 2 and line in err and len(err.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    run = tmp_path_factory.mktemp("means") / "run"
    words = "--network-options width=8 layers=1 --steps 2 --batch-size 8 --eval-examples 10 --prediction v --quiet"
    assert (
        main(["train", "--data", "swirl", "--run", str(run), *words.split(), "--device", "cpu"])
        == 0
    )
    return run
