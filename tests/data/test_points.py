"""Points in the plane: their densities, undone."""

import numpy as np
import pytest
import torch

from diffenc_ct.data import checkerboard_points, load_dataset, swirl_points


def test_swirl_is_a_swirl():
    # Undo the formula: without the noise, radius = 2 theta + pi and theta^2/(3 pi)^2 is uniform.
    x = swirl_points(20_000, 3) / 4 - 30
    radius = np.hypot(x[:, 0], x[:, 1])
    theta = (radius - np.pi) / 2
    angle = np.arctan2(x[:, 1], x[:, 0])
    far = theta > np.pi
    assert np.abs(np.angle(np.exp(1j * (angle - theta))))[far].mean() < 0.15
    quantiles = np.quantile((theta / (3 * np.pi)) ** 2, [0.25, 0.5, 0.75])
    assert quantiles == pytest.approx([0.25, 0.5, 0.75], abs=0.02)
    data = load_dataset("swirl")
    assert data.levels == 256 and data.shape == (2,) and data.train.dtype == torch.uint8
    real = load_dataset("swirl-real")
    assert torch.equal((real.train * 100 + 120).round().clamp(0), (real.train * 100 + 120).round())
    assert (real.train * 100 + 120 - data.train).abs().max() <= 1.0001


def test_checkerboard_lies_on_dark_squares_uniformly():
    x = checkerboard_points(20_000, 4)
    column, row = ((x + 1) * 2).astype(int).T
    assert ((column + row) % 2 == 0).all() and column.min() == row.min() == 0 and column.max() == 3
    counts = np.bincount(column * 4 + row)
    assert counts[counts > 0] == pytest.approx(np.full(8, 2500), rel=0.08)
