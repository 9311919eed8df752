"""The command lines that README and docs tell a reader to type, and what can be said of them without running them."""

import argparse
import ast
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from diffenc_ct.cli import COMMANDS, make_parser
from diffenc_ct.report.extras import require

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("diffenc", "python", "make", "torchrun", "pip", "tensorboard")
# What stands for a value of the reader's own.
PLACEHOLDERS = {"T": "8", "N": "4", "NAME": "elbo", "ROOM": "elbo", "--option": ""}
_BLOCK = re.compile(r"^(```+)(\w*)[ ]*\n(.*?)^\1[ ]*$", re.S | re.M)
_INLINE = re.compile(rf"(?<!`)`((?:{'|'.join(PROGRAMS)})\s[^`]+)`(?!`)")


@dataclass(frozen=True)
class Command:
    """A line as its words. `whole`: it stands in a block, and is meant to be typed as it is."""

    file: str
    words: tuple[str, ...]
    whole: bool

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.words)}"


def sources() -> list[Path]:
    """README, CONTRIBUTING, and every page."""
    pages = [p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(pages)]


def blocks(text: str, language: str) -> list[str]:
    """Fenced blocks of a language; "" is a block that names none, where this project writes command lines."""
    return [found[3] for found in _BLOCK.finditer(text) if found[2] == language]


def lines(block: str) -> list[tuple[str, ...]]:
    """The command lines of a block, without comments, those that go on with a backslash in one."""
    joined = re.sub(r"\\\n\s*", " ", block)
    typed = [line for line in joined.splitlines() if line.split(" ")[0] in PROGRAMS]
    return [tuple(shlex.split(line, comments=True)) for line in typed]


def inline(text: str) -> list[tuple[str, ...]]:
    """The command lines within sentences; those with an ellipsis are none."""
    without = _BLOCK.sub("", text)
    found = [" ".join(each.split()) for each in _INLINE.findall(without)]
    return [tuple(shlex.split(each)) for each in found if "..." not in each and "|" not in each]


def collect() -> list[Command]:
    """Every command line of README and docs."""
    found = []
    for path in sources():
        text, name = path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix()
        for block in blocks(text, ""):
            found += [Command(name, words, True) for words in lines(block)]
        found += [Command(name, words, False) for words in inline(text)]
    return list(dict.fromkeys(found))


def problem(command: Command) -> str | None:
    """What is wrong with a command line as the program that it names would say it; None for nothing."""
    words = [PLACEHOLDERS.get(word, word) for word in command.words]
    program, rest = words[0], words[1:]
    if program == "diffenc":
        return _diffenc(rest, command.whole)
    if program == "torchrun":
        return _torchrun(rest)
    if program == "python":
        return _python(rest)
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
        return None if set(rest) <= set(targets) else f"no target among {rest}"
    if program == "pip":
        return _pip(rest)
    return None  # tensorboard: another project's


def _refused(parser: argparse.ArgumentParser, words: list[str]) -> str | None:
    class Refused(Exception):
        pass

    def error(message: str) -> None:
        raise Refused(message)

    def end(status: int = 0, message: str | None = None) -> None:
        if status:
            raise Refused(message or "")

    children = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            children += action.choices.values()
    for each in children:
        each.error, each.exit = error, end  # type: ignore[method-assign, assignment]
    try:
        parser.parse_args(words)
    except Refused as refused:
        return str(refused)
    return None


def _diffenc(words: list[str], whole: bool) -> str | None:
    if words in (["--help"], ["--version"]):
        return None
    if words[0] not in COMMANDS:
        return f"no command {words[0]}"
    if words[1:] == ["--help"]:
        return None
    found = _refused(make_parser({words[0]}), words)
    incomplete = found is not None and ("required" in found or "expected" in found)
    return None if incomplete and not whole else found


def _torchrun(words: list[str]) -> str | None:
    from torch.distributed.run import get_args_parser

    at = words.index("-m") + 1
    if words[at] != "diffenc_ct.cli":
        return f"no module {words[at]}"
    own = _refused(get_args_parser(), [*words[: at - 1], "-m", "diffenc_ct.cli"])
    return own or _diffenc(words[at + 1 :], True)


def _python(words: list[str]) -> str | None:
    if words[0] == "-m":
        path = ROOT / words[1].removeprefix("diffenc_ct.").replace(".", "/") / "__main__.py"
        if words[1].startswith("torch."):
            return None
        words = words[1:]
    else:
        path = ROOT / words[0]
    if not path.is_file():
        return f"no file {path}"
    # A package's commands have parsers of their own, in other files of it.
    files = sorted(path.parent.glob("*.py")) if path.name == "__main__.py" else [path]
    source = "\n".join(
        each.read_text(encoding="utf-8") for each in files if "argparse" in each.read_text("utf-8")
    )
    return script_problem(source.replace("from __future__ import annotations\n", ""), words[1:])


def script_problem(source: str, words: list[str]) -> str | None:
    """What a script's own parser would refuse, read from its `add_argument` calls, without running it."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=True)
    positional = False
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr == "add_parser":
            words = [word for word in words if word != ast.literal_eval(node.args[0])]
        if node.func.attr != "add_argument":
            continue
        names = [each.value for each in node.args if isinstance(each, ast.Constant)]
        given = {each.arg: each.value for each in node.keywords}
        action = (
            ast.literal_eval(given["action"])
            if isinstance(given.get("action"), ast.Constant)
            else None
        )
        if not names or names[0] in {name for a in parser._actions for name in a.option_strings}:
            continue
        if not names[0].startswith("-"):
            positional = True
        elif action in ("store_true", "store_false"):
            parser.add_argument(*names, action=action)
        else:
            parser.add_argument(*names, nargs="+" if "nargs" in given else None)
    if positional:
        parser.add_argument("positional", nargs="*")
    return _refused(parser, words)


def _pip(words: list[str]) -> str | None:
    project = require("tomllib", "cli").loads(
        (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    )["project"]
    for extras in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        missing = set(extras.split(",")) - set(project["optional-dependencies"])
        if missing:
            return f"no extra {sorted(missing)}"
    files = [words[i + 1] for i, word in enumerate(words) if word == "-c"]
    return next((f"no file {name}" for name in files if not (ROOT / name).is_file()), None)
