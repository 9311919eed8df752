"""The operators of generated mutants: from a source text to all its small edits.

A mutant is an edit of the text at one place of the syntax tree. Left out are strings and f-strings, docstrings, types,
decorators, assertions, what an error, a warning or a help text says, `__all__` and what only type checkers read.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: (r"is\s+not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: (r"not\s+in", "in"),
}
ARITHMETIC = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.Pow: ("**", "*"),
    ast.Mod: ("%", "*"),
}
# Of these arithmetic makes no number, and its mutants nothing but a TypeError.
NO_NUMBERS = (ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp, ast.Set, ast.Dict)
NUMBERS = re.compile(
    r"(float|int|(torch\.)?Tensor|(Float|Int|Num|Shaped|Real|Complex)\w*)\b(?!.*\|)"
)
TEXTS = ("description", "epilog", "help", "metavar", "prog", "usage")  # arguments that are texts
SPEAKING = re.compile(r"(warnings|logging|log|logger)\.|print$|warn$")


@dataclass(frozen=True)
class Edit:
    """Bytes start..end of a source become `text`.

    Attributes:
        operator: its name.
        start: of the first byte replaced.
        end: of the first byte kept again.
        text: that takes their place.
        lines: of which a test must reach one to notice; None where importing the file runs them.
    """

    operator: str
    start: int
    end: int
    text: str
    lines: range | None

    def apply(self, source: str) -> str:
        """The mutated source."""
        data = source.encode()
        return (data[: self.start] + self.text.encode() + data[self.end :]).decode()

    def line(self, source: str) -> int:
        """The number of the line where it begins."""
        return source.encode().count(b"\n", 0, self.start) + 1

    def shown(self, source: str) -> tuple[str, str]:
        """The lines that it changes, before and after, each joined into one."""
        data = source.encode()
        first = data.rfind(b"\n", 0, self.start) + 1
        last = data.find(b"\n", self.end) % (len(data) + 1)
        before = data[first:last]
        after = data[first : self.start] + self.text.encode() + data[self.end : last]
        return " ".join(before.decode().split()), " ".join(after.decode().split())


def edits(source: str) -> list[Edit]:
    """All mutants of a source text, in the order of its lines."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return sorted(finder.found, key=lambda edit: (edit.start, edit.end, edit.text))


