"""Data sets: true formats read back exactly, fixed splits, refusals that name the file."""

import gzip
import hashlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffenc_ct.data import NAMES, Dataset, load_dataset
from diffenc_ct.data.splits import split_in_order

ROOT = Path(os.environ.get("DIFFENC_DATA", "../shared/data"))


def test_digits_are_scikit_learns_and_split_for_good():
    from sklearn.datasets import load_digits

    data = load_dataset("digits")
    assert (len(data.train), len(data.test), data.levels, data.shape) == (1437, 360, 17, (1, 8, 8))
    together = torch.cat([data.train, data.test]).flatten(1)
    original = torch.from_numpy(load_digits().images.astype(np.uint8)).flatten(1)
    assert sorted(together.tolist()) == sorted(original.tolist())
    # The split is part of every published number: it must never move.
    digest = hashlib.sha256(data.test.numpy().tobytes()).hexdigest()
    assert digest == "fe6e2083756fdae81f16c5e5d75e3b22573ec192a46d4d9f7314883b9dd63848"


@pytest.mark.skipif(not (ROOT / "MNIST").is_dir(), reason="MNIST is not there")
def test_real_mnist():
    data = load_dataset("mnist", root=ROOT)
    assert data.train.shape == (60_000, 1, 28, 28) and data.test.shape == (10_000, 1, 28, 28)
    assert data.train.dtype == torch.uint8 and data.levels == 256
    # Published mean and standard deviation of the training pixels.
    share = np.bincount(data.train.numpy().ravel(), minlength=256) / data.train.numel()
    value = np.arange(256) / 255
    mean = (share * value).sum()
    assert mean == pytest.approx(0.1307, abs=5e-5)
    assert np.sqrt((share * (value - mean) ** 2).sum()) == pytest.approx(0.3081, abs=5e-5)


def write_idx(path, array, *, compress):
    head = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = head + array.tobytes()
    if compress:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(data))
    else:
        path.write_bytes(data)


@pytest.mark.parametrize("compress", [False, True])
def test_mnist_files_plain_and_compressed(tmp_path, compress):
    random = np.random.default_rng(0)
    train, test = (random.integers(0, 256, (n, 28, 28)).astype(np.uint8) for n in (5, 3))
    raw = tmp_path / "MNIST" / "raw"
    write_idx(raw / "train-images-idx3-ubyte", train, compress=compress)
    write_idx(raw / "t10k-images-idx3-ubyte", test, compress=compress)
    data = load_dataset("mnist", root=tmp_path)
    assert np.array_equal(data.train[:, 0], train) and np.array_equal(data.test[:, 0], test)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("keep", [0, 3, 10, 500, -1])
