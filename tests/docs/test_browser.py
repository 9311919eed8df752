"""Three pages as a reader sees them: no error, formulas with a height, no page wider than a phone, light and dark."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("index", "theory", "which_number", "api/sampling")
SCREENSHOTS = ROOT / "docs" / "_build" / "screenshots"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_readable(browser, site, name, width, dark):
    browser.open(site / f"{name}.html", width=width, dark=dark)
    assert not browser.problems()
    assert all(url.startswith("file:") for url in browser.requests())
    assert not browser.scrolls_sideways(), browser.too_wide()
    background, colour = (
        browser.run(f"return getComputedStyle(document.body).{each}")
        for each in ("backgroundColor", "color")
    )
    assert (_lightness(background) < _lightness(colour)) == dark
    if width == 1280:
        browser.screenshot(
            SCREENSHOTS / f"{name.replace('/', '-')}-{'dark' if dark else 'light'}.png"
        )


def _lightness(colour):
    """Of "rgb(r, g, b)": the sum of the three."""
    return sum(float(each) for each in colour.partition("(")[2].rstrip(")").split(",")[:3])


def test_formulas_are_drawn(browser, site):
    browser.open(site / "theory.html")
    heights = browser.run(
        "return [...document.querySelectorAll('math')].map(e => e.getBoundingClientRect().height)"
    )
    assert len(heights) > 900 and min(heights) > 5
    fractions = browser.run(
        "return [...document.querySelectorAll('div.formula mfrac')].map(e => e.getBoundingClientRect().height)"
    )
    assert len(fractions) > 100 and min(fractions) > 15  # two lines, and not one after the other


def test_the_search_finds_a_function(browser, site):
    """Sphinx's index is a script, which works from a file, too."""
    browser.open(site / "search.html")
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert "log_likelihood" in index and "Exponential" in index
    assert browser.run("return typeof Search") == "object"
