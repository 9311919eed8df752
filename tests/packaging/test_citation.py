"""What the project says of itself in several places is the same everywhere."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def value(name, key, separator):
    """The one value of a key at the start of a line."""
    (found,) = re.findall(rf'^{key}{separator}"?([^"\n]+?)"?$', text(name), re.M)
    return found


def test_the_citation_is_plain_yaml():
    """Without a reader of YAML: pairs and lists, indented by twos, and a file that the format's required keys fill."""
    folded = False
    for line in text("CITATION.cff").splitlines():
        indent = len(line) - len(line.lstrip())
        if folded and indent:
            continue
        assert indent % 2 == 0 and "\t" not in line and line == line.rstrip(), line
        assert re.fullmatch(
            r'(- )?[a-z-]+:( ("[^"]+"|>-|[^":]+(:[^ ":][^":]*)*))?|- [^":]+', line.strip()
        ), line
        folded = line.endswith(">-")
    for key in ("cff-version", "message", "title", "type", "version", "license"):
        assert value("CITATION.cff", key, ": ")
    assert re.search(r"^authors:\n  - name: The diffenc_ct developers$", text("CITATION.cff"), re.M)


def test_the_citation_names_the_paper():
    paper = text("CITATION.cff").partition("\npreferred-citation:")[2].partition("\nreferences:")[0]
    families = re.findall(r"family-names: (\w+)", paper)
    assert families == ["Nielsen", "Christensen", "Dittadi", "Winther"]
    assert "arXiv.2310.19789" in paper and "year: 2024" in paper


def test_the_version_is_the_same_everywhere():
    version = value("pyproject.toml", "version", " = ")
    assert value("CITATION.cff", "version", ": ") == version
    assert re.search(rf"^## \[{re.escape(version)}\]", text("CHANGELOG.md"), re.M)
    written = re.findall(r'^__version__ = "(.+)"$', text("diffenc_ct/__init__.py"), re.M)
    assert set(written) <= {version}


def test_the_license_is_the_same_everywhere():
    assert (
        value("pyproject.toml", "license", " = ") == value("CITATION.cff", "license", ": ") == "MIT"
    )
    assert text("LICENSE").startswith(
        "MIT License\n\nCopyright (c) 2026 The diffenc_ct developers\n"
    )


def test_the_changelog_keeps_its_form():
    """Unreleased first, then versions with the newest first; only the form's own headings below them."""
    log = text("CHANGELOG.md")
    versions = re.findall(r"^## \[([^\]]+)\]", log, re.M)
    assert versions[0] == "Unreleased" and len(versions) == len(set(versions)) >= 2
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", log, re.M)) <= kinds


def test_the_contributors_page_is_short_and_its_paths_exist():
    page = text("CONTRIBUTING.md")
    assert len(page.splitlines()) <= 80
    paths = re.findall(r"`((?:diffenc_ct|theory|tests|docs|examples)/[\w./]+)`", page)
    assert len(paths) > 5
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing, missing
