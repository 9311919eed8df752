"""The command line: the whole path on a tiny model, and one line for everything that can go wrong."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from diffenc_ct.cli import main
from diffenc_ct.training.checkpoints import list_checkpoints, read_checkpoint
from diffenc_ct.training.config import load_config
from diffenc_ct.training.evaluation import evaluate
from diffenc_ct.training.runs import open_run

TINY = (
    "--network-options width=8 layers=1 --encoder-network-options width=8 layers=1 --steps 4 "
    "--batch-size 16 --save-every 2 --eval-examples 30 --device cpu --quiet"
).split()


def train(run, *more):
    return main(["train", "--data", "swirl", "--run", str(run), *TINY, *more])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert train(folder) == 0
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A run on small images, and the data it was trained on."""
    folder = tmp_path_factory.mktemp("images")
    values = np.random.default_rng(0).integers(0, 5, (40, 1, 8, 8)).astype(np.uint8)
    np.save(folder / "data.npy", values)
    unet = ["--network-options", "width=8", "halvings=1"]
    arguments = ["train", "--data", str(folder / "data.npy"), "--run", str(folder / "run"), *TINY]
    assert main([*arguments, *unet, "--encoder", "non-trainable", "--encoder-network-options"]) == 0
    return folder / "run"


def fails(capsys, *arguments):
    """Run a command that must fail with one line and exit code 2; returns the line."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert code == 2, captured
    assert len(lines) == 1 and lines[0].startswith("diffenc: error: "), lines
    assert "Traceback" not in captured.err
    return lines[0]


def test_flags_become_the_saved_configuration(run):
    config = load_config(run / "config.json")
    assert config.data.name == "swirl" and config.network.options == {"width": 8, "layers": 1}
    assert (config.training.steps, config.training.batch_size) == (4, 16)


def test_preset_with_another_encoder_drops_the_encoders_network(capsys):
    arguments = "train --preset digits --encoder identity --ema 0.9 0.99 --clip none --dry-run"
    assert main([*arguments.split(), "--noise-level", "tight"]) == 0
    printed = capsys.readouterr().out
    config = json.loads(printed[: printed.rindex("}") + 1])
    assert config["encoder"] == {
        "kind": "identity",
        "options": {},
        "network": {"kind": "auto", "options": {}},
    }
    assert config["optimizer"]["ema"] == [0.9, 0.99] and config["optimizer"]["clip"] is None
    assert config["training"]["noise_level"] == "tight"
    assert "1,437 training and 360 test examples of shape (1, 8, 8), 17 levels" in printed
    assert "encoder 0" in printed and "GFLOP" in printed


def test_evaluate_prints_and_writes_the_librarys_numbers(run, capsys):
    assert main(["evaluate", str(run), "--examples", "40", "--draws", "2", "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    written = json.loads((run / "evaluation.json").read_text())
    opened = open_run(run)
    from diffenc_ct.data import load_dataset

    own = evaluate(opened.model, load_dataset("swirl").test[:40], draws=2)
    for term, values in written["bits_per_dimension"].items():
        assert values["mean"] == pytest.approx(own.mean(term))
        assert values["standard_error"] == pytest.approx(own.error(term))
        assert f"{values['mean']:.4f}" in printed
    assert written["baselines"]["uniform"] == 8.0 and "8.0000" in printed
    assert written["images"] == 40 and written["draws"] == 2 and written["step"] == 4
    assert Image.open(run / "loss-by-depth.png").size[0] > 300


def test_evaluation_options_change_what_they_say(run, tmp_path, capsys):
    def bpd(*more):
        out = tmp_path / "e.json"
        base = ["evaluate", str(run), "--examples", "30", "--device", "cpu", "--out", str(out)]
        assert main([*base, *more]) == 0
        return json.loads(out.read_text())["bits_per_dimension"]["diffusion"]["mean"]

    plain = bpd()
    deep = bpd("--depth", "1000000")
    assert deep == pytest.approx(plain, rel=0.05)
    assert (
        len(
            {
                plain,
                bpd("--depth", "5"),
                bpd("--depth", "5", "--ratio", "1.5"),
                bpd("--noise-level", "tight"),
            }
        )
        == 4
    )
    assert bpd("--weights", "raw") != plain
    dense = bpd("--depths", "importance")
    assert dense != plain and dense == pytest.approx(plain, rel=0.5)
    assert bpd("--checkpoint", "2") != plain
    assert bpd("--seed", "3") != plain
    assert (tmp_path / "e.png").exists()


def test_sample_writes_arrays_and_for_images_a_grid(run, images, tmp_path, capsys):
    assert main(["sample", str(run), "--count", "7", "--steps", "4", "--device", "cpu"]) == 0
    samples = np.load(run / "samples.npz")["samples"]
    assert samples.shape == (7, 2) and samples.min() >= 0 and samples.max() < 256
    assert not (run / "samples.png").exists()
    out = tmp_path / "s" / "grid.png"
    base = [
        "sample",
        str(images),
        "--count",
        "5",
        "--steps",
        "4",
        "--device",
        "cpu",
        "--out",
        str(out),
    ]
    assert main(base) == 0
    samples = np.load(out.with_suffix(".npz"))["samples"]
    levels = open_run(images).model.decoder.levels
    assert samples.shape == (5, 1, 8, 8) and samples.max() < levels
    grid = np.asarray(Image.open(out))
    factor = grid.shape[0] // 18
    first = np.round(255.0 * samples[0, 0] / (levels - 1)).astype(np.uint8)
    assert np.array_equal(grid[: 8 * factor : factor, : 8 * factor : factor], first)
    again = tmp_path / "again.png"
    assert main([*base[:-1], str(again)]) == 0
    assert np.array_equal(np.load(again.with_suffix(".npz"))["samples"], samples)


def test_exports_are_runs(run, tmp_path, capsys):
    assert main(["export", str(run), str(tmp_path / "small")]) == 0
    results = []
    for which in (run, tmp_path / "small"):
        assert (
            main(
                [
                    "evaluate",
                    str(which),
                    "--examples",
                    "20",
                    "--device",
                    "cpu",
                    "--out",
                    str(tmp_path / "e.json"),
                ]
            )
            == 0
        )
        results.append(json.loads((tmp_path / "e.json").read_text())["bits_per_dimension"])
    assert results[0] == results[1]
    assert "exists; delete it" in fails(capsys, "export", run, tmp_path / "small")


def test_bad_input_is_one_line_that_names_it(run, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    np.save(tmp_path / "big.npy", np.array([[1, 300], [2, 3]]))
    np.save(tmp_path / "text.npy", np.array([["a"], ["b"]]))
    other = tmp_path / "other.json"
    other.write_text('{"version": 99}')
    broken = tmp_path / "broken.toml"
    broken.write_text("[training\n")
    new = ["--run", tmp_path / "new", *TINY]
    cases = [
        (["train", "--data", "minst", *new], "unknown data 'minst'"),
        (["train", "--data", empty, *new], "no images in"),
        (
            ["train", "--data", tmp_path / "big.npy", "--levels", "256", *new],
            "do not fit into 256 levels",
        ),
        (["train", "--data", tmp_path / "text.npy", *new], "neither integer nor real"),
        (["train", "--data", tmp_path / "gone.npy", *new], "does not exist"),
        (["train", "--data", "swirl", "--network", "score-unet", *new], "needs channels"),
        (["train", "--preset", "digit", *new], "did you mean 'digits'"),
        (["train", "--config", other, *new], "version 99"),
        (["train", "--config", broken, *new], "cannot be parsed"),
        (["train", "--config", tmp_path / "gone.toml", *new], "no such configuration file"),
        (["train", "--steps", "few", *new], "--steps: 'few'; input should be a valid integer"),
        (["train", "--steps", "0", *new[:2]], "training.steps"),
        (["train", "--stepps", "4", *new], "--stepps 4; did you mean --steps?"),
        (["train", "--network-options", "width", *new[:2]], "name=value"),
        (["train", "--noise-level", "loud", *new], "--noise-level: 'loud'"),
        (["train", "--device", "nonsense", "--run", tmp_path / "new"], "--device nonsense"),
        (["train", "--data", "swirl", *TINY, "--run", run], "holds a run already"),
        (["train", "--data", "swirl", *TINY, "--run", other], "is a file"),
        (["train", "--data", "swirl", *TINY, "--run", other / "deeper"], str(other)),
        (["train", "--run", run, "--resume", "--seed", "5", "--quiet"], "training.seed: 1 -> 5"),
        (["evaluate", tmp_path / "nowhere"], "no run at"),
        (["evaluate", other], "no checkpoint"),
        (["evaluate", run, "--ratio", "2"], "infinite depth"),
        (
            ["evaluate", run, "--ratio", "-1", "--depth", "3"],
            "--ratio: '-1'; give a number above 0",
        ),
        (["evaluate", run, "--noise-level", "0"], "noise_level"),
        (["evaluate", run, "--noise-level", "x"], "neither a number"),
        (["evaluate", run, "--draws", "0"], "--draws: '0'; give a whole number of at least 1"),
        (["evaluate", run, "--weights", "0.5"], "weights='0.5'"),
        (["evaluate", run, "--checkpoint", "77"], "checkpoint='77'"),
        (["evaluate", run, "--out", other / "x.json"], str(other)),
        (["sample", run, "--count", "0"], "--count: '0'"),
        (["paint"], "invalid choice: 'paint'"),
    ]
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for arguments, words in cases:
        assert words in fails(capsys, *arguments)
    assert not (tmp_path / "new").exists()
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_data_that_moved_are_named(images, tmp_path, capsys):
    """Elsewhere, the same numbers; other test images, others; and what the model cannot take is refused."""

    def total(data):
        arguments = [
            "evaluate",
            str(images),
            "--data",
            str(data),
            "--out",
            str(tmp_path / "e.json"),
        ]
        assert main([*arguments, "--device", "cpu"]) == 0
        assert str(data) in capsys.readouterr().out
        written = json.loads((tmp_path / "e.json").read_text())
        return written["bits_per_dimension"]["total"]["mean"]

    values = np.load(images.parent / "data.npy")
    np.save(tmp_path / "moved.npy", values)
    assert total(tmp_path / "moved.npy") == total(images.parent / "data.npy")
    np.save(tmp_path / "other.npy", 4 - values)
    assert total(tmp_path / "other.npy") != total(tmp_path / "moved.npy")
    np.save(tmp_path / "wide.npy", values.reshape(20, 1, 8, 16))
    for command in ("evaluate", "calibrate", "fit-head", "verify"):
        line = fails(capsys, command, images, "--data", tmp_path / "wide.npy")
        assert "(1, 8, 16)" in line and "(1, 8, 8)" in line
        assert "nowhere" in fails(capsys, command, images, "--data", "nowhere")


def test_evaluating_on_data_of_another_kind_is_refused(images, capsys):
    np.save(images.parent / "data.npy", np.zeros((9, 1, 6, 6), np.uint8) + 4)
    assert "shape (1, 8, 8)" in fails(capsys, "evaluate", images)


def test_corrupt_checkpoints_and_foreign_versions(tmp_path, capsys):
    run = tmp_path / "run"
    assert train(run) == 0
    older, newer = list_checkpoints(run / "checkpoints")
    assert read_checkpoint(newer).step == 4
    newer.write_bytes(newer.read_bytes()[:-5])
    capsys.readouterr()
    assert main(["evaluate", str(run), "--examples", "20", "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert "warning: checkpoint" in captured.err and "at step 2" in captured.out
    older.write_bytes(b"")
    assert main(["sample", str(run)]) == 2
    *warned, last = capsys.readouterr().err.splitlines()
    assert len(warned) == 2 and "no intact checkpoint" in last
    text = json.loads((run / "config.json").read_text()) | {"version": 99}
    (run / "config.json").write_text(json.dumps(text))
    assert "version 99" in fails(capsys, "train", "--run", run, "--resume", "--quiet")


def test_a_real_process_stops_on_sigterm_and_goes_on(tmp_path):
    run = tmp_path / "run"
    arguments = [
        sys.executable,
        "-m",
        "diffenc_ct.cli",
        "train",
        "--data",
        "swirl",
        "--run",
        str(run),
    ]
    many = [word if word != "4" else "100000" for word in TINY]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*arguments, *many], stderr=subprocess.PIPE, text=True, env=environment
    )
    deadline = time.monotonic() + 120
    while not list_checkpoints(run / "checkpoints") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "stopped by SIGTERM" in errors and "--resume" in errors
    step = open_run(run).step
    assert step > 0
    assert main(["train", "--run", str(run), "--resume", "--steps", str(step + 1), "--quiet"]) == 0
    assert open_run(run).step == step + 1


def test_device_of_another_machine(run, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert "use --device cpu" in fails(capsys, "sample", run, "--device", "cuda")
