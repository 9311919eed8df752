"""Closed-form worlds: data distributions whose every diffusion quantity is known exactly.

A world is a module that predicts with the optimal heads; `world.model(schedule)` is a DiffEnc made of it, ready for
every function of the library. Everything is computed in the dtype of its arguments; use float64 for tests.
"""

from diffenc_ct.worlds._world import World
from diffenc_ct.worlds.gaussian import GaussianWorld, LinearEncoder, quadrature
from diffenc_ct.worlds.mixture import MixtureWorld

__all__ = ["GaussianWorld", "LinearEncoder", "MixtureWorld", "World", "quadrature"]
