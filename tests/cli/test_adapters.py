"""--adapter: a user's function in the place of a run."""

import importlib
import json
import re
import textwrap

import numpy as np
import pytest

import diffenc_ct as dc
from diffenc_ct.cli import main
from diffenc_ct.data import load_dataset
from diffenc_ct.training.evaluation import evaluate
from tests.cli.test_cli import fails

MODULE = """
    import torch, diffenc_ct as dc

    def make_model(levels=8, shape=(2,)):
        table = dc.adapters.Table.of_betas(torch.linspace(0.002, 0.4, 20))
        network = torch.nn.Linear(2, 2)
        torch.nn.init.constant_(network.weight, 0.3)
        torch.nn.init.zeros_(network.bias)
        return dc.adapt(
            network, predicts="eps", schedule=table, decoder=dc.Levels(levels, ends=True), shape=shape,
            call=lambda net, z, t: net(z),
        )

    def nothing():
        return 7

    def shapeless():
        return make_model(shape=None)

    def other_levels():
        return make_model(levels=256)
"""
QUIET = ["--device", "cpu"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a module and data, of which nobody has seen the last level."""
    folder = tmp_path_factory.mktemp("adapter")
    (folder / "others_network.py").write_text(textwrap.dedent(MODULE))
    values = np.random.default_rng(0).integers(0, 7, (200, 2)).astype(np.uint8)
    np.save(folder / "data.npy", values)
    return folder


@pytest.fixture(autouse=True)
def importable(place, monkeypatch):
    monkeypatch.syspath_prepend(str(place))


def call(place, command, out, *more, adapter="make_model", data=True):
    given = ["--data", str(place / "data.npy")] if data else []
    return [
        *(command, "--adapter", f"others_network:{adapter}", *given),
        *("--out", str(place / out), *QUIET, *more),
    ]


def test_evaluate_is_the_evaluation_of_the_model(place, capsys):
    assert main(call(place, "evaluate", "result.json")) == 0
    found = json.loads((place / "result.json").read_text())
    model = importlib.import_module("others_network").make_model()
    data = load_dataset(str(place / "data.npy"), levels=8)
    wanted = evaluate(model, data.test, dc.InfiniteDepth(), seed=0)
    assert found["bits_per_dimension"]["total"]["mean"] == pytest.approx(wanted.mean("total"))
    assert "--adapter others_network:make_model at step 0" in capsys.readouterr().out
    assert (place / "result.png").exists() and (place / "result.csv").exists()


def test_what_is_fitted_lies_beside_the_result_and_is_used(place, capsys):
    steps = ["--depth", "4", "--candidates", "8", "--examples", "30"]
    assert main(call(place, "calibrate", "calibration.json", *steps)) == 0
    said = capsys.readouterr().out
    assert "diffenc evaluate --adapter others_network:make_model --calibration" in said
    assert main(call(place, "evaluate", "of-steps.json", "--calibration")) == 0
    assert json.loads((place / "of-steps.json").read_text())["step"] == 0
    assert main(call(place, "evaluate", "optimal.json", "--noise-level", "optimal")) == 0
    assert (place / "tightness.json").exists()
    calibrated = ["--schedule", "calibrated", "--count", "5"]
    assert main(call(place, "sample", "few.npz", *calibrated, data=False)) == 0
    assert np.load(place / "few.npz")["samples"].shape == (5, 2)


def test_the_likelihood_and_the_identities(place, capsys):
    table = ["--likelihood", "ode", "--examples", "2", "--atol", "1e-2"]
    assert main(call(place, "evaluate", "likelihood.json", *table)) == 0
    assert "ODE, tied heads" in capsys.readouterr().out
    few = ["--examples", "16", "--draws", "8", "--path-steps", "16", "--deepest", "16"]
    assert main(call(place, "verify", "verification.json", *few)) in (0, 1)
    assert "L_inf" in (place / "verification.json").read_text()


def without(words, flag):
    i = words.index(flag)
    return words[:i] + words[i + 2 :]


def test_what_does_not_go_together_is_one_line(place, capsys):
    whole = call(place, "evaluate", "x.json")
    for words, said in (
        ([*whole, "runs/digits"], "in the place of a run; leave out runs/digits"),
        (without(whole, "--out"), "no run's folder; say where .*--out FILE"),
        (without(whole, "--data"), "says nothing of data; name them: --data"),
        ([*whole, "--weights", "raw"], "--weights raw has no effect.*one set of weights"),
        (call(place, "evaluate", "x.json", adapter="nothing"), "returned a int.*dc.adapt"),
        (call(place, "evaluate", "x.json", adapter="shapeless"), "does not know the shape.*shape="),
        (call(place, "evaluate", "x.json", adapter="absent"), "cannot be imported.*absent"),
        (["evaluate"], "give a run, or --adapter MODULE:FUNCTION"),
        (["verify", "--adapter", "a:b", "--world", "gaussian"], "give a run or --world"),
    ):
        assert re.search(said, fails(capsys, *words)), said


def test_data_of_another_kind_are_refused(place, capsys):
    said = fails(capsys, *without(call(place, "evaluate", "x.json"), "--data"), "--data", "swirl")
    assert "shape (2,) and 8 levels" in said and "256 levels" in said


def test_a_model_of_more_levels_than_a_file_shows(place):
    """As many levels as the decoder has, not as the file happens to show."""
    assert main(call(place, "evaluate", "more.json", adapter="other_levels")) == 0
    assert json.loads((place / "more.json").read_text())["baselines"]["uniform"] == 8
