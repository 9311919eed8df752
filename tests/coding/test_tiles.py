"""Images of any size come back from tiles, and what a file says of their sizes is believed only where it is so."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.coding import CodingOptions, cut, decode, encode, join, read
from diffenc_ct.coding.file import write
from tests.coding.test_codec import forged
from tests.parts import LEVELS
from tests.refusals import refused
from tests.strategies import generator, make_model


@st.composite
def tiled(draw, least=1, most=13):
    """A tile's shape, and images of sizes around its multiples."""
    tile, side = st.integers(least, 5), st.integers(1, most)
    shape = draw(st.tuples(st.sampled_from([1, 3]), tile, tile))
    sizes = draw(st.lists(st.tuples(side, side), min_size=1, max_size=3))
    g = generator(draw(st.integers(0, 99)))
    return shape, [torch.randint(0, LEVELS, (shape[0], *size), generator=g) for size in sizes]


def tiles_one_by_one(image, shape):
    """By slices of an image that numpy has padded."""
    _, height, width = shape
    missing = [(0, 0)] + [
        (0, -side % tile) for side, tile in zip(image.shape[1:], shape[1:], strict=True)
    ]
    whole = np.pad(image.numpy(), missing, mode="edge")
    return [
        whole[:, y : y + height, x : x + width]
        for y in range(0, whole.shape[1], height)
        for x in range(0, whole.shape[2], width)
    ]


@given(tiled())
def test_tiles_are_slices_in_their_order_and_edges_go_on(case):
    shape, images = case
    tiles, sizes = cut(images, shape)
    wanted = np.stack([tile for image in images for tile in tiles_one_by_one(image, shape)])
    assert tiles.shape == wanted.shape and np.array_equal(tiles.numpy(), wanted)
    assert sizes == [[image.shape[1], image.shape[2]] for image in images]
    found = join(tiles, sizes)
    assert len(found) == len(images) and all(map(torch.equal, found, images))


@given(tiled())
def test_what_fills_a_tile_is_dropped_and_nothing_else(case):
    shape, images = case
    tiles, sizes = cut(images, shape)
    own = cut_marks(images, shape)
    assert own.sum() == sum(image.numel() for image in images)
    assert all(map(torch.equal, join(torch.where(own, tiles, 99), sizes), images))
    for one, other in zip(join(torch.where(own, tiles + 1, tiles), sizes), images, strict=True):
        assert torch.equal(one, other + 1)


