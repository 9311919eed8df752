"""Arrays: values read right in every layout and type, refused in a line, warned of, left on the disk where large."""

import gzip
import io
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffenc_ct.cli import main
from diffenc_ct.data import arrays, load_dataset, readers
from diffenc_ct.data.moments import Moments, warn_of_reals
from diffenc_ct.data.readers import read_idx
from diffenc_ct.training.examples import examples_of

INTEGERS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"]
REALS = ["f2", "f4", "f8"]


def saved(folder, name="v.npy", **parts):
    path = folder / name
    if name.lower().endswith("npy"):
        with path.open("wb") as stream:
            np.save(stream, next(iter(parts.values())))
    else:
        with path.open("wb") as stream:
            np.savez(stream, **parts)
    return str(path)


def quiet(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_dataset(path, **options)


def everything(data):
    return sorted(torch.cat([data.train, data.test]).tolist())


# Layouts and types --------------------------------------------------------------------------------------


@given(
    kind=st.sampled_from(INTEGERS + REALS),
    order=st.sampled_from("<>"),
    fortran=st.booleans(),
    shape=st.sampled_from([(3,), (4, 2), (2, 3, 5), (1, 2, 2)]),
    name=st.sampled_from(["v.npy", "v.npz", "V.NPY", "V.NPZ"]),
    seed=st.integers(0, 99),
)
def test_bytes_in_any_order_are_the_same_values(
    tmp_path_factory, kind, order, fortran, shape, name, seed
):
    random = np.random.default_rng(seed)
    values = random.integers(0, 100, (13, *shape))
    values[0].flat[0] = 99
    array = values.astype(order + kind)
    stored = np.asfortranarray(array) if fortran else array
    data = quiet(saved(tmp_path_factory.mktemp("a"), name, x=stored))
    expected = values.reshape(13, 1, *shape) if len(shape) == 2 else values
    assert everything(data) == sorted(expected.tolist())
    assert data.levels == (None if kind in REALS else 100)
    assert data.train.dtype == (torch.float32 if kind in REALS else torch.uint8)


@pytest.mark.parametrize("bits", [7, 8, 15, 16, 31, 32, 62])
@given(kind=st.sampled_from(INTEGERS), off=st.integers(-1, 1))
def test_integers_take_the_smallest_type_that_holds_them(tmp_path_factory, bits, kind, off):
    high = min(2**bits + off, np.iinfo(kind).max - 1)
    array = np.array([[0], [high], [high]], kind)
    data = load_dataset(saved(tmp_path_factory.mktemp("a"), x=array))
    assert data.levels == high + 1 and everything(data) == [[0], [high], [high]]
    sizes = {torch.uint8: 255, torch.int16: 2**15 - 1, torch.int32: 2**31 - 1}
    assert data.train.dtype == next((t for t in sizes if high <= sizes[t]), torch.int64)


@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
@pytest.mark.parametrize("high", [200, 30_000])
def test_memory_is_that_of_the_data(tmp_path, monkeypatch, kind, high):
    """numpy's and torch's: beside what is kept nothing of its size."""
    monkeypatch.setattr("diffenc_ct.data.source.AT_ONCE", 2**12)
    monkeypatch.setattr(arrays, "AT_ONCE", 2**12)
    array = np.random.default_rng(0).integers(0, high, (2000, 500)).astype(kind)
    path = saved(tmp_path, x=array)
    tracemalloc.start()
    data = quiet(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.2 * array.nbytes  # the file is mapped, the tensors are torch's
    kept = data.train.nbytes + data.test.nbytes
    assert kept <= array.nbytes


# Parts ----------------------------------------------------------------------------------------------------


@given(
    train=st.sampled_from(["train", "Training", "TRAIN"]),
    test=st.sampled_from([None, "test", "testing"]),
    validation=st.sampled_from([None, "val", "Valid"]),
)
def test_named_arrays_are_the_split(tmp_path_factory, train, test, validation):
    parts = {train: 0, test: 1, validation: 2}
    stored = {name: np.full((10, 2), v, np.uint8) for name, v in parts.items() if name}
    data = load_dataset(saved(tmp_path_factory.mktemp("a"), "v.npz", **stored), levels=3)
    assert data.train.unique().tolist() == [0]
    held = 1 if test else 2 if validation else 0
    assert data.test.unique().tolist() == [held] and len(data.test) == (10 if held else 1)
    assert bool(data.remarks) == bool(validation)


def test_other_arrays_are_left_out_and_named(tmp_path):
    path = saved(
        tmp_path, "v.npz", train=np.eye(3, dtype=int), test=np.eye(3, dtype=int), labels=np.zeros(3)
    )
    assert load_dataset(path).remarks == ["left out: the array labels"]


def test_an_array_for_tests_only_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"v\.npz has test, but no train; add it"):
        load_dataset(saved(tmp_path, "v.npz", test=np.eye(3, dtype=int)))


# Refusals -------------------------------------------------------------------------------------------------


@given(
    st.sampled_from([1, 3, 4]),
    st.tuples(st.integers(5, 9), st.integers(5, 9)),
    st.sampled_from(["u1", "f4"]),
)
def test_channels_last_are_refused_with_the_order(tmp_path_factory, channels, sides, kind):
    folder = tmp_path_factory.mktemp("a")
    right = np.random.default_rng(0).integers(0, 9, (4, channels, *sides)).astype(kind)
    assert quiet(saved(folder, x=right)).shape == (channels, *sides)
    wrong = right.transpose(0, 2, 3, 1)
    with pytest.raises(ValueError, match=r"channels last.*array\.transpose\(0, 3, 1, 2\)"):
        quiet(saved(folder, x=wrong))
    assert quiet(saved(folder, x=wrong.transpose(0, 3, 1, 2))).shape == (channels, *sides)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((4, 2), bool), r"dtype bool is neither.*array\.astype\(np\.uint8\)"),
        (np.ones((4, 2), complex), "dtype complex128 is neither"),
        (np.ones((4, 2), "M8[s]"), "neither integer nor real"),
        (np.ones((4, 2), [("a", "u1")]), "neither integer nor real"),
        (np.array([[1.0, np.inf], [1, 1]]), "infinite; remove or rescale"),
        (np.array([[1.0, -np.inf], [1, 1]]), "infinite; remove or rescale"),
        (np.array([[1.0, np.nan], [1, 1]]), "NaN"),
        (np.array([[1.0, 1e39], [1, 1]]), "in torch.float32, infinite"),
        (np.array([[1, -1], [1, 1]]), "do not fit"),
        (np.array([[1, 2**64 - 1], [1, 1]], np.uint64), "do not fit"),
        (np.zeros((0, 3), np.uint8), r"shape \(0, 3\) is empty"),
        (np.zeros((3, 0), np.uint8), r"shape \(3, 0\) is empty"),
        (np.zeros((1, 3), np.uint8), "at least 2 are needed"),
        (np.zeros((), np.uint8), r"shape \(\)"),
    ],
)
@pytest.mark.parametrize("name", ["v.npy", "v.npz"])
def test_what_is_no_data_is_refused_in_a_line(tmp_path, capsys, array, words, name):
    path = saved(tmp_path, name, x=array)
    with pytest.raises(ValueError, match=words) as error:
        quiet(path)
    assert name in str(error.value)
    assert main(["train", "--data", path, "--dry-run"]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line == f"diffenc: error: {error.value}"


def damaged(data, draw):
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, min(len(data), 200) - 1))] = draw(st.integers(0, 255))
    where = draw(st.integers(0, len(data)))
    kind = draw(st.sampled_from(["flip", "flip", "cut", "more"]))
    return bytes(data[:where] if kind == "cut" else data + b"xy" if kind == "more" else data)


