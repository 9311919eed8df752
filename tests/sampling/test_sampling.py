"""Sampling: what one call promises, whatever the solver."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct.calibration import calibrate
from diffenc_ct.process import Gaussian
from diffenc_ct.sampling.names import SOLVERS
from diffenc_ct.sampling.problem import ImageNoise
from diffenc_ct.sampling.samples import _seed, flow_is_exact, sample
from diffenc_ct.worlds import GaussianWorld, MixtureWorld
from tests.strategies import close, generator, make_encoder, make_model, normal

F64 = torch.float64
SCHEDULE = dc.LinearSchedule(-5.0, 4.0)
SHAPE = (1, 2, 2)
FEW = [n for n in SOLVERS if n not in ("torchdiffeq:explicit_adams", "scipy:Radau", "scipy:BDF")]


def world(dtype: torch.dtype = F64) -> dc.DiffEnc:
    means = normal(1, 3, *SHAPE, dtype=dtype) / 2
    return MixtureWorld(means, 0.3, dc.NonTrainableEncoder()).model(SCHEDULE)


def steps_of(name: str) -> int | None:
    adaptive = name.startswith("scipy") or name.partition(":")[2] in (
        "dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun",
    )  # fmt: skip
    return None if adaptive else 5


@pytest.mark.parametrize("name", FEW)
def test_images_do_not_depend_on_the_batch(name: str) -> None:
    """The same seed gives the same images for any batch size, in float64 and float32, on images of any shape."""
    for dtype, tolerance in ((F64, 1e-9), (torch.float32, 2e-4)):
        tolerance = max(tolerance, 2e-3) if steps_of(name) is None else tolerance
        results = [
            sample(
                world(dtype), 5, shape=SHAPE, solver=name, steps=steps_of(name),
                batch_size=b, generator=generator(3),
            )
            for b in (5, 2)
        ]  # fmt: skip
        for result in results:
            assert result.samples.shape == (5, *SHAPE) and result.samples.dtype == dtype
        assert torch.equal(results[0].z_1, results[1].z_1)
        torch.testing.assert_close(
            results[0].z_0, results[1].z_0, rtol=0, atol=tolerance, msg=lambda m: f"{name}: {m}"
        )
    other = sample(
        world(), 5, shape=SHAPE, solver=name, steps=steps_of(name), generator=generator(4)
    )
    assert not torch.allclose(other.z_0, results[0].z_0.double(), atol=1e-2)


def test_fewer_images_are_the_first_of_many() -> None:
    many, few = (sample(world(), n, shape=SHAPE, generator=generator(1)) for n in (6, 2))
    close(few.z_0, many.z_0[:2])


@settings(max_examples=10)
@given(st.sampled_from([0.0, 0.7, 1.0]), st.floats(0.5, 2), st.integers(0, 99))
def test_ancestral_is_the_models_own_reverse(eta, w, seed) -> None:
    """sample(solver="ancestral") is model.reverse step by step, with ratios counted from the data."""
    model = make_model(SCHEDULE, make_encoder("trainable", (3,), 1), (3,), seed)
    grid = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=F64)
    ratio = w * torch.tensor([1.0, 1.3, 0.8], dtype=F64)
    draws: list[torch.Tensor] = []
    result = sample(
        model, 2, shape=(3,), solver="ancestral", schedule=grid, noise_level=eta, ratio=ratio,
        generator=generator(seed),
    )  # fmt: skip
    noise = ImageNoise(_seed(generator(seed)), range(2))
    z, gamma = noise(torch.empty(2, 3, dtype=F64)), model.schedule(grid).gamma
    for i in (2, 1, 0):
        with torch.no_grad():
            step = model.reverse(
                z, gamma[i].expand(2), gamma[i + 1].expand(2), noise_level=eta, ratio=ratio[i]
            )
        draws.append(noise(z) if eta else torch.zeros_like(z))
        z = Gaussian(step.mean, step.std).sample(noise=draws[-1])
    close(result.z_0, z)
    close(result.samples, model.decode(z, gamma[0]))


def test_torchsde_steps_lie_on_the_grid() -> None:
    """One Euler step of the SDE per interval of an uneven grid: at noise level 0, Euler of the flow by hand."""
    model, grid = world(), torch.tensor([0.0, 0.1, 0.6, 1.0], dtype=F64)
    result = sample(
        model,
        2,
        shape=SHAPE,
        solver="torchsde:euler",
        schedule=grid,
        noise_level=0.0,
        generator=generator(0),
    )
    flow, z = dc.ProbabilityFlow(model), result.z_1
    with torch.no_grad():
        for t, s in ((1.0, 0.6), (0.6, 0.1), (0.1, 0.0)):
            z = z + (s - t) * flow(torch.tensor(t, dtype=F64), z)
    close(result.z_0, z)


def test_levels_come_back_as_levels() -> None:
    model = make_model(SCHEDULE, make_encoder("identity", SHAPE, 1), SHAPE, 2, levels=17)
    result = sample(model, 3, shape=SHAPE, steps=4, generator=generator(0))
    assert result.samples.dtype == torch.int64
    assert result.samples.min() >= 0 and result.samples.max() < 17


def test_latents_are_the_start() -> None:
    first = sample(world(), 3, shape=SHAPE, steps=6, generator=generator(0))
    again = sample(world(), latents=first.z_1, steps=6, batch_size=2, generator=generator(9))
    close(again.z_0, first.z_0)
    with pytest.raises(ValueError, match="latents"):
        sample(world(), 4, latents=first.z_1)


def test_trajectory_leads_from_noise_to_data() -> None:
    """It starts at z_1, holds z and x_hat of every evaluation, and gamma falls."""
    result = sample(
        world(), 5, shape=SHAPE, steps=8, trajectory=2, batch_size=3, generator=generator(0)
    )
    path = result.trajectory
    assert path.z.shape == path.x_hat.shape == (8, 2, *SHAPE)
    close(path.z[0], result.z_1[:2])
    assert (path.gamma.diff() < 0).all() and path.gamma[0] == 4.0
    with torch.no_grad():
        heads = world().predict(path.z[3], path.gamma[3].expand(2))
    close(path.x_hat[3], heads.x_hat)


@pytest.mark.parametrize(
    "name,steps,evaluations",
    [("exponential", 9, 9), ("exponential-single-3", 4, 12), ("ancestral", 7, 7), ("rk4", 5, 20)],
)
def test_evaluations_are_counted(name, steps, evaluations) -> None:
    result = sample(world(), 3, shape=SHAPE, solver=name, steps=steps, batch_size=2)
    assert result.evaluations == evaluations == result.log["evaluations"]


def test_moments_of_the_samples() -> None:
    """By default, and with noise: mean and variance of a Gaussian world within sampling error."""
    gaussian = GaussianWorld(
        torch.tensor([0.4, -0.3], dtype=F64),
        torch.tensor([0.5, 0.02], dtype=F64),
        dc.NonTrainableEncoder(),
    )
    for options in ({}, {"noise_level": 1.0}, {"solver": "ancestral", "steps": 200}):
        model = gaussian.model(dc.LinearSchedule(-9.0, 6.0))
        x = sample(
            model, 3000, shape=(2,), generator=generator(2), batch_size=3000, **options
        ).samples
        deviation = gaussian.covariance.diagonal().sqrt()
        assert ((x.mean(0) - gaussian.mean).abs() < 5 * deviation / 3000**0.5 + 2e-3).all()
        assert ((x.std(0) / deviation - 1).abs() < 5 / 6000**0.5 + 1e-2).all()


def test_noise_level_where_the_flow_is_not_exact() -> None:
    """A single head with a trainable encoder knows a sum only: sampling goes by the reverse SDE at eta = 1."""
    single = make_model(SCHEDULE, make_encoder("trainable", (3,), 1), (3,), 2)
    paired = make_model(SCHEDULE, make_encoder("trainable", (3,), 1), (3,), 2, heads="paired")
    plain = make_model(SCHEDULE, make_encoder("nontrainable", (3,), 1), (3,), 2)
    assert [flow_is_exact(m) for m in (single, paired, plain)] == [False, True, True]
    for model, level in ((single, 1.0), (paired, 0.0), (plain, 0.0)):
        assert sample(model, 1, shape=(3,), steps=3).log["noise_level"] == level
    assert sample(plain, 1, shape=(3,), steps=3, solver="ancestral").log["noise_level"] == 1.0


def test_a_calibration_brings_grid_ratio_and_noise_level() -> None:
    gaussian = GaussianWorld(torch.zeros(2, dtype=F64), torch.tensor([0.5, 0.1], dtype=F64))
    model, x = gaussian.model(SCHEDULE), gaussian.sample(64, generator(0))
    found = calibrate(model, x, depth=4, candidates=16, generator=generator(1))
    options = {"shape": (2,), "solver": "ancestral"}
    by_name = sample(model, 3, calibration=found, generator=generator(0), **options)
    by_hand = sample(
        model, 3, schedule=found.grid, ratio=found.ratio, noise_level=found.noise_level,
        generator=generator(0), **options,
    )  # fmt: skip
    close(by_name.z_0, by_hand.z_0)
    assert by_name.evaluations == 4
    for wrong in ({"solver": "exponential"}, {"steps": 4}, {"schedule": "uniform"}):
        with pytest.raises(ValueError, match="calibration"):
            sample(model, 3, calibration=found, **(options | wrong))


@pytest.mark.parametrize(
    "options,words",
    [
        ({"solver": "euler"}, "torchsde:euler or torchdiffeq:euler"),
        ({"solver": "nonsense"}, "not known"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"solver": "dopri5", "steps": 4}, "chooses its own steps"),
        ({"solver": "rk4", "noise_level": 1.0}, "no noise"),
        ({"solver": "rk4", "rtol": 1e-3}, "tolerances"),
        ({"noise_level": -1.0}, "noise_level=-1.0"),
        ({"ratio": 1.2}, "ratio is for"),
        ({"solver": "ancestral", "ratio": -1.0}, "ratio must be positive"),
        ({"solver": "ancestral", "steps": 3, "ratio": torch.ones(4)}, "one a step"),
        ({"schedule": "cosine"}, "choose uniform"),
        ({"schedule": torch.tensor([0.0, 0.6, 0.5, 1.0])}, "increasing"),
        ({"shape": None}, "shape"),
        ({"n": 0}, "n=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"trajectory": 9}, "trajectory=9"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict, words: str) -> None:
    options = {"n": 2, "shape": SHAPE} | options
    with pytest.raises(ValueError, match=words):
        sample(world(), **options)


def test_divergence_is_not_hidden() -> None:
    def broken(problem, z, grid):
        return z / 0 * 0

    with pytest.raises(ValueError, match="2 of 2 samples are not finite: .*broken"):
        sample(world(), 2, shape=SHAPE, solver=broken)
