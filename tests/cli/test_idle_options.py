"""Every option of a command that reads a run changes what it says, or is refused by name."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from diffenc_ct.cli import main, make_parser

RUN = (
    "--network-options width=8 layers=1 --encoder-network-options width=8 layers=1 --steps 6 --ema 0.9 0.5 "
    "--batch-size 16 --save-every 3 --eval-examples 30 --device cpu --quiet"
).split()
# How and where something is computed, not what.
HOW = {"help", "device", "threads", "process_timeout", "out", "images", "json"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Points of levels, two checkpoints, two averages, a calibration, and latents beside it."""
    folder = tmp_path_factory.mktemp("idle") / "run"
    assert main(["train", "--data", "swirl", "--run", str(folder), *RUN]) == 0
    small = ["--depth", "3", "--candidates", "6", "--examples", "20", "--device", "cpu"]
    assert main(["calibrate", str(folder), *small]) == 0
    np.savez(folder / "z.npz", latents=np.random.default_rng(0).normal(size=(3, 2)).astype("f"))
    other = np.random.default_rng(0).integers(0, 256, (90, 2), np.uint8)
    other[:2] = [[0, 255], [255, 0]]  # all 256 levels, wherever they are split
    np.save(folder / "other.npy", np.concatenate([other] * 3))
    return folder


# A value of each option that is not its default.
VALUES = {
    "data": "RUN/other.npy", "data_root": "RUN", "weights": "raw", "checkpoint": "3", "seed": "5", "draws": "3",
    "depths": "importance", "depth": "2", "ratio": "1.5", "noise_level": "0.8", "calibration": "RUN/calibration.json",
    "split": "train", "divergence": "rademacher", "probes": "2", "solver": "rk4", "atol": "0.1", "rtol": "0.1",
    "solver_steps": "5", "max_steps": "2", "examples": "17", "batch_size": "3", "count": "3", "steps": "3",
    "schedule": "uniform", "latents": "RUN/z.npz", "trajectory": "2", "candidates": "5", "uniform": None, "world": None,
    "encoder": "identity", "deepest": "32", "path_steps": "8", "likelihood": None, "theory": None,
    "step": "mixture", "labels": "1", "guidance": "2", "adapter": None, "download": None,
}  # fmt: skip
BASES = {
    "evaluate": ["--examples 8", "--examples 8 --depth 3", "--examples 8 --calibration",
                 "--examples 2 --likelihood elbo", "--examples 2 --likelihood ode --atol 0.01",
                 "--examples 2 --likelihood ode --solver rk4 --solver-steps 4"],
    "sample": ["--count 2 --steps 4", "--count 2 --solver adams", "--latents RUN/z.npz --solver rk4 --steps 4",
               "--count 2 --schedule calibrated"],
    "calibrate": ["--depth 3 --candidates 6 --examples 16"],
    "verify": ["--deepest 16 --draws 2 --path-steps 4 --examples 16"],
}  # fmt: skip
CASES = [(command, base) for command, bases in BASES.items() for base in bases]


def options(command: str) -> list[argparse.Action]:
    parser = make_parser([command]).parse_args([command, "x"]).command_parser
    return [a for a in parser._actions if a.option_strings and a.dest not in HOW]


def outcome(capsys, command, words, run, out: Path):
    """Exit code, the error's line, and all numbers that were printed and written."""
    ending = ".png" if command == "sample" else ".json"
    given = [word.replace("RUN", str(run)) for word in words]
    path = out / f"result{ending}"
    try:
        code = main([command, str(run), *given, "--device", "cpu", "--out", str(path)])
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    written = {}
    for file in sorted(out.iterdir()):
        if file.suffix == ".json":
            found = json.loads(file.read_text())
            written |= {k: v for k, v in found.items() if k not in VALUES and k != "remarks"}
        elif file.suffix == ".npz":
            written |= {name: value.tolist() for name, value in np.load(file).items()}
        file.unlink()
    return code, captured.err, json.dumps(written, sort_keys=True)


def test_every_option_has_a_value_to_be_tried_with():
    for command in BASES:
        assert {action.dest for action in options(command)} <= VALUES.keys()


@pytest.mark.parametrize(("command", "base"), CASES)
def test_an_option_changes_what_is_said_or_is_refused(command, base, run, tmp_path, capsys):
    words = base.split()
    code, _, plain = outcome(capsys, command, words, run, tmp_path)
    assert code in (0, 1) and plain != "{}"
    for action in options(command):
        flag, value = action.option_strings[0], VALUES[action.dest]
        if value is None and action.dest != "uniform":
            continue
        if flag in words and (command != "verify" or value in words):
            continue
        if flag == "--schedule" and "rk4" in words:
            value = "balanced"  # uniform and log-snr are the same depths where gamma is linear in t
        if flag == "--batch-size" and "elbo" in words:
            value = "100"  # of the examples to which the noise level is fitted, a thousand
        more = [flag] if value is None else [flag, value]
        code, said, found = outcome(capsys, command, [*words, *more], run, tmp_path)
        if code == 2:
            # this option, or one of the others that says nothing beside it; other weights need their own calibration
            flags = [word for word in (*words, flag) if word.startswith("--")]
            named = any(f"{f} " in said and "has no effect here" in said for f in flags)
            assert named or flag in said or "was fitted to other weights" in said, (flag, said)
            assert len([line for line in said.splitlines() if "error" in line]) == 1
        else:
            assert found != plain or (flag, base) in SAME, (
                f"{flag} {value} changes nothing of {base}"
            )


