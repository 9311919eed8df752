"""Sampling: what one call promises, whatever the solver."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.cli.solvers import SOLVERS, make_solver
from diffenc_ct.elbo.finite import ratio_at
from diffenc_ct.process import Gaussian
from diffenc_ct.sampling import ExponentialSinglestep, ImageNoise, Samples
from diffenc_ct.sampling.samples import _seed
from diffenc_ct.worlds import GaussianWorld, MixtureWorld
from tests.strategies import close, generator, make_encoder, make_model, normal

F64 = torch.float64
SCHEDULE = dc.LinearSchedule(-5.0, 4.0)
SHAPE = (1, 2, 2)
FEW = [n for n in SOLVERS if n not in ("torchdiffeq:explicit_adams", "scipy:Radau", "scipy:BDF")]


def world(dtype: torch.dtype = F64) -> dc.DiffEnc:
    means = normal(1, 3, *SHAPE, dtype=dtype) / 2
    return MixtureWorld(means, 0.3, dc.NonTrainableEncoder()).model(SCHEDULE)


def short(name: str) -> dc.Solver:
    """The solver with five steps, or at a loose tolerance (torchdiffeq's fehlberg2 underestimates its error)."""
    default = SOLVERS[name]()
    loose = 1e-5 if "fehlberg2" in name else 1e-4
    tolerance = loose if default.batch_matters else None
    return make_solver(name, steps=None if default.adaptive else 5, rtol=tolerance, atol=tolerance)


def draw(n: int, seed: int, *, model: dc.DiffEnc | None = None, **options) -> Samples:
    return dc.sample(model or world(), n, shape=SHAPE, generator=generator(seed), **options)


@pytest.mark.parametrize("name", FEW)
def test_images_do_not_depend_on_the_batch(name: str) -> None:
    """The same seed gives the same images for any batch size, in float64 and float32, on images of any shape."""
    solver = short(name)
    for dtype, tolerance in ((F64, 1e-9), (torch.float32, 2e-4)):
        tolerance = 2e-3 if solver.batch_matters else tolerance
        results = [
            draw(5, 3, model=world(dtype), solver=solver, work=dc.Work(batch_size=b))
            for b in (5, 2)
        ]
        for result in results:
            assert result.samples.shape == (5, *SHAPE) and result.samples.dtype == dtype
        assert torch.equal(results[0].z_1, results[1].z_1)
        torch.testing.assert_close(
            results[0].z_0, results[1].z_0, rtol=0, atol=tolerance, msg=lambda m: f"{name}: {m}"
        )
    other = draw(5, 4, solver=solver)
    assert not torch.allclose(other.z_0, results[0].z_0.double(), atol=1e-2)


def test_fewer_images_are_the_first_of_many() -> None:
    many, few = (draw(n, 1) for n in (6, 2))
    close(few.z_0, many.z_0[:2])


@dataclass(frozen=True, eq=False, kw_only=True)
class Together(dc.GridSolver):
    """Shifts its images by how many there are in their batch."""

    @property
    def batch_matters(self):
        return True

    def __call__(self, problem, z, grid):
        return z + len(z)


def test_a_batch_that_matters_is_the_one_asked_for() -> None:
    """Where images share their steps."""
    result = draw(5, 0, solver=Together(), work=dc.Work(3))
    shift = torch.tensor([3.0, 3.0, 3.0, 2.0, 2.0], dtype=F64).reshape(5, 1, 1, 1)
    close(result.z_0, result.z_1 + shift)


@settings(max_examples=10)
@given(st.sampled_from([0.0, 0.7, 1.0]), st.floats(0.5, 2), st.integers(0, 99))
def test_ancestral_is_the_models_own_reverse(eta, w, seed) -> None:
    """Ancestral steps are model.reverse step by step, with ratios counted from the data."""
    model = make_model(SCHEDULE, make_encoder("trainable", (3,), 1), (3,), seed)
    grid = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=F64)
    ratio = w * torch.tensor([1.0, 1.3, 0.8], dtype=F64)
    solver = dc.Ancestral(steps=3, placement=grid, noise_level=eta, ratio=ratio)
    result = dc.sample(model, 2, shape=(3,), solver=solver, generator=generator(seed))
    noise = ImageNoise(_seed(generator(seed)), range(2))
    z, gamma = noise(torch.empty(2, 3, dtype=F64)), model.schedule(grid).gamma
    for i in (2, 1, 0):
        with torch.no_grad():
            step = model.reverse(
                z, gamma[i].expand(2), gamma[i + 1].expand(2), noise_level=eta, ratio=ratio[i]
            )
        z = Gaussian(step.mean, step.std).sample(noise=noise(z) if eta else torch.zeros_like(z))
    close(result.z_0, z)
    close(result.samples, model.decode(z, gamma[0]))


