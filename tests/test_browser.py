"""The browser of the tests notices what pages must not do."""

import pytest

GOOD = "<p>well</p><div style='overflow-x: auto'><div style='width: 900px'>wide</div></div>"
BAD = """
<div id=wide style='width: 900px'>too wide</div><img src='http://127.0.0.1:9/x.png'>
<script>console.error('so it is')</script>
"""
DARK = "@media (prefers-color-scheme: dark) { p { color: rgb(1, 2, 3) } } @media print { p { color: rgb(4, 5, 6) } }"


@pytest.fixture
def page(tmp_path):
    def make(body):
        path = tmp_path / "page.html"
        head = "<meta name=viewport content='width=device-width'><link rel=icon href='data:,'>"
        path.write_text(f"<!DOCTYPE html>{head}<style>{DARK}</style>{body}")
        return path

    return make


def test_a_page_that_is_well(browser, page, tmp_path):
    browser.open(page(GOOD), width=360)
    assert not browser.problems() and not browser.requests()
    assert not browser.scrolls_sideways() and not browser.too_wide()
    assert browser.screenshot(tmp_path / "shots" / "page.png").read_bytes()[1:4] == b"PNG"


def test_a_page_that_is_not(browser, page):
    browser.open(page(BAD), width=360)
    assert browser.requests() == ["http://127.0.0.1:9/x.png"]
    assert any("so it is" in line for line in browser.problems())
    assert browser.scrolls_sideways() and browser.too_wide() == ["div#wide: too wide"]
    browser.open(page(GOOD), width=360)
    assert not browser.problems() and not browser.requests()


def test_what_the_reader_prefers(browser, page):
    colour = "return getComputedStyle(document.querySelector('p')).color"
    for shown, options in {
        "rgb(0, 0, 0)": {},
        "rgb(1, 2, 3)": {"dark": True},
        "rgb(4, 5, 6)": {"media": "print"},
    }.items():
        browser.open(page(GOOD), **options)
        assert browser.run(colour) == shown
