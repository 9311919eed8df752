"""Image files: pixels as they are meant, all else refused by the file's name, whatever happened to its bytes."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffenc_ct.cli import main
from diffenc_ct.data.images import read_image

SUFFIXES = (".png", ".jpg", ".bmp", ".gif", ".tif", ".webp", ".ppm", ".pgm")
pixels = st.integers(0, 2**31).map(np.random.default_rng)


def encoded(suffix, image, **options):
    stream = io.BytesIO()
    kind = {".jpg": "jpeg", ".tif": "tiff", ".pgm": "ppm"}.get(suffix, suffix[1:])
    image.save(stream, kind, **options)
    return stream.getvalue()


def random_image(random, suffix, size=(7, 5)):
    mode = "L" if suffix == ".pgm" else "RGB"
    values = random.integers(0, 256, (size[1], size[0], *([3] * (mode == "RGB"))))
    return Image.fromarray(values.astype(np.uint8), mode)


@given(pixels, st.sampled_from([s for s in SUFFIXES if s not in (".jpg", ".gif", ".webp")]))
def test_pixels_of_lossless_formats_are_exact(tmp_path_factory, random, suffix):
    image = random_image(random, suffix)
    path = tmp_path_factory.mktemp("i") / f"x{suffix.upper()}"
    path.write_bytes(encoded(suffix, image))
    expected = np.asarray(image).reshape(5, 7, -1).transpose(2, 0, 1)
    assert np.array_equal(read_image(path), expected)


# Damage ---------------------------------------------------------------------------------------------


def spoilt(data, draw):
    """Bytes flipped, cut off or put in."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
    where = draw(st.integers(0, len(data)))
    kind = draw(st.sampled_from(["flip", "flip", "cut", "insert"]))
    if kind == "cut":
        del data[where:]
    elif kind == "insert":
        data[where:where] = draw(st.binary(max_size=4))
    return bytes(data)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(data=st.data())
def test_damaged_files_are_data_or_refused_by_name(tmp_path_factory, suffix, data):
    random = np.random.default_rng(data.draw(st.integers(0, 9)))
    options = {"exif": exif(6)} if suffix in (".jpg", ".png", ".tif", ".webp") else {}
    if suffix == ".tif":
        options["compression"] = data.draw(st.sampled_from([None, "tiff_lzw", "tiff_deflate"]))
    image = random_image(random, suffix)
    if suffix in (".png", ".gif", ".bmp", ".tif"):
        image = image.convert(data.draw(st.sampled_from(["1", "L", "P", "RGB"])))
    path = tmp_path_factory.mktemp("i") / f"x{suffix}"
    path.write_bytes(spoilt(encoded(suffix, image, **options), data.draw))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read_image(path)
    except ValueError as error:
        assert str(path) in str(error) and len(str(error).splitlines()) == 1
    else:
        assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[0] in (1, 3)


@given(pixels, st.data())
def test_a_png_with_other_pixels_than_its_checksum_is_refused(tmp_path_factory, random, data):
    content = bytearray(encoded(".png", random_image(random, ".png"), compress_level=0))
    start = content.index(b"IDAT") + 16
    content[data.draw(st.integers(start, start + 50))] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.mktemp("i") / "x.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.png cannot be read as an image"):
        read_image(path)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, *more, pixels=b""):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    parts = [head, *more, chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [10_000, 20_000, 2**31 - 1])
def test_decompression_bombs_are_refused_in_a_line(tmp_path, capsys, side):
    (tmp_path / "a.png").write_bytes(png(4, 4, 8, 0, pixels=bytes(20)))
    (tmp_path / "bomb.png").write_bytes(png(side, side, 8, 0, pixels=bytes(1000)))
    assert main(["train", "--data", str(tmp_path), "--dry-run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "bomb.png cannot be read as an image" in line and "remove or replace it" in line


def test_what_a_reader_warns_of_names_the_file(tmp_path):
    """And an image that is refused has that one line only."""
    broken = b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, 270, 2, 99, 999)
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(".jpg", Image.new("RGB", (4, 4)), exif=broken))
    with pytest.warns(UserWarning, match=r"x\.jpg: .*EXIF"):
        assert read_image(path).shape == (3, 4, 4)
    path.write_bytes(path.read_bytes()[:-20])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"x\.jpg cannot be read"):
            read_image(path)


# What eight bits of grey or colour do not hold ----------------------------------------------------------


