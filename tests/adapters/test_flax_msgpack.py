"""Flax's serialisation: chunked arrays, round trips, and files that are corrupt, truncated or of another kind."""

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffenc_ct.adapters import jax as jax_checkpoints
from diffenc_ct.adapters.jax import flax_msgpack
from tests.jax_examples import PATH, example, load, rewrite, write_example
from tests.strategies import seeds


@given(seeds, st.sampled_from(["float32", "float64", "int32", "bool", "uint8"]))
def test_arrays_survive(seed, dtype):
    """pack then unpack is the identity on trees of arrays, scalars and plain values."""
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 2, tuple(rng.integers(0, 3, rng.integers(0, 4)))).astype(dtype)
    tree = {"a": {"b": array, "c": {}}, "n": 3, "x": 0.5, "s": np.float32(seed), "word": "y"}
    found = flax_msgpack.unpack(flax_msgpack.pack(tree))
    again = found["a"]["b"].numpy()
    assert again.dtype == array.dtype and np.array_equal(again, array)
    assert found["s"].numpy() == np.float32(seed) and found["s"].shape == ()
    assert (found["n"], found["x"], found["word"], found["a"]["c"]) == (3, 0.5, "y", {})


def test_paths_and_trees():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flax_msgpack.flatten(tree) == {"a/b": 1, "a/c/d": 2, "e": 3}
    assert flax_msgpack.nest(flax_msgpack.flatten(tree)) == tree


def test_chunked_arrays_are_joined(tmp_path):
    """Flax splits arrays above a gigabyte; the same parameters in pieces are the same model."""
    write_example(tmp_path)
    whole = load(tmp_path).state_dict()

    def split(flat):
        array = flat.pop(PATH)
        pieces = np.array_split(array.reshape(-1), 3)
        chunks = {f"{PATH}/chunks/{i}": piece for i, piece in enumerate(pieces)}
        shape = {f"{PATH}/shape/{i}": n for i, n in enumerate(array.shape)}
        flat |= chunks | shape | {f"{PATH}/__msgpack_chunked_array__": True}

    rewrite(tmp_path, split)
    assert all(
        torch.equal(whole[name], weight) for name, weight in load(tmp_path).state_dict().items()
    )


@given(st.data())
def test_corrupt_files_are_refused(tmp_path_factory, data):
    """Truncated anywhere: refused. One byte changed: refused, or a changed weight; nothing else is raised."""
    folder = tmp_path_factory.mktemp("corrupt")
    config, model = example()
    jax_checkpoints.save(model, folder / "c.json", folder / "w")
    good = (folder / "w").read_bytes()
    early = st.integers(0, 400)
    at = data.draw(early | st.integers(0, len(good) - 1))
    (folder / "w").write_bytes(good[:at])
    with pytest.raises(ValueError, match="w: "):
        load(folder)
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    (folder / "w").write_bytes(bad)
    try:
        load(folder)
    except ValueError as error:
        assert "w: " in str(error)


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"\x01", b"PK\x03\x04", msgpack.packb({"params": 1})]
)
def test_other_files_are_refused(tmp_path, content):
    write_example(tmp_path)
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(ValueError, match="w: "):
        load(tmp_path)


@pytest.mark.parametrize("length", [0, 3, 5, 8])
def test_arrays_of_the_wrong_length(length):
    """Bytes that do not fill the shape are refused, with both named."""
    with pytest.raises(ValueError, match=f"{length} bytes do not fill float32"):
        flax_msgpack.Array((1,), "float32", bytes(length)).numpy()
    with pytest.raises(ValueError, match="bfloat"):
        flax_msgpack.Array((1,), "bfloat", bytes(2)).numpy()
