"""Mutants of what the documentation's site is made with."""

from tests.mutants import Mutant

DOCSTRINGS, MATHML = "docs/_ext/docstrings.py", "docs/_ext/mathml.py"
RESULTS, FILES, LINKS = "docs/_ext/results.py", "docs/_ext/source_files.py", "theory/_links.py"
TESTS, COMMANDS = "tests/docs/test_extensions.py", "tests/docs/test_commands.py"

MUTANTS = [
    Mutant(
        DOCSTRINGS,
        "header is None:\n            out += _body(lines)",
        "header is None:\n            out += lines",
        "a docstring taken for markup, so that |x| is a substitution",
        (f"{TESTS}::test_a_docstring_is_its_parts",),
    ),
    Mutant(
        DOCSTRINGS,
        'entries[-1] += " " + line.strip()',
        "entries.append(line.strip())",
        "the second line of an argument shown as another argument",
        (f"{TESTS}::test_a_docstring_is_its_parts",),
    ),
    Mutant(
        DOCSTRINGS,
        '"Raises": "raises"',
        '"Raises": "param"',
        "errors listed among the arguments",
        (f"{TESTS}::test_a_docstring_is_its_parts",),
    ),
    Mutant(
        MATHML,
        'child.set("form", "prefix")',
        'child.set("form", "infix")',
        "a sign spaced like a difference",
        (f"{TESTS}::test_a_formula_is_what_browsers_expect",),
    ),
    Mutant(
        MATHML,
        r'if "\\" in found:',
        r'if "\\\\" in found:',
        "a command of TeX shown to the reader",
        (f"{TESTS}::test_a_formula_that_would_show_its_backslash_is_refused",),
    ),
    Mutant(
        MATHML,
        '"mrow" if node.tag == "msup" else "msub"',
        '"mrow"',
        "an index beside its letter where there is a prime",
        (f"{TESTS}::test_a_formula_is_what_browsers_expect",),
    ),
    Mutant(
        RESULTS,
        'form or ".4f"',
        '".4f"',
        "every number with four digits, whatever the page asks for",
        (f"{TESTS}::test_a_number_is_the_files",),
    ),
    Mutant(
        RESULTS,
        "len(found) == 2",
        "len(found) >= 2",
        "a list of seeds quoted as a mean with its error",
        (f"{TESTS}::test_a_number_that_is_not_there_is_refused",),
    ),
    Mutant(
        FILES,
        "_line(child, parts[1:])",
        "getattr(child, 'lineno', None)",
        "a method's link leads to its class",
        (f"{TESTS}::test_a_name_is_found_on_its_line",),
    ),
    Mutant(
        LINKS,
        'defined and not child.name.startswith("_")',
        "defined",
        "private functions named on the theory's page",
        ("tests/theory/test_theory.py::test_the_page_names_no_private_function",),
    ),
    Mutant(
        LINKS,
        "if own not in seen:",
        "if True:",
        "a function listed twice, once under each spelling",
        ("tests/theory/test_theory.py::test_the_page_names_code_once",),
    ),
    Mutant(
        LINKS,
        "paths = [_PROOFS, *",
        "paths = [*",
        "a theorem without the test of its proof",
        ("tests/theory/test_theory.py::test_the_page_leads_to_the_tests_that_compare",),
    ),
]
