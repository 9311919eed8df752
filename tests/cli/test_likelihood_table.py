"""What the table of `diffenc evaluate --likelihood` compares, and how the flow's divergence is found."""

import argparse
import json
import math

import numpy as np
import pytest
import torch

from diffenc_ct.cli import main
from diffenc_ct.cli.likelihood import _divergence
from diffenc_ct.likelihood import Exact, GaussianProbes, Rademacher
from tests.cli.test_cli import TINY, fails


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table") / "run"
    assert main(["train", "--data", "swirl", "--run", str(folder), *TINY]) == 0
    return folder


def written(run, out, *options):
    """The JSON of `diffenc evaluate` on eight images."""
    arguments = ["--examples", "8", "--device", "cpu", "--out", str(out), *options]
    assert main(["evaluate", str(run), *arguments]) == 0
    return json.loads(out.read_text())


def test_bounds_are_those_of_their_noise_levels_and_the_gain_their_difference(
    run, tmp_path, capsys
):
    """A draw of the table's bounds is sixteen of the plain command's; the gain is taken image by image."""
    table = written(run, tmp_path / "t.json", "--likelihood", "elbo")
    out = capsys.readouterr().out
    rows = {row["name"]: row for row in table["rows"]}
    for name, level in (("ELBO, eta = 1", "1"), ("ELBO, eta*", "optimal")):
        plain = written(run, tmp_path / "e.json", "--draws", "16", "--noise-level", level)
        each = rows[name]["bits_per_dimension"]
        assert each == pytest.approx(plain["each_image"]["total"])
    gain = np.subtract(*(row["bits_per_dimension"] for row in table["rows"]))
    assert table["gain"]["seen"] == pytest.approx(gain.mean(), rel=1e-4)
    error = gain.std(ddof=1) / math.sqrt(8)
    assert table["gain"]["seen_error"] == pytest.approx(error, rel=1e-4)
    assert f"{gain.mean():.5f} ± {error:.5f} seen" in out


@pytest.mark.parametrize("dimensions", [1, 16, 17])
def test_the_divergence_is_exact_up_to_16_dimensions(dimensions):
    images = torch.zeros(2, 1, 1, dimensions)

    def made(kind, given=()):
        words = argparse.Namespace(divergence=kind, probes=3, given=set(given))
        return _divergence(words, images)

    assert made(None) == (Exact() if dimensions <= 16 else Rademacher(3))
    assert made("exact") == Exact() and made("gaussian") == GaussianProbes(3)
    if dimensions <= 16:
        with pytest.raises(ValueError, match="--probes.*no effect.*up to 16 dimensions is exact"):
            made(None, {"probes"})


@pytest.mark.parametrize("which", ["elbo", "ode", "both"])
def test_a_cell_is_a_number_or_a_dash_where_there_is_none(which, run, tmp_path, capsys):
    """Noise, probes, solver and evaluations of each row are those of the JSON; a bound has none but its noise."""
    given = ["--divergence", "rademacher", "--atol", "0.01"] if which != "elbo" else []
    table = written(run, tmp_path / "t.json", "--likelihood", which, *given)
    lines = capsys.readouterr().out.splitlines()
    for row in table["rows"]:
        line = next(line for line in lines if line.startswith(f"{row['name']:<26}"))
        mean, error, *cells = line[26:].split()[:6]
        assert float(mean) == pytest.approx(row["mean"], abs=1e-4)
        assert float(error) == pytest.approx(row["standard_errors"]["images"], abs=1e-4)
        kinds = ("dequantisation", "probes", "solver", "evaluations")
        for kind, cell in zip(kinds, cells, strict=True):
            known = row["standard_errors"].get(kind)
            if known is None:
                assert cell == "-"
            else:
                assert float(cell) == pytest.approx(
                    known, abs=0.051 if kind == "evaluations" else 1e-5
                )
        assert (cells[-1] == "-") == row["name"].startswith("ELBO")


def test_draws_of_real_data_are_refused(tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "--data", "swirl-real", "--run", str(run), *TINY]) == 0
    rows = written(run, tmp_path / "t.json", "--likelihood", "ode", "--atol", "0.01")["rows"]
    assert [row["name"] for row in rows] == ["ODE, tied heads, K = 1"]  # nothing is drawn twice
    capsys.readouterr()
    flow = ["evaluate", run, "--examples", "4", "--device", "cpu", "--likelihood", "ode"]
    line = fails(capsys, *flow, "--draws", "2")
    assert "--draws 2 has no effect here: real data need no dequantisation" in line


def test_a_calibration_of_other_data_is_refused(run, tmp_path, capsys):
    """Also one that does not say which weights it was fitted to."""
    file = tmp_path / "c.json"
    options = ["--depth", "2", "--candidates", "4", "--examples", "16", "--ratio", "dimension"]
    assert main(["calibrate", str(run), *options, "--out", str(file), "--device", "cpu"]) == 0
    plain = json.loads(file.read_text())
    plain |= {"fitted_to": None, "ratio_per_dimension": [[1.5, 1.5, 1.5], [1.5, 1.5, 1.5]]}
    file.write_text(json.dumps(plain))
    capsys.readouterr()
    line = fails(capsys, "evaluate", run, "--calibration", file, "--device", "cpu")
    assert f"{file} has ratios of shape (3,), the run's data (2,): it is another model's" in line


def test_a_gaussian_world_is_verified_against_its_closed_form(tmp_path, capsys):
    """L_inf = 1/2 sum ln (1 + v/sigma^2) from end to end, v of six dimensions from 0.01 to 1; the path KL is one of the
    checks. At so few depths the orders are not the limit's, and the exit code says that something failed."""
    out = tmp_path / "v.json"
    work = ["--deepest", "16", "--draws", "4", "--examples", "64"]
    given = ["--world", "gaussian", "--encoder", "identity", "--out", str(out), "--device", "cpu"]
    assert main(["verify", *given, *work]) == 1
    assert "FAILED: order of L_T - L_inf" in capsys.readouterr().out
    checks = {check["name"]: check for check in json.loads(out.read_text())["checks"]}
    v = np.logspace(-2, 0, 6)
    nats = np.log1p(v * np.exp(8.0)) - np.log1p(v * np.exp(-5.0))
    closed = checks["L_inf: Monte Carlo against closed form"]
    assert closed["expected"] == pytest.approx(nats.mean() / 2 / math.log(2))
    for name in (
        "L_inf: Monte Carlo against closed form",
        "L_inf: path KL (logqp) against Monte Carlo",
    ):
        assert checks[name]["passed"]