@pytest.mark.parametrize("name", ["v.npy", "v.npz"])
@given(st.data())
def test_damaged_files_are_data_or_refused_by_name(tmp_path_factory, name, data):
    kind = data.draw(st.sampled_from(["u1", "f4", ">i8", "f2"]))
    array = np.random.default_rng(0).integers(0, 9, (6, 4)).astype(kind)
    path = tmp_path_factory.mktemp("a") / name
    saved(path.parent, name, x=array)
    path.write_bytes(damaged(path.read_bytes(), data.draw))
    try:
        found = quiet(str(path))
    except ValueError as error:
        assert str(path) in str(error) and len(str(error).splitlines()) == 1
    else:
        assert len(found.train) and len(found.test)


@given(st.data())
def test_damaged_idx_is_data_or_refused_by_name(tmp_path_factory, data):
    raw = tmp_path_factory.mktemp("r") / "MNIST" / "raw"
    raw.mkdir(parents=True)
    content = b"\0\0\x08\x03" + struct.pack(">3I", 5, 4, 3) + bytes(range(60))
    packed = data.draw(st.booleans())
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (raw / f"{name}{'.gz' * packed}").write_bytes(gzip.compress(content) if packed else content)
    path = raw / f"train-images-idx3-ubyte{'.gz' * packed}"
    path.write_bytes(damaged(path.read_bytes(), data.draw))
    try:
        found = load_dataset("mnist", root=raw.parents[1])
    except ValueError as error:
        assert "train-images-idx3-ubyte" in str(error) or "'mnist'" in str(error)
        assert len(str(error).splitlines()) == 1
    else:
        assert found.train.numel() == 60


