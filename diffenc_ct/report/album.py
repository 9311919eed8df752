"""The pictures of a report: what the encoder does, where the bits are, how samples come about; PNGs within the page."""

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffenc_ct.data import Dataset
from diffenc_ct.model import DiffEnc
from diffenc_ct.report.maps import bit_maps
from diffenc_ct.report.values import encodings, is_picture
from diffenc_ct.sampling import Samples, sample
from diffenc_ct.training.examples import told
from diffenc_ct.training.runs import OpenedRun

if TYPE_CHECKING:
    from PIL.Image import Image

EXAMPLES, DEPTHS, PATHS, SAMPLES = 8, 8, 4, 32
_DRAWS = 32  # an image, of its map of bits


@dataclass(frozen=True)
class Picture:
    """A grid of images.

    Attributes:
        uri: the PNG itself, as a data: URI.
        alt: what it shows, for who does not see it.
        columns: what stands above each column.
    """

    uri: str
    alt: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Album:
    """Of one run.

    Attributes:
        encoded: x_t of test images at equal depths; None where the encoder leaves all of them as they are.
        change: x_t - x, grey where it is 0; None likewise.
        largest: |x_t - x| that is black or white, in units where the data reach from -1 to 1.
        bits: test images, and the bits of each of their pixels below.
        most: bits of the brightest pixel.
        path: of each of some samples a row of z_t and one of x_hat.
        samples: where the paths end, and others.
        sampler: how they were made, in words.
    """

    encoded: Picture | None
    change: Picture | None
    largest: float
    bits: Picture
    most: float
    path: Picture
    samples: Picture
    sampler: str


def embedded(image: "Image") -> str:
    """A data: URI of an image, as PNG.

    Args:
        image: of pillow.
    """
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def album(opened: OpenedRun, data: Dataset, seed: int) -> Album | None:
    """The pictures of a run; None where its examples are no images.

    Args:
        opened: the run.
        data: of its kind, whose first test images are shown.
        seed: of samples and draws.
    """
    if not is_picture(opened.shape):
        return None
    images = data.test[:EXAMPLES]
    encoded, change, largest = _encoder(opened.model, images)
    bits, most = _bits(told(opened.model, data, "test", len(images)), images, seed)
    drawn = _draw(opened, seed)
    path, samples = _samples(drawn, opened.model.decoder.levels)
    words = (
        f"{drawn.log['solver']}, {drawn.evaluations:.0f} evaluations a sample, noise level "
        f"{drawn.log['noise_level']}"
    )
    return Album(encoded, change, largest, bits, most, path, samples, words)


def _encoder(model: DiffEnc, images: Tensor) -> tuple[Picture | None, Picture | None, float]:
    from diffenc_ct.report.pictures import image_grid

    x_t = encodings(model, images, DEPTHS)
    change = (x_t - model.scale(images.to(x_t.device))[:, None]).cpu()
    largest = change.abs().max().item()
    if largest == 0:
        return None, None, 0.0
    columns = tuple(f"t = {t:.2f}" for t in torch.linspace(0, 1, DEPTHS).tolist())
    grids = [part.flatten(0, 1) for part in (x_t.cpu(), change / largest)]
    shown, changed = (embedded(image_grid(grid, None, columns=DEPTHS)) for grid in grids)
    kind = f"{len(images)} test images, one a row, at {DEPTHS} depths from data (left) to noise (right)"
    return (
        Picture(shown, f"x_t of {kind}", columns),
        Picture(changed, f"x_t - x of {kind}", columns),
        largest,
    )


def _bits(model: DiffEnc, images: Tensor, seed: int) -> tuple[Picture, float]:
    from diffenc_ct.report.pictures import as_pixels, heat, image_grid

    bits = bit_maps(model, images, bins=1, draws=_DRAWS, seed=seed).total.sum(1)
    most = bits.max().item()
    own = as_pixels(images, model.decoder.levels).expand(-1, 3, -1, -1)
    grid = image_grid(torch.cat([own, heat(bits, 0.0, most)]), 256, columns=len(images))
    alt = f"{len(images)} test images, and below each the bits of its pixels: bright where there are many"
    return Picture(embedded(grid), alt), most


def _draw(opened: OpenedRun, seed: int) -> Samples:
    """Those that `diffenc sample` draws first."""
    model = opened.model
    if opened.classes is not None:
        model = model.given(torch.arange(SAMPLES) % opened.classes)
    generator = torch.Generator().manual_seed(seed)
    return sample(model, SAMPLES, trajectory=PATHS, generator=generator)


def _samples(drawn: Samples, levels: int | None) -> tuple[Picture, Picture]:
    from diffenc_ct.report.pictures import frames_of, image_grid, strip

    assert drawn.trajectory is not None
    still = strip(drawn.trajectory, DEPTHS, scale=None)
    gamma = drawn.trajectory.gamma[frames_of(drawn.trajectory, DEPTHS)].tolist()
    alt = f"{PATHS} samples from noise (left) to data (right): of each a row of z_t and a row of x_hat below it"
    path = Picture(embedded(still), alt, tuple(f"γ = {g:.1f}" for g in gamma))
    grid = image_grid(drawn.samples.cpu(), levels, columns=DEPTHS)
    return path, Picture(embedded(grid), f"{SAMPLES} samples of the model")
