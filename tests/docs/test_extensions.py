"""The small parts of which the site is made: docstrings, formulas, numbers, lines of files."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

WHY = "the site needs the extra docs"
docstrings = pytest.importorskip(
    "docstrings", reason=WHY
)  # of docs/_ext, which conftest puts on the path
mathml = pytest.importorskip("mathml", reason=WHY)
public_names = pytest.importorskip("public_names", reason=WHY)
results = pytest.importorskip("results", reason=WHY)
source_files = pytest.importorskip("source_files", reason=WHY)
ROOT = Path(__file__).resolve().parents[2]

words = st.text("abcdxyz_*|`\\ ", min_size=1, max_size=20).filter(
    lambda s: s.strip() and s.count("`") % 2 == 0
)


def shown(rst):
    """What docutils makes of it, as plain text; its warnings are errors."""
    from docutils.core import publish_doctree

    return publish_doctree(rst, settings_overrides={"halt_level": 2, "report_level": 2}).astext()


@given(words)
def test_prose_means_itself(text):
    """Stars, bars, backslashes and underscores are shown as they are."""
    text = text.replace("`", "").strip()
    rendered = shown(f"a {docstrings.inline(text)} b")
    assert rendered.split() == f"a {text} b".split()


def test_code_in_prose_is_code():
    assert docstrings.inline("the `x_t'` of *z*") == r"the ``x_t'`` of \*z\*"
    assert shown(docstrings.inline("`a`s")) == "as"


def test_a_docstring_is_its_parts():
    text = (
        "One line, |x|.\n\n    x_t = *y*\n\nMore. Theorem: elbo.step_kl.\n\n"
        "Args:\n    x: levels,\n        or `reals`.\nRaises:\n    ValueError: for none.\n"
        "Example:\n    >>> 1\n    1"
    )
    lines = docstrings.to_rst(text)
    joined = "\n".join(lines)
    assert r"One line, \|x\|." in joined
    assert "::\n\n    x_t = *y*" in joined
    assert "`elbo.step_kl <../theory.html#elbo-step-kl>`__" in joined
    assert ":param x: levels, or ``reals``." in lines
    assert ":raises ValueError: for none." in lines
    assert joined.index(":raises") < joined.index(".. rubric:: Example") < joined.index(">>> 1")


def test_attributes_are_a_list():
    lines = docstrings.to_rst("Of it.\n\nAttributes:\n    a: the first, (T,).\n    b: the other.")
    assert [each for each in lines if each.strip()][1:] == [
        ":Attributes:",
        "   - **a** -- the first, (T,).",
        "   - **b** -- the other.",
    ]


@pytest.mark.parametrize(
    ("latex", "within"),
    [
        (r"x_t'", "<msub><mi>x</mi><mi>t</mi></msub><mo lspace=\"0\" rspace=\"0\">′</mo>"),
        (r"\gamma'", "<mi>γ</mi></mrow><mo lspace=\"0\" rspace=\"0\">′</mo>"),
        (r"(-1, 1)", '<mo form="prefix">−</mo>'),
        (r"a - b", "<mi>a</mi><mo>−</mo>"),
        (r"\log x", '<mi>log</mi><mspace width="0.17em">'),
        (r"\log(x)", '<mi>log</mi><mo stretchy="false">('),
        (r"\epsilon \sim \mathcal N", "<mo>∼</mo><mi mathvariant=\"script\">𝒩</mi>"),
        (r"\left\Vert x \right\Vert^2", "‖"),
        (r"d/dt", '<mo lspace="0" rspace="0">/</mo>'),
    ],
)  # fmt: skip
def test_a_formula_is_what_browsers_expect(latex, within):
    assert within in mathml.mathml(latex, "inline")


def test_a_formula_that_would_show_its_backslash_is_refused():
    with pytest.raises(ValueError, match=r"no MathML; spell it otherwise"):
        mathml.mathml(r"a \Big\Nothing b", "inline")


def test_a_number_is_the_files():
    found = results._read("encoders-digits-plain.json", 0)
    mean, error = found["vdm"]["one"]
    assert results.value("encoders-digits-plain.json:vdm.one") == f"{mean:.4f} ± {error:.4f}"
    assert results.value("encoders-digits-plain.json:vdm.one.1:.2e") == f"{error:.2e}"
    assert (
        results.value("encoders-digits-plain.json:vdm.weights:,d")
        == f"{found['vdm']['weights']:,d}"
    )


@pytest.mark.parametrize(
    ("reference", "named"),
    [
        ("none.json:a", "encoders-digits.json"),
        ("encoders-digits-plain.json:vdm.two", "has no 'two' there; it has one, optimal, gain"),
        ("encoders-digits-plain.json:vdm", "a number or a pair"),
        ("encoders-digits-plain.json:vdm.by_seed", "a number or a pair"),
        ("encoders-digits-plain.json:vdm.by_seed.9", "has no '9'"),
    ],
)
def test_a_number_that_is_not_there_is_refused(reference, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        results.value(reference)


VARIANTS = {
    "VDM": "vdm",
    "DiffEnc, the paper's encoder": "diffenc",
    "DiffEnc, residual encoder": "residual",
    "DiffEnc, residual encoder, paired heads": "residual-paired",
    "VDM, enlarged to as many weights (width 36)": "vdm-large",
    "VDM, enlarged to as many weights": "vdm-large",
}
TABLES = {"encoders-digits-plain.json": 5, "encoders-digits.json": 3}


def test_the_tables_of_encoders_have_the_benchmarks_numbers():
    """Row by row, in the order of the page."""
    text = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
    rows = [
        [each.strip() for each in row.split("|")] for row in re.findall(r"^\| (.+) \|$", text, re.M)
    ]
    rows = [row for row in rows if row[0] in VARIANTS]
    expected = [file for file, count in TABLES.items() for _ in range(count)]
    for file, (label, bits, gain, weights, _) in zip(expected, rows, strict=True):
        path = f"{file}:{VARIANTS[label]}"
        assert bits == results.value(f"{path}.optimal")
        assert gain == ("" if label == "VDM" else results.value(f"{path}.gain"))
        assert weights == results.value(f"{path}.weights:,d")


def test_the_sentence_on_mnist_has_the_benchmarks_numbers():
    text = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8").partition("## MNIST")[2]
    for name, variant in (("VDM", "vdm"), ("DiffEnc (residual, paired heads)", "residual-paired")):
        assert f"{name} {results.value(f'encoders-mnist.json:{variant}.optimal')} ±" in text
    assert f"lower by {results.value('encoders-mnist.json:residual-paired.gain')} ±" in text


def test_the_lengths_of_files_are_the_benchmarks():
    """docs/coding.md row by row, what other formats need beside it, and what README and docs/results.md quote."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "coding.json").read_text())["rows"]
    page, front, claims = (
        (ROOT / name).read_text(encoding="utf-8")
        for name in ("docs/coding.md", "README.md", "docs/results.md")
    )
    table = re.findall(
        r"^\| .*T = \d+ \| ([\d.]+ \| .*) \| yes \|$",
        page.partition("## What it is worth")[2],
        re.M,
    )
    assert table == [
        f"{row['net_bpd']:.3f} | {row['bound_bpd']:.3f} ± {row['error_bpd']:.3f} | {row['gross_bpd']:.3f} | "
        f"{row['evaluations']:.0f}"
        for row in rows
    ]
    others = ("png", "jxl", "webp", "zstd", "xz", "bzip2")
    for name, row in (("digits", rows[0]), ("MNIST", rows[-1])):
        assert f"| {name} | " + " | ".join(f"{row[f'{o}_bpd']:.2f}" for o in others) in page
    assert all(row["lossless"] for row in rows)
    one, last = rows[1], rows[-1]
    assert (
        f"{last['net_bpd']:.3f} bits/dim on disk, bound {last['bound_bpd']:.3f} ± {last['error_bpd']:.3f}; PNG "
        f"{last['png_bpd']:.2f}, JPEG XL {last['jxl_bpd']:.2f}, xz {last['xz_bpd']:.2f}" in front
    )
    assert (
        f"{one['net_bpd']:.3f} bits per dimension net, bound {one['bound_bpd']:.3f} ± {one['error_bpd']:.3f}; MNIST, 8 "
        f"steps: {last['net_bpd']:.3f}, {last['bound_bpd']:.3f} ± {last['error_bpd']:.3f}, JPEG XL "
        f"{last['jxl_bpd']:.2f}" in claims
    )


