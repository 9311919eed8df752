"""Figures show the numbers that they are given, pictures the pixels."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

import diffenc_ct as dc
from diffenc_ct.report.figures import identities, loss_by_depth
from diffenc_ct.report.pictures import image_grid, write_trajectory
from diffenc_ct.report.values import as_values, encodings
from diffenc_ct.sampling import Trajectory
from diffenc_ct.training.evaluation import Evaluation
from diffenc_ct.verification import Check, Verification
from tests.strategies import close, normal, small_model


def test_the_loss_by_depth_is_the_evaluations(tmp_path):
    t = torch.linspace(0, 1, 200, dtype=torch.float64)
    losses = 1 + t + 0.1 * normal(0, 200)
    terms = {name: losses for name in ("total", "reconstruction", "diffusion", "latent")}
    found = Evaluation(terms, t, losses, torch.ones(200))
    figure = loss_by_depth(found)
    (axes,) = figure.axes
    x, y = axes.containers[0].lines[0].get_data()
    rows = found.by_depth()
    assert list(x) == [row["t"] for row in rows] and list(y) == [row["bpd"] for row in rows]
    bars = axes.containers[0].lines[2][0].get_segments()
    for bar, row in zip(bars, rows, strict=True):
        assert bar[1][1] - bar[0][1] == pytest.approx(2 * row["error"])
    assert f"{found.mean('diffusion'):.4f}" in axes.get_title()
    figure.savefig(tmp_path / "f.png")
    assert Image.open(tmp_path / "f.png").size[0] > 400


def test_identities_are_drawn_with_their_verdicts():
    checks = (Check("good", 1.0, 1.1, 0.1), Check("bad", 1.0, 3.0, 0.1))
    found = Verification(checks, (8, 16), (1.5, 1.25), (0.1, 0.1), (1.4, 1.2), (0.1, 0.1), 1.0)
    left, right = identities(found).axes
    drawn = {line.get_label(): line.get_ydata() for line in left.lines}
    assert np.allclose(drawn["$w = 1$"], [0.5, 0.25]) and np.allclose(drawn["$w_*$"], [0.4, 0.2])
    assert np.allclose(drawn["$1/T$"], [0.5, 0.25])
    assert [bar.get_width() for bar in right.patches] == pytest.approx([1.0, 8.0])
    assert [text.get_text() for text in right.get_yticklabels()] == ["good", "bad"]
    blue, red = (bar.get_facecolor() for bar in right.patches)
    assert blue[2] > blue[0] and red[0] > red[2]
    assert math.isclose(right.lines[0].get_xdata()[0], 4)


def test_pictures_are_grey_values():
    assert as_values(torch.tensor([0, 2, 4]), 5).tolist() == [0, 0.5, 1]
    assert as_values(torch.tensor([-3.0, -1.0, 0.0, 1.0]), None).tolist() == [0, 0, 0.5, 1]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("columns", [None, 2, 7])
def test_a_grid_holds_every_image_in_its_place(channels, columns):
    images = torch.randint(0, 256, (5, channels, 3, 4), generator=torch.Generator().manual_seed(0))
    found = np.asarray(image_grid(images, 256, scale=1, columns=columns))
    found = found.reshape(*found.shape[:2], channels)
    wide = columns or 3
    assert found.shape[:2] == (4 * math.ceil(5 / wide), 5 * wide)
    for i, image in enumerate(images):
        row, column = divmod(i, wide)
        cell = found[4 * row : 4 * row + 3, 5 * column : 5 * column + 4]
        assert np.array_equal(cell, image.permute(1, 2, 0).numpy())
    doubled = np.asarray(image_grid(images, 256, scale=2, columns=columns))
    assert np.array_equal(doubled[::2, ::2].reshape(found.shape), found)


def test_a_trajectory_goes_from_noise_to_data(tmp_path):
    z = torch.stack([torch.full((2, 1, 2, 2), 3.0), torch.full((2, 1, 2, 2), -3.0)])
    x_hat = torch.zeros(2, 2, 1, 2, 2)
    strip, movie = write_trajectory(Trajectory(torch.ones(2), z, x_hat), tmp_path / "s.png")
    still = np.asarray(Image.open(strip))[::2, ::2]
    assert still.shape == (4 * 3, 2 * 3)
    assert still[0, 0] == 255 and still[0, 3] == 0 and still[3, 0] == still[3, 3] == 128
    assert Image.open(movie).n_frames == 2


def test_encodings_are_those_of_the_encoder_at_equal_depths():
    model, x = small_model("nontrainable"), normal(1, 2, 3)
    found = encodings(model, x, depths=3)
    assert found.shape == (2, 3, 3)
    for i, t in enumerate((0.0, 0.5, 1.0)):
        gamma = model.schedule.at(t, x).gamma
        close(found[:, i], model.encoder.encode(x, gamma.expand(2)))
    assert isinstance(model.decoder, dc.Reals)
