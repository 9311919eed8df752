"""Formulas as MathML, which browsers show without a script, a font or a network."""

from __future__ import annotations

import unicodedata
from typing import Any
from xml.etree import ElementTree as Tree

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

# Spellings that Markdown needs (`theory/_page.py`) and the converter does not know everywhere.
_NAMESPACE = ' xmlns="http://www.w3.org/1998/Math/MathML"'
_PRIMES = ("′", "″")
_FUNCTIONS = ("log", "ln", "exp", "tan", "cos", "sin", "arctan", "tanh", "det", "min", "max")
_SIGNS = ("+", "−", "±")
_ROWS = ("math", "mrow", "mstyle", "mtd")
_SPELT = {r"\Vert": "‖", r"\lbrace": r"\{", r"\rbrace": r"\}"}


def mathml(latex: str, display: str) -> str:
    r"""A formula as one ``<math>`` element.

    Args:
        latex: the formula, without dollars.
        display: "inline" or "block".
    Raises:
        ValueError: the converter left a command as it stood, which a reader would see with its backslash.
    Example:
        >>> mathml(r"\sigma^2", "inline").startswith("<math")
        True
    """
    for here, there in _SPELT.items():
        latex = latex.replace(here, there)
    found = convert(" ".join(latex.split()), display=display)
    if "\\" in found:
        raise ValueError(f"formula {latex!r}: a command in it has no MathML; spell it otherwise")
    root = Tree.fromstring(found.replace(_NAMESPACE, ""))  # Tree would give every element a prefix
    _tidy(root)
    text = Tree.tostring(root, encoding="unicode", short_empty_elements=False)
    return text.replace("<math", "<math" + _NAMESPACE, 1)


def _tidy(node: Tree.Element) -> None:
    """What browsers expect of MathML and the converter leaves to TeX: primes, signs, spaces."""
    for child in node:
        _tidy(child)
    last = node[-1] if len(node) else None
    if node.tag in ("msup", "msubsup") and last is not None and last.text in _PRIMES:
        # The glyph is raised already; as a superscript it would be raised twice.
        node.remove(last)
        base = Tree.Element("mrow" if node.tag == "msup" else "msub")
        base.extend(list(node))
        for child in list(node):
            node.remove(child)
        node.tag = "mrow"
        node.extend([base, _element("mo", last.text or "", lspace="0", rspace="0")])
    for place, child in reversed(list(enumerate(node))):
        before = node[place - 1] if place else None
        after = node[place + 1] if place + 1 < len(node) else None
        text = child.text or ""
        if child.get("mathvariant") == "script":  # an attribute that browsers no longer read
            child.text = _script(text)
        elif text == "~":
            child.tag, child.text = "mo", "∼"
        elif text == "/":
            child.attrib.update(lspace="0", rspace="0")
        elif text in _SIGNS and before is not None and _opens(before):
            child.set("form", "prefix")
        elif (
            text in _FUNCTIONS and node.tag in _ROWS and after is not None and not _brackets(after)
        ):
            node.insert(place + 1, _element("mspace", "", width="0.17em"))


def _script(letter: str) -> str:
    try:
        return unicodedata.lookup(f"MATHEMATICAL SCRIPT CAPITAL {letter}")
    except KeyError:  # those that Unicode had before it had the alphabet
        return unicodedata.lookup(f"SCRIPT CAPITAL {letter}")


def _brackets(node: Tree.Element) -> bool:
    return node.tag == "mspace" or next(node.iter("mo"), node).text in ("(", "[", "{")


def _opens(node: Tree.Element) -> bool:
    return node.tag == "mo" and (node.text or "") in "([{,;=<>≤≥≈≠∼→"


def _element(tag: str, text: str, **attributes: str) -> Tree.Element:
    found = Tree.Element(tag, attributes)
    found.text = text
    return found


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(mathml(node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(self: HTML5Translator, node: nodes.math_block) -> None:
    formula = mathml(node.astext(), "block")
    self.body.append(self.starttag(node, "div", CLASS="formula") + formula + "</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
