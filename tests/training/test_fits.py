"""What was fitted to a run and lies beside it: to which weights, from which examples, and when it cannot be used."""

import json
import math
from pathlib import Path

import pytest
import torch

from diffenc_ct.calibration import Calibration, CalibrationOptions, Tightness, calibrate, tightness
from diffenc_ct.cli import main
from diffenc_ct.data import Dataset, load_dataset
from diffenc_ct.model.fingerprint import fingerprint
from diffenc_ct.training.heads import HeadFitting, fit_head, load_head, save_head
from diffenc_ct.training.loop import train
from diffenc_ct.training.runs import TIGHTNESS, load, open_run
from tests.cli.test_cli import fails
from tests.refusals import refused
from tests.tiny_runs import tiny

SMALL = CalibrationOptions(candidates=4)


def values(seed, count=40):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 2), generator=generator).to(torch.uint8)


@pytest.fixture(scope="module")
def data():
    return Dataset("swirl", values(0), values(1), 256)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fits") / "run"
    train(tiny(optimizer__ema=(0.9, 0.1)), folder)
    return folder


def save_all(model, x, folder):
    """Everything that is fitted to a model, by file."""
    tightness(model, x, depths=3).save(folder / TIGHTNESS)
    calibrate(model, x, 2, SMALL).save(folder / "calibration.json")
    save_head(fit_head(model, x, HeadFitting(steps=1)).model, folder / "head.safetensors")


@pytest.mark.parametrize(
    ("options", "accepted"),
    [
        ({"steps": 0}, {"steps": 1}),
        ({"batch_size": 0}, {"batch_size": 1}),
        ({"learning_rate": 0.0}, {"learning_rate": 1e-9}),
        ({"learning_rate": math.inf}, {"learning_rate": 1e9}),
        ({"learning_rate": math.nan}, {}),
    ],
)
def test_numbers_of_a_fit_without_meaning_are_refused(options, accepted):
    with refused(ValueError, "must be at least 1, .*positive and finite"):
        HeadFitting(**options)
    HeadFitting(**accepted)


def test_a_model_with_a_fitted_head_is_the_model_but_for_the_head(run):
    """It knows its shape, scale and levels, shares all weights and the mode, and is another model's head no more."""
    model = load(run)
    x = load_dataset("swirl").train[:20]
    found = fit_head(model, x, HeadFitting(steps=1)).model
    assert found.shape == model.shape == (2,) and found.training == model.training
    for part in ("schedule", "encoder", "decoder"):
        assert getattr(found, part) is getattr(model, part)
    z, gamma = torch.randn(3, 2), torch.zeros(3)
    one, other = (m.predict(z, gamma) for m in (model, found))
    factor = model.encoder.rate_factor(gamma)[:, None]
    # What the bound is made of, x_hat + r_hat, is the old heads'.
    torch.testing.assert_close(other.x_hat + other.r_hat, (1 + factor) * one.x_hat)


READERS = {
    TIGHTNESS: lambda path, model: Tightness.load(path, model=model),
    "calibration.json": lambda path, model: Calibration.load(path, model=model),
    "head.safetensors": lambda path, model: load_head(model, path),
}
COMMANDS = {
    TIGHTNESS: [["evaluate", "--noise-level", "optimal"], ["sample", "--noise-level", "optimal"]],
    "calibration.json": [["evaluate", "--calibration"], ["sample", "--schedule", "calibrated"]],
    "head.safetensors": [["evaluate", "--likelihood", "ode"]],
}
REMEDIES = {
    TIGHTNESS: "delete it",
    "calibration.json": "diffenc calibrate",
    "head.safetensors": "diffenc fit-head",
}


@pytest.mark.parametrize("part", ["schedule", "encoder", "heads"])
def test_a_fit_is_of_these_weights_only(run, data, tmp_path, part):
    """Whichever part of the model differs, all three are refused; as they were, all three are read."""
    model = load(run)
    if part == "schedule":
        model.schedule.register_buffer("mark", torch.zeros(1))
    save_all(model, data.train, tmp_path)
    for name, read in READERS.items():
        read(tmp_path / name, model)
    tensor = next(iter(getattr(model, part).state_dict().values()))
    with torch.no_grad():
        tensor.flatten()[0] += 1e-3
    for name, read in READERS.items():
        with pytest.raises(ValueError, match="other weights") as error:
            read(tmp_path / name, model)
        said = str(error.value)
        assert str(tmp_path / name) in said and REMEDIES[name] in said and "\n" not in said


def test_fingerprints_see_names_values_and_types():
    one = torch.nn.Linear(2, 2)
    same, renamed = torch.nn.Linear(2, 2), torch.nn.Sequential(one)
    same.load_state_dict(one.state_dict())
    assert fingerprint(one) == fingerprint(same)
    others = {fingerprint(m) for m in (one, renamed, torch.nn.Linear(2, 2), same.bfloat16())}
    assert len(others) == 4


