"""Labels: of the right examples, in every place where they may stand, refused where they are not."""

import gzip
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffenc_ct.data import Dataset, Labels, load_dataset
from diffenc_ct.training.data_record import DataRecord
from tests.data.test_arrays import quiet, saved
from tests.refusals import refused


def test_digits_have_theirs():
    """By pixels: a nearest neighbour in the training set says the test image's label nearly always."""
    data = load_dataset("digits", labels=True)
    assert data.labels.classes == 10 and len(data.labels.train) == 1437
    test, train = (part.flatten(1).float() for part in (data.test[:100], data.train))
    nearest = torch.cdist(test, train).argmin(1)
    assert (data.labels.train[nearest] == data.labels.test[:100]).float().mean() > 0.95
    assert any("labels: 10 classes" in line for line in data.remarks)
    assert load_dataset("digits").labels is None


def mnist(folder, train=7, test=4, classes=3):
    """Small files in MNIST's format; the first pixel is the label."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", train), ("t10k", test)):
        labels = (np.arange(count) % classes).astype(np.uint8)
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 0, 0], images[0, 0, 1] = labels, 255
        header = struct.pack(">HBBIII", 0, 8, 3, *images.shape)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (raw / f"{name}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(struct.pack(">HBBI", 0, 8, 1, count) + labels.tobytes())
        )
    return raw


def test_mnist_has_its_files(tmp_path):
    raw = mnist(tmp_path)
    data = load_dataset("mnist", root=tmp_path, labels=True)
    assert torch.equal(data.train[:, 0, 0, 0].long(), data.labels.train)
    assert torch.equal(data.test[:, 0, 0, 0].long(), data.labels.test) and data.labels.classes == 3
    (raw / "t10k-labels-idx1-ubyte.gz").unlink()
    with refused(FileNotFoundError, "t10k-labels"):
        load_dataset("mnist", root=tmp_path, labels=True)
    load_dataset("mnist", root=tmp_path)


@given(
    count=st.integers(10, 40), seed=st.integers(0, 99), kind=st.sampled_from(["u1", "i8", ">u4"])
)
def test_one_array_of_labels_is_split_as_its_examples_are(tmp_path_factory, count, seed, kind):
    folder = tmp_path_factory.mktemp("labels")
    labels = np.random.default_rng(seed).integers(0, 5, count)
    labels[0] = 4
    examples = np.stack([labels, np.arange(count)], 1).astype("u1")
    data = quiet(saved(folder, "v.npz", x=examples, labels=labels.astype(kind)), labels=True)
    for split in ("train", "test"):
        assert torch.equal(getattr(data, split)[:, 0].long(), data.labels.of(split))
    assert data.labels.classes == 5


def test_two_arrays_of_labels(tmp_path):
    parts = {
        "train": np.array([[3, 0], [1, 9]], "u1"), "train_labels": np.array([3, 1]),
        "test": np.array([[5, 0]], "u1"), "test_labels": np.array([5]),
    }  # fmt: skip
    data = quiet(saved(tmp_path, "v.npz", **parts), labels=True)
    assert data.labels.train.tolist() == [3, 1] and data.labels.test.tolist() == [5]
    assert data.labels.classes == 6  # a class of the test set only counts


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "has no labels; store an array `labels`, or train_labels"),
        ({"labels": np.zeros(12)}, "labels are whole numbers, one an example, not float64"),
        ({"labels": np.zeros((12, 1), int)}, r"not int64 of shape \(11, 1\)"),
        ({"labels": np.arange(12) - 1}, "labels -1.."),
        ({"labels": np.zeros(11, int)}, "labels for .* examples; give one an example"),
    ],
)
def test_what_are_no_labels_is_refused(tmp_path, more, words):
    path = saved(tmp_path, "v.npz", x=np.arange(24, dtype="u1").reshape(12, 2), **more)
    if not more:
        path = saved(tmp_path, "w.npz", x=np.arange(24, dtype="u1").reshape(12, 2))
    with refused(ValueError, words):
        quiet(path, labels=True)


def test_data_without_labels_say_which_have_some(tmp_path):
    for name in ("swirl", "checkerboard", str(tmp_path / "v.npy")):
        if name.endswith("npy"):
            np.save(name, np.arange(40, dtype="u1").reshape(20, 2))
        with refused(ValueError, "has no labels; digits, mnist, cifar10 have.*leave out --labels"):
            quiet(name, labels=True)


def test_examples_that_are_read_when_needed_have_none():
    data = load_dataset("digits", labels=True)
    source = type("Source", (), {"epochs": True, "images": (), "__len__": lambda self: 1437,
                                 "__getitem__": lambda self, n: data.train[n]})()  # fmt: skip
    with refused(ValueError, "which have no labels"):
        Dataset("d", data.train, data.test, 17, source, labels=data.labels)


def test_labels_out_of_range_are_refused():
    with refused(ValueError, r"test labels 0..3 do not fit into 3 classes \(0..2\)"):
        Labels(torch.tensor([0, 2]), torch.tensor([0, 3]), 3)


def images(folder, names, colour):
    """One-coloured images, of the grey that colour(name) says."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), colour(name), np.uint8)).save(path)
    return folder


