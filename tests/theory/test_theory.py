"""Every theorem is proved, every control caught; names, links and the page agree with theory and code."""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
import sympy as sp

import theory
from theory import Theorem, check, nonzero, zero
from theory.__main__ import main
from theory._links import _documented
from theory._page import render

ROOT = Path(__file__).resolve().parents[2]
THEOREMS = {each.name: each for each in theory.theorems()}


@pytest.mark.parametrize("name", THEOREMS)
def test_proved_and_every_control_caught(name):
    verdict = check(THEOREMS[name])
    assert verdict.proved, f"{name}: a residual does not simplify to zero"
    assert verdict.controls, f"{name} has no control"
    passed = [wrong for wrong, caught in verdict.controls.items() if not caught]
    assert not passed, f"{name}: wrong, yet the residual vanishes: {passed}"


# The judge ----------------------------------------------------------------------------------------

_t = sp.Symbol("t", positive=True)
_f = sp.Function("f")
IDENTITIES = [
    sp.cos(_t) ** 2 + sp.sin(_t) ** 2 - 1,
    sp.exp(2 * sp.log(1 + _t)) - (1 + _t) ** 2,
    sp.log(_t**2) - 2 * sp.log(_t),
    (_f(_t) ** 2).diff(_t) - 2 * _f(_t) * _f(_t).diff(_t),
    sp.Integral(_f(_t).diff(_t) * 0, (_t, 0, 1)),
]


@pytest.mark.parametrize("identity", IDENTITIES, ids=str)
@pytest.mark.parametrize("wrong", [_t / 10**6, _f(_t).diff(_t), sp.exp(-_t)], ids=str)
def test_judge_tells_identities_from_their_neighbours(identity, wrong):
    assert zero(identity) and not nonzero(identity)
    assert nonzero(identity + wrong) and not zero(identity + wrong)


def test_an_unsimplified_zero_does_not_count_as_caught():
    # sqrt(5 + 2 sqrt(6)) = sqrt(2) + sqrt(3), hidden from the evaluation order by a symbol.
    hidden = _t * (sp.sqrt(5 + 2 * sp.sqrt(6)) - sp.sqrt(2) - sp.sqrt(3))
    assert not nonzero(hidden)


def test_infinities_prove_nothing():
    assert not zero(sp.nan) and not zero(sp.oo) and not nonzero(sp.nan)


def _theorem(residual: sp.Expr, control: sp.Expr) -> Theorem:
    return Theorem(
        name="schedules.made_up",
        statement="",
        assumptions="",
        proof="",
        residual=lambda: residual,
        controls={"wrong": lambda: control},
    )


@pytest.mark.parametrize(
    ("residual", "control", "code"),
    [(_t - _t, _t, 0), (_t, _t, 1), (_t - _t, sp.sin(_t) ** 2 + sp.cos(_t) ** 2 - 1, 1)],
)
def test_exit_code_fails_with_a_proof_or_with_a_control(
    monkeypatch, capsys, residual, control, code
):
    monkeypatch.setattr("theory.__main__.theorems", lambda: [_theorem(residual, control)])
    assert main([]) == code
    assert ("FAILED: schedules.made_up" in capsys.readouterr().out) == bool(code)


def test_a_theorem_needs_a_control_and_a_residual():
    with pytest.raises(ValueError, match="controls"):
        Theorem("a.b", "", "", "", lambda: sp.Integer(0), {})
    with pytest.raises(ValueError, match="proves nothing"):
        check(Theorem("a.b", "", "", "", lambda: (), {"wrong": lambda: _t}))


def test_command_reports_each_theorem_of_a_section(capsys):
    assert main(["--section", "encoders", "--jobs", "2"]) == 0
    output = capsys.readouterr().out
    for name, each in THEOREMS.items():
        assert (f"\n{name}: proved" in output) == (each.section == "encoders")
        if each.section == "encoders":
            assert all(f"control caught: {wrong}" in output for wrong in each.controls)


# Names ----------------------------------------------------------------------------------------------


def test_names_are_unique_and_belong_to_their_module():
    every = theory.theorems()
    assert len(THEOREMS) == len(every)
    for section, module in theory.sections().items():
        assert module.THEOREMS
        assert {each.section for each in module.THEOREMS} == {section}
    with pytest.raises(ValueError, match="schedules.drift"):
        theory.theorem("schedules.unheard_of")


def test_a_section_is_one_module_of_theory_code_and_tests():
    public = {path.stem for path in (ROOT / "theory").glob("[!_]*.py")}
    assert public == set(theory.SECTIONS)
    for name in public:
        code = ROOT / "diffenc_ct" / name
        assert code.with_suffix(".py").is_file() or (code / "__init__.py").is_file(), name
        assert (ROOT / "tests" / name / f"test_{name}.py").is_file(), name


def test_theory_does_not_know_the_code():
    for path in (ROOT / "theory").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            )
            names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] in ("diffenc_ct", "torch") for name in names), path
            # Installed it is diffenc_ct.theory: its own modules have relative names, and two dots would reach the code.
            assert "theory" not in [name.split(".")[0] for name in names], path
            assert getattr(node, "level", 0) in (0, 1), path


