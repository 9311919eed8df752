"""Charts draw the numbers that they are given, where they belong, and say them."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from diffenc_ct.report.charts import HEIGHT, WIDTH, Axis, Chart, Series, number
from tests.refusals import refused

values = st.floats(-1e6, 1e6).map(lambda v: round(v, 4))
pairs = st.lists(st.tuples(values, values), min_size=1, max_size=12)
ranges = st.tuples(st.floats(-1e5, 1e5), st.floats(1e-3, 1e5)).map(lambda p: (p[0], p[0] + p[1]))


def drawn(chart):
    return ElementTree.fromstring(chart.svg)


def circles(chart):
    """Place and words of every point."""
    found = drawn(chart).findall(".//circle")
    return [(float(c.get("cx")), float(c.get("cy")), c.find("title").text) for c in found]


@given(pairs)
def test_every_point_is_drawn_once_in_order_and_says_its_numbers(points):
    x, y = (list(column) for column in zip(*points, strict=True))
    chart = Chart("loss", "step", "bits", [Series("a", x, y)])
    found = circles(chart)
    assert len(found) == len(points)
    for (a, b, words), (u, v) in zip(found, points, strict=True):
        assert words == f"a\nstep: {number(u)}\nbits: {number(v)}"
        assert 0 <= a <= WIDTH and 0 <= b <= HEIGHT
    for (a, b, _), (u, v) in zip(found, points, strict=True):
        for (c, d, _), (w, z) in zip(found, points, strict=True):
            assert (a <= c) if u < w else (a >= c)
            assert (b >= d) if v < z else (b <= d)  # up is less in SVG
    assert [row[1:3] for row in chart.rows] == [[number(u), number(v)] for u, v in points]


@given(ranges, st.booleans())
def test_an_axis_is_linear_in_its_numbers_or_their_logarithms(ends, log):
    low, high = (abs(end) + 1e-3 for end in ends) if log else ends
    assume(high > low * 1.001 if log else True)
    axis = Axis(low, high, 200, 20, log)
    assert axis.place(low) == pytest.approx(200) and axis.place(high) == pytest.approx(20)
    middle = math.sqrt(low * high) if log else (low + high) / 2
    assert axis.place(middle) == pytest.approx(110)
    assert axis.place(high + abs(high) + 1) == pytest.approx(20)  # held within


@given(ranges)
def test_ticks_are_round_and_as_many_as_can_be_read(ends):
    ticks = Axis(*ends, 0, 100).ticks
    step = ticks[1] - ticks[0]
    assert 3 <= len(ticks) <= 7
    assert all(
        b - a == pytest.approx(step, rel=1e-6) for a, b in zip(ticks, ticks[1:], strict=False)
    )
    assert re.fullmatch(r"[125]\.0+e.*", f"{step:.3e}")
    slack = 1e-9 * (ends[1] - ends[0])
    assert ends[0] - slack <= ticks[0] and ticks[-1] <= ends[1] + slack


@given(st.floats(1e-6, 1e3), st.floats(11, 1e9))
def test_ticks_of_ratios(low, ratio):
    ticks = Axis(low, low * ratio, 0, 100, log=True).ticks
    assert 1 <= len(ticks) <= 9
    assert all(re.fullmatch(r"[125]\.0+e.*", f"{tick:.3e}") for tick in ticks)


def test_what_is_not_finite_is_a_gap():
    y = [1.0, math.nan, 2.0, 3.0, math.inf]
    chart = Chart("loss", "step", "bits", [Series("a", [0, 1, 2, 3, 4], y)])
    assert len(circles(chart)) == 3
    (line,) = [p for p in drawn(chart).iter("path") if "line" in p.get("class", "")]
    assert line.get("d").count("M") == 2 and line.get("d").count("L") == 1
    assert not [
        p
        for p in drawn(Chart("", "", "", [Series("", [0, 1], [1, 2], line=False)])).iter("path")
        if p.get("class") == "line"
    ]


def test_bars_are_one_standard_error_to_each_side():
    chart = Chart("loss", "t", "bits", [Series("a", [0, 1], [1.0, 3.0], [0.5, 0.25])])
    (_, first, words), (_, second, _) = circles(chart)
    unit = (first - second) / 2  # of y, in the drawing
    bars = [p.get("d") for p in drawn(chart).iter("path") if p.get("class") == "bar"]
    for bar, place, error in zip(bars, (first, second), (0.5, 0.25), strict=True):
        low, high = map(float, re.fullmatch(r"M[\d.]+ ([\d.]+)V([\d.]+)", bar).groups())
        assert (low - place, place - high) == (pytest.approx(error * unit, abs=0.2),) * 2
    assert words.endswith("bits: 1 ± 0.5")


def test_ratios_are_drawn_where_they_help():
    """Only of positive numbers over more than a factor of ten."""
    y = [1.0, 10.0, 100.0]
    one, two, three = (
        place for _, place, _ in circles(Chart("", "", "", [Series("", [0, 1, 2], y)], log=True))
    )
    assert one - two == pytest.approx(two - three, abs=0.2)
    for others in ([-1.0, 10.0, 100.0], [1.0, 2.0, 3.0]):
        shown = circles(Chart("", "", "", [Series("", [0, 1, 2], others)], log=True))
        plain = circles(Chart("", "", "", [Series("", [0, 1, 2], others)]))
        assert shown == plain


def test_zero_is_in_sight_where_it_is_asked_for():
    series = [Series("", [0, 1], [5.0, 6.0])]
    assert "0" in [t.text for t in drawn(Chart("", "", "", series, from_zero=True)).iter("text")]
    assert "0" not in [
        t.text
        for t in drawn(Chart("", "", "x", series)).iter("text")
        if t.get("text-anchor") == "end"
    ]


@pytest.mark.parametrize("text", ["<b>&", '"><script>', "a'b"])
def test_texts_are_escaped(text):
    chart = Chart(text, text, text, [Series(text, [0.0], [1.0])])
    root = drawn(chart)  # not to be parsed where it were not
    assert root.get("aria-label") == text and text in root.find("desc").text
    assert not root.findall(".//b") and not root.findall(".//script")


def test_it_is_described_for_who_does_not_see_it():
    chart = Chart("Loss (bits)", "step", "loss", [Series("run", [1, 2], [2.0, 1.5])])
    assert chart.description == "Loss (bits), against step. run: 2 points, loss from 2 to 1.5."
    assert drawn(chart).get("role") == "img" and drawn(chart).find("desc").text == chart.description


def test_refusals():
    with refused(ValueError, "'a': 2 places, 1 numbers"):
        Series("a", [1, 2], [1.0])
    with refused(ValueError, "'a'"):
        Series("a", [1, 2], [1.0, 2.0], [0.1])
    with refused(ValueError, "'empty' has no finite number"):
        Chart("empty", "", "", [Series("", [0.0], [math.nan])]).svg  # noqa: B018