def cut_marks(images, shape):
    """Which pixels of each tile are an image's."""
    found = []
    for image in images:
        marks = torch.zeros(
            shape[0], *[-(-s // t) * t for s, t in zip(image.shape[1:], shape[1:], strict=True)]
        )
        marks[:, : image.shape[1], : image.shape[2]] = 1
        found += tiles_one_by_one(marks, shape)
    return torch.from_numpy(np.stack(found)) > 0


SHAPE = (1, 2, 3)


def coding(shape=SHAPE):
    """A model of tiles of an odd shape, and its steps."""
    model = make_model(
        dc.LinearSchedule(-6.0, 4.0),
        dc.NonTrainableEncoder(),
        shape,
        4,
        heads="posterior",
        levels=LEVELS,
    )
    return model, dc.FiniteDepth(1, step="mixture")


def images_of(*sizes, channels=1):
    g = generator(5)
    return [torch.randint(0, LEVELS, (channels, *size), generator=g) for size in sizes]


@given(tiled(least=2, most=5), st.integers(1, 3))
def test_a_file_of_several_sizes(case, batch):
    shape, images = case
    model, steps = coding(shape)
    tiles, sizes = cut(images, shape)
    data = encode(model, tiles, steps, CodingOptions(batch=batch), sizes=sizes)
    header = read(data).header
    assert header.sizes == sizes and header.count == len(tiles)
    back = join(decode(model, data, steps), header.sizes)
    assert len(back) == len(images) and all(map(torch.equal, back, images))


def test_bits_are_counted_by_the_pixels_of_the_images():
    """The message is that of the tiles, whatever they are; only what it is divided by differs."""
    model, steps = coding((3, 2, 3))
    tiles, sizes = cut(images_of((3, 4), (1, 1), channels=3), (3, 2, 3))
    plain, tiled = read(encode(model, tiles, steps)), read(encode(model, tiles, steps, sizes=sizes))
    assert plain.header.sizes == [] and plain.header.dimensions == 5 * 18
    assert tiled.header.dimensions == 3 * (12 + 1)
    assert np.array_equal(plain.words, tiled.words)
    for name in ("net", "initial"):
        assert getattr(tiled, name) == pytest.approx(getattr(plain, name) * 90 / 39)
    assert tiled.gross == pytest.approx(8 * tiled.size / 39)


def test_height_and_width_swapped_in_a_file_are_noticed():
    """Tiles are square and as many either way: no more than the checksum knows of it."""
    model, steps = coding((1, 2, 2))
    tiles, sizes = cut(images_of((4, 6)), (1, 2, 2))
    data = encode(model, tiles, steps, sizes=sizes)
    assert torch.equal(join(decode(model, data, steps), sizes)[0], images_of((4, 6))[0])
    for wrong in ([[6, 4]], [[4, 5]], [[2, 12]], [[4, 4], [2, 4]], []):
        with refused(ValueError, "not those that were coded"):
            decode(model, forged(data, sizes=wrong), steps)


NO_SIDES = "are no heights and widths"
WRONG = [
    ([[4, 7]], "take 8 tiles"),
    ([[4, 6], [1, 1]], "take 7 tiles"),
    ([[1, 1]] * 600, r"sizes \[\[1, 1\], .*\.\.\. take 600 tiles"),
    ([[0, 6]], NO_SIDES),
    ([[-4, -6]], NO_SIDES),
    ([[4.0, 6]], NO_SIDES),
    ([[4, 6, 1]], NO_SIDES),
    ([4, 6], NO_SIDES),
    ("46", NO_SIDES),
    (46, NO_SIDES),
]


@pytest.mark.parametrize(("sizes", "words"), WRONG)
def test_sizes_that_are_not_the_tiles_are_refused_before_anything_is_coded(sizes, words):
    seen = []
    model, steps = coding((1, 2, 2))
    tiles, right = cut(images_of((4, 6)), (1, 2, 2))
    data = encode(model, tiles, steps, sizes=right)
    model.heads.network.register_forward_hook(lambda *_: seen.append(1))
    found = read(data)
    file = write(dataclasses.replace(found.header, sizes=sizes), found.words)
    for call in (
        lambda: read(file),
        lambda: decode(model, file, steps),
        lambda: encode(model, tiles, steps, sizes=sizes),
        lambda: join(tiles, sizes),
    ):
        with refused(ValueError, f"{words}.* of shape .*1, 2, 2.*there are 6: give"):
            call()
    assert not seen


def test_sizes_belong_to_images():
    model, steps = coding((3,))
    with refused(ValueError, r"no heights and widths for tiles of shape \(3,\)"):
        encode(model, torch.zeros(2, 3, dtype=torch.long), steps, sizes=[[1, 2]])


def test_mistakes():
    with refused(ValueError, "no images; give one"):
        cut([], SHAPE)
    good = images_of((3, 3))[0]
    for wrong in (
        torch.zeros(3, 4, 4).long(),
        torch.zeros(4, 4).long(),
        torch.zeros(1, 0, 4).long(),
    ):
        with refused(ValueError, r"image 1 has shape .* need \(1, height, width\)"):
            cut([good, wrong], SHAPE)


def test_a_file_from_before_there_were_tiles_is_read():
    model, steps = coding()
    tiles, _ = cut(images_of((4, 3)), SHAPE)
    data = encode(model, tiles, steps)
    found = read(data)
    fields = dataclasses.asdict(found.header)
    assert fields.pop("sizes") == []
    assert type(found.header)(**fields) == found.header
    assert all(map(torch.equal, join(decode(model, data, steps), []), tiles))
