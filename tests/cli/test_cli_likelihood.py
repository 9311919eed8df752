"""diffenc fit-head and diffenc evaluate --likelihood on a tiny model: what is printed, written and refused."""

import json
import math

import pytest

from diffenc_ct.calibration import Tightness
from diffenc_ct.cli import main

TINY = (
    "--network-options width=8 layers=1 --encoder-network-options width=8 layers=1 --steps 4 "
    "--batch-size 16 --save-every 4 --eval-examples 30 --device cpu --quiet"
).split()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("likelihood") / "run"
    assert main(["train", "--data", "swirl", "--run", str(folder), *TINY]) == 0
    return folder


def evaluate(run, *more):
    assert main(["evaluate", str(run), "--examples", "6", *more]) == 0
    return json.loads((run / "likelihood.json").read_text())


def test_fit_head_then_every_bound(run, capsys):
    before = evaluate(run, "--likelihood", "ode")
    assert [row["name"] for row in before["rows"]] == ["ODE, tied heads, K = 1"]
    assert main(["fit-head", str(run), "--steps", "5"]) == 0
    assert "loss per dimension" in capsys.readouterr().out
    found = evaluate(run, "--likelihood", "both")
    out = capsys.readouterr().out
    names = [row["name"] for row in found["rows"]]
    assert names[:2] == ["ELBO, eta = 1", "ELBO, eta*"] and len(names) == 4
    for row in found["rows"]:
        assert row["name"] in out and row["bounds"] in out
        assert len(row["bits_per_dimension"]) == 6
        assert math.isclose(row["mean"], sum(row["bits_per_dimension"]) / 6, rel_tol=1e-6)
    assert found["rows"][3]["name"].startswith("ODE, paired heads")
    assert found["rows"][3]["standard_errors"]["evaluations"] > 10
    assert set(found["gain"]) == {"seen", "seen_error", "predicted", "predicted_error"}
    fitted = Tightness.load(run / "tightness.json")
    unit = fitted.dimensions * math.log(2)
    assert math.isclose(found["gain"]["predicted"], fitted.gain / unit)
    assert f"{found['gain']['predicted']:.5f}" in out
    gap = found["gap"]
    assert math.isclose(gap["at_one"] - gap["at_optimal"], fitted.gain / unit, abs_tol=1e-9)
    best, second = sorted(found["rows"], key=lambda row: row["mean"])[:2]
    assert (
        f"lowest: {best['name']}, below {second['name']} by {second['mean'] - best['mean']:.5f}"
        in out
    )


def test_depths_by_importance_are_those_of_the_bounds(run, capsys):
    """Other draws of the same bound; a table without bounds has nothing to draw."""
    even, dense = (
        evaluate(run, "--likelihood", "elbo", "--depths", depths)["rows"][0]["mean"]
        for depths in ("low-discrepancy", "importance")
    )
    assert dense != even and math.isclose(dense, even, rel_tol=0.5)
    capsys.readouterr()
    refused = ["--likelihood", "ode", "--depths", "importance"]
    assert main(["evaluate", str(run), "--examples", "6", *refused]) == 2
    assert "--depths importance has no effect here: it is of bounds" in capsys.readouterr().err


def test_the_optimal_noise_level_is_fitted_once(run, capsys):
    path = run / "tightness.json"
    path.unlink(missing_ok=True)
    command = ["evaluate", str(run), "--noise-level", "optimal", "--examples", "6"]
    assert main(command) == 0
    written = path.read_bytes()
    assert main(command) == 0
    assert (
        path.read_bytes() == written and capsys.readouterr().out.count("noise level optimal") == 2
    )


def test_a_head_of_other_weights_is_refused(run, capsys):
    assert main(["fit-head", str(run), "--steps", "1", "--weights", "raw"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(run), "--likelihood", "ode", "--examples", "3"]) == 2
    assert "other weights" in capsys.readouterr().err


def test_unknown_words_are_one_line(run, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", str(run), "--likelihood", "sde"])


def test_an_image_that_cannot_be_solved_is_nan_and_counted(run, capsys):
    """With a limit between what the images need, some fail; with one step, all do, and the command says so."""
    (run / "head.safetensors").unlink(missing_ok=True)
    flow = ["evaluate", str(run), "--examples", "6", "--likelihood", "ode", "--device", "cpu"]
    assert main(flow) == 0
    whole = json.loads((run / "likelihood.json").read_text())["rows"][0]
    assert whole["failed"] == {}
    capsys.readouterr()
    none, every = 1, 300
    while every - none > 1:  # some limit between them is enough for some images
        limit = (none + every) // 2
        code = main([*flow, "--max-steps", str(limit)])
        row = json.loads((run / "likelihood.json").read_text())["rows"][0]
        kept = [v for v in row["bits_per_dimension"] if v is not None and not math.isnan(v)]
        if 0 < len(kept) < 6:
            break
        none, every = (none, limit) if kept else (limit, every)
    out = capsys.readouterr().out
    assert code == 0 and row["failed"] == {"step limit": 6 - len(kept)}
    assert math.isclose(row["mean"], sum(kept) / len(kept), rel_tol=1e-6)
    assert f"{6 - len(kept)} of 6 images could not be solved ({6 - len(kept)} step limit)" in out
    lines = (run / "likelihood.csv").read_text().splitlines()
    assert lines[0] == 'image,"ODE, tied heads, K = 1"' and len(lines) == 7
    assert sum(line.endswith(",nan") for line in lines) == 6 - len(kept)
    assert main([*flow, "--max-steps", "1"]) == 1
    assert "6 of 6 images could not be solved" in capsys.readouterr().out


def test_bits_per_dimension_of_every_image(run, tmp_path):
    """In a CSV with a row an image, and in the JSON; their mean is the mean that is reported."""
    out = tmp_path / "e.json"
    assert (
        main(["evaluate", str(run), "--examples", "7", "--out", str(out), "--device", "cpu"]) == 0
    )
    written = json.loads(out.read_text())
    names, *rows = (line.split(",") for line in out.with_suffix(".csv").read_text().splitlines())
    assert names == ["image", "total", "reconstruction", "diffusion", "latent"]
    assert [row[0] for row in rows] == [str(i) for i in range(7)]
    for k, name in enumerate(names[1:], 1):
        values = [float(row[k]) for row in rows]
        assert values == written["each_image"][name]
        mean = written["bits_per_dimension"][name]["mean"]
        assert math.isclose(sum(values) / 7, mean, rel_tol=1e-6, abs_tol=1e-12)
