"""The mutants still apply to the code: each original text is there exactly once, each mutated file is valid Python."""

import ast
import shutil

import pytest

from tests.mutants import ROOT, Mutant, load, modules


def meaning(path):
    """What a file says: of Python its syntax tree, of what belongs to a page its text."""
    text = path.read_text()
    return ast.dump(ast.parse(text)) if path.suffix == ".py" else text


@pytest.mark.parametrize("name", modules())
def test_mutants_apply(name, tmp_path):
    mutants = load(name)
    assert len(mutants) >= 4, f"{name} has {len(mutants)} mutants; at least four a module"
    assert len({(m.file, m.original, m.mutated) for m in mutants}) == len(mutants)
    for mutant in mutants:
        path = tmp_path / mutant.file
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / mutant.file, path)
        mutant.apply(tmp_path)
        assert meaning(path) != meaning(ROOT / mutant.file), f"{mutant.mutated!r} changes no code"
        assert mutant.why
        for test in mutant.tests:
            file, _, function = test.partition("::")
            text = (ROOT / file).read_text()
            assert not function or f"def {function.partition('[')[0]}(" in text, test
        assert mutant.tests


@pytest.mark.parametrize("original", ["nowhere to be found", "return"])
def test_a_mutant_that_does_not_apply_is_refused(tmp_path, original):
    (tmp_path / "code.py").write_text("def f():\n    return 1\n\ndef g():\n    return 2\n")
    with pytest.raises(ValueError, match="not once"):
        Mutant("code.py", original, "", "a test", ("tests",)).apply(tmp_path)
