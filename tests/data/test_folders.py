"""Folders of images: which side each file is on, what is no data, where links lead.

Each image has one value of its own, by which it is known wherever it ends up.
"""

import hashlib
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffenc_ct.cli import main
from diffenc_ct.data import load_dataset
from diffenc_ct.data.splits import part_of

SPELLINGS = {
    "train": ["train", "Training", "TRAIN", "trainset", "train_images", "train2017", "train_32x32"],
    "test": ["test", "testing", "Test", "TESTING", "test-set", "testdata", "test2017"],
    "validation": ["val", "valid", "validation", "Val", "VALIDATION", "dev", "val2017"],
}
NO_PART = ["trains", "contest", "valley", "latest", "evaluate", "training wheels", "cats", "data"]


def write(folder, values):
    """An image for each value, all of whose pixels are that value."""
    folder.mkdir(parents=True, exist_ok=True)
    for value in values:
        Image.fromarray(np.full((2, 3), value, np.uint8)).save(folder / f"image{value:03d}.png")


def values_of(examples):
    assert all((image == image.flatten()[0]).all() for image in examples)
    return sorted(examples[:, 0, 0, 0].tolist())


def sides(folder):
    data = load_dataset(str(folder))
    return values_of(data.train), values_of(data.test)


def tenth(names):
    """The names that are held out: those of the smallest SHA-256."""
    ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    return ordered[: max(1, round(len(names) / 10))]


@pytest.mark.parametrize("part", SPELLINGS)
def test_spellings(part):
    assert [part_of(name) for name in SPELLINGS[part]] == [part] * len(SPELLINGS[part])


@pytest.mark.parametrize("name", NO_PART)
def test_other_words_are_no_parts(name):
    assert part_of(name) is None


@given(
    train=st.sampled_from(SPELLINGS["train"]),
    test=st.sampled_from([None, *SPELLINGS["test"]]),
    validation=st.sampled_from([None, *SPELLINGS["validation"]]),
    above=st.sampled_from(["", "images", "a/b"]),
    below=st.sampled_from(["", "cats", "train", "test/val"]),
)
def test_parts_stay_apart(tmp_path_factory, train, test, validation, above, below):
    """Whatever they are called, wherever they lie, whatever lies in them: no test image is trained on."""
    folder = tmp_path_factory.mktemp("d")
    parts = {train: range(0, 20), test: range(20, 25), validation: range(25, 29)}
    for name, values in parts.items():
        if name is not None:
            write(folder / above / name / below, values)
    data = load_dataset(str(folder))
    if test is None and validation is None:
        names = [(folder / above / train / below / f"image{i:03d}.png") for i in parts[train]]
        held = tenth([name.relative_to(folder).as_posix() for name in names])
        assert len(held) == 2 and values_of(data.test) == sorted(int(n[-7:-4]) for n in held)
        assert values_of(torch.cat([data.train, data.test])) == list(parts[train])
        assert data.remarks == []
        return
    assert values_of(data.train) == list(parts[train])
    assert values_of(data.test) == list(parts[validation if test is None else test])
    said = " ".join(data.remarks)
    if test is None:
        assert f"on {validation}, for want of a test set" in said
    elif validation is not None:
        assert f"left out: the 4 examples of {validation}" in said
    else:
        assert said == ""


@pytest.mark.parametrize("validation", SPELLINGS["validation"])
def test_validation_images_serve_for_tests_and_never_for_training(tmp_path, validation):
    write(tmp_path / "train", range(20))
    write(tmp_path / validation, range(20, 23))
    assert sides(tmp_path) == (list(range(20)), [20, 21, 22])
    write(tmp_path / "test", range(23, 25))
    assert sides(tmp_path) == (list(range(20)), [23, 24])


def test_what_is_left_out_is_said_before_training(tmp_path, capsys):
    for name, values in (("train", range(9)), ("val", range(9, 12)), ("test", range(12, 14))):
        write(tmp_path / name, values)
    unet = ["--network", "score-unet", "--network-options", "width=32", "layers=1"]
    plain = ["--encoder", "identity", "--prediction", "v", *unet]
    assert main(["train", "--data", str(tmp_path), "--dry-run", "--device", "cpu", *plain]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "left out: the 3 examples of val; tests are on test" in lines


@pytest.mark.parametrize("stray", ["x.png", "more/x.png", "cats/train.png"])
@pytest.mark.parametrize("others", [["train", "test"], ["train"], ["train", "val"]])
def test_strays_are_refused_by_name(tmp_path, stray, others):
    for i, name in enumerate(others):
        write(tmp_path / name, range(5 * i, 5 * i + 5))
    (tmp_path / stray).parent.mkdir(exist_ok=True)
    Image.new("L", (3, 2)).save(tmp_path / stray)
    with pytest.raises(ValueError, match=f"{stray} lies beside {' and '.join(sorted(others))}"):
        sides(tmp_path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["train", "Training", "test"], "two names for one part"),
        (["train", "val", "valid"], "two names for one part"),
        (["test"], "has test, but no train"),
        (["val"], "has val, but no train"),
        (["val", "test"], "has test and val, but no train"),
    ],
)
def test_parts_that_decide_nothing_are_refused(tmp_path, names, words):
    for i, name in enumerate(names):
        write(tmp_path / name, [i])
    with pytest.raises(ValueError, match=words):
        sides(tmp_path)


