"""What version 0.1 wrote is read and gone on with.

fixtures/run-0.1     a run stopped at step 4 (paired heads, a learned schedule, moments of the noise level), and in
                     after.safetensors the weights that 0.1 had at step 8
fixtures/model-0.1   an exported model with its head, tightness and calibration, and in expected.json numbers that 0.1
                     computed with them
"""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import diffenc_ct as dc
from diffenc_ct.calibration import Calibration
from diffenc_ct.data import load_dataset
from diffenc_ct.training.checkpoints import read_checkpoint
from diffenc_ct.training.config import load_config, replace
from diffenc_ct.training.heads import load_head
from diffenc_ct.training.loop import train
from diffenc_ct.training.runs import export, open_run, pretrained_names
from tests.tiny_runs import tensors_of

FIXTURES = Path(__file__).parent / "fixtures"
RUN, MODEL = FIXTURES / "run-0.1", FIXTURES / "model-0.1"


def renamed(name):
    """0.1 had its network beside the encoder, not in heads."""
    return name.replace("/network.", "/heads.network.")


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(RUN, tmp_path / "run"))


def test_a_run_goes_on_as_it_would_have(run):
    config = load_config(run / "config.json")
    train(replace(config, {"training.steps": 8}), run, resume=True)
    found = tensors_of(run)
    expected = load_file(run / "after.safetensors")
    assert len(expected) > 10
    for name, tensor in expected.items():
        torch.testing.assert_close(found[renamed(name)], tensor, rtol=1e-5, atol=1e-7, msg=name)
    rows = list(csv.DictReader(open(run / "metrics.csv", encoding="utf-8")))
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8]
    before = list(csv.DictReader(open(RUN / "metrics.csv", encoding="utf-8")))
    assert rows[:2] == before


def test_a_checkpoint_is_renamed_as_it_is_read(run):
    path = run / "checkpoints" / "step-00000004.safetensors"
    saved, held = read_checkpoint(path), load_file(path)
    assert saved.step == 4 and saved.shape == (2,) and saved.levels == 256
    assert saved.tensors.keys() == {renamed(name) for name in held}
    for kind in ("model", "ema/0.9999", "optimizer"):
        assert any(name.startswith(f"{kind}/heads.network.") for name in saved.tensors), kind
    for name, tensor in held.items():
        assert torch.equal(saved.tensors[renamed(name)], tensor)
    opened = open_run(run)
    assert isinstance(opened.model.heads, dc.Paired) and opened.model.shape == (2,)
    assert opened.optimal_noise_level is not None


def test_what_was_exported_gives_the_numbers_it_gave(tmp_path):
    expected = json.loads((MODEL / "expected.json").read_text())
    opened = open_run(MODEL)
    x, t = load_dataset("swirl").train[:3], torch.tensor([0.1, 0.5, 0.9])
    draws = dc.Draws(t, torch.full((3, 2), 0.5), torch.full((3, 2), -0.25))
    fitted = load_head(opened.model, MODEL / "head.safetensors")
    estimates = fitted.predict(draws.noise, torch.tensor([-6.0, 0.0, 3.0]))
    calibration = Calibration.load(MODEL / "calibration.json")
    found = {
        "total": dc.elbo(opened.model, x, draws=draws).total,
        "x_hat": estimates.x_hat,
        "r_hat": estimates.r_hat,
        "eta_squared": opened.optimal_noise_level.squared(torch.tensor([-9.0, 0.0, 3.0])),
        "calibrated": dc.elbo(opened.model, x, dc.FiniteDepth(calibration), draws=draws).total,
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name].tolist(), values, rtol=1e-5, atol=1e-6, msg=name)
    # Written anew it is of the present format, and the same model.
    export(MODEL, tmp_path / "new")
    again = open_run(tmp_path / "new").model.state_dict()
    for name, tensor in opened.model.state_dict().items():
        assert torch.equal(again[name], tensor)


def test_a_head_of_other_weights_is_refused():
    """Its file has the fingerprint of the network alone."""
    model = open_run(MODEL).model
    with torch.no_grad():
        next(model.heads.parameters()).add_(1e-3)
    with pytest.raises(ValueError, match="other weights"):
        load_head(model, MODEL / "head.safetensors")


@pytest.mark.parametrize("name", pretrained_names())
def test_the_packaged_models_load(name):
    model = dc.load(name)
    assert isinstance(model.heads, dc.Posterior)
    terms = dc.elbo(model, torch.zeros(1, *model.shape, dtype=torch.uint8))
    assert terms.total.isfinite().all()
