"""A built page as a test reads it: its anchors, its links, what it loads, its words."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

# Attributes by which a page makes the browser fetch something.
LOADED = {
    "script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src",
    "embed": "src", "object": "data", "use": "href",
}  # fmt: skip


@dataclass
class Page:
    """What a page holds: ids of elements, links, addresses that it loads, formulas, and the words outside of code."""

    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    formulas: int = 0
    text: str = ""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self.silent = 0

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.page.ids += [found["id"]] if found.get("id") else []
        if tag == "a" and found.get("href") is not None:
            self.page.links.append(found["href"])
        if tag in LOADED and found.get(LOADED[tag]):
            self.page.loads.append(found[LOADED[tag]])
        if tag == "link" and "canonical" not in (found.get("rel") or ""):
            self.page.loads.append(found.get("href") or "")
        self.page.formulas += tag == "math"
        self.silent += tag in ("code", "pre", "script", "style")

    def handle_endtag(self, tag):
        self.silent -= tag in ("code", "pre", "script", "style")

    def handle_data(self, data):
        if not self.silent:
            self.page.text += data


def read(path: Path) -> Page:
    """A page from its file. Of a file that is shown (folder _files) only the anchors of its lines are read."""
    if "_files" in path.parts:
        return Page(ids=re.findall(r'id="(line-\d+)"', path.read_text(encoding="utf-8")))
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader.page


def read_all(folder: Path) -> dict[str, Page]:
    """Every page of a site, by its path."""
    return {
        path.relative_to(folder).as_posix(): read(path) for path in sorted(folder.rglob("*.html"))
    }


def broken(pages: dict[str, Page], folder: Path) -> list[str]:
    """Links that lead to no page, no file or no anchor, as "page: link"."""
    found = []
    for name, page in pages.items():
        for link in page.links:
            if link.startswith(("http:", "https:", "mailto:")):
                continue
            path, _, anchor = link.partition("#")
            target = (
                ((folder / name).parent / path).resolve() if path else (folder / name).resolve()
            )
            known = (
                pages.get(target.relative_to(folder.resolve()).as_posix())
                if target.is_file()
                else None
            )
            if not target.is_file() or (anchor and (known is None or anchor not in known.ids)):
                found.append(f"{name}: {link}")
    return found