# Said in the option's help: it changes no image, noise that is not drawn, candidates among which the same are chosen.
SAME = {
    *(("--batch-size", base) for base in BASES["sample"]),
    *(("--seed", base) for base in BASES["sample"] if "latents" in base),
    *(("--batch-size", base) for base in BASES["evaluate"] if "ode" in base),
}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("evaluate RUN --likelihood ode --depth 3", "--depth 3 has no effect here"),
        ("evaluate RUN --likelihood both --noise-level 1", "--noise-level 1 has no effect here"),
        ("evaluate RUN --likelihood elbo --solver adams", "--solver adams has no effect here"),
        ("evaluate RUN --solver nonsense", "--solver nonsense has no effect here"),
        ("evaluate RUN --likelihood ode --solver nonsense", "solver='nonsense' is not known"),
        ("evaluate RUN --probes 4", "--probes 4 has no effect here"),
        ("evaluate RUN --likelihood ode --probes 4", "exact unless --divergence"),
        ("evaluate RUN --likelihood ode --divergence exact --probes 4", "the divergence is exact"),
        ("evaluate RUN --likelihood ode --solver rk4 --max-steps 5", "--max-steps 5 has no effect here: solver 'rk4'"),
        ("evaluate RUN --ratio 1", "infinite depth"),
        ("evaluate FILE --checkpoint 3", "is one set of weights"),
        ("sample RUN --trajectory 2", "--trajectory 2 has no effect here: the samples are no images"),
        ("sample RUN --images new", "the samples are no images"),
        ("sample RUN --count 64 --latents RUN/z.npz", "--count 64 has no effect here"),
        ("sample RUN --schedule calibrated --solver adams", "--solver adams has no effect here"),
        ("verify RUN --encoder identity", "--encoder identity has no effect here"),
        ("verify --world gaussian --weights ema", "--weights ema has no effect here"),
        ("verify --theory --seed 0", "--seed 0 has no effect here: --theory stands alone"),
        ("evaluate RUN --examples -5", "--examples: '-5'"),
        ("evaluate RUN --batch-size 0", "--batch-size: '0'"),
        ("evaluate RUN --seed -1", "--seed: '-1'"),
        ("sample RUN --seed 1e3", "--seed: '1e3'"),
        ("sample RUN --seed 4294967296", "at most 4294967295"),
        ("sample RUN --solver adams --schedule uniform", "--schedule uniform has no effect here"),
        ("evaluate RUN --likelihood ode --solver-steps 3", "--solver-steps 3 has no effect here"),
        ("evaluate RUN --noise-level 1e30", "--noise-level: noise_level=1e30"),
        ("evaluate RUN --noise-level nan", "--noise-level: noise_level=nan"),
        ("sample RUN --noise-level -1", "--noise-level: noise_level=-1"),
        ("evaluate RUN --draws 0", "--draws: '0'"),
        ("evaluate RUN --out RUN/config.png", "ends in .json"),
        ("sample RUN --out s.jpg", "ends in .png or .npz"),
        ("verify RUN --out RUN", "ends in .json"),
        ("evaluate RUN --out RUN/config.json/deep/e.json", "no folder can be made at"),
        ("evaluate RUN --atol nan --likelihood ode", "--atol: 'nan'"),
        ("fit-head RUN --steps 0", "--steps: '0'"),
        ("fit-head RUN --batch-size -1", "--batch-size: '-1'"),
        ("fit-head RUN --learning-rate inf", "--learning-rate: 'inf'"),
        ("fit-head RUN --seed 0.5", "--seed: '0.5'"),
        ("fit-head FILE --checkpoint 3", "is one set of weights"),
        ("evaluate RUN --data-root /data", "--data-root /data has no effect here: swirl is none of mnist"),
        ("evaluate RUN --process-timeout 0", "--process-timeout: '0'"),
        ("sample RUN --latents ~/gone.npy", "gone.npy"),
    ],
)  # fmt: skip
def test_what_has_no_effect_or_no_meaning_is_refused_before_any_work(
    line, words, run, capsys, monkeypatch, tmp_path
):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = str(sorted((run / "checkpoints").iterdir())[-1])
    before = {path.name for path in run.iterdir()}
    try:
        code = main(line.replace("RUN", str(run)).replace("FILE", file).split())
    except SystemExit as error:
        code = error.code
    said = capsys.readouterr().err.strip()
    assert code == 2 and len(said.splitlines()) == 1 and words in said, said
    assert "~" not in said and before == {path.name for path in run.iterdir()}


def test_a_tilde_is_the_home_folder_wherever_a_path_begins(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.json").write_text((run / "calibration.json").read_text())
    base = ["sample", str(run), "--count", "2", "--device", "cpu"]
    assert main([*base, "--schedule", "calibrated:~/c.json", "--out=~/new/folder/s.npz"]) == 0
    assert (tmp_path / "new" / "folder" / "s.npz").exists()
    evaluated = ["evaluate", str(run), "--examples", "4", "--device", "cpu"]
    assert main([*evaluated, "--calibration", "~/c.json", "--out", "~/e.json"]) == 0
    assert (tmp_path / "e.json").exists() and (tmp_path / "e.csv").exists()
    (tmp_path / "c.toml").write_text('data.name = "checkerboard"\n')
    capsys.readouterr()
    shown = ["--config=~/c.toml", "--run", "~/new run", "--dry-run", "--device", "cpu"]
    assert main(["train", *shown]) == 0
    said = capsys.readouterr().out
    assert "checkerboard" in said and f"run: {tmp_path / 'new run'}" in said
