"""Points in the plane, drawn from a seed: a swirl and a checkerboard."""

import numpy as np
from jaxtyping import Float64


def swirl_points(size: int, seed: int) -> Float64[np.ndarray, "size 2"]:
    """VDM's swirl before rounding: theta = sqrt(u) 3 pi, r = 2 theta + pi, 4 ((cos theta, sin theta) r + n/4 + 30).

    Values are about 30..210. (DiffEnc's code shifts all points by one normal number where VDM's draws one a coordinate;
    this is VDM's.)

    Args:
        size: how many.
        seed: of the points.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    theta = np.sqrt(random.random(size)) * 3 * np.pi
    radius = 2 * theta + np.pi
    x = np.stack([np.cos(theta) * radius, np.sin(theta) * radius], axis=1)
    return 4 * (x + 0.25 * random.standard_normal((size, 2)) + 30)


def checkerboard_points(size: int, seed: int) -> Float64[np.ndarray, "size 2"]:
    """Uniform points on the squares (i, j), i + j even, of a 4x4 board on (-1, 1)^2: entropy ln 2 nats.

    Args:
        size: how many.
        seed: of the points.
    """
    random = np.random.Generator(np.random.PCG64(seed))
    column = random.integers(0, 4, size)
    row = 2 * random.integers(0, 2, size) + column % 2
    corner = np.stack([column, row], axis=1)
    return (corner + random.random((size, 2))) / 2 - 1