@pytest.mark.parametrize("kind", ["step", "dimension", "value"])
@pytest.mark.parametrize("eta", [None, 0.8])
def test_a_calibration_brings_the_steps_of_its_finite_depth_model(kind, eta) -> None:
    """Ancestral.of(c) draws from the p(z_s | z_t) whose bound FiniteDepth(c) is: grid, finest ratio, noise level."""
    gaussian = GaussianWorld(torch.zeros(2, dtype=F64), torch.tensor([0.5, 0.1], dtype=F64))
    model, x = gaussian.model(SCHEDULE), gaussian.sample(64, generator(0))
    options = dc.CalibrationOptions(ratio=kind, candidates=16)
    found = dc.calibrate(model, x, 4, options, generator=generator(1))
    bound = dc.FiniteDepth(found, noise_level=eta)
    solver = dc.Ancestral.of(found, eta)
    result = dc.sample(model, 3, shape=(2,), solver=solver, generator=generator(0))
    assert result.evaluations == 4 == bound.depth
    noise = ImageNoise(_seed(generator(0)), range(3))
    z, gamma = noise(torch.empty(3, 2, dtype=F64)), model.schedule(bound.grid(x)).gamma
    for i in (3, 2, 1, 0):
        ends = gamma[i].expand(3), gamma[i + 1].expand(3)
        found_here = model.predict(z, ends[1])
        w = ratio_at(bound.variance_ratio, torch.full((3,), i), found_here)
        z = model.reverse(z, *ends, noise_level=bound.level, ratio=w).sample(noise=noise(z))
    close(result.z_0, z)


def test_torchsde_steps_lie_on_the_grid() -> None:
    """One Euler step of the SDE per interval of an uneven grid: at noise level 0, Euler of the flow by hand."""
    model, grid = world(), torch.tensor([0.0, 0.1, 0.6, 1.0], dtype=F64)
    solver = dc.TorchSDE("euler", steps=3, placement=grid, noise_level=0.0)
    result = draw(2, 0, model=model, solver=solver)
    flow, z = dc.ProbabilityFlow(model), result.z_1
    with torch.no_grad():
        for t, s in ((1.0, 0.6), (0.6, 0.1), (0.1, 0.0)):
            z = z + (s - t) * flow(torch.tensor(t, dtype=F64), z)
    close(result.z_0, z)


def test_levels_come_back_as_levels() -> None:
    model = make_model(SCHEDULE, make_encoder("identity", SHAPE, 1), SHAPE, 2, levels=17)
    result = draw(3, 0, model=model, solver=dc.Exponential(steps=4))
    assert result.samples.dtype == torch.int64
    assert result.samples.min() >= 0 and result.samples.max() < 17


def test_latents_are_the_start() -> None:
    solver = dc.Exponential(steps=6)
    first = draw(3, 0, solver=solver)
    again = dc.sample(
        world(), latents=first.z_1, solver=solver, work=dc.Work(2), generator=generator(9)
    )
    close(again.z_0, first.z_0)
    with pytest.raises(ValueError, match="latents"):
        dc.sample(world(), 4, latents=first.z_1)


def test_trajectory_leads_from_noise_to_data() -> None:
    """It starts at z_1, holds z and x_hat of every evaluation, and gamma falls."""
    result = draw(5, 0, solver=dc.Exponential(steps=8), trajectory=2, work=dc.Work(3))
    path = result.trajectory
    assert path.z.shape == path.x_hat.shape == (8, 2, *SHAPE)
    close(path.z[0], result.z_1[:2])
    assert (path.gamma.diff() < 0).all() and path.gamma[0] == 4.0
    with torch.no_grad():
        found = world().predict(path.z[3], path.gamma[3].expand(2))
    close(path.x_hat[3], found.x_hat)