@pytest.mark.parametrize("name", READERS)
def test_files_cut_off_anywhere_are_one_line_with_name_and_remedy(run, data, tmp_path, name):
    model = load(run)
    save_all(model, data.train, tmp_path)
    whole = (tmp_path / name).read_bytes()
    for length in (0, 1, len(whole) // 3, len(whole) - 3):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(ValueError) as error:
            READERS[name](tmp_path / name, model)
        said = str(error.value)
        assert str(tmp_path / name) in said and REMEDIES[name] in said and "\n" not in said


@pytest.mark.parametrize("name", READERS)
def test_they_are_written_as_a_whole_or_not_at_all(run, data, tmp_path, name, monkeypatch):
    model = load(run)
    save_all(model, data.train, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        if name == TIGHTNESS:
            tightness(model, data.train, depths=4).save(tmp_path / name)
        elif name == "calibration.json":
            calibrate(model, data.train, 4, SMALL).save(tmp_path / name)
        else:
            save_head(load_head(model, tmp_path / name), tmp_path / name)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_files_without_a_fingerprint_are_believed(run, data, tmp_path):
    """Those of version 0.1; its heads knew their network."""
    model = load(run)
    save_all(model, data.train, tmp_path)
    for name in (TIGHTNESS, "calibration.json"):
        plain = json.loads((tmp_path / name).read_text())
        assert plain.pop("fitted_to") == fingerprint(model)
        (tmp_path / name).write_text(json.dumps(plain))
        READERS[name](tmp_path / name, load(run, weights="raw"))


@pytest.mark.parametrize("name", READERS)
def test_commands_refuse_what_is_of_other_weights_or_cut_off(run, data, name, capsys):
    """They go on where it is not asked for."""
    save_all(load(run, weights="raw"), data.train, run)
    try:
        for spoil in (lambda whole: whole, lambda whole: whole[: len(whole) // 2]):
            (run / name).write_bytes(spoil((run / name).read_bytes()))
            for command, *options in COMMANDS[name]:
                short = ["--count", "2"] if command == "sample" else ["--examples", "2"]
                line = fails(capsys, command, run, *options, *short, "--device", "cpu")
                assert str(run / name) in line and REMEDIES[name] in line
            assert main(["evaluate", str(run), "--examples", "2", "--device", "cpu"]) == 0
            capsys.readouterr()
    finally:
        for left in READERS:
            Path(run / left).unlink(missing_ok=True)


def test_numbers_that_were_not_finite_are_not_used(run, data, tmp_path):
    model = load(run)
    found = tightness(model, data.train, depths=3)
    found.a[1] = torch.nan
    found.save(tmp_path / TIGHTNESS)
    with pytest.raises(ValueError, match=r"tightness.json: a.1 are not finite; delete it"):
        Tightness.load(tmp_path / TIGHTNESS)


@pytest.mark.parametrize(
    "command",
    [
        ["calibrate", "--depth", "2", "--candidates", "4", "--examples", "16"],
        ["fit-head", "--steps", "2", "--batch-size", "8"],
        ["evaluate", "--noise-level", "optimal", "--examples", "4"],
        ["evaluate", "--likelihood", "elbo", "--examples", "4"],
        ["evaluate", "--depths", "importance", "--examples", "4", "--split", "test"],
    ],
)
def test_fits_never_see_test_examples(run, data, command, monkeypatch, tmp_path):
    """With other test examples of the same shape what is fitted is the same; with other training examples it is not."""
    import diffenc_ct.cli.options as options

    fitted = {}
    original = open_run(run)
    shown = {
        "as it is": data,
        "other tests": Dataset("swirl", data.train, values(7), 256),
        "other training": Dataset("swirl", values(8), data.test, 256),
    }
    for kind, seen in shown.items():
        monkeypatch.setattr(options, "load_dataset", lambda *_, seen=seen, **__: seen)
        torch.manual_seed(0)
        drawn = []
        monkeypatch.setattr(
            "diffenc_ct.cli.likelihood.importance_depths",
            lambda model, images, *a, drawn=drawn, **k: drawn.append(images.clone()) or None,
        )
        name, *rest = command
        assert main([name, str(run), *rest, "--device", "cpu"]) == 0
        kept = [run / file for file in READERS if (run / file).exists()]
        fitted[kind] = b"".join(path.read_bytes() for path in kept) + b"".join(
            images.numpy().tobytes() for images in drawn
        )
        assert fitted[kind]
        for path in kept:
            path.unlink()
    assert fitted["as it is"] == fitted["other tests"] != fitted["other training"]
    assert fingerprint(open_run(run).model) == fingerprint(original.model)
