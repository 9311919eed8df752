"""diffenc compress and decompress: the same images again, or one line and nothing written."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffenc_ct.cli import main
from diffenc_ct.coding import cut, decode, encode, read
from diffenc_ct.elbo import FiniteDepth
from diffenc_ct.training.runs import load
from tests.coding.test_codec import forged

SMALL = ["--device", "cpu", "--threads", "1"]


def said(capsys, words):
    code = main([*words, *SMALL])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def make_wrong(folder, x):
    """Files that are refused."""
    np.save(folder / "rgb.npy", np.zeros((2, 3, 9, 9), np.uint8))
    np.save(folder / "empty.npy", np.zeros((0, 1, 8, 8), np.uint8))
    np.save(folder / "bright.npy", x + 17)
    Image.fromarray(np.full((9, 5), 17, np.uint8) * np.eye(9, 5, dtype=np.uint8)).save(
        folder / "grey.png"
    )
    Image.fromarray(np.zeros((9, 5), np.uint16)).save(folder / "deep.png")
    Image.fromarray(np.zeros((9, 5, 4), np.uint8)).save(folder / "clear.png")
    data = (folder / "x.diffenc").read_bytes()
    (folder / "cut.diffenc").write_bytes(data[:-5])
    (folder / "library.diffenc").write_bytes(encode(load("digits-vdm"), torch.from_numpy(x), 1))
    (folder / "floats.diffenc").write_bytes(forged(data, images="0" * 64))
    asked = read(data).header.run | {"depth": 1}
    images = [torch.zeros(1, 9, 17).long(), torch.ones(1, 8, 16).long()]
    tiles, sizes = cut(images, (1, 8, 8))
    steps = FiniteDepth(1, step="mixture")
    several = encode(load("digits-vdm"), tiles, steps, sizes=sizes, run=asked)
    (folder / "several.diffenc").write_bytes(several)
    (folder / "fewer.diffenc").write_bytes(forged(several, sizes=[[9, 9]]))
    (folder / "turned.diffenc").write_bytes(forged(several, sizes=[[17, 9], [8, 16]]))


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A folder with 4 digits as digits.npy, what they were compressed to, and files that are refused."""
    folder = tmp_path_factory.mktemp("packed")
    x = np.random.default_rng(0).integers(0, 17, (4, 1, 8, 8), dtype=np.uint8)
    np.save(folder / "digits.npy", x)
    words = ["compress", "digits-vdm", str(folder / "digits.npy"), "--depth", "2"]
    assert main([*words, "-o", str(folder / "x.diffenc"), *SMALL]) == 0
    make_wrong(folder, x)
    return folder, x


def test_files_and_arrays_come_back(packed, tmp_path, capsys):
    folder, x = packed
    code, out, _ = said(
        capsys, ["decompress", str(folder / "x.diffenc"), "-o", str(tmp_path / "pngs")]
    )
    assert code == 0 and "4 images, the same as before" in out and "2 evaluations an image" in out
    names = sorted(path.name for path in (tmp_path / "pngs").iterdir())
    assert names == ["0.png", "1.png", "2.png", "3.png"]
    # A folder, single files and arrays in one; without --depth's default and with an array again.
    again = str(tmp_path / "again.diffenc")
    sources = [str(tmp_path / "pngs"), str(tmp_path / "pngs/2.png"), str(folder / "digits.npy")]
    code, out, _ = said(
        capsys,
        ["compress", "digits-vdm", *sources, "--depth", "1", "--step", "gaussian", "-o", again],
    )
    assert (
        code == 0 and "9 images of 64 values" in out and "1 gaussian step: 1 evaluation an" in out
    )
    code, *_ = said(capsys, ["decompress", again, "-o", str(tmp_path / "x.npy")])
    found = np.load(tmp_path / "x.npy")
    assert code == 0 and found.dtype == np.uint8
    assert np.array_equal(found, np.concatenate([x, x[2:3], x]))


def test_one_image_is_one_and_has_no_standard_error(packed, tmp_path, capsys):
    folder, x = packed
    np.save(tmp_path / "one.npy", x[:1])
    file, given = str(tmp_path / "one.diffenc"), str(tmp_path / "one.npy")
    words = ["compress", "digits-vdm", given, "--depth", "2", "-o", file, "--json"]
    code, out, err = said(capsys, words)
    assert code == 0 and json.loads(out)["bound"]["standard_error"] is None
    assert "1 image of 64 values" in err and "2 mixture steps: 2 evaluations" in err
    assert re.search(r"bound  [\d.]+ bits per dimension, estimated anew", err)
    code, out, _ = said(capsys, ["decompress", file, "-o", str(tmp_path / "back.npy")])
    assert code == 0 and "1 image, the same as before" in out
    assert np.array_equal(np.load(tmp_path / "back.npy"), x[:1])