@pytest.mark.parametrize(
    "solver,evaluations",
    [
        (dc.Exponential(steps=9), 9),
        (ExponentialSinglestep(steps=4), 12),
        (dc.Ancestral(steps=7), 7),
        (dc.TorchDiffEqFixed("rk4", steps=5), 20),
    ],
)
def test_evaluations_are_counted(solver, evaluations) -> None:
    result = dc.sample(world(), 3, shape=SHAPE, solver=solver, work=dc.Work(2))
    assert result.evaluations == evaluations == result.log["evaluations"]


def test_evaluations_are_counted_image_by_image() -> None:
    """Adams is done with some images before others: what is told does not depend on who shared a batch."""
    together, alone = (draw(6, 2, solver=dc.Adams(), work=dc.Work(b)) for b in (6, 1))
    assert together.evaluations == alone.evaluations and together.evaluations % 1 != 0


def test_progress_counts_images() -> None:
    ticks: list[int] = []
    dc.sample(world(), 5, shape=SHAPE, work=dc.Work(2, progress=ticks.append))
    assert ticks == [2, 2, 1]


@pytest.mark.parametrize(
    "solver,name,steps,level",
    [
        (dc.Exponential(steps=3, noise_level=0.5), "Exponential", 3, "0.5"),
        (dc.TorchSDE("srk", steps=4), "torchsde:srk", 4, "1"),
        (dc.TorchDiffEq("bosh3"), "torchdiffeq:bosh3", None, "0"),
        (dc.TorchDiffEqFixed("rk4", steps=6), "torchdiffeq:rk4", 6, "0"),
        (dc.Ancestral(steps=2, noise_level=lambda gamma: 1 + 0 * gamma), "Ancestral", 2, "a func"),
    ],
)
def test_the_log_says_what_was_done(solver, name, steps, level) -> None:
    log = dc.sample(world(), 1, shape=SHAPE, solver=solver).log
    assert log["solver"] == name and log["steps"] == steps and log["noise_level"].startswith(level)


def test_moments_of_the_samples() -> None:
    """By default, and with noise: mean and variance of a Gaussian world within sampling error."""
    gaussian = GaussianWorld(
        torch.tensor([0.4, -0.3], dtype=F64),
        torch.tensor([0.5, 0.02], dtype=F64),
        dc.NonTrainableEncoder(),
    )
    for solver in (None, dc.Exponential(noise_level=1.0), dc.Ancestral(steps=200)):
        model = gaussian.model(dc.LinearSchedule(-9.0, 6.0))
        x = dc.sample(
            model, 3000, shape=(2,), solver=solver, generator=generator(2), work=dc.Work(3000)
        ).samples
        deviation = gaussian.covariance.diagonal().sqrt()
        assert ((x.mean(0) - gaussian.mean).abs() < 5 * deviation / 3000**0.5 + 2e-3).all()
        assert ((x.std(0) / deviation - 1).abs() < 5 / 6000**0.5 + 1e-2).all()


def test_noise_level_where_the_flow_is_not_exact() -> None:
    """A single head with a trainable encoder knows a sum only: sampling goes by the reverse SDE at eta = 1."""
    single = make_model(SCHEDULE, make_encoder("trainable", (3,), 1), (3,), 2)
    paired = make_model(SCHEDULE, make_encoder("trainable", (3,), 1), (3,), 2, heads="paired")
    plain = make_model(SCHEDULE, make_encoder("nontrainable", (3,), 1), (3,), 2)
    assert [m.flow_is_exact for m in (single, paired, plain)] == [False, True, True]
    for model, level in ((single, "1"), (paired, "0"), (plain, "0")):
        for solver in (dc.Exponential(steps=3), ExponentialSinglestep(steps=3)):
            assert dc.sample(model, 1, shape=(3,), solver=solver).log["noise_level"] == level
    ancestral = dc.sample(plain, 1, shape=(3,), solver=dc.Ancestral(steps=3))
    assert ancestral.log["noise_level"] == "1"
