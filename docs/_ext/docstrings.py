"""The project's docstrings, which are plain text with formulas, as reStructuredText.

What a docstring holds: prose; formulas and code, indented; and the sections Args, Attributes, Returns, Raises (an entry
a line, `name: text`, indented further where it goes on) and Example. Everything else in it means itself: `|x|`, `x_`,
`*` are no markup. `Theorem: elbo.step_kl` becomes a link to the theorem.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

FIELDS = {"Args": "param", "Attributes": "", "Raises": "raises", "Returns": "returns"}
_HEADER = re.compile(rf"({'|'.join([*FIELDS, 'Example'])}):")
_ENTRY = re.compile(r"([*\w][\w*, .]*): (.*)")
_THEOREMS = re.compile(r"(Theorems?:) ((?:[a-z]+\.[a-z_0-9]+(?:, | and )?)+)")


def theorem_anchor(name: str) -> str:
    """The anchor of a theorem's heading on the page of the theory."""
    return f"theory.html#{nodes.make_id(name)}"


def inline(text: str) -> str:
    """Prose whose only markup is `code` and the names of theorems."""
    parts = re.split(r"`+([^`]+)`+", text)
    shown = [f"``{part}``" if i % 2 else _prose(part) for i, part in enumerate(parts)]
    return re.sub(r"(?<=``)(?=\w)|(?<=\w)(?=``)", "", "".join(_apart(shown)))


def _apart(parts: list[str]) -> Iterator[str]:
    """Code that touches a word needs an empty escape between."""
    for i, part in enumerate(parts):
        if i % 2 and parts[i - 1] and not re.search(r"[\s(\[{<'\"/:\\-]$", parts[i - 1]):
            yield r"\ "
        yield part
        if i % 2 and parts[i + 1] and not re.match(r"[\s)\]}>'\"/:.,;!?\\-]", parts[i + 1]):
            yield r"\ "


def _prose(text: str) -> str:
    pieces = re.split(_THEOREMS, text)
    shown = [re.sub(r"([\\*|])|_(?!\w)", lambda m: "\\" + m.group(), pieces[0])]
    for label, names, rest in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        linked = re.sub(
            r"[a-z]+\.[a-z_0-9]+", lambda m: f"`{m[0]} <../{theorem_anchor(m[0])}>`__", names
        )
        shown += [
            f"{label} {linked}",
            re.sub(r"([\\*|])|_(?!\w)", lambda m: "\\" + m.group(), rest),
        ]
    return "".join(shown)


def to_rst(text: str) -> list[str]:
    """The lines of a docstring as reStructuredText."""
    out: list[str] = []
    for header, lines in _sections(text.expandtabs().splitlines()):
        if header is None:
            out += _body(lines)
        elif header == "Example":
            out += [".. rubric:: Example", "", *_dedented(lines), ""]
        else:
            out += [*_fields(header, _dedented(lines)), ""]
    return out


def _sections(lines: Iterable[str]) -> Iterator[tuple[str | None, list[str]]]:
    header: str | None = None
    held: list[str] = []
    for line in lines:
        found = _HEADER.fullmatch(line.strip()) if line[:1].strip() else None
        if found or (header and line[:1].strip()):
            yield header, held
            header, held = (found[1], []) if found else (None, [line])
        else:
            held.append(line)
    yield header, held


def _dedented(lines: list[str]) -> list[str]:
    return textwrap.dedent("\n".join(lines)).strip("\n").splitlines()


def _body(lines: list[str]) -> Iterator[str]:
    """Prose, and indented blocks as they stand."""
    verbatim = False
    for i, line in enumerate(lines):
        if not line.strip():
            following = next((each for each in lines[i:] if each.strip()), "")
            verbatim = verbatim and following.startswith(" ")
            yield ""
        elif line.startswith(" ") and (verbatim or _opens(lines, i)):
            if not verbatim:
                yield from ("", "::", "")
            verbatim = True
            yield line
        else:
            if verbatim:
                yield ""
            verbatim = False
            yield _marker(line)
    yield ""


def _opens(lines: list[str], i: int) -> bool:
    """Whether an indented line begins a block of its own, and does not go on with a point of a list."""
    before = next((each for each in reversed(lines[:i]) if not each.startswith(" ")), "")
    return not (before[:2] in ("- ", "* ") and i and lines[i - 1].strip())


def _marker(line: str) -> str:
    found = re.match(r"(\s*)(- |\* )?(.*)", line)
    assert found is not None
    return f"{found[1]}{found[2] or ''}{inline(found[3])}"


def _fields(header: str, lines: list[str]) -> Iterator[str]:
    """A field an entry; what stands deeper belongs to the entry above."""
    entries: list[str] = []
    for line in lines:
        if entries and (line.startswith(" ") or (header == "Returns" and line.strip())):
            entries[-1] += " " + line.strip()
        elif line.strip():
            entries.append(line.strip())
    if header == "Attributes":
        yield ":Attributes:"
    for entry in entries:
        found = _ENTRY.fullmatch(entry) if header != "Returns" else None
        yield _field(header, *(found.groups() if found else ("", entry)))


def _field(header: str, name: str, text: str) -> str:
    kind, name = FIELDS[header], name.replace("*", r"\*")
    if header == "Attributes":
        return f"   - **{name}** -- {inline(text)}"
    return f":{kind} {name}: {inline(text)}" if name else f":{kind}: {inline(text)}"


def process(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    if what == "data" and getattr(obj, "__doc__", None) == type(obj).__doc__:
        lines[:] = []  # a number has its class's docstring
    lines[:] = to_rst("\n".join(lines))


def documented(base: type) -> bool:
    """Whether a reader can look up a class that another is made of."""
    return base.__module__.startswith("diffenc_ct") and not base.__name__.startswith("_")


def bases(app: Sphinx, name: str, obj: object, options: object, found: list[type]) -> None:
    found[:] = filter(documented, found)


def signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    parameters: str | None,
    returned: str | None,
) -> tuple[str | None, str | None]:
    """A default that is made anew each time has no spelling, and a protocol is not called."""
    if what == "class" and getattr(obj, "_is_protocol", False):
        return "", None
    return re.sub(r"<[\w. ]+>", "...", parameters) if parameters else parameters, returned


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-process-bases", bases)
    app.connect("autodoc-process-signature", signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