class _Finder(ast.NodeVisitor):
    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.offsets = [0]
        for line in self.source.splitlines(keepends=True):
            self.offsets.append(self.offsets[-1] + len(line))
        self.found: list[Edit] = []
        self.lines: range | None = None
        self.called = False  # whether what is visited runs in a call, not in the import
        self.bound: set[str] = set()  # names that have a value so far
        self.indexing = False

    def add(self, operator: str, start: int, end: int, text: str) -> None:
        self.found.append(Edit(operator, start, end, text, self.lines))

    def span(self, node: ast.AST) -> tuple[int, int]:
        return (
            self.offsets[node.lineno - 1] + node.col_offset,  # type: ignore[attr-defined]
            self.offsets[node.end_lineno - 1] + node.end_col_offset,  # type: ignore[attr-defined]
        )

    def token(self, before: ast.AST, after: ast.AST, pattern: str) -> tuple[int, int]:
        """Where an operator stands between two nodes; there may be brackets and comments around it."""
        start, end = self.span(before)[1], self.span(after)[0]
        between = re.sub(rb"#[^\n]*", lambda m: b" " * len(m[0]), self.source[start:end])
        found = re.search(pattern.encode(), between)
        assert found is not None, (pattern, between)
        return start + found.start(), start + found.end()

    def visit(self, node: ast.AST) -> None:
        before = self.lines
        if isinstance(node, ast.stmt) and self.called:
            body = getattr(node, "body", None)
            last = node.end_lineno if body is None else max(node.lineno, body[0].lineno - 1)
            self.lines = range(node.lineno, last + 1)
        super().visit(node)
        self.lines = before

    # What holds code ------------------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer = self.lines, self.called, self.bound
        self.lines = range(node.body[0].lineno, node.end_lineno + 1)
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                self.visit(default)
        self.called, self.returns = True, "" if node.returns is None else ast.unparse(node.returns)
        self.bound = {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
        for statement in node.body:
            self.visit(statement)
        self.lines, self.called, self.bound = outer

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            self.condition(node.test)
            self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self.condition(node.test)
        self.generic_visit(node)

    visit_IfExp = visit_While  # type: ignore[assignment]

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
        self.visit(node.target)

    def visit_Assert(self, node: ast.Assert) -> None: ...

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None: ...

    # Statements removed ---------------------------------------------------------------------------

    def removed(self, node: ast.stmt) -> None:
        self.add("statement", *self.span(node), "pass")

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call):
            self.removed(node)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        names = {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        if names == {"__all__"}:
            return
        stored = {
            n.id
            for target in node.targets
            for n in ast.walk(target)
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        if stored <= self.bound:  # else the name would be unknown, which anything notices
            self.removed(node)
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.removed(node)
        if type(node.op) in ARITHMETIC and not _no_number(node.value):
            sign, other = ARITHMETIC[type(node.op)]
            self.add("arithmetic", *self.token(node.target, node.value, re.escape(sign)), other)
        self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self.bound.add(node.id)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.removed(node)

    def visit_Continue(self, node: ast.stmt) -> None:
        self.removed(node)

    visit_Break = visit_Delete = visit_Continue

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            self.removed(node)
        elif NUMBERS.match(self.returns.strip("'\"")):
            start, end = self.span(node.value)
            self.add("sign", start, end, f"-({self.source[start:end].decode()})")
        self.generic_visit(node)

    # Expressions ----------------------------------------------------------------------------------

    def condition(self, test: ast.expr) -> None:
        """A condition that has no operator of its own becomes its opposite."""
        if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.Constant):
            start, end = self.span(test)
            self.add("condition", start, end, f"(not ({self.source[start:end].decode()}))")

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
            sign, other = COMPARISONS[type(operator)]
            self.add("comparison", *self.token(left, right, sign), other)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        sign, other = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.add("boolean", *self.token(left, right, rf"\b{sign}\b"), other)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            start, _ = self.span(node)
            spaces = re.match(rb"not\s*", self.source[start:])
            assert spaces is not None
            self.add("boolean", start, start + spaces.end(), "")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in ARITHMETIC and not (_no_number(node.left) or _no_number(node.right)):
            sign, other = ARITHMETIC[type(node.op)]
            self.add("arithmetic", *self.token(node.left, node.right, re.escape(sign)), other)
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)
        before, self.indexing = self.indexing, True
        self.visit(node.slice)
        self.indexing = before

    def visit_Constant(self, node: ast.Constant) -> None:
        start, end = self.span(node)
        if isinstance(node.value, bool):
            self.add("truth", start, end, str(not node.value))
        elif isinstance(node.value, int):
            self.add("index" if self.indexing else "number", start, end, str(node.value + 1))
        elif isinstance(node.value, float):
            self.add("number", start, end, repr(2 * node.value or 1.0))

    def visit_Call(self, node: ast.Call) -> None:
        if SPEAKING.match(ast.unparse(node.func)):
            return
        if ast.unparse(node.func) == "zip":  # its `strict` is an assertion
            node.keywords = []
        before, self.indexing = self.indexing, False
        for start, end in self.keywords(node):
            self.add("argument", start, end, "")
        self.generic_visit(node)
        self.indexing = before

    def keywords(self, node: ast.Call) -> Iterator[tuple[int, int]]:
        """Where each keyword argument stands, with the comma that goes with it."""
        given = sorted([*node.args, *node.keywords], key=self.span)
        for place, keyword in enumerate(given):
            if not isinstance(keyword, ast.keyword) or keyword.arg in (None, *TEXTS):
                continue
            start, end = self.span(keyword)
            if place:
                start, _ = self.token(given[place - 1], keyword, ",")
            else:
                comma = re.match(rb"\s*,\s*", self.source[end:])
                end += comma.end() if comma else 0
            yield start, end


def _no_number(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _no_number(node.left) or _no_number(node.right)
    return isinstance(node, NO_NUMBERS) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