COMPUTED_BY = sorted({(each.name, code) for each in THEOREMS.values() for code in each.computed_by})


@pytest.mark.parametrize(("name", "code"), COMPUTED_BY)
def test_what_computes_a_theorem_exists(name, code):
    parts, found = code.split("."), None
    for end in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[end:]:
            found = getattr(found, attribute)
        break
    assert callable(found) or isinstance(found, property), f"{name}: {code} is {found!r}"


_NAMED = re.compile(r"Theorems?:((?:\s+[a-z_]+\.[a-z_0-9]+[,.;)]?(?:\s+and(?=\s))?)+)")


def test_every_theorem_that_the_code_names_exists():
    named = set()
    for path in (ROOT / "diffenc_ct").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for found in _NAMED.finditer(text):
            for name in re.findall(r"[a-z_]+\.[a-z_0-9]+", found.group(1)):
                assert name in THEOREMS, f"{path.relative_to(ROOT)} names {name}"
                named.add(name.split(".")[0])
        assert text.count("Theorem:") <= len(_NAMED.findall(text)), path
    assert {"schedules", "encoders", "process", "model", "elbo"} <= named


# The page -------------------------------------------------------------------------------------------


def test_the_committed_page_is_what_theory_renders(tmp_path):
    page = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    assert page == render(theory.sections()), "run python -m theory --write docs/theory.md"
    assert main(["--write", str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == page


def test_the_page_has_every_theorem_and_its_links_lead_somewhere():
    page = render(theory.sections())
    for each in THEOREMS.values():
        assert f"\n### {each.name}\n" in page
    links = set(re.findall(r"\]\((?!https?:)([^)#]+)\)", page))
    assert links
    for link in links:
        assert (ROOT / "docs" / link).is_file(), link


def test_the_page_leads_to_where_the_code_is_written():
    """Not to a package's front door, which has a name from elsewhere."""
    page = render(theory.sections())
    links = set(re.findall(r"\[`([\w.]+)`\]\(([^)]+)\)", page))
    assert len(links) > 30
    for name, link in links:
        text = (ROOT / "docs" / link).read_text(encoding="utf-8")
        own = name.rpartition(".")[2]
        assert re.search(rf"^ *(?:def|class) {own}\b", text, re.MULTILINE), (name, link)


def entries():
    """Theorem -> its labels' links, as text and path."""
    page = render(theory.sections())
    found = {}
    for part in page.split("\n### ")[1:]:
        name, _, text = part.partition("\n")
        lines = dict(re.findall(r"^\*(Code|Tests)\.\* (.+)$", text, re.M))
        found[name] = {k: re.findall(r"\[`([^`]+)`\]\(\.\./([^)]+)\)", v) for k, v in lines.items()}
    return found


def test_the_page_names_no_private_function():
    source = (
        'class _A:\n    def b(self): "1"\ndef _c(): "2"\nclass D:\n    "3"\n    def e(self): "4"'
    )
    assert list(_documented(ast.parse(source), "m")) == [("m.D", "3"), ("m.D.e", "4")]


def test_the_page_names_code_once():
    for name, links in entries().items():
        own = [(path, code.rpartition(".")[2]) for code, path in links.get("Code", [])]
        assert len(own) == len(set(own)), name


def test_the_page_has_the_code_whose_docstring_names_the_theorem():
    assert "schedules.sigma2" in [name for name, _ in entries()["schedules.variance"]["Code"]]
    assert sum("Code" in links for links in entries().values()) > 105


def test_the_page_leads_to_the_tests_that_compare():
    """Its proof's, then those that name it."""
    for name, links in entries().items():
        paths = [path for _, path in links["Tests"]]
        assert paths[0] == "tests/theory/test_theory.py"
        for path in paths[1:]:
            assert name in (ROOT / path).read_text(encoding="utf-8")
    assert "tests/theory_cases/processes.py" in [
        path for _, path in entries()["process.marginal"]["Tests"]
    ]


def test_the_page_is_markdown_that_a_code_host_shows():
    page = render(theory.sections())
    fences = [line for line in page.splitlines() if line.startswith("$$")]
    assert all(line == "$$" for line in fences) and len(fences) % 2 == 0
    for number, block in enumerate(page.split("$$")):
        if number % 2:
            assert block.count("{") == block.count("}"), block
            assert block.count(r"\left") == block.count(r"\right"), block
            # Markdown would eat a backslash before punctuation, and pair up stars.
            assert not re.search(r"\\[^A-Za-z\s]|\*", block), block
        else:
            inline = re.sub(r"`[^`]*`", "", block)
            assert inline.count("$") % 2 == 0, inline


def test_formulas_are_called_with_their_own_arguments():
    for each in THEOREMS.values():
        if each.formula is not None:
            formula = each.formula()
            assert formula.expression.free_symbols <= set(formula.symbols), each.name
            with pytest.raises(ValueError, match="the formula takes"):
                formula(*[1.0] * (len(formula.symbols) + 1))


def test_every_theorem_module_explains_itself():
    for module in theory.sections().values():
        assert inspect.getdoc(module)
