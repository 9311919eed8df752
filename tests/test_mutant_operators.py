"""The operators of generated mutants: what each makes of a source, what none touches, what must run to notice."""

import ast
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mutants import ROOT
from tests.mutants._operators import edits

# An operator, a source, and all that becomes of it.
MADE = [
    ("number", "a = 3", ["a = 4"]),
    ("number", "a = -0.5", ["a = -1.0"]),
    ("number", "a = 0.0", ["a = 1.0"]),
    ("index", "a = b[0]", ["a = b[1]"]),
    ("index", "a = b[1:, -2]", ["a = b[2:, -2]", "a = b[1:, -3]"]),
    ("number", "a = b[f(1)]", ["a = b[f(2)]"]),
    ("comparison", "a = b < c <= d", ["a = b <= c <= d", "a = b < c < d"]),
    ("comparison", "a = (b) != (c)", ["a = (b) == (c)"]),
    ("comparison", "a = b is  not c", ["a = b is c"]),
    ("comparison", "a = b in c", ["a = b not in c"]),
    ("comparison", "a = (b  # > is no operator here\n > c)", ["a = (b  # > is no operator here\n >= c)"]),
    ("arithmetic", "a = b + c * d", ["a = b - c * d", "a = b + c / d"]),
    ("arithmetic", "a = (b - (c)) // d", ["a = (b + (c)) // d", "a = (b - (c)) / d"]),
    ("arithmetic", "a = b ** c % d", ["a = b * c % d", "a = b ** c * d"]),
    ("arithmetic", "a += b", ["a -= b"]),
    ("arithmetic", "a = 'text' + b + f'{c}'", []),
    ("boolean", "a = b and c or d", ["a = b or c or d", "a = b and c and d"]),
    ("boolean", "a = not (b)", ["a = (b)"]),
    ("condition", "a = b if c else d", ["a = b if (not (c)) else d"]),
    ("condition", "if a.b():\n    c = d", ["if (not (a.b())):\n    c = d"]),
    ("condition", "if not a or b:\n    c = d", []),
    ("truth", "a = f(True)", ["a = f(False)"]),
    ("argument", "a = f(b, c=d)", ["a = f(b)"]),
    ("argument", "a = f((b), c=d, e=(g),)", ["a = f((b), e=(g),)", "a = f((b), c=d,)"]),
    ("argument", "a = f(b=c)", ["a = f()"]),
    ("argument", "a = f(b=c, **d)", ["a = f(**d)"]),
    ("argument", "a = f(help='b', metavar='C')", []),
    ("statement", "f(a)", ["pass"]),
    ("statement", "a.b = c", ["pass"]),
    ("statement", "a = b\na = c", ["a = b\npass"]),
    ("statement", "if a:\n    raise E(\n        'b'\n    ) from c", ["if a:\n    pass"]),
    ("statement", "for a in b:\n    continue", ["for a in b:\n    pass"]),
    ("statement", "def f(a):\n    a += 1\n    return a", ["def f(a):\n    pass\n    return a"]),
    ("sign", "def f() -> float:\n    return a", ["def f() -> float:\n    return -(a)"]),
    ("sign", "def f() -> Float[Tensor, 'n']:\n    return a", ["def f() -> Float[Tensor, 'n']:\n    return -(a)"]),
    ("sign", "def f() -> str:\n    return a", []),
    ("number", "def f(a=1, *, b=2.0): ...", ["def f(a=2, *, b=2.0): ...", "def f(a=1, *, b=4.0): ..."]),
    ("number", "é, a = 'ü', 3", ["é, a = 'ü', 4"]),
]  # fmt: skip

LEFT_OUT = {
    "docstrings": 'def f():\n    """a < 3."""',
    "strings": "a = 'b < 3', f'{c + 1}'",
    "types": "a: Array[3]\ndef f(a: Array[3]) -> Array[3]: ...",
    "type checkers' imports": "if TYPE_CHECKING:\n    a = 3",
    "names exported": "__all__ = ['a']",
    "decorators": "@dataclass(frozen=True)\nclass A:\n    a = b",
    "assertions": "assert a < 3\nb = zip(c, d, strict=True)",
    "words": "def f():\n    a = print(3, flush=True)",
    "imports": "import a\nfrom b import c",
}


@pytest.mark.parametrize(("operator", "source", "made"), MADE)
def test_operators(operator, source, made):
    found = [edit.apply(source) for edit in edits(source) if edit.operator == operator]
    assert found == made
    for text in found:
        compile(text, "mutated", "exec")


@pytest.mark.parametrize("source", LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_is_left_out(source):
    assert edits(source) == []


FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "diffenc_ct").rglob("*.py"))


@settings(max_examples=150)
@given(st.sampled_from(FILES), st.data())
def test_each_mutant_of_the_package_is_another_program_with_the_same_texts(file, data):
    source = (ROOT / file).read_text()
    if not (found := edits(source)):
        return
    edit = data.draw(st.sampled_from(found))
    before, after = ast.parse(source), ast.parse(edit.apply(source))
    assert ast.dump(before) != ast.dump(after)

    def documents(tree):
        kinds = ast.Module, ast.ClassDef, ast.FunctionDef
        return [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]

    assert documents(before) == documents(after)
    original, mutated = edit.shown(source)
    assert original != mutated and "\n" not in original + mutated
    assert original.startswith(source.splitlines()[edit.line(source) - 1].split()[0])


def test_what_must_run_for_a_mutant_to_be_noticed():
    source = textwrap.dedent("""
        LIMIT = 1
        def f(a=2):
            '''Text.'''
            if a < 3:
                b = (
                    4
                )
            return b
    """)
    lines = {
        edit.shown(source)[1]: edit.lines for edit in edits(source) if edit.operator == "number"
    }
    assert lines == {
        "LIMIT = 2": None,
        "def f(a=3):": range(4, 10),  # the body's: a default value is used where the function is
        "if a < 4:": range(5, 6),
        "5": range(6, 9),
    }  # fmt: skip