@given(
    counts=st.dictionaries(
        st.sampled_from(["owls", "cats", "Dogs", "a b", "10", "9"]), st.integers(1, 4), min_size=2
    ),
    layout=st.sampled_from(["{0}/{1}", "train/{0}/{1}", "{0}/train/{1}", "train/{0}/deeper/{1}"]),
)
def test_in_a_folder_of_folders_these_are_the_classes(tmp_path_factory, counts, layout):
    folder, order = tmp_path_factory.mktemp("classes"), sorted(counts)

    def grey(name):
        return 20 * next(n for n, one in enumerate(order) if f"{one}/" in name) + 7

    names = [layout.format(one, f"{n}.png") for one in counts for n in range(counts[one])]
    if "train" in layout:
        names += [name.replace("train", "test") for name in names[1:]]
    data = load_dataset(str(images(folder, names, grey)), labels=True)
    assert data.labels.names == tuple(order) and data.labels.classes == len(order)
    for split in ("train", "test"):
        shown = getattr(data, split)[:, 0, 0, 0].long()
        assert torch.equal(shown, 20 * data.labels.of(split) + 7)
    assert f"({', '.join(f'{n} {one}' for n, one in enumerate(order))})" in data.remarks[-1]
    assert load_dataset(str(folder)).labels is None


def test_an_image_of_no_class_is_named(tmp_path):
    for names, stray in (
        (("a/1.png", "b/1.png", "2.png"), "2"),
        (("train/a/1.png", "test/3.png"), "test/3"),
    ):
        folder = images(tmp_path / stray.replace("/", ""), names, lambda name: 0)
        with refused(ValueError, rf"{stray}\.png lies in no folder of a class.*leave out --labels"):
            load_dataset(str(folder), labels=True)


def test_patches_have_no_labels(tmp_path):
    folder = images(tmp_path, [f"{c}/{n}.png" for c in "ab" for n in range(3)], lambda name: 0)
    with refused(ValueError, "cut into patches, which have no labels"):
        load_dataset(str(folder), labels=True, patch=2)


def test_a_model_of_some_classes_does_not_take_others_of_the_same_number(tmp_path):
    records = []
    for pair in (("cats", "dogs"), ("dogs", "owls"), ("cats", "dogs")):
        folder = tmp_path / f"{len(records)}"
        images(folder, [f"{c}/{n}.png" for c in pair for n in range(3)], lambda name: 0)
        records.append(DataRecord.of(load_dataset(str(folder), labels=True)))
    assert records[0].unfit(records[1]) == ["classes cats, dogs -> dogs, owls"]
    assert records[0].unfit(records[2]) == []


def test_classes_have_as_many_names_as_there_are():
    one = torch.tensor([0])
    with refused(ValueError, "2 names for 3 classes"):
        Labels(one, one, 3, ("a", "b"))