def tiff(tags, data):
    """A TIFF of SHORT tags: a single value, or a list of them that follows the directory."""
    start = 8 + 2 + 12 * (len(tags) + 1) + 4
    behind, entries = b"", []
    for tag, value in sorted((tags | {273: -1}).items()):
        if isinstance(value, list):
            entries.append(struct.pack("<HHII", tag, 3, len(value), start + len(behind)))
            behind += struct.pack(f"<{len(value)}H", *value)
        else:
            entries.append([tag, value])
    offset = start + len(behind)
    if isinstance(data, list):  # a plane each
        offsets = [offset + 4 * len(data) + i * len(data[0]) for i in range(len(data))]
        behind += struct.pack(f"<{len(data)}I", *offsets)
    fixed = []
    for entry in entries:
        if isinstance(entry, bytes):
            fixed.append(entry)
        elif entry[0] == 273 and isinstance(data, list):
            fixed.append(struct.pack("<HHII", 273, 4, len(data), offset))
        else:
            value = offset if entry[0] == 273 else entry[1]
            fixed.append(struct.pack("<HHII", entry[0], 3, 1, value))
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(fixed) + bytes(4)
    return head + behind + (b"".join(data) if isinstance(data, list) else data)


TAGS = {256: 4, 257: 4, 259: 1, 278: 4}
GREY_16 = TAGS | {258: 16, 262: 1, 277: 1, 279: 32}
COLOUR_16 = TAGS | {258: [16, 16, 16], 262: 2, 277: 3, 279: 96}
PLANES_16 = COLOUR_16 | {284: 2, 279: [32, 32, 32]}
DEEP = {
    "grey.png": png(4, 4, 16, 0, pixels=bytes(4 * 9)),
    "colour.png": png(4, 4, 16, 2, pixels=bytes(4 * 25)),
    "grey-alpha.png": png(4, 4, 16, 4, pixels=b"\0" * 4 + b"\xff" * 64),
    "alpha.png": png(4, 4, 16, 6, pixels=bytes(4 * 33)),
    "grey.tif": tiff(GREY_16, bytes(32)),
    "colour.tif": tiff(COLOUR_16, bytes(96)),
    "planes.tif": tiff(PLANES_16, [bytes(32)] * 3),
    "colour.ppm": b"P6 4 4 65535\n" + bytes(96),
    "grey.pgm": b"P5 4 4 65535\n" + bytes(32),
    "few.pgm": b"P5 4 4 1023\n" + bytes(32),
    "words.ppm": b"P3 4 4 1000\n" + b"7 " * 48,
    "words.pgm": b"P2 4 4 1000\n" + b"7 " * 16,
}


@pytest.mark.parametrize("name", DEEP)
def test_sixteen_bits_are_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(DEEP[name])
    with pytest.raises(ValueError, match=f"{name} has 16 bits a channel.*convert it to 8-bit"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["rgb", "planes"])
def test_the_same_tiff_of_eight_bits_is_read(tmp_path, kind):
    """So that the refusal above is of the depth."""
    random = np.random.default_rng(0)
    values = random.integers(0, 256, (3, 4, 4)).astype(np.uint8)
    tags = TAGS | {258: [8, 8, 8], 262: 2, 277: 3, 279: 48}
    content = tiff(tags, values.transpose(1, 2, 0).tobytes())
    if kind == "planes":
        content = tiff(tags | {284: 2, 279: [16] * 3}, [plane.tobytes() for plane in values])
    (tmp_path / "x.tif").write_bytes(content)
    assert np.array_equal(read_image(tmp_path / "x.tif"), values)


def test_an_unnamed_fourth_channel_is_refused(tmp_path):
    tags = TAGS | {258: [8] * 4, 262: 2, 277: 4, 279: 64, 338: 0}
    (tmp_path / "x.tif").write_bytes(tiff(tags, bytes(64)))
    with pytest.raises(ValueError, match=r"x\.tif has 4 channels, of which 3 would be read"):
        read_image(tmp_path / "x.tif")


def transparent(kind, opaque, random):
    """An image of a kind of transparency, none of it used where `opaque`."""
    alpha = np.full((5, 7), 255)
    if not opaque:
        alpha[random.integers(5), random.integers(7)] = random.integers(255)
    values = random.integers(1, 256, (5, 7, 3))
    if kind == "LA":
        return np.stack([values[..., 0], alpha], 2), "LA", {}
    if kind == "RGBA":
        return np.concatenate([values, alpha[..., None]], 2), "RGBA", {}
    key = 0 if opaque else int(values[2, 3, 0])  # no value is 0
    if kind == "colour key":
        return (
            values,
            "RGB",
            {"transparency": (0, 0, 0) if opaque else tuple(values[2, 3].tolist())},
        )
    return values[..., 0], "P" if kind == "palette" else "L", {"transparency": key}