@pytest.mark.parametrize(
    "name", ["schedules.SchedulePoint.beta", "diffenc_ct.schedules.snr", "LinearSchedule.forward"]
)
def test_a_name_is_found_on_its_line(name):
    path = "diffenc_ct/schedules.py"
    line = source_files.line_of(path, name)
    text = (ROOT / path).read_text(encoding="utf-8").splitlines()[line - 1]
    assert re.search(rf"(def|class) {name.rpartition('.')[2]}\b", text)


def test_a_name_that_a_file_does_not_define_has_no_line():
    assert source_files.line_of("diffenc_ct/schedules.py", "schedules.nothing") is None
    assert source_files.line_of("README.md", "schedules.snr") is None


def test_every_module_with_public_names_is_on_a_page():
    """A room or module that is documented nowhere would be missed by the list in public_names."""
    pages = " ".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.rst")
    )
    named = set(pages.replace(".. public-names::", "").split())
    assert set(public_names.ROOMS) <= named
    rooms = {
        path.name
        for path in Path(ROOT / "diffenc_ct").iterdir()
        if (path / "__init__.py").is_file()
    }
    rooms |= {path.stem for path in (ROOT / "diffenc_ct").glob("*.py")} - {"__init__"}
    shown = {each.partition(".")[0] for each in public_names.ROOMS}
    assert rooms - shown == {"cli"}  # which has a page of its own
