"""Crops of images of any size: each position is one crop, grids cover whole patches once, files are refused by name.

Images of three channels that hold image, row and column of each pixel say of every crop where it is from.
"""

import hashlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffenc_ct.cli import main
from diffenc_ct.data import Patches, files, load_dataset

ROOT = Path(os.environ.get("DIFFENC_DATA", "../shared/data"))
sides = st.integers(0, 9)
cases = st.tuples(st.integers(1, 6), st.lists(st.tuples(sides, sides), min_size=1, max_size=5))


def places(sizes):
    """Images of (height, width) whose pixels are their own places."""
    images = []
    for i, (height, width) in enumerate(sizes):
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        images.append(torch.stack([torch.full_like(y, i), y, x]).to(torch.uint8))
    return tuple(images)


def of_case(case):
    """The side of a patch and sizes of images, none smaller."""
    size, more = case
    return size, [(size + height, size + width) for height, width in more]


def write(folder, images, suffix=".png"):
    """Images (channels, height, width) as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        pixels = np.asarray(image, np.uint8)
        shown = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2)
        Image.fromarray(np.ascontiguousarray(shown)).save(folder / f"image{i:02d}{suffix}")


@given(cases)
def test_numbers_are_positions_row_by_row(case):
    size, sizes = of_case(case)
    patches = Patches(places(sizes), size)
    expected = [
        (i, y, x)
        for i, (height, width) in enumerate(sizes)
        for y in range(height - size + 1)
        for x in range(width - size + 1)
    ]
    assert len(patches) == len(expected)
    crops = patches[torch.arange(len(patches))]
    assert list(map(tuple, crops[:, :, 0, 0].tolist())) == expected
    # Every other pixel is where it lies beside the first.
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    beside = torch.stack([torch.zeros_like(y), y, x])
    assert torch.equal(crops.long(), crops[:, :, :1, :1].long() + beside)


@given(cases)
def test_a_grid_covers_whole_patches_once(case):
    size, sizes = of_case(case)
    patches = Patches(places(sizes), size)
    crops = patches[patches.grid()]
    seen = list(map(tuple, crops.transpose(0, 1).flatten(1).T.tolist()))
    whole = {
        (i, y, x)
        for i, (height, width) in enumerate(sizes)
        for y in range(height // size * size)
        for x in range(width // size * size)
    }
    assert len(seen) == len(whole) and set(seen) == whole


@given(
    cases, st.sampled_from([1, 3]), st.sampled_from([".png", ".bmp", ".tiff"]), st.integers(0, 9)
)
def test_folders_become_patches(tmp_path_factory, case, channels, suffix, seed):
    size, sizes = of_case(case)
    random, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("p")
    parts = {}
    for part in ("train", "test"):
        parts[part] = [random.integers(0, 256, (channels, *shape)) for shape in sizes]
        write(folder / part, parts[part], suffix)
    data = load_dataset(str(folder), patch=size)
    assert (data.levels, data.shape) == (256, (channels, size, size))
    for image, kept in zip(parts["train"], data.source.images, strict=True):
        assert np.array_equal(image, kept)
    for part, examples in (("train", data.train), ("test", data.test)):
        patches = Patches(tuple(torch.from_numpy(i.astype(np.uint8)) for i in parts[part]), size)
        grid = patches[patches.grid()]
        assert sorted(examples.flatten(1).tolist()) == sorted(grid.flatten(1).tolist())
    assert torch.equal(load_dataset(str(folder), patch=size).test, data.test)


@given(st.integers(2, 25), st.integers(1, 3), st.sampled_from([1, 3]))
def test_whole_files_are_held_out(tmp_path_factory, count, size, channels):
    """A tenth of the files, those of the smallest SHA-256 of their names; each image has one value of its own."""
    folder = tmp_path_factory.mktemp("p")
    write(folder, [np.full((channels, 3 + i % 2, 3 + i % 4), i) for i in range(count)])
    data = load_dataset(str(folder), patch=size)
    names = sorted(
        range(count), key=lambda i: hashlib.sha256(f"image{i:02d}.png".encode()).digest()
    )
    held_out = set(names[: max(1, round(count / 10))])
    everything = data.source[torch.arange(len(data.source))]
    assert set(data.test.flatten().tolist()) == held_out
    assert set(everything.flatten().tolist()) == set(range(count)) - held_out
    assert set(data.train.flatten().tolist()) == set(range(count)) - held_out


def test_the_first_examples_are_of_all_images(tmp_path):
    for part in ("train", "test"):
        write(tmp_path / part, places([(20, 20)] * 4))
    data = load_dataset(str(tmp_path), patch=2)
    for examples in (data.train, data.test):
        assert examples[:30, 0, 0, 0].unique().tolist() == [0, 1, 2, 3]


def test_fixed_training_examples_are_limited_and_tests_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST", 7)
    for part in ("train", "test"):
        write(tmp_path / part, places([(8, 8)]))
    data = load_dataset(str(tmp_path), patch=2)
    assert (len(data.train), len(data.test), len(data.source)) == (7, 16, 49)


def test_what_is_left_out_is_said(tmp_path):
    write(tmp_path / "train", places([(5, 4), (3, 3)]))
    write(tmp_path / "test", places([(5, 7), (3, 3)]))
    (remark,) = load_dataset(str(tmp_path), patch=3).remarks
    # 5x7 holds two whole patches of 9 pixels, 3x3 one: 27 of 44 pixels.
    for words in (
        "3x3",
        "of 7 positions in 2 images",
        "a grid on 2 images",
        "38.6 % of the pixels",
    ):
        assert words in remark
    assert "\n" not in remark


def deep_png(path):
    """A PNG of 16 bits a channel in colour, which pillow opens as if it had eight."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 6, 6, 16, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(6 * (1 + 36)))
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def deep_tiff(path):
    """The same as TIFF."""
    tags = {256: 6, 257: 6, 258: (3, 122), 259: 1, 262: 2, 273: 128, 277: 3, 278: 6, 279: 216}
    data = b"II*\0" + struct.pack("<IH", 8, len(tags))
    for tag, value in tags.items():
        count, value = value if isinstance(value, tuple) else (1, value)
        data += struct.pack("<HHII", tag, 3, count, value)
    path.write_bytes(
        (data + bytes(4)).ljust(122, b"\0") + struct.pack("<HHH", 16, 16, 16) + bytes(216)
    )


