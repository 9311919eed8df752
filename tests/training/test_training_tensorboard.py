"""TensorBoard's files read back: every number of metrics.csv, the pictures, and no trace in the weights."""

import csv
import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diffenc_ct.data import Dataset
from diffenc_ct.report.extras import MissingExtra
from diffenc_ct.report.values import as_values, encodings
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.loop import train
from diffenc_ct.training.runs import load
from diffenc_ct.training.tensorboard import DEPTHS, ENCODED, SAMPLES
from tests.tiny_runs import assert_same, tensors_of, tiny

PICTURES = {
    "data.name": "pictures",
    "encoder.kind": "non-trainable",
    "encoder.network.options": {},
    "network.options": {"width": 8, "halvings": 1},
    "training.steps": 4,
    "training.batch_size": 4,
    "training.log_every": 1,
    "training.eval_every": 2,
    "training.save_every": 3,
    "training.tensorboard": True,
}


@pytest.fixture(scope="module")
def data():
    values = np.random.default_rng(0).integers(0, 5, (40, 1, 8, 8)).astype(np.uint8)
    values = torch.from_numpy(values)
    return Dataset("pictures", values[:30], values[30:], 5)


@pytest.fixture(scope="module")
def seen(tmp_path_factory, data):
    """A run that was stopped after its third step and gone on with, and what TensorBoard reads of it."""
    run, config = tmp_path_factory.mktemp("seen") / "run", replace(Config(), PICTURES)
    train(replace(config, {"training.steps": 3}), run, data=data)
    train(config, run, data=data, resume=True)
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return run, events


def test_every_number_of_a_row_is_a_scalar(seen):
    run, events = seen
    rows = list(csv.DictReader(open(run / "metrics.csv", encoding="utf-8")))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    wanted = {}
    for row in rows:
        for name, text in row.items():
            if text and name != "step":
                tag = name.replace("test_", "test/") if "test_" in name else f"train/{name}"
                wanted.setdefault(tag, {})[int(row["step"])] = float(text)
    assert set(events.Tags()["scalars"]) == set(wanted)
    for tag, values in wanted.items():
        # Steps done twice are there twice, at most; TensorBoard shows the last.
        found = {event.step: event.value for event in events.Scalars(tag)}
        assert found == pytest.approx(values, rel=1e-4), tag


def test_pictures_are_shown_at_evaluations(seen, data):
    run, events = seen
    assert set(events.Tags()["images"]) == {"encodings", "samples", "loss by depth"}
    for tag in events.Tags()["images"]:
        assert sorted({event.step for event in events.Images(tag)}) == [2, 3, 4]
    grids = {
        tag: np.asarray(Image.open(io.BytesIO(events.Images(tag)[-1].encoded_image_string)))
        for tag in ("samples", "encodings")
    }
    assert grids["samples"].shape == (8 * SAMPLES // 8, 8 * 8, 3)
    assert grids["encodings"].shape == (8 * ENCODED, 8 * DEPTHS, 3)
    # A row is an image, from its data at the left to its deepest encoding.
    shown = as_values(encodings(load(run), data.test[:ENCODED], DEPTHS), None)[2, -1, 0]
    tile = grids["encodings"][2 * 8 : 3 * 8, -8:, 0] / 255
    assert np.abs(tile - shown.numpy()).max() < 1 / 128


def test_encodings_go_from_data_to_the_deepest_encoding(seen, data):
    model = load(seen[0])
    found = encodings(model, data.test[:3], depths=4)
    assert found.shape == (3, 4, 1, 8, 8)
    x = model.scale(data.test[:3])
    for i, t in enumerate((0.0, 1 / 3, 2 / 3, 1.0)):
        alpha2 = model.schedule.at(t, x).alpha2
        torch.testing.assert_close(found[:, i], alpha2 * x, rtol=1e-4, atol=1e-4)


def test_watching_changes_no_weight(seen, tmp_path, data):
    train(
        replace(Config(), PICTURES | {"training.tensorboard": False}), tmp_path / "run", data=data
    )
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert_same(tensors_of(tmp_path / "run"), tensors_of(seen[0]))


@pytest.mark.parametrize("package", ["tensorboard", "matplotlib", "pillow"])
def test_without_the_package_it_says_so_before_anything_is_written(tmp_path, monkeypatch, package):
    name = {"pillow": "PIL"}.get(package, package)
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)  # importing it fails, as where it is not installed
    with pytest.raises(MissingExtra, match=f"{package} is needed.*diffenc-ct.tensorboard."):
        train(tiny(training__tensorboard=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()
