"""--standardise: data of any scale train alike, and what is reported is of the data as they are."""

import csv
import json
import warnings

import numpy as np
import pytest
import torch

from diffenc_ct.cli import main
from diffenc_ct.data import load_dataset
from diffenc_ct.training.runs import export, load
from tests.tiny_runs import assert_same, tensors_of

TINY = (
    "--network-options width=8 layers=1 --encoder-network-options width=8 layers=1 --steps 4 --batch-size 16 "
    "--save-every 2 --eval-every 2 --eval-examples 20 --device cpu --quiet"
).split()
BITS = torch.tensor([10.0, -3.0, 6.0])  # powers of two, so that nothing is rounded


def values():
    random = np.random.default_rng(0)
    found = random.normal(size=(200, 3)) @ random.normal(size=(3, 3))
    return torch.from_numpy(found).float()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run on reals, and one on the same times 2^BITS."""
    folder = tmp_path_factory.mktemp("s")
    np.save(folder / "a.npy", values().numpy())
    np.save(folder / "b.npy", (values() * 2**BITS).numpy())
    for name in "ab":
        data = ["--data", str(folder / f"{name}.npy"), "--run", str(folder / name)]
        assert main(["train", *data, "--standardise", *TINY]) == 0
    return folder


def test_runs_are_the_same_but_for_the_scale(runs):
    one, other = (
        {k: v for k, v in tensors_of(runs / n).items() if "decoder." not in k} for n in "ab"
    )
    assert_same(one, other)
    data, model = load_dataset(str(runs / "b.npy"), standardise=True), load(runs / "b")
    seen = model.decoder.scale(data.train, torch.float32)
    assert seen.mean(0).abs().max() < 1e-5 and (seen.std(0, correction=0) - 1).abs().max() < 1e-5


def test_rows_of_training_are_bits_of_the_data(runs):
    rows = [list(csv.DictReader((runs / name / "metrics.csv").open())) for name in "ab"]
    found = [(r["test_bpd"], s["test_bpd"]) for r, s in zip(*rows, strict=True) if r["test_bpd"]]
    assert found
    for one, other in found:
        assert float(other) - float(one) == pytest.approx(float(BITS.mean()), abs=1e-4)


@pytest.mark.parametrize(
    "more", [[], ["--depth", "5"], ["--likelihood", "both", "--divergence", "exact"]]
)
def test_evaluations_are_bits_of_the_data(runs, tmp_path, more):
    totals = []
    for name in "ab":
        out = tmp_path / f"{name}.json"
        arguments = ["evaluate", str(runs / name), "--examples", "6", "--device", "cpu", *more]
        assert main([*arguments, "--out", str(out)]) == 0
        written = json.loads(out.read_text())
        assert any(line.startswith("standardised: ") for line in written["remarks"])
        if "rows" in written:
            totals.append([row["mean"] for row in written["rows"]])
        else:
            totals.append([written["bits_per_dimension"]["total"]["mean"]])
    for one, other in zip(*totals, strict=True):
        assert other - one == pytest.approx(float(BITS.mean()), abs=2e-3)


def test_other_data_are_scaled_by_the_models_numbers(runs, tmp_path):
    """Not by their own: twice as wide, they are less likely, not as likely."""
    np.save(tmp_path / "wide.npy", (8 * values() * 2**BITS).numpy())
    found = []
    for data in (runs / "b.npy", tmp_path / "wide.npy"):
        out = str(tmp_path / "e.json")
        arguments = ["evaluate", str(runs / "b"), "--data", str(data), "--out", out]
        assert main([*arguments, "--device", "cpu"]) == 0
        written = json.loads((tmp_path / "e.json").read_text())
        found.append(written["bits_per_dimension"]["total"]["mean"])
    assert found[1] > 10 * found[0]


def test_samples_are_of_the_datas_scale(runs, tmp_path):
    for name in "ab":
        out = ["--out", str(tmp_path / f"{name}.npz"), "--seed", "1"]
        assert main(["sample", str(runs / name), "--count", "50", "--device", "cpu", *out]) == 0
    one, other = (np.load(tmp_path / f"{name}.npz") for name in "ab")
    (key,) = [k for k in one.files if one[k].shape == (50, 3)][:1]
    assert np.allclose(other[key], one[key] * (2**BITS).numpy(), rtol=1e-4, atol=1e-4)


def test_half_precision_leaves_the_scale(runs, tmp_path):
    export(runs / "b", tmp_path / "half", half=True)
    whole, half = load(runs / "b"), load(tmp_path / "half")
    assert torch.equal(whole.decoder.deviation, half.decoder.deviation)
    assert torch.equal(whole.decoder.mean, half.decoder.mean)


def test_a_resumed_run_keeps_its_scale(runs, tmp_path):
    data = ["--data", str(runs / "b.npy"), "--run", str(tmp_path / "r"), "--standardise"]
    assert main(["train", *data, *TINY, "--steps", "2"]) == 0
    assert main(["train", "--run", str(tmp_path / "r"), "--resume", "--steps", "4", "--quiet"]) == 0
    assert_same(tensors_of(tmp_path / "r"), tensors_of(runs / "b"))


def test_scale_is_warned_of_only_where_it_matters(runs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset(str(runs / "b.npy"), standardise=True)
    with pytest.warns(UserWarning, match="let the model do it"):
        load_dataset(str(runs / "b.npy"))


@pytest.mark.parametrize("data", ["digits", "swirl", "CONSTANT"])
def test_what_cannot_be_standardised_is_refused_in_a_line(tmp_path, capsys, data):
    array = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
    array[:, 1] = 0.1
    np.save(tmp_path / "v.npy", array)
    given = data.replace("CONSTANT", str(tmp_path / "v.npy"))
    assert main(["train", "--data", given, "--standardise", "--dry-run", "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    words = "dimension or channel 1 has deviation" if data == "CONSTANT" else "only reals are stand"
    assert line.startswith("diffenc: error: ") and words in line