TRANSPARENT = [(kind, ".png") for kind in ("LA", "RGBA", "palette", "grey key", "colour key")]
TRANSPARENT += [("palette", ".gif"), ("LA", ".tif"), ("RGBA", ".tif"), ("RGBA", ".webp")]


@pytest.mark.parametrize(("kind", "suffix"), TRANSPARENT)
@pytest.mark.parametrize("opaque", [False, True])
@given(random=pixels)
def test_transparency_is_refused_where_it_is_used(tmp_path_factory, random, kind, opaque, suffix):
    values, mode, options = transparent(kind, opaque, random)
    image = Image.fromarray(values.astype(np.uint8), None if mode in ("P", "L") else mode)
    if mode == "P":
        image.putpalette([i // 3 for i in range(768)])
        image = image.copy()
    if suffix == ".webp":
        options = {"lossless": True, "exact": True}
    path = tmp_path_factory.mktemp("i") / f"x{suffix}"
    path.write_bytes(encoded(suffix, image, **options))
    if not opaque:
        with pytest.raises(ValueError, match=rf"x\{suffix} has transparent pixels"):
            read_image(path)
        return
    shown = {"LA": values[..., :1], "RGBA": values[..., :3], "colour key": values}
    expected = shown.get(kind, np.repeat(values.reshape(5, 7, -1), 3 if mode == "P" else 1, 2))
    assert np.array_equal(read_image(path), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_transparent_greys_of_few_bits_are_refused(tmp_path, bits):
    key = 2**bits - 1
    row = b"\0" + b"\xff" * (4 * bits // 8 or 1)
    content = png(4, 4, bits, 0, chunk(b"tRNS", struct.pack(">H", key)), pixels=4 * row)
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.png has transparent pixels"):
        read_image(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(png(4, 4, bits, 0, pixels=4 * row))
    assert read_image(tmp_path / "x.png").min() == 255


@pytest.mark.parametrize("pages", [1, 2, 3])
@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_more_than_one_page_is_refused_by_name(tmp_path, suffix, pages):
    random = np.random.default_rng(1)
    first, *others = (random_image(random, suffix) for _ in range(pages))
    path = tmp_path / f"x{suffix}"
    path.write_bytes(encoded(suffix, first, save_all=True, append_images=others))
    if pages == 1:
        assert read_image(path).shape == (3, 5, 7)
        return
    with pytest.raises(ValueError, match=rf"x\{suffix} has {pages} pages or frames"):
        read_image(path)


@pytest.mark.parametrize("mode", ["CMYK", "F", "I", "LAB", "YCbCr"])
def test_other_colours_are_refused_by_name(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "x.tif")
    assert Image.open(tmp_path / "x.tif").mode == mode
    with pytest.raises(ValueError, match=r"x\.tif has (mode|16 bits).*8-bit grey or RGB"):
        read_image(tmp_path / "x.tif")


@pytest.mark.parametrize("name", ["x.png", "x.jpg"])
def test_other_formats_are_no_images(tmp_path, name):
    """Some of which would start a program."""
    (tmp_path / name).write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n"
    )
    with pytest.raises(ValueError, match=f"{name} cannot be read as an image"):
        read_image(tmp_path / name)


# Orientation ------------------------------------------------------------------------------------------


def exif(orientation):
    found = Image.Exif()
    found[274] = orientation
    return found.tobytes()


# Rows and columns of the picture as it is meant, by those that are stored.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".jpg"])
@given(pixels, st.sampled_from(list(UPRIGHT)))
def test_orientation_is_applied(tmp_path_factory, suffix, random, orientation):
    image = random_image(random, suffix)
    folder = tmp_path_factory.mktemp("i")
    options = {".webp": {"lossless": True}, ".jpg": {"quality": 95}}.get(suffix, {})
    (folder / f"plain{suffix}").write_bytes(encoded(suffix, image, **options))
    options["exif"] = exif(orientation)
    (folder / f"turned{suffix}").write_bytes(encoded(suffix, image, **options))
    stored = read_image(folder / f"plain{suffix}").transpose(1, 2, 0)
    expected = UPRIGHT[orientation](stored).transpose(2, 0, 1)
    assert np.array_equal(read_image(folder / f"turned{suffix}"), expected)