NO_DATA = [
    ".ipynb_checkpoints/x-checkpoint.png",
    ".hidden.png",
    "._image000.png",
    "__MACOSX/x.png",
    "__MACOSX/train/._x.png",
    "Thumbs/x.png",
    "thumbs/a/x.jpg",
    "Thumbs.db",
    "desktop.ini",
    "old~/x.png",
    "x.png~",
    "~x.png",
    "@eaDir/x.png/SYNOPHOTO_THUMB_M.jpg",
    "notes.txt",
    "labels.csv",
]


@given(st.lists(st.sampled_from(NO_DATA), unique=True), st.booleans(), st.booleans())
def test_what_programs_leave_is_no_data(tmp_path_factory, names, inside, parted):
    folder = tmp_path_factory.mktemp("d")
    for part, values in (("train", range(5)), ("test", range(5, 8))):
        write(folder / part if parted else folder, values)
    before = sides(folder)
    for name in names:
        left = (folder / "train" if inside and parted else folder) / name
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_bytes(b"no image")
    assert sides(folder) == before


@pytest.mark.parametrize("levels", [None, 256])
def test_images_have_256_levels(tmp_path, levels):
    write(tmp_path, range(4))
    assert load_dataset(str(tmp_path), levels=levels).levels == 256
    with pytest.raises(ValueError, match=r"256 levels, not 16; store other integers as \.npy"):
        load_dataset(str(tmp_path), levels=16)


def test_a_folder_may_be_hidden_itself(tmp_path):
    write(tmp_path / ".data", range(4))
    assert len(sides(tmp_path / ".data")[0]) == 3


def test_links_are_followed_and_end(tmp_path):
    """To folders and files, elsewhere and here, in circles: every image once."""
    write(tmp_path / "elsewhere" / "deep", range(3))
    write(tmp_path / "single", [3])
    folder = tmp_path / "d"
    write(folder / "own", range(4, 8))
    (folder / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "link.png").symlink_to(tmp_path / "single" / "image003.png")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "own" / "up").symlink_to("..", target_is_directory=True)
    (folder / "own" / "beside").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    train, test = sides(folder)
    assert sorted(train + test) == list(range(8))


def test_a_link_may_be_a_part(tmp_path):
    write(tmp_path / "a", range(3))
    write(tmp_path / "b", range(3, 5))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "d" / "test").symlink_to(tmp_path / "b", target_is_directory=True)
    assert sides(tmp_path / "d") == ([0, 1, 2], [3, 4])
    (tmp_path / "d" / "test" / "x.png").symlink_to(tmp_path / "a" / "image001.png")
    with pytest.raises(ValueError, match=r"train/image001\.png and .*test/x\.png are one file"):
        sides(tmp_path / "d")


def test_a_broken_link_is_refused_by_name(tmp_path):
    write(tmp_path, range(4))
    (tmp_path / "x.png").symlink_to(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match=r"x\.png is no file \(or a link to none\)"):
        sides(tmp_path)


def test_odd_names_are_names(tmp_path):
    """A link to itself, and bytes that are no text."""
    write(tmp_path / "a", range(4))
    os.rename(tmp_path / "a" / "image002.png", os.fsencode(tmp_path / "a") + b"/\xff\xfe.png")
    train, test = sides(tmp_path / "a")
    assert sorted(train + test) == list(range(4))
    (tmp_path / "a" / "self.png").symlink_to("self.png")
    with pytest.raises(ValueError, match=r"self\.png is no file"):
        sides(tmp_path / "a")


def test_home_is_written_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "pictures", range(4))
    np.save(tmp_path / "v.npy", np.eye(4, dtype=np.uint8))
    assert len(load_dataset("~/pictures").train) == 3
    assert len(load_dataset("~/v.npy").train) == 3
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "r")):
        load_dataset("mnist", root="~/r")
    monkeypatch.setenv("DIFFENC_DATA", "~/e")
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "e")):
        load_dataset("mnist")
