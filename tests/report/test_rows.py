"""Rows of bounds and their differences, and curves read from a run's folder."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffenc_ct.report.metrics import MOST, curve, read_metrics
from diffenc_ct.report.rows import Row, difference
from diffenc_ct.training.folder import COLUMNS
from tests.strategies import normal, seeds


def row(name, values, status=()):
    return Row(name, torch.as_tensor(values, dtype=torch.float64), "", {}, list(status))


@given(seeds, st.integers(2, 40))
def test_a_row_is_the_mean_over_its_images_and_its_standard_error(seed, n):
    values = normal(seed, n)
    found = row("a", values)
    assert found.mean == pytest.approx(float(np.mean(values.numpy())))
    assert found.error == pytest.approx(float(np.std(values.numpy(), ddof=1)) / math.sqrt(n))


@given(seeds, st.integers(2, 40), st.floats(-2, 2))
def test_a_difference_is_taken_image_by_image(seed, n, shift):
    """What both have in common is in neither its mean nor its error, whatever the spread of the images."""
    common, own = 100 * normal(seed, n), 0.01 * normal(seed + 1, n)
    found = difference(row("one", common + own + shift), row("other", common))
    assert found.mean == pytest.approx(shift + own.mean().item(), abs=1e-9)
    assert found.error == pytest.approx(own.std().item() / math.sqrt(n), rel=1e-6)
    back = difference(row("other", common), row("one", common + own + shift))
    assert back.mean == pytest.approx(-found.mean, abs=1e-9)
    assert found.name == "one, less other"
    assert difference(row("same", common), row("same", own)).name == "same"


def test_a_difference_is_of_the_images_that_both_have():
    one = row("one", [1.0, math.nan, 3.0, 5.0], ["ok", "max_steps", "ok", "ok"])
    other = row("other", [0.0, 1.0, math.nan, 1.0], ["ok", "ok", "underflow", "ok"])
    found = difference(one, other)
    assert len(found.solved) == 2 and found.mean == 2.5 and sum(found.failures.values()) == 2
    assert one.failures == {"max_steps": 1} and one.mean == 3.0
    assert (
        one.plain["failed"] == {"max_steps": 1}
        and one.plain["standard_errors"]["images"] == one.error
    )
    assert math.isnan(row("a", [1.0]).error)


def written(path, rows):
    lines = [",".join(COLUMNS)]
    lines += [",".join(str(each.get(name, "")) for name in COLUMNS) for each in rows]
    path.write_text("\n".join(lines) + "\n")
    return read_metrics(path)


def test_columns_are_read_and_holes_are_holes(tmp_path):
    rows = [
        {"step": 2, "bpd": 4.0},
        {"step": 4, "bpd": 3.0, "test_bpd": 3.5},
        {"step": 6, "bpd": "nan"},
    ]
    found = written(tmp_path / "metrics.csv", rows)
    assert (
        found["step"] == [2, 4, 6]
        and found["bpd"][:2] == [4.0, 3.0]
        and math.isnan(found["bpd"][2])
    )
    test = curve(found, "test_bpd")
    assert (test.x, test.y) == ([4.0], [3.5])
    assert read_metrics(tmp_path / "none.csv") == {} and not curve({}, "bpd").y


def test_a_row_that_a_crash_cut_off_is_left_out(tmp_path):
    path = tmp_path / "metrics.csv"
    written(path, [{"step": 2, "bpd": 4.0}])
    with open(path, "ab") as file:
        file.write(b"\xff\xfe,1\n4")
    found = read_metrics(path)
    assert found["step"] == [2, 4] and math.isnan(found["bpd"][1])
    path.write_bytes(b"")
    assert curve(read_metrics(path), "bpd").y == []


@given(st.integers(1, 1500))
def test_a_long_curve_is_of_means_of_neighbours(n):
    columns = {
        "step": [float(i) for i in range(n)],
        "bpd": [2.0 * i + 1 for i in range(n)],
        "error": [0.1] * n,
    }
    found = curve(columns, "bpd", error="error")
    assert len(found.y) <= MOST and (len(found.y) == n or n > MOST)
    assert [2 * x + 1 for x in found.x] == pytest.approx(found.y)  # means of both lie on the line
    size = math.ceil(n / MOST)
    assert found.y[0] == pytest.approx(np.mean(columns["bpd"][:size]))
    assert (found.error is not None) == (n <= MOST)  # the error of a mean is another
