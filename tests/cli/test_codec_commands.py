"""diffenc compress and decompress: the same images again, or one line and nothing written."""

import re

import numpy as np
import pytest
import torch

from diffenc_ct.cli import main
from diffenc_ct.coding import decode, encode, read
from diffenc_ct.training.runs import load

SMALL = ["--device", "cpu", "--threads", "1"]


def said(capsys, words):
    code = main([*words, *SMALL])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A folder with 4 digits as digits.npy, and what they were compressed to."""
    folder = tmp_path_factory.mktemp("packed")
    x = np.random.default_rng(0).integers(0, 17, (4, 1, 8, 8), dtype=np.uint8)
    np.save(folder / "digits.npy", x)
    words = ["compress", "digits-vdm", str(folder / "digits.npy"), "--depth", "2"]
    assert main([*words, "-o", str(folder / "x.diffenc"), *SMALL]) == 0
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
    assert code == 0 and "9 images of 64 values" in out and "1 gaussian steps" in out
    code, *_ = said(capsys, ["decompress", again, "-o", str(tmp_path / "x.npy")])
    found = np.load(tmp_path / "x.npy")
    assert code == 0 and found.dtype == np.uint8
    assert np.array_equal(found, np.concatenate([x, x[2:3], x]))


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
    "compress digits-vdm wide.npy -o FILE": "(1, 9, 9), digits-vdm codes (1, 8, 8)",
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
}


@pytest.mark.parametrize("words", WRONG)
def test_mistakes_are_one_line_and_nothing_is_written(packed, tmp_path, monkeypatch, capsys, words):
    folder, x = packed
    monkeypatch.chdir(folder)
    np.save("wide.npy", np.zeros((2, 1, 9, 9), np.uint8))
    np.save("bright.npy", x + 17)
    data = open("x.diffenc", "rb").read()
    open("cut.diffenc", "wb").write(data[:-5])
    if "library" in words:
        open("library.diffenc", "wb").write(encode(load("digits-vdm"), torch.from_numpy(x), 1))
    if "floats" in words:
        import dataclasses

        from diffenc_ct.coding.file import write

        coded = read(data)
        open("floats.diffenc", "wb").write(
            write(dataclasses.replace(coded.header, images="0" * 64), coded.words)
        )
    before = sorted(path.name for path in folder.iterdir())
    try:
        code = main([word.replace("FILE", str(tmp_path / "out")) for word in words.split()] + SMALL)
    except SystemExit as error:  # of the parser
        code = error.code
    err = capsys.readouterr().err.strip()
    assert code == 2 and WRONG[words] in err and len(err.splitlines()) == 1
    assert err.startswith("diffenc: error: ") and not (tmp_path / "out").exists()
    assert sorted(path.name for path in folder.iterdir()) == before


def test_the_library_reads_what_the_command_wrote(packed):
    folder, x = packed
    data = (folder / "x.diffenc").read_bytes()
    from diffenc_ct.elbo import FiniteDepth

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
