"""All hypothesis strategies: schedules, encoders, networks, noise levels, shapes, dtypes, models, worlds.

Objects come from one drawn seed each (see `seeded`), single numbers from hypothesis itself. Everything is float64
unless a test says otherwise.
"""

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.model import Direct
from diffenc_ct.process import ConstantNoiseLevel, FunctionNoiseLevel, marginal
from diffenc_ct.worlds import GaussianWorld, MixtureWorld, World
from tests.parts import (  # noqa: F401 (tests find everything here)
    TOLERANCE,
    BoundedNetwork,
    Fixed,
    HeadsNetwork,
    RandomNetwork,
    ScaleEncoder,
    UserEncoder,
    WavySchedule,
    close,
    cubature,
    generator,
    monotone,
    normal,
    posterior_heads,
    random_matrix_encoder,
    randomise,
    world_points,
)

SHAPES = [(1,), (3,), (1, 2, 2), (2, 1, 3)]
PREDICTIONS = ["v", "x", "eps"]

dtypes = st.sampled_from(list(TOLERANCE))
seeds = st.integers(0, 2**31 - 1)
batches = st.integers(1, 4)
shapes = st.sampled_from(SHAPES)
levels = st.sampled_from([2, 3, 17, 256])
predictions = st.sampled_from(PREDICTIONS)


def seeded(build: Callable[..., Any]) -> Callable[..., Any]:
    """A strategy from build(pick, ...), all of whose choices hang on one drawn seed.

    Hypothesis likes to repeat parts of an example within others, which leaves whole kinds unvisited in a short run; it
    never repeats a seed. `.build` takes part in another's choices.
    """

    @functools.wraps(build)
    def strategy(*arguments: Any, **options: Any) -> st.SearchStrategy[Any]:
        return seeds.map(lambda seed: build(random.Random(seed), *arguments, **options))

    strategy.build = build  # type: ignore[attr-defined]
    return strategy


def seed_of(pick: random.Random) -> int:
    return pick.randrange(2**31)


# Schedules --------------------------------------------------------------------------------------


@seeded
def schedules(
    pick: random.Random, low: float = -13.3, high: float = 5.0, pinned: bool = False
) -> dc.Schedule:
    """Any schedule between end points gamma_0 in [low, low + 8] and gamma_1 in [high - 4, high], at least 1 apart;
    exactly (low, high) where `pinned`."""
    a = low if pinned else pick.uniform(low, min(low + 8, high - 5))
    b = high if pinned else pick.uniform(high - 4, high)
    kind = pick.choice(["linear", "polynomial", "monotone", "wavy", "learned"])
    if kind == "linear":
        return dc.LinearSchedule(a, b)
    if kind == "learned":
        # Its parameters are stored in float32 by construction.
        schedule = dc.LearnedLinearSchedule(a, b).double()
        with torch.no_grad():
            schedule.start.fill_(a)
            schedule.slope.fill_(pick.choice([1.0, -1.0]) * (b - a))
        return schedule
    if kind == "polynomial":
        degree, weight = pick.randint(1, 10), pick.uniform(0, 0.9)
        return dc.PolynomialSchedule(a, b, degree=degree, weight=weight)
    if kind == "monotone":
        return monotone(a, b, seed_of(pick))
    return WavySchedule(a, b, pick.uniform(-0.9, 0.9))


depths = st.floats(0, 1)
gammas = st.floats(-15, 8)


# Networks and encoders ----------------------------------------------------------------------------


ENCODERS = ("identity", "nontrainable", "trainable", "residual", "user")


def make_encoder(kind: str, shape: tuple[int, ...], seed: int) -> dc.Encoder:
    return {
        "identity": lambda: dc.IdentityEncoder(),
        "nontrainable": lambda: dc.NonTrainableEncoder(),
        "trainable": lambda: dc.TrainableEncoder(BoundedNetwork(shape, seed)),
        "residual": lambda: dc.ResidualEncoder(BoundedNetwork(shape, seed)),
        "user": lambda: UserEncoder(shape, seed),
    }[kind]()


@seeded
def encoders(
    pick: random.Random, shape: tuple[int, ...], kinds: tuple[str, ...] = ENCODERS
) -> dc.Encoder:
    return make_encoder(pick.choice(kinds), shape, seed_of(pick))


# Noise levels -------------------------------------------------------------------------------------


@seeded
def noise_levels(pick: random.Random) -> dc.NoiseLevel:
    """Positive noise levels of every class."""
    kind = pick.choice(["one", "constant", "nontrainable", "table", "function"])
    if kind == "one":
        return ConstantNoiseLevel(1.0)
    if kind == "constant":
        return ConstantNoiseLevel(pick.uniform(0.3, 2))
    if kind == "nontrainable":
        return dc.NonTrainableNoiseLevel()
    if kind == "table":
        n, seed = pick.randint(2, 5), seed_of(pick)
        gamma = torch.linspace(-9, 4, n, dtype=torch.float64)
        return dc.TabulatedNoiseLevel(gamma, 0.5 + normal(seed, n).abs())
    a, b = pick.uniform(0.5, 1.5), pick.uniform(-0.4, 0.4)
    return FunctionNoiseLevel(lambda gamma: a + b * torch.sin(gamma / 3))


