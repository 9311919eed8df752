"""The site builds without a warning, its links lead somewhere, every name is there, nothing is loaded."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import diffenc_ct as dc
from diffenc_ct.cli import COMMANDS
from tests.docs.pages import broken, read, read_all

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts]


@pytest.fixture(scope="module")
def pages(site):
    return read_all(site)


def test_every_link_leads_to_a_page_and_an_anchor(site, pages):
    assert sum(len(page.links) for page in pages.values()) > 2000
    assert not broken(pages, site)


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    text = '<a href="b.html#here">x</a><a href="b.html#there">x</a><a href="c.html">x</a><a href="#own">x</a>'
    (tmp_path / "a.html").write_text(text)
    (tmp_path / "b.html").write_text('<p id="here"></p>')
    found = broken(read_all(tmp_path), tmp_path)
    assert found == ["a.html: b.html#there", "a.html: c.html", "a.html: #own"]


def test_every_source_is_a_page(pages):
    for path in SOURCES:
        name = path.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert name in pages


def public_names():
    """The root's names, and those of every room that lists them, by the spelling that a user writes."""
    found = [
        f"diffenc_ct.{name}"
        for name in dc.__all__
        if name not in ("adapters", "coding", "networks", "worlds")
    ]
    for room in pkgutil.iter_modules(dc.__path__):
        module = importlib.import_module(f"diffenc_ct.{room.name}")
        found += [f"{module.__name__}.{name}" for name in getattr(module, "__all__", ())]
    return found


def test_every_public_name_has_an_anchor(pages):
    anchors = {each for name, page in pages.items() if name.startswith("api/") for each in page.ids}
    names = public_names()
    assert len(names) > 200
    assert not [name for name in names if name not in anchors]


def test_the_four_rooms_of_the_root_have_their_pages(pages):
    anchors = {each for name, page in pages.items() if name.startswith("api/") for each in page.ids}
    assert {
        f"module-diffenc_ct.{room}" for room in ("adapters", "coding", "networks", "worlds")
    } <= anchors


def test_nothing_is_loaded_from_elsewhere(site, pages):
    for name, page in pages.items():
        assert not [each for each in page.loads if re.match(r"(https?:)?//", each)], name
    for path in site.rglob("*.css"):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)]*", text), path
    wanted = r"(?:(?:import|fetch|importScripts)\s*\(?|\.src\s*=)\s*['\"`](?:https?:)?//[^'\"`]*"
    for path in site.rglob("*.js"):
        assert not re.findall(wanted, path.read_text(encoding="utf-8")), path


def test_every_formula_is_mathml(pages):
    """As many as the sources have, and no command of TeX is left to be read."""
    for path in SOURCES:
        text = re.sub(
            r"```.*?```|~~~.*?~~~|`[^`\n]+`", "", path.read_text(encoding="utf-8"), flags=re.S
        )
        written = len(re.findall(r"\$\$.+?\$\$|(?<![\\$])\$[^$\n]+\$", text, flags=re.S))
        page = pages[path.relative_to(ROOT / "docs").with_suffix(".html").as_posix()]
        assert page.formulas >= written, path
        assert not re.findall(r"\\[a-zA-Z]{2,}|\$\$", page.text), path
    assert pages["theory.html"].formulas > 900


def test_the_command_line_has_every_commands_help(pages, site):
    text = (site / "command_line.html").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"usage: diffenc {command}" in re.sub(r"<[^>]+>", "", text)
        assert f"diffenc-{command}" in pages["command_line.html"].ids


def test_every_theorem_leads_to_its_proofs_test(pages):
    links = pages["theory.html"].links
    theorems = len(
        re.findall(r"^### ", (ROOT / "docs" / "theory.md").read_text(encoding="utf-8"), re.M)
    )
    assert (
        sum(link.startswith("_files/tests/theory/test_theory.py") for link in links)
        >= theorems
        > 100
    )
    assert sum(link.startswith("_files/diffenc_ct/") and "#line-" in link for link in links) > 100


def test_a_link_to_code_leads_to_the_line_of_its_definition(site, pages):
    (link,) = {each for each in pages["theory.html"].links if "_files/diffenc_ct/schedules.py.html#line-" in each
               and "snr" in _text_of(site / "theory.html", each)}  # fmt: skip
    line = int(link.rpartition("-")[2])
    source = (ROOT / "diffenc_ct" / "schedules.py").read_text(encoding="utf-8").splitlines()
    assert "def snr" in source[line - 1]


def _text_of(path, link):
    found = re.search(
        rf'href="{re.escape(link)}"[^>]*>(.*?)</a>', path.read_text(encoding="utf-8"), re.S
    )
    return re.sub(r"<[^>]+>", "", found[1]) if found else ""


def test_a_page_is_read_as_it_is_written(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(
        r'<p id="a">\frac</p><code>\frac</code><math></math><link rel="stylesheet" href="https://x/y.css">'
    )
    page = read(path)
    assert (page.ids, page.formulas, page.loads, page.text) == (
        ["a"],
        1,
        ["https://x/y.css"],
        r"\frac",
    )
