"""Files of the project that a page links to, as pages of the site: the text with its colours, a line an anchor.

A link `[name](../folder/file.py)` works on the code host and here. Where the link's text is the dotted name of
something that the file defines, it leads to that line.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.highlighting import PygmentsBridge
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "_files"
_LANGUAGES = {".py": "python", ".json": "json", ".toml": "toml", ".cff": "yaml"}
_log = logging.getLogger(__name__)


def page_of(path: str) -> str:
    """The page that shows a file of the project."""
    return f"{FOLDER}/{path}"


def shown(app: Sphinx) -> dict[str, set[str]]:
    """The files that each page links to, kept with what Sphinx knows of the pages."""
    env = app.env
    if not hasattr(env, "shown_files"):
        env.shown_files = {}  # type: ignore[attr-defined]
    found: dict[str, set[str]] = env.shown_files
    return found


@cache
def line_of(path: str, name: str) -> int | None:
    """The line of a file where a dotted name is defined, by its longest ending that is; None where nothing is."""
    if not path.endswith(".py"):
        return None
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    parts = name.split(".")
    for begin in range(len(parts)):
        line = _line(tree, parts[begin:])
        if line is not None:
            return line
    return None


def _line(node: ast.AST, parts: list[str]) -> int | None:
    for child in ast.iter_child_nodes(node):
        if parts[0] in _defines(child):
            return getattr(child, "lineno", None) if len(parts) == 1 else _line(child, parts[1:])
    return None


def _defines(node: ast.AST) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def link_files(app: Sphinx, doctree: nodes.document) -> None:
    """Links to files, which Markdown's reader takes for downloads, lead to their pages."""
    docname = app.env.docname
    for node in list(doctree.findall(addnodes.download_reference)):
        target = (Path(app.srcdir) / docname).parent / node["reftarget"].partition("#")[0]
        path = target.resolve()
        if not path.is_relative_to(ROOT):
            _log.warning("%s lies outside of the project", path, location=node)
            continue
        name = path.relative_to(ROOT).as_posix()
        uri = app.builder.get_relative_uri(docname, page_of(name))
        line = line_of(name, node.astext())
        uri += f"#line-{line}" if line else ""
        node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))


def collect(app: Sphinx, doctree: nodes.document) -> None:
    """Which files this page leads to, by links of its own and by those of `source_of`."""
    uris = [node.get("refuri", "") for node in doctree.findall(nodes.reference)]
    paths = [uri.partition(f"{FOLDER}/")[2].split("#")[0].removesuffix(".html") for uri in uris]
    shown(app)[app.env.docname] = {path for path in paths if path}


def source_of(domain: str, info: dict[str, Any]) -> str | None:
    """`linkcode_resolve`: where a documented name is defined, seen from a page of the folder api."""
    if domain != "py" or info["module"] not in sys.modules:
        return None
    found: Any = sys.modules[info["module"]]
    for part in info["fullname"].split("."):
        found = (
            inspect.getattr_static(found, part, None)
            if inspect.isclass(found)
            else getattr(found, part, None)
        )
    found = inspect.unwrap(getattr(found, "fget", None) or getattr(found, "__func__", found))
    try:
        path = Path(inspect.getsourcefile(found) or "").resolve()
        line = inspect.getsourcelines(found)[1]
    except (TypeError, OSError):
        return None
    if not path.is_relative_to(ROOT):
        return None
    return f"../{page_of(path.relative_to(ROOT).as_posix())}.html#line-{line}"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{path}</title>
<link rel="stylesheet" href="{root}_static/pygments.css"><link rel="stylesheet" href="{root}_static/site.css">
</head><body class="file"><p><a href="{root}index.html">diffenc_ct</a> / {path}</p>
{text}</body></html>
"""


def write_files(app: Sphinx, exception: Exception | None) -> None:
    """A page for every file that was linked to, without the site's frame: text, colours, an anchor a line."""
    if exception is not None or app.builder.format != "html":
        return
    colours = PygmentsBridge("html")  # classes only: the colours are in pygments.css
    for path in sorted(set().union(*shown(app).values())):
        text = (ROOT / path).read_text(encoding="utf-8")
        language = _LANGUAGES.get(Path(path).suffix, "text")
        body = colours.highlight_block(text, language, lineanchors="line")
        page = Path(app.outdir, f"{page_of(path)}.html")
        page.parent.mkdir(parents=True, exist_ok=True)
        root = "../" * (path.count("/") + 1)
        page.write_text(_PAGE.format(path=path, root=root, text=body), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("doctree-read", link_files, priority=400)  # before Sphinx copies downloads
    app.connect("doctree-read", collect, priority=600)  # after linkcode
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": False, "parallel_write_safe": False}
