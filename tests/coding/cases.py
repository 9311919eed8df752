"""Random models of levels with steps of every kind, and data that they can code."""

import random
from dataclasses import dataclass

import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.coding import CodingOptions
from diffenc_ct.elbo import Ratio
from diffenc_ct.process import Estimates
from tests.parts import LEVELS
from tests.strategies import (
    ENCODERS,
    HEADS,
    SHAPES,
    encoders,
    generator,
    make_model,
    noise_levels,
    normal,
    schedules,
    seed_of,
    seeded,
)


@dataclass
class Coding:
    """A model, levels x, steps and options."""

    model: dc.DiffEnc
    x: Tensor
    steps: dc.FiniteDepth
    options: CodingOptions


def wavy_ratio(step: Tensor, estimates: Estimates) -> Tensor:
    """A ratio of the state."""
    own = step.to(estimates.x_hat).reshape(-1, *[1] * (estimates.x_hat.ndim - 1))
    return 1.5 + 0.5 * torch.sin(3 * estimates.x_hat + own)


def make_ratio(pick: random.Random, depth: int, shape: tuple[int, ...]) -> Ratio | None:
    seed = seed_of(pick)
    return {
        "one": None,
        "number": pick.uniform(0.5, 30),
        "step": 0.5 + normal(seed, depth).abs(),
        "dimension": 0.5 + normal(seed, depth, *shape).abs(),
        "state": wavy_ratio,
    }[pick.choice(["one", "number", "step", "dimension", "state"])]


@seeded
def codings(pick: random.Random) -> Coding:
    shape, seed, depth = pick.choice(SHAPES), seed_of(pick), pick.randint(1, 4)
    heads = pick.choice(HEADS)
    levels = LEVELS if heads.endswith("posterior") else pick.choice([2, 3, 17, 256])
    schedule = schedules.build(pick, low=-9.0)
    encoder = encoders.build(pick, shape, ENCODERS)
    model = make_model(schedule, encoder, shape, seed, heads=heads, levels=levels)
    mixed = heads.endswith("posterior") and pick.random() < 0.7
    inner = torch.rand(depth - 1, dtype=torch.float64, generator=generator(seed))
    grid = torch.cat([torch.tensor([0.0]), 0.05 + 0.9 * inner.sort().values, torch.tensor([1.0])])
    steps = dc.FiniteDepth(
        grid if pick.random() < 0.5 and bool((grid.diff() > 0).all()) else depth,
        ratio=make_ratio(pick, depth, shape),
        noise_level=noise_levels.build(pick),
        step="mixture" if mixed else "gaussian",
    )
    count = pick.randint(1, 5)
    x = torch.randint(0, levels, (count, *shape), generator=generator(seed + 1))
    options = CodingOptions(pick.randint(0, 7), pick.randint(1, 3), seed_of(pick))
    return Coding(model, x, steps, options)


def small(step: str = "mixture", depth: int = 3, **options: object) -> Coding:
    """Two images of three values."""
    heads = "posterior" if step == "mixture" else "single"
    model = make_model(
        dc.LinearSchedule(-6.0, 4.0), dc.NonTrainableEncoder(), (3,), 4, heads=heads, levels=LEVELS
    )
    x = torch.randint(0, LEVELS, (2, 3), generator=generator(0))
    return Coding(model, x, dc.FiniteDepth(depth, step=step, **options), CodingOptions())