@pytest.mark.parametrize(("there", "follow"), [(59, "59"), (60, None), (61, "more"), (90, "more")])
def test_idx_headers_promise_what_follows(tmp_path, there, follow):
    (tmp_path / "x").write_bytes(b"\0\0\x08\x02" + struct.pack(">2I", 12, 5) + bytes(there))
    if follow is None:
        assert read_idx(tmp_path / "x").shape == (12, 5)
        return
    with pytest.raises(
        ValueError, match=f"header promises 60 bytes, {follow} follow.*fetch it again"
    ):
        read_idx(tmp_path / "x")


def test_zip_bombs_are_not_unpacked(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "v.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as stream:
            head = {"descr": "|u1", "fortran_order": False, "shape": (300, 2**20)}
            np.lib.format.write_array_header_1_0(stream, head)
            for _ in range(300):
                stream.write(bytes(2**20))
    assert (tmp_path / "v.npz").stat().st_size < 2**20

    def read(*arguments, **options):
        raise AssertionError("unpacked")

    monkeypatch.setattr(np.lib.format, "read_array", read)
    with pytest.raises(ValueError, match=r"v\.npz cannot be read as arrays .*would unpack to 314,"):
        load_dataset(str(tmp_path / "v.npz"))


def test_idx_bombs_are_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MOST_UNPACKED", 10_000)
    content = b"\0\0\x08\x03" + struct.pack(">3I", 100, 100, 100) + bytes(10**6)
    (tmp_path / "x.gz").write_bytes(gzip.compress(content))
    with pytest.raises(ValueError, match=r"x\.gz.*would unpack to 1,000,000.*fetch it again"):
        read_idx(tmp_path / "x")
    (tmp_path / "x").write_bytes(content)
    assert read_idx(tmp_path / "x").shape == (100, 100, 100)


def test_a_promise_that_is_not_kept_costs_no_memory(tmp_path):
    with (tmp_path / "v.npy").open("wb") as stream:
        head = {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**6)}
        np.lib.format.write_array_header_1_0(stream, head)
        stream.write(bytes(100))
    with pytest.raises(ValueError, match=r"v\.npy cannot be read as arrays"):
        load_dataset(str(tmp_path / "v.npy"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x.npy", (tmp_path / "v.npy").read_bytes())
    (tmp_path / "v.npz").write_bytes(packed.getvalue())
    with pytest.raises(ValueError, match=r"v\.npz cannot be read as arrays"):
        load_dataset(str(tmp_path / "v.npz"))


# Reals that are off ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(0, 99))
def test_moments_of_parts_are_those_of_all(sizes, seed):
    random = np.random.default_rng(seed)
    whole = torch.from_numpy(1e6 + random.normal(size=(sum(sizes), 2, 3)))
    found = Moments.of(torch.split(whole, sizes))
    flat = whole.transpose(0, 1).flatten(1)
    assert torch.allclose(found.mean, flat.mean(1), rtol=1e-14)
    assert torch.allclose(found.deviation, flat.std(1, correction=0), rtol=1e-8)
    assert (found.low, found.high) == (float(whole.min()), float(whole.max()))


def said(folder, array):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_dataset(saved(folder, x=array))
    return [str(each.message) for each in caught]


@given(
    scale=st.sampled_from([1e-4, 0.01, 0.3, 1.0, 3.0, 30.0, 1e4]),
    shift=st.sampled_from([0.0, 1.0, -50.0, 1e3]),
    channel=st.integers(0, 2),
    images=st.booleans(),
)
def test_reals_off_unit_scale_are_warned_of_with_their_numbers(
    tmp_path_factory, scale, shift, channel, images
):
    """Off in one dimension or channel is off."""
    values = np.random.default_rng(0).normal(size=(300, 3, 2, 2) if images else (900, 3))
    values = (values - values.mean()) / values.std()
    values[:, channel] = shift + scale * values[:, channel]
    lines = said(tmp_path_factory.mktemp("a"), values)
    if 0.2 < scale < 5 and abs(shift) < 3:
        assert lines == []
        return
    (line,) = lines
    part = values[:, channel].astype(np.float32).astype(float)
    for words in (
        f"from {values.min():g} to {values.max():g}",
        f"dimension or channel {channel} has mean {part.mean():g}",
        f"deviation {part.std():g}",
        "rescale them",
    ):
        assert words in line


def test_whole_numbers_stored_as_reals_are_named(tmp_path):
    random = np.random.default_rng(0)
    for values in (random.integers(0, 256, (50, 4)), random.integers(-2, 3, (50, 4))):
        lines = said(tmp_path, values.astype(np.float32))
        assert any(
            "all whole numbers" in line and "store them as integers" in line for line in lines
        )
        almost = values.astype(np.float32)
        almost[3, 3] += 0.5
        assert not any("whole numbers" in line for line in said(tmp_path, almost))
    scaled = random.integers(0, 256, (900, 4)) / 255
    (line,) = said(tmp_path, scaled)
    assert "of only 256 different values" in line and "as integers" in line
    assert said(tmp_path, random.random((900, 4))) == []


@pytest.mark.parametrize("different", [3, 256, 257])
@pytest.mark.parametrize("count", [1024, 1025, 16_384])
def test_few_values_are_named_where_there_are_enough_to_tell(different, count):
    """At most 256 different ones among more than four times as many, of the first 16,384."""
    levels = torch.linspace(-1.5, 1.5, different)[torch.arange(count) % different]
    later = torch.linspace(-1.2, 1.2, 2000) if count == 16_384 else torch.empty(0)
    found = Moments.of([torch.cat([levels, later])[:, None]])
    assert found.different == (None if count == 1024 else different)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_reals(found, "x")
    said = [f"of only {different} different values" in str(each.message) for each in caught]
    assert said == [True] * (count > 1024 and different <= 256)


def test_a_warning_is_one_line_of_the_command(tmp_path, capsys):
    path = saved(tmp_path, x=1e3 * np.random.default_rng(0).normal(size=(50, 2)))
    assert main(["train", "--data", path, "--dry-run", "--device", "cpu"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"diffenc: warning: {path}: reals from -")


# Large arrays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["u1", ">u2", "f4"])
def test_a_large_array_stays_on_the_disk_and_trains_the_same(tmp_path, monkeypatch, kind):
    array = np.random.default_rng(0).integers(0, 300, (200, 2, 3)).astype(kind)
    path = saved(tmp_path, x=array)
    here = quiet(path)
    monkeypatch.setattr(arrays, "LARGE", array.nbytes - 1)
    monkeypatch.setattr("diffenc_ct.data.source.MOST", 7)
    there = quiet(path)
    assert here.source is None and there.source is not None
    assert torch.equal(there.train, here.train[:7]) and torch.equal(there.test, here.test)
    assert there.levels == here.levels and len(there.source) == len(here.train)
    for step in range(0, 30, 3):
        one, other = (examples_of(data, 3, step, 16, slice(4, 12)) for data in (here, there))
        assert torch.equal(one, other)


def test_values_of_a_large_array_are_all_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "LARGE", 0)
    monkeypatch.setattr("diffenc_ct.data.source.MOST", 2)
    whole = np.zeros((500, 3), np.uint8)
    whole[250, 1] = 9
    assert load_dataset(saved(tmp_path, x=whole)).levels == 10
    with pytest.raises(ValueError, match=r"values 0\.\.9 do not fit into 9 levels"):
        load_dataset(saved(tmp_path, x=whole), levels=9)
    reals = np.random.default_rng(0).normal(size=(500, 3))
    reals[250, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        load_dataset(saved(tmp_path, x=reals))


@pytest.mark.parametrize("name", ["v.npy", "v.npz"])
@pytest.mark.parametrize("shape", [(5, 4), (7, 4)])
def test_what_is_cut_off_or_added_is_refused(tmp_path, name, shape):
    """A header that speaks of fewer or more examples than there are."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    content = stream.getvalue() + bytes(6 * 4)
    if name == "v.npz":
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("x.npy", content)
        content = packed.getvalue()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} cannot be read as arrays"):
        load_dataset(str(tmp_path / name))