def test_images_of_other_sizes_come_back_from_tiles(packed, tmp_path, capsys):
    """Grey images of three sizes, one of them in an array."""
    folder, x = packed
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 17, size, dtype=np.uint8) for size in [(3, 20), (9, 8), (9, 8)]]
    Image.fromarray(images[0]).save(tmp_path / "long.png")
    np.save(tmp_path / "two.npy", np.stack(images[1:])[:, None])
    file = str(tmp_path / "x.diffenc")
    sources = [str(tmp_path / "long.png"), str(tmp_path / "two.npy"), str(folder / "digits.npy")]
    words = ["compress", "digits-vdm", *sources, "--depth", "2", "-o", file]
    code, out, _ = said(capsys, [*words, "--json"])
    found = read(Path(file).read_bytes())
    assert code == 0 and found.header.sizes == [[3, 20], [9, 8], [9, 8]] + [[8, 8]] * 4
    said_values = json.loads(out.splitlines()[-1])
    assert (said_values["images"], said_values["tiles"]) == (7, 11)
    code, out, _ = said(capsys, words)
    assert (
        "7 images in 11 tiles of 64 values by digits-vdm" in out and "2 evaluations a tile" in out
    )
    net, bound = (
        float(re.search(rf"{name} +([0-9.]+)", out).group(1)) for name in ("net", "bound")
    )
    assert net == round(found.net, 4) and bound == pytest.approx(net, rel=0.2)
    assert found.net * (60 + 2 * 72 + 4 * 64) == pytest.approx(
        32 * (len(found.words) - found.header.initial)
    )
    code, out, err = said(capsys, ["decompress", file, "-o", str(tmp_path / "pngs")])
    assert code == 0, err
    assert "7 images, the same as before" in out and "2 evaluations a tile" in out
    for number, image in enumerate([*images, *x[:, 0]]):
        with Image.open(tmp_path / f"pngs/{number}.png") as back:
            assert np.array_equal(np.array(back), image)


