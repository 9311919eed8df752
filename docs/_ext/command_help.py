"""`{command-help}`: what `diffenc --help` and each command's `--help` print, as sections of the page."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from diffenc_ct.cli import COMMANDS, make_parser


def help_of(command: str | None = None) -> str:
    """The help of a command (None: of the program), 88 columns wide and without colours, on every machine."""
    with mock.patch.dict(os.environ, {"COLUMNS": "88", "NO_COLOR": "1"}):
        parser = make_parser()
        if command is None:
            return parser.format_help()
        return parser._subparsers._group_actions[0].choices[command].format_help()  # type: ignore[union-attr, index, call-overload, no-any-return]


class CommandHelp(SphinxDirective):
    """A section a command."""

    def run(self) -> list[nodes.Node]:
        made: list[nodes.Node] = [nodes.literal_block("", help_of(), language="text")]
        for command, text in COMMANDS.items():
            section = nodes.section(
                "", nodes.title("", f"diffenc {command}"), ids=[f"diffenc-{command}"]
            )
            section += nodes.paragraph("", text)
            section += nodes.literal_block("", help_of(command), language="text")
            made.append(section)
        return made


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