def test_truncated_mnist_is_refused_by_name(tmp_path, compress, keep):
    raw = tmp_path / "MNIST" / "raw"
    path = raw / "train-images-idx3-ubyte"
    write_idx(
        path,
        np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8),
        compress=compress,
    )
    found = path.with_name(path.name + ".gz") if compress else path
    found.write_bytes(found.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.*fetch it again"):
        load_dataset("mnist", root=tmp_path)


def test_missing_data_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train-images.*allow download"):
        load_dataset("mnist", root=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"CIFAR-10.*allow download"):
        load_dataset("cifar10", root=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"train_data_batch_10\.npz, val_data\.npz"):
        load_dataset("imagenet32", root=tmp_path)


def test_cifar10_in_its_true_format(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    random = np.random.default_rng(0)
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    batches, digests = {}, {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        batches[name] = random.integers(0, 256, (4, 3072)).astype(np.uint8)
        written = pickle.dumps({"data": batches[name], "labels": [0, 1, 2, 3]})
        (folder / name).write_bytes(written)
        digests[name] = hashlib.md5(written).hexdigest()
    meta = pickle.dumps({"label_names": [str(i) for i in range(10)]})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(
        CIFAR10, "train_list", [[n, digests[n]] for n in batches if n != "test_batch"]
    )
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", digests["test_batch"]]])
    wanted = {
        "filename": "batches.meta",
        "key": "label_names",
        "md5": hashlib.md5(meta).hexdigest(),
    }
    monkeypatch.setattr(CIFAR10, "meta", wanted)
    data = load_dataset("cifar10", root=tmp_path)
    train = np.concatenate([batches[f"data_batch_{i}"] for i in range(1, 6)]).reshape(-1, 3, 32, 32)
    assert np.array_equal(data.train, train) and data.levels == 256
    assert np.array_equal(data.test, batches["test_batch"].reshape(-1, 3, 32, 32))
    # An altered pickle could run code: it must not be opened.
    (folder / "test_batch").write_bytes(pickle.dumps({"data": 0}))
    with pytest.raises(FileNotFoundError, match="no intact CIFAR-10"):
        load_dataset("cifar10", root=tmp_path)


def test_imagenet32_in_its_true_format(tmp_path):
    random = np.random.default_rng(0)
    parts = {}
    for name in [f"train_data_batch_{i}" for i in range(1, 11)] + ["val_data"]:
        parts[name] = random.integers(0, 256, (2, 3072)).astype(np.uint8)
        np.savez(
            tmp_path / f"{name}.npz", data=parts[name], labels=np.zeros(2, int), mean=np.zeros(3072)
        )
    data = load_dataset("imagenet32", root=tmp_path)
    train = np.concatenate([parts[f"train_data_batch_{i}"] for i in range(1, 11)])
    assert np.array_equal(data.train.flatten(1), train)
    assert np.array_equal(data.test.flatten(1), parts["val_data"])
    np.savez(tmp_path / "train_data_batch_7.npz", data=np.zeros((2, 3072)))
    with pytest.raises(ValueError, match=r"train_data_batch_7\.npz.*bytes"):
        load_dataset("imagenet32", root=tmp_path)


def write_images(folder, count, *, mode="RGB", size=(6, 5), suffix=".png", seed=0):
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
        array = random.integers(0, 256, (size[1], size[0], *channels)).astype(np.uint8)
        Image.fromarray(array).save(folder / f"image{i:02d}{suffix}")


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_image_folders_keep_pixels_and_split(tmp_path, mode, channels):
    write_images(tmp_path / "in", 20, mode=mode)
    data = load_dataset(str(tmp_path / "in"))
    assert data.shape == (channels, 5, 6) and (len(data.train), len(data.test)) == (18, 2)
    seen = {
        np.asarray(Image.open(p)).reshape(5, 6, channels).tobytes()
        for p in (tmp_path / "in").iterdir()
    }
    images = torch.cat([data.train, data.test]).permute(0, 2, 3, 1).contiguous().numpy()
    assert {image.tobytes() for image in images} == seen
    # The split follows names, not the folder's place or listing.
    write_images(tmp_path / "elsewhere", 20, mode=mode)
    assert torch.equal(load_dataset(str(tmp_path / "elsewhere")).test, data.test)


def test_train_and_test_folders_are_the_split(tmp_path):
    write_images(tmp_path / "train", 3)
    write_images(tmp_path / "test", 2, seed=1)
    data = load_dataset(str(tmp_path))
    assert (len(data.train), len(data.test)) == (3, 2)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff", ".gif"])
def test_image_formats(tmp_path, suffix):
    write_images(tmp_path, 3, suffix=suffix)
    assert load_dataset(str(tmp_path)).shape == (3, 5, 6)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: write_images(f, 1, size=(7, 5), suffix=".bmp"), r"image00\.bmp is 7x5"),
        (lambda f: write_images(f, 1, mode="L", suffix=".bmp"), r"image00\.bmp.*1 channel"),
        (
            lambda f: write_images(f, 1, mode="RGBA", suffix=".tiff"),
            r"image00\.tiff has transparent pixels \(mode RGBA\)",
        ),
        (lambda f: (f / "bad.png").write_bytes(b"no image"), r"bad\.png cannot be read"),
        (
            lambda f: Image.fromarray(np.zeros((5, 6), np.uint16)).save(f / "deep.png"),
            r"deep\.png has 16 bits",
        ),
    ],
)
def test_unfit_images_are_refused_by_name(tmp_path, spoil, words):
    write_images(tmp_path, 3)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=words):
        load_dataset(str(tmp_path))


def test_empty_and_lopsided_folders(tmp_path):
    with pytest.raises(ValueError, match="no images in"):
        load_dataset(str(tmp_path))
    write_images(tmp_path / "test", 3)
    with pytest.raises(ValueError, match="has test, but no train; add it"):
        load_dataset(str(tmp_path))


@given(st.integers(2, 30), st.sampled_from([np.uint8, np.int32, np.int64]), st.integers(0, 9))
def test_integer_arrays_round_trip(tmp_path_factory, count, dtype, seed):
    values = np.random.default_rng(seed).integers(0, 9, (count, 3)).astype(dtype)
    values[0, 0] = 8
    path = tmp_path_factory.mktemp("a") / "values.npy"
    np.save(path, values)
    data = load_dataset(str(path))
    assert data.levels == 9 and len(data.test) == max(1, round(count / 10))
    assert sorted(torch.cat([data.train, data.test]).tolist()) == sorted(values.tolist())
    assert torch.equal(load_dataset(str(path)).test, data.test)
    assert load_dataset(str(path), levels=20).levels == 20