def mode(name, *, size=(6, 6)):
    return lambda path: Image.new(name, size).save(path)


UNFIT = [
    ("small.png", mode("RGB", size=(6, 2)), "6x2", "smaller than a patch of 3x3; remove it"),
    ("thin.png", mode("RGB", size=(2, 6)), "2x6", "smaller than a patch of 3x3; remove it"),
    (
        "onechannel.png",
        mode("L"),
        "is 6x6 with 1 channel but image00.png is 6x6 with 3 channels",
        "bring all images to one mode",
    ),
    (
        "clear.png",
        mode("RGBA"),
        "transparent pixels (mode RGBA)",
        "convert it to 8-bit grey or RGB",
    ),
    ("print.jpg", mode("CMYK"), "mode CMYK", "convert it to 8-bit grey or RGB"),
    ("deepgrey.png", mode("I;16"), "16 bits", "convert it to 8-bit grey or RGB"),
    ("deep.png", deep_png, "16 bits", "convert it to 8-bit grey or RGB"),
    ("deep.tiff", deep_tiff, "16 bits", "convert it to 8-bit grey or RGB"),
    (
        "deep.ppm",
        lambda path: path.write_bytes(b"P6 6 6 65535\n" + bytes(216)),
        "16 bits",
        "convert it to 8-bit grey or RGB",
    ),
    ("broken.png", lambda path: path.write_bytes(b"?"), "cannot be read", "remove or replace it"),
]


@pytest.mark.parametrize(
    ("name", "spoil", "cause", "remedy"), UNFIT, ids=[case[0] for case in UNFIT]
)
def test_unfit_files_are_refused_in_a_line(tmp_path, capsys, name, spoil, cause, remedy):
    write(tmp_path, places([(6, 6), (9, 4), (3, 3)]))
    assert load_dataset(str(tmp_path), patch=3).shape == (3, 3, 3)
    spoil(tmp_path / name)
    assert main(["train", "--data", str(tmp_path), "--patch", "3", "--dry-run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("diffenc: error: ")
    for words in (str(tmp_path / name), cause, remedy):
        assert words in line


def test_deep_images_are_refused_without_patches_too(tmp_path):
    write(tmp_path, places([(6, 6)] * 3))
    deep_png(tmp_path / "zdeep.png")
    with pytest.raises(ValueError, match=r"zdeep\.png has 16 bits"):
        load_dataset(str(tmp_path))


def test_without_patches_sizes_must_agree(tmp_path):
    write(tmp_path, places([(6, 6), (6, 5)]))
    with pytest.raises(ValueError, match=r"image01\.png is 5x6 .* one size and mode.*--patch"):
        load_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--data digits --patch 4", ["'digits'", "no folder", "leave out --patch 4"]),
        ("--data ARRAY --patch 4", ["v.npy", "no folder", "leave out --patch 4"]),
        ("--data swirl --flip", ["'swirl'", "(2,)", "leave out --flip"]),
        ("--data ARRAY --flip", ["v.npy", "(3,)", "leave out --flip"]),
        ("--data digits --patch 0", ["patch", "greater than 0"]),
        ("--data nowhere --patch 4", ["'nowhere'", "no folder"]),
    ],
)
def test_what_cannot_be_cut_or_flipped_is_refused_in_a_line(tmp_path, capsys, arguments, words):
    np.save(tmp_path / "v.npy", np.zeros((4, 3), np.uint8))
    given = arguments.replace("ARRAY", str(tmp_path / "v.npy")).split()
    try:
        code = main(["train", *given, "--run", str(tmp_path / "run"), "--dry-run"])
    except SystemExit as error:
        code = error.code
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("diffenc: error: ") and all(word in line for word in words), line


@pytest.mark.skipif(not (ROOT / "kodak").is_dir(), reason="the Kodak images are not there")
def test_real_photographs():
    data = load_dataset(str(ROOT / "kodak"), patch=16)
    # 24 images of 768x512 or 512x768, of which two are for tests.
    assert data.shape == (3, 16, 16) and len(data.source) == 22 * 753 * 497
    assert len(data.train) == 2**15 and len(data.test) == 2 * 1536
    assert "0.0 % of the pixels" in data.remarks[0]
