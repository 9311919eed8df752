"""A browser without a window, for tests of pages: Debian's chromium, or Chrome, with its chromedriver.

`browser` is a fixture of every test (tests/conftest.py); where no browser is installed the test is skipped. Nothing
outside the machine can be reached from it, and what a page asked for is told by `requests`.
"""

import base64
import json
import shutil
from pathlib import Path

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_WIDER = """
const width = arguments[0];
const inside = e => { for (let p = e.parentElement; p; p = p.parentElement)
  if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(p).overflowX)) return true; return false; };
return [...document.querySelectorAll('body *')]
  .filter(e => e.getBoundingClientRect().right > width + 1 && !inside(e))
  .map(e => e.tagName.toLowerCase() + (e.id && '#' + e.id) + ': ' + e.textContent.trim().slice(0, 40));
"""


class Browser:
    """One window.

    Args:
        driver: of selenium.
    """

    def __init__(self, driver):
        self.driver = driver
        self.page, self.width = "", 0

    def open(self, page, *, width=1280, height=900, dark=False, media="screen"):
        """Load a page.

        Args:
            page: a file's path, or an address.
            width: of the window, in pixels of CSS.
            height: of the window.
            dark: what the page is told that its reader prefers.
            media: screen or print.
        """
        shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._tell("Emulation.setDeviceMetricsOverride", **shape)
        self._tell("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.page = page.resolve().as_uri() if isinstance(page, Path) else page
        self.width = width
        for log in ("browser", "performance"):
            self.driver.get_log(log)  # what was before is no business of this page
        self.driver.get(self.page)

    def run(self, script, *arguments):
        """What a piece of JavaScript returns; it sees its arguments as arguments[0], ..."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector):
        """Elements by a selector of CSS."""
        return self.driver.find_elements("css selector", selector)

    def point_at(self, element):
        """Put the pointer on an element, brought into sight before."""
        from selenium.webdriver import ActionChains

        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(self.driver).move_to_element(element).perform()

    def problems(self):
        """What the console has said since the page was opened: warnings, errors."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """Addresses that were asked for since the page was opened, but for the page's own and data: URIs."""
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"].endswith("BeSent")]
        return [url for url in asked if url != self.page and not url.startswith("data:")]

    def scrolls_sideways(self):
        """Whether the page is wider than the window was asked to be: a phone's grows with what is too wide for it."""
        return self.run("return document.documentElement.scrollWidth") > self.width

    def too_wide(self):
        """Elements that reach beyond the window and are in no box that scrolls, in words."""
        return self.run(_WIDER, self.width)

    def screenshot(self, path):
        """The whole page as a PNG file; returns its path."""
        found = self._tell("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def _tell(self, command, **parameters):
        return self.driver.execute_cdp_cmd(command, parameters)


@pytest.fixture(scope="session")
def browser():
    """A Browser."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (
        "headless=new",
        "no-sandbox",  # as root there is none
        "disable-dev-shm-usage",
        "disable-gpu",
        "hide-scrollbars",
        "host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE localhost",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield Browser(window)
    window.quit()