# Models -------------------------------------------------------------------------------------------


@dataclass
class Case:
    """A random model with scaled data x, noise, two depths s < t (batch,) and their gammas."""

    model: dc.DiffEnc
    x: Tensor
    noise: Tensor
    s: Tensor
    t: Tensor
    noise_level: dc.NoiseLevel

    @property
    def gamma_s(self) -> Tensor:
        return self.model.schedule(self.s).gamma

    @property
    def gamma_t(self) -> Tensor:
        return self.model.schedule(self.t).gamma

    @property
    def encoding(self) -> dc.Encoding:
        return self.model.encoder(self.x, self.gamma_t)

    @property
    def x_s(self) -> Tensor:
        return self.model.encoder.encode(self.x, self.gamma_s)

    @property
    def z_t(self) -> Tensor:
        return marginal(self.encoding.value, self.gamma_t).sample(noise=self.noise)


HEADS = ("single", "paired", "head", "heads", "posterior", "paired posterior")


def make_model(
    schedule: dc.Schedule,
    encoder: dc.Encoder,
    shape: tuple[int, ...],
    seed: int,
    *,
    prediction: str = "v",
    heads: str = "single",
    levels: int | None = None,
) -> dc.DiffEnc:
    """heads: single, paired, head (a separate second network), heads (a network that returns Estimates), posterior or
    paired posterior (of levels or mixtures)."""
    decoder = dc.Reals() if levels is None else dc.Levels(levels)
    network = RandomNetwork(shape, seed, multiple=2 if heads == "paired" else 1)
    found: dc.Heads
    if heads == "heads":
        found = Direct(HeadsNetwork(shape, seed))
    elif heads.endswith("posterior"):
        options = {"paired": heads.startswith("paired"), "free": bool(seed % 3)}
        found = posterior_heads(("levels", "mixture")[seed % 2], shape, seed, **options)
    elif heads == "head":
        found = dc.Separate(network, RandomNetwork(shape, seed + 1), predicts=prediction)
    else:
        found = (dc.Paired if heads == "paired" else dc.Single)(network, predicts=prediction)
    return dc.DiffEnc(schedule, encoder, found, decoder)


def small_model(kind: str, heads: str = "single") -> dc.DiffEnc:
    """Three dimensions, gamma from -5 to 3."""
    encoder = make_encoder(kind, (3,), 1)
    return make_model(dc.LinearSchedule(-5.0, 3.0), encoder, (3,), 2, heads=heads)


@seeded
def cases(
    pick: random.Random,
    kinds: tuple[str, ...] = ENCODERS,
    heads: tuple[str, ...] = HEADS,
    low: float = -8.0,
) -> Case:
    shape, batch, seed = pick.choice(SHAPES), pick.randint(1, 4), seed_of(pick)
    model = make_model(
        schedules.build(pick, low=low),
        encoders.build(pick, shape, kinds),
        shape,
        seed,
        prediction=pick.choice(PREDICTIONS),
        heads=pick.choice(heads),
    )
    pair = torch.rand(2, batch, dtype=torch.float64, generator=generator(seed)).sort(0).values
    # Keep s and t apart: their limit has tests of its own.
    s, t = 0.9 * pair[0], 0.9 * pair[1] + 0.1
    x, noise = normal(seed + 2, batch, *shape).clamp(-2, 2), normal(seed + 3, batch, *shape)
    return Case(model, x, noise, s, t, noise_levels.build(pick))


# Worlds -------------------------------------------------------------------------------------------


WORLD_ENCODERS = ("identity", "nontrainable", "matrix")


def make_gaussian_world(d: int, kind: str, seed: int) -> GaussianWorld:
    root = normal(seed, d, d)
    covariance = root @ root.mT / d + 0.2 * torch.eye(d, dtype=torch.float64)
    encoder = (
        random_matrix_encoder(d, seed + 2) if kind == "matrix" else make_encoder(kind, (d,), 0)
    )
    return GaussianWorld(0.7 * normal(seed + 1, d), covariance, encoder)


@seeded
def gaussian_worlds(
    pick: random.Random, kinds: tuple[str, ...] = WORLD_ENCODERS, d: int | None = None
) -> GaussianWorld:
    return make_gaussian_world(d or pick.randint(1, 3), pick.choice(kinds), seed_of(pick))


@seeded
def mixture_worlds(pick: random.Random, shape: tuple[int, ...] | None = None) -> MixtureWorld:
    shape = pick.choice(SHAPES) if shape is None else shape
    components, seed = pick.randint(1, 4), seed_of(pick)
    encoder = pick.choice([dc.IdentityEncoder(), dc.NonTrainableEncoder(), ScaleEncoder()])
    weights = 0.2 + normal(seed + 1, components).abs()
    return MixtureWorld(normal(seed, components, *shape), pick.uniform(0.2, 0.8), encoder, weights)


@seeded
def _worlds(pick: random.Random, one_dimensional: bool = False) -> World:
    if pick.random() < 0.5:
        return gaussian_worlds.build(pick, d=1 if one_dimensional else None)
    return mixture_worlds.build(pick, shape=(1,) if one_dimensional else None)


worlds, worlds_1d = _worlds(), _worlds(one_dimensional=True)