def test_a_folder_of_colours_of_several_sizes(tmp_path, capsys):
    """By a model of RGB tiles; and one size, which an array holds."""
    rng, folder = np.random.default_rng(2), tmp_path / "colours"
    folder.mkdir()
    images = [rng.integers(0, 256, size, dtype=np.uint8) for size in [(17, 5, 3), (4, 16, 3)]]
    for name, image in zip("ab", images, strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
    file = str(tmp_path / "x.diffenc")
    words = ["compress", "kodak-vdm", str(folder), "--depth", "1", "-o", file]
    code, out, _ = said(capsys, words)
    assert code == 0 and "2 images in 3 tiles of 768 values" in out
    assert said(capsys, ["decompress", file, "-o", str(tmp_path / "back")])[0] == 0
    for number, image in enumerate(images):
        with Image.open(tmp_path / f"back/{number}.png") as back:
            assert np.array_equal(np.array(back), image)
    one = ["compress", "kodak-vdm", str(folder / "b.png"), "--depth", "1", "-o", file]
    assert said(capsys, one)[0] == 0
    assert said(capsys, ["decompress", file, "-o", str(tmp_path / "x.npy")])[0] == 0
    assert np.array_equal(np.load(tmp_path / "x.npy"), np.moveaxis(images[1], 2, 0)[None])


def test_what_is_printed(packed, capsys, tmp_path):
    file = str(tmp_path / "x.diffenc")
    words = ["compress", "digits-vdm", "--split", "test", "--examples", "20", "--depth", "2"]
    code, out, _ = said(capsys, [*words, "-o", file])
    assert (
        code == 0 and "20 images of 64 values by digits-vdm, 2 mixture steps: 2 evaluations" in out
    )
    numbers = [float(v) for v in re.findall(r"(?:net|gross|bound) +([0-9.]+)", out)]
    found = read(open(file, "rb").read())
    assert numbers[:2] == [round(found.net, 4), round(found.gross, 4)]
    spread = float(re.search(r"± ([0-9.]+)", out).group(1))
    assert 0.01 < spread < 1 and abs(numbers[2] - found.net) < 5 * spread


def test_calibrated(packed, tmp_path, capsys):
    folder, x = packed
    calibration, file = str(tmp_path / "c.json"), str(tmp_path / "x.diffenc")
    words = "calibrate digits-vdm --depth 2 --candidates 4 --examples 16 --step mixture".split()
    assert said(capsys, [*words, "--out", calibration])[0] == 0
    words = ["compress", "digits-vdm", str(folder / "digits.npy"), "--calibration", calibration]
    code, out, _ = said(capsys, [*words, "-o", file])
    assert code == 0 and "2 mixture steps" in out
    assert said(capsys, ["decompress", file, "-o", str(tmp_path / "x.npy")])[0] == 0
    assert np.array_equal(np.load(tmp_path / "x.npy"), x)
    code, _, err = said(capsys, [*words, "--depth", "3", "-o", file])
    assert code == 2 and "--depth 3 has no effect here" in err


WRONG = {
    "compress digits-vdm -o FILE": "give images, or --split test",
    "compress digits-vdm a.npy --split test -o FILE": "stands in the place of IMAGES",
    "compress digits-vdm rgb.npy -o FILE": "(3, 9, 9), digits-vdm codes (1, 8, 8): bring them to 1 channels",
    "compress digits-vdm empty.npy -o FILE": "empty.npy",
    "compress digits-vdm digits.npy grey.png -o FILE": "grey.png: values 0..17 do not fit into 17",
    "compress kodak-vdm grey.png -o FILE": "grey.png has examples of shape (1, 9, 5), kodak-vdm codes (3, 16, 16)",
    "compress kodak-vdm deep.png -o FILE": "deep.png has 16 bits a channel",
    "compress kodak-vdm clear.png -o FILE": "clear.png has transparent pixels",
    "compress digits-vdm bright.npy -o FILE": "bright.npy:data",
    "compress digits-vdm none.npy -o FILE": "none.npy does not exist",
    "compress digits-vdm digits.npy --examples 3 -o FILE": "--examples 3 has no effect here",
    "compress digits-vdm digits.npy --bits 11 -o FILE": "--bits: '11'",
    "compress digits-vdm digits.npy -o .": ". is a folder",
    "decompress none -o FILE": "none cannot be read",
    "decompress digits.npy -o FILE": "digits.npy: these 384 bytes are no coded images",
    "decompress cut.diffenc -o FILE": "truncated or damaged",
    "decompress library.diffenc -o FILE": "names no run",
    "decompress x.diffenc --run mnist-vdm -o FILE": "other weights",
    "decompress floats.diffenc -o FILE": "floats differ here",
    "decompress fewer.diffenc -o FILE": "fewer.diffenc: sizes [[9, 9]] take 4 tiles of shape (1, 8, 8)",
    "decompress turned.diffenc -o FILE": "turned.diffenc: the decoded images are not those",
    "decompress several.diffenc -o FILE.npy": "several.diffenc holds images of several sizes",
}


@pytest.mark.parametrize("words", WRONG)
def test_mistakes_are_one_line_and_nothing_is_written(packed, tmp_path, monkeypatch, capsys, words):
    folder, x = packed
    monkeypatch.chdir(folder)
    before = sorted(path.name for path in folder.iterdir())
    try:
        code = main([word.replace("FILE", str(tmp_path / "out")) for word in words.split()] + SMALL)
    except SystemExit as error:  # of the parser
        code = error.code
    err = capsys.readouterr().err.strip()
    assert code == 2 and WRONG[words] in err and len(err.splitlines()) == 1
    assert err.startswith("diffenc: error: ") and not any(tmp_path.iterdir())
    assert sorted(path.name for path in folder.iterdir()) == before


def test_the_library_reads_what_the_command_wrote(packed):
    folder, x = packed
    data = (folder / "x.diffenc").read_bytes()

    found = decode(load("digits-vdm"), data, FiniteDepth(2, step="mixture"))
    assert np.array_equal(found.numpy(), x)


def test_examples_that_are_no_images_need_an_array(tmp_path, capsys):
    run = str(tmp_path / "run")
    networks = "--network-options width=8 layers=1 --encoder-network-options width=8 layers=1"
    train = f"train --data swirl --prediction v --run {run} {networks} --steps 2 --batch-size 8 --eval-examples 4"
    assert said(capsys, [*train.split(), "--quiet"])[0] == 0
    file = str(tmp_path / "x.diffenc")
    words = ["compress", run, "--split", "test", "--examples", "5", "--depth", "2", "-o", file]
    code, out, _ = said(capsys, words)
    assert code == 0 and "2 gaussian steps" in out
    code, _, err = said(capsys, ["decompress", file, "-o", str(tmp_path / "folder")])
    assert code == 2 and "(2,) are no images; give --out NAME.npy" in err
    assert said(capsys, ["decompress", file, "-o", str(tmp_path / "x.npy")])[0] == 0
    assert np.load(tmp_path / "x.npy").shape == (5, 2)
