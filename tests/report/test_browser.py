"""The page of a run as a reader has it: in a browser, light and dark, on a phone, on paper."""

import re

import jaxtyping
import pytest

from diffenc_ct.cli import main

SIZES = {"desktop": {"width": 1280}, "phone": {"width": 360, "height": 780}}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Of a run on digits, whose name is long, and of a packaged model."""
    folder = tmp_path_factory.mktemp("browser")
    run = folder / "a-run-whose-name-is-much-longer-than-any-column-of-a-table-on-a-phone"
    words = (
        "train --preset digits-vdm --steps 6 --batch-size 8 --eval-examples 8 --quiet --device cpu"
    )
    assert main([*words.split(), "--log-every", "1", "--eval-every", "2", "--run", str(run)]) == 0
    few = "--examples 12 --draws 2 --device cpu".split()
    jaxtyping.config.update("jaxtyping_disable", True)  # as tests/report/test_page.py
    assert main(["report", str(run), "digits-diffenc", *few, "-o", str(folder / "page.html")]) == 0
    jaxtyping.config.update("jaxtyping_disable", False)
    return folder / "page.html"


@pytest.fixture(params=[False, True], ids=["light", "dark"])
def dark(request):
    return request.param


@pytest.mark.parametrize("size", SIZES)
def test_it_fits_and_asks_for_nothing(browser, page, size, dark, tmp_path):
    browser.open(page, dark=dark, **SIZES[size])
    assert browser.problems() == [] and browser.requests() == []
    assert not browser.scrolls_sideways() and browser.too_wide() == []
    assert browser.screenshot(tmp_path / "screenshots" / f"{size}.png").stat().st_size > 50_000
    names = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith("data:") for name in names)


def test_every_chart_and_picture_has_a_size_and_words(browser, page):
    browser.open(page)
    charts = browser.find("svg.chart")
    assert len(charts) >= 9
    for chart in charts:
        assert chart.size["width"] > 250 and chart.size["height"] > 150
        assert chart.get_attribute("aria-label") and chart.get_attribute("role") == "img"
    for picture in browser.find("img"):
        assert picture.get_attribute("naturalWidth") != "0" and picture.size["width"] > 250
        assert picture.get_attribute("alt")


def test_the_pointer_is_told_numbers(browser, page):
    browser.open(page)
    tip = browser.find("#tip")[0]
    assert not tip.is_displayed()
    for chart in browser.find("#training svg.chart")[:2]:
        point = chart.find_elements("css selector", "circle")[2]
        browser.point_at(point)
        assert tip.is_displayed()
        label = browser.run("return arguments[0].getAttribute('aria-label')", chart).split(" (")[0]
        assert re.search(r"step: \d+\n.+: [\d.e-]+", tip.text), (label, tip.text)
        box = browser.run("return arguments[0].getBoundingClientRect().toJSON()", tip)
        assert 0 <= box["left"] and box["right"] <= 1280 and box["top"] >= 0
    browser.point_at(browser.find("h1")[0])
    assert not tip.is_displayed()


def test_it_can_be_read_in_the_dark(browser, page, dark):
    """Ink and paper change places, and stay far apart; so do the first two series."""
    browser.open(page, dark=dark)
    luminance = """
    const rgb = getComputedStyle(document.querySelector(arguments[0]))[arguments[1]].match(/[\\d.]+/g).map(Number);
    const linear = v => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
    return 0.2126 * linear(rgb[0]) + 0.7152 * linear(rgb[1]) + 0.0722 * linear(rgb[2]);
    """
    paper = browser.run(luminance, "body", "backgroundColor")
    assert (paper < 0.1) == dark

    def contrast(selector, name):
        other = browser.run(luminance, selector, name)
        return (max(paper, other) + 0.05) / (min(paper, other) + 0.05)

    assert contrast("p", "color") > 7 and contrast("svg text", "fill") > 4.5
    assert contrast(".series.c0 circle", "fill") > 3 and contrast(".series.c1 circle", "fill") > 3


def test_on_paper_nothing_is_hidden_behind_scrolling(browser, page):
    browser.open(page, width=1000, media="print")
    boxes = "return [...document.querySelectorAll('.box')].map(e => getComputedStyle(e).overflowX)"
    assert set(browser.run(boxes)) == {"visible"}
    assert not browser.find("nav")[0].is_displayed()
