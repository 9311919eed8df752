"""Files of results: whole or not there, and JSON that every reader of JSON can read."""

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from diffenc_ct.report.files import NOT_FINITE, as_json, write_atomically

names = st.text(alphabet="abc", min_size=1, max_size=2)
trees = st.dictionaries(
    names,
    st.recursive(
        st.floats() | st.integers(-3, 3) | st.none() | st.booleans() | names,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=6,
    ),
)


def strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def at(tree, path):
    for part in path.split("."):
        tree = tree[int(part)] if isinstance(tree, list) else tree[part]
    return tree


def count(tree):
    if isinstance(tree, dict | list):
        return sum(map(count, tree.values() if isinstance(tree, dict) else tree))
    return isinstance(tree, float) and not math.isfinite(tree)


@given(trees)
@example({"a": math.inf, "b": [1.5, {"c": math.nan}]})
def test_null_stands_for_what_is_not_finite_and_its_name_is_said(tree):
    read = strict(as_json(tree))
    told = read.pop(NOT_FINITE, {})
    assert len(told) == count(tree)
    for path, word in told.items():
        assert at(read, path) is None and repr(at(tree, path)) == word
    if not told:
        assert read == tree


def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, b"old")

    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new, and longer")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]