def test_real_arrays_stay_as_they_are(tmp_path):
    values = np.random.default_rng(0).normal(size=(10, 2, 3, 3))
    np.savez(tmp_path / "v.npz", train=values[:7], test=values[7:])
    data = load_dataset(str(tmp_path / "v.npz"))
    assert data.levels is None and data.train.dtype == torch.float32
    assert np.array_equal(data.train, values[:7].astype(np.float32))
    assert np.array_equal(data.test, values[7:].astype(np.float32))


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (np.array([[1, 2], [3, 300]]), {"levels": 256}, "3..300|1..300|do not fit into 256 levels"),
        (np.array([[1, -2], [3, 4], [5, 6]]), {}, "do not fit"),
        (np.array([[0.5, np.nan], [1, 1]]), {}, "NaN"),
        (np.array([[0.5, 1.0], [1, 1]]), {"levels": 4}, "store integers"),
        (np.array([["a"], ["b"]]), {}, "neither integer nor real"),
        (np.array([1, 2, 3]), {}, r"shape \(3,\)"),
        (np.zeros((1, 2), int), {}, "at least 2"),
        (np.zeros((3, 2), bool), {}, "neither integer nor real"),
    ],
)
def test_unfit_arrays_are_refused(tmp_path, values, options, words):
    np.save(tmp_path / "v.npy", values)
    with pytest.raises(ValueError, match=words):
        load_dataset(str(tmp_path / "v.npy"), **options)


@pytest.mark.parametrize("name", ["v.npy", "v.npz"])
def test_arrays_never_execute_code(tmp_path, name):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    array = np.empty((2, 1), dtype=object)
    array[:] = Trap()
    np.savez(tmp_path / "v.npz", x=array, allow_pickle=True)
    np.save(tmp_path / "v.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read as arrays"):
        load_dataset(str(tmp_path / name))
    assert not (tmp_path / "executed").exists()


def test_npz_with_unnamed_parts_and_mixed_types(tmp_path):
    np.savez(tmp_path / "v.npz", a=np.zeros((3, 2)), b=np.zeros((3, 2)))
    with pytest.raises(ValueError, match="a, b; store one array"):
        load_dataset(str(tmp_path / "v.npz"))
    np.savez(tmp_path / "w.npz", train=np.zeros((3, 2)), test=np.zeros((3, 2), int))
    with pytest.raises(ValueError, match="store one type"):
        load_dataset(str(tmp_path / "w.npz"))
    np.savez(tmp_path / "x.npz", train=np.zeros((3, 2)), test=np.zeros((3, 3)))
    with pytest.raises(ValueError, match="must agree"):
        load_dataset(str(tmp_path / "x.npz"))
    (tmp_path / "y.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:50])
    with pytest.raises(ValueError, match="cannot be read as arrays"):
        load_dataset(str(tmp_path / "y.npz"))


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError) as error:
        load_dataset("minst")
    assert all(name in str(error.value) for name in NAMES)
    with pytest.raises(ValueError, match="17 levels, not 16"):
        load_dataset("digits", levels=16)


@pytest.mark.parametrize("levels", [1, 3])
def test_a_level_too_many_is_refused(levels):
    fits = torch.tensor([[0, levels - 1]])
    Dataset("x", fits, fits, levels)
    with pytest.raises(ValueError, match=f"values 0..{levels} do not fit into {levels} levels"):
        Dataset("x", fits, torch.tensor([[0, levels]]), levels)


def test_a_data_set_checks_itself():
    with pytest.raises(ValueError, match="test set is empty"):
        Dataset("x", torch.zeros(2, 3), torch.zeros(0, 3), None)
    with pytest.raises(ValueError, match="give levels"):
        Dataset(
            "x", torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(1, 3, dtype=torch.uint8), None
        )


@pytest.mark.parametrize("count", [2, 3, 14, 15, 100])
def test_a_tenth_is_held_out_the_end_of_the_documented_order(count):
    """Of every version and machine the same: what was trained on then is no test now."""
    order = np.random.Generator(np.random.PCG64(0)).permutation(count).tolist()
    last = max(1, round(count / 10))
    train, test = (part.tolist() for part in split_in_order(count, "x"))
    assert (train, test) == (order[:-last], order[-last:])


def test_a_single_training_example_has_a_shape():
    one = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    data = Dataset("x", one, one, 2)
    assert data.shape == (3, 2, 2) and data.dimensions == 12
