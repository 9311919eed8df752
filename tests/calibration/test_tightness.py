"""Tightness from residuals against the closed forms of Gaussian worlds; heads fitted afterwards."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from torch import nn

import diffenc_ct as dc
from diffenc_ct.calibration._tightness import (
    RunningNoiseLevel,
    Tightness,
    optimal_eta_squared,
    tightness,
)
from diffenc_ct.process import marginal
from diffenc_ct.training.heads import fit_head, load_head, save_head
from diffenc_ct.worlds import GaussianWorld
from tests.strategies import (
    close,
    gaussian_worlds,
    generator,
    make_gaussian_world,
    make_model,
    normal,
    seeds,
)

SCHEDULE = dc.LinearSchedule(-6.0, 4.0)


@given(gaussian_worlds(), seeds)
@settings(max_examples=10)
def test_covariances_of_a_world(world, seed):
    model, data = world.model(SCHEDULE), world.sample(3000, generator(seed))
    found = tightness(model, data, depths=5, generator=generator(seed + 1))
    truth = world.covariances(found.gamma)
    for name, value in zip("abc", truth, strict=True):
        error = getattr(found, f"{name}_error")
        assert ((getattr(found, name) - value).abs() <= 5 * error + 1e-12).all(), name
    assert found.examples == 3000 and found.dimensions == world.dimensions


@pytest.mark.parametrize("kind", ["matrix", "nontrainable"])
def test_gap_and_gain_of_a_world(kind):
    world = make_gaussian_world(2, kind, 3)
    found = tightness(
        world.model(SCHEDULE), world.sample(4000, generator(0)), depths=65, generator=generator(1)
    )
    gap = world.gap(-6.0, 4.0).item()
    level = dc.FunctionNoiseLevel(lambda g: world.optimal_noise_level_squared(g).sqrt())
    remaining = world.gap(-6.0, 4.0, level).item()
    assert abs(found.gap - gap) < 5 * found.gap_error + 1e-3
    assert abs(found.gain - (gap - remaining)) < 5 * found.gain_error + 1e-3
    assert found.gap_error < 0.05 * gap and 0 < found.gain
    if kind == "nontrainable":  # tight at eta*
        assert abs(found.remaining_gap) < 1e-3 + 5 * found.gap_error


def test_noise_level_is_tabulated_and_lowest():
    world = make_gaussian_world(2, "matrix", 5)
    found = tightness(world.model(SCHEDULE), world.sample(500, generator(0)), depths=17)
    level = found.noise_level
    close(level.squared(found.gamma), optimal_eta_squared(found.a, found.b, found.c))
    best = found.rate(level)
    for eta in (0.6, 0.9, 1.0, 1.1, 1.4, 2.0):
        assert (best <= found.rate(eta) + 1e-12).all()
    scaled = dc.TabulatedNoiseLevel(found.gamma, 1.01 * found.eta_squared)
    assert (best < found.rate(scaled)).all()


def test_elbo_at_the_optimal_noise_level_gains_what_is_promised():
    """The same depths and noise at eta = 1 and eta*: the mean difference is the gain."""
    world = make_gaussian_world(2, "matrix", 6)
    model, n = world.model(SCHEDULE), 20000
    found = tightness(model, world.sample(4000, generator(0)), depths=65, generator=generator(1))
    x = world.sample(n, generator(2))
    losses = [
        dc.elbo(model, x, noise_level=level, generator=generator(3)).total
        for level in (1.0, found.noise_level)
    ]
    difference = losses[0] - losses[1]
    error = math.hypot((difference.std() / math.sqrt(n)).item(), found.gain_error)
    assert abs(difference.mean() - found.gain) < 4 * error + 1e-3
    assert found.gain > 10 * found.gain_error


def test_single_head_residuals():
    """With one head the residuals are x_t - x_hat and x_t' - sigma^2 x_hat: larger a, the same sum at eta = 1."""
    world = make_gaussian_world(2, "matrix", 7)
    data = world.sample(2000, generator(0))
    single, paired = (
        tightness(world.model(SCHEDULE, heads=kind), data, depths=9, generator=generator(1))
        for kind in ("single", "paired")
    )
    close(single.rate(1.0), paired.rate(1.0), 1e-8)
    assert (single.a > paired.a).all()


def test_saved_and_loaded(tmp_path):
    world = make_gaussian_world(1, "matrix", 1)
    found = tightness(world.model(SCHEDULE), world.sample(50, generator(0)), depths=5)
    found.save(tmp_path / "tightness.json")
    again = Tightness.load(tmp_path / "tightness.json")
    for name, value in vars(found).items():
        other = getattr(again, name)
        assert torch.equal(other, value) if isinstance(value, torch.Tensor) else other == value
    (tmp_path / "wrong.json").write_text('{"gamma": [0, 1]}')
    with pytest.raises(ValueError, match="no saved tightness"):
        Tightness.load(tmp_path / "wrong.json")


def test_same_seed_same_numbers_and_refusals():
    world = make_gaussian_world(1, "matrix", 1)
    model, data = world.model(SCHEDULE), world.sample(20, generator(0))
    one, two = (tightness(model, data, depths=3, generator=generator(4)) for _ in range(2))
    assert torch.equal(one.a, two.a) and one.gap == two.gap
    for bad in ({"depths": 1}, {"data": data[:1]}):
        with pytest.raises(ValueError, match="at least 2"):
            tightness(model, **{"data": data, **bad})


# Heads ---------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """u = W(gamma) z + b(gamma), W and b linear in 4 features of gamma: holds a linear world's best heads."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.out = nn.Linear(8, d + d * d)

    def forward(self, z: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        g = gamma[:, None] / 4
        features = torch.cat([torch.ones_like(g), g, g**2, g**3, torch.tanh(g), torch.tanh(2 * g),
                              torch.cos(g), torch.sin(g)], 1)  # fmt: skip
        d = z.shape[1]
        weights = self.out(features)
        return (weights[:, d:].unflatten(1, (d, d)) @ z[:, :, None])[:, :, 0] + weights[:, :d]


def test_a_fitted_head_learns_the_posterior_mean_and_leaves_the_elbo():
    world = make_gaussian_world(2, "matrix", 9)
    schedule = dc.LinearSchedule(-3.0, 3.0)
    best = world.model(schedule, heads="single").network

    class Best(nn.Module):
        """The optimal single head, read as v."""

        def forward(self, z, gamma):
            a, s = (torch.sigmoid(sign * gamma).sqrt()[:, None] for sign in (-1, 1))
            return (a * z - best(z, gamma)) / s

    model = dc.DiffEnc(schedule, world.encoder, Best(), levels=None).double()
    before = copy.deepcopy(model.state_dict())
    data = world.sample(4000, generator(0))
    torch.manual_seed(0)
    fitted = fit_head(
        model,
        data,
        head=Linear(2).double(),
        steps=600,
        batch_size=256,
        learning_rate=2e-2,
        generator=generator(1),
    )
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    gamma = torch.linspace(-2.5, 2.5, 6, dtype=torch.float64).repeat_interleave(50)
    x = data[: len(gamma)]
    z = marginal(world.encoder(x, gamma).value, gamma).sample(generator(2))
    heads, truth, tied = (
        fitted.model.predict(z, gamma),
        world.heads(z, gamma),
        model.predict(z, gamma),
    )
    off = (heads.x_hat - truth.x_hat).square().mean()
    assert off < 0.1 * (tied.x_hat - truth.x_hat).square().mean()
    rate_off = (heads.r_hat - truth.r_hat).square().mean()
    assert rate_off < 0.1 * (tied.r_hat - truth.r_hat).square().mean()
    # eta = 1 reads only x_hat + r_hat: the same ELBO, example by example
    one, two = (dc.elbo(m, x, generator=generator(3)).total for m in (model, fitted.model))
    close(one, two, 1e-9)
    assert fitted.losses[-1] < fitted.losses[0] and len(fitted.losses) == 600


def test_variants_fit_what_they_say():
    model = make_model(
        SCHEDULE, GaussianWorld(torch.zeros(3).double(), torch.ones(3).double()).encoder, (3,), 4
    )
    data, before = normal(1, 40, 3), copy.deepcopy(model.network.state_dict())
    for variant, changed in (
        ("own network", set(before)),
        ("detached trunk", {"second.weight", "second.bias"}),
    ):
        fitted = fit_head(model, data, variant=variant, steps=3, generator=generator(0))
        after = fitted.model.head.state_dict()
        assert {k for k in before if not torch.equal(before[k], after[k])} == changed
        assert all(torch.equal(v, before[k]) for k, v in model.network.state_dict().items())
        assert fitted.model.paired and not model.paired
        assert all(p.grad is None for p in model.network.parameters())
    own = copy.deepcopy(model.network)
    fit_head(model, data, head=own, steps=3, generator=generator(0))  # one's own is fitted whole
    assert all(not torch.equal(before[k], v) for k, v in own.state_dict().items())


def test_a_head_is_stored_with_the_network_it_belongs_to(tmp_path):
    model, data = make_model(SCHEDULE, dc.NonTrainableEncoder(), (3,), 4), normal(1, 40, 3)
    fitted = fit_head(model, data, steps=3, generator=generator(0)).model
    save_head(fitted, tmp_path / "head.safetensors")
    again = load_head(model, tmp_path / "head.safetensors")
    gamma = torch.zeros(40, dtype=torch.float64)
    assert torch.equal(again.predict(data, gamma).x_hat, fitted.predict(data, gamma).x_hat)
    with pytest.raises(ValueError, match="other weights"):
        load_head(make_model(SCHEDULE, model.encoder, (3,), 5), tmp_path / "head.safetensors")


def test_fit_refusals():
    world = make_gaussian_world(2, "matrix", 9)
    with pytest.raises(ValueError, match="paired heads already"):
        fit_head(world.model(SCHEDULE), world.sample(4))
    single = make_model(SCHEDULE, world.encoder, (2,), 1)
    for bad, message in (
        ({"variant": "shared"}, "own network"),
        ({"steps": 0}, "at least 1"),
        ({"learning_rate": -1.0}, "positive"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_head(single, world.sample(4), **bad)
    with pytest.raises(ValueError, match="no parameters"):
        fit_head(world.model(SCHEDULE, heads="single"), world.sample(4), variant="detached trunk")


def errors_of(world, model, gamma, seed):
    """Data of the world at depths gamma, and the errors of the model's heads there."""
    x, noise = (
        world.sample(len(gamma), generator(seed)),
        normal(seed + 1, len(gamma), world.dimensions),
    )
    encoding = model.encoder(x, gamma)
    z = marginal(encoding.value, gamma).sample(noise=noise)
    return model.errors(z, noise, encoding, gamma)


@given(seeds)
@settings(max_examples=5)
def test_running_estimates_tend_to_the_optimal_noise_level(seed):
    world = make_gaussian_world(2, "matrix", seed % 50)
    model = world.model(SCHEDULE)
    level = RunningNoiseLevel(-6.0, 4.0, bins=40, decay=0.95)
    close(level.squared(torch.tensor([-7.0, 0.0, 5.0])), torch.ones(3))
    for step in range(60):
        gamma = -6 + 10 * torch.rand(2000, generator=generator(seed + 3 * step), dtype=torch.double)
        level.update(level.count(gamma, errors_of(world, model, gamma, seed + 3 * step + 1)))
    gamma = torch.linspace(-5.5, 3.5, 19, dtype=torch.float64)
    truth = world.optimal_noise_level_squared(gamma).clamp(0.25, 16)
    assert ((level.squared(gamma) / truth).log().abs() < 0.15).all()
    scaled = level.moments.clone()
    level.moments = 7 * scaled  # only ratios matter
    close(level.squared(gamma), with_moments(level, scaled).squared(gamma))


def with_moments(level, moments):
    other = copy.copy(level)
    other.moments = moments
    return other


def test_counts_of_parts_add_up_to_those_of_the_batch():
    world = make_gaussian_world(2, "matrix", 3)
    model, level = world.model(SCHEDULE), RunningNoiseLevel(-6.0, 4.0, bins=5)
    gamma = torch.linspace(-6, 4, 64, dtype=torch.float64)
    errors = errors_of(world, model, gamma, 0)
    whole = level.count(gamma, errors)
    parts = [
        level.count(g, dc.Heads(a, b))
        for g, a, b in zip(
            gamma.chunk(4), errors.x_hat.chunk(4), errors.r_hat.chunk(4), strict=True
        )
    ]
    close(sum(parts), whole)
    close(whole.sum(0)[0], errors.x_hat.square().sum())
    close(whole.sum(0)[1], errors.r_hat.square().sum())
    close(whole.sum(0)[2], (errors.x_hat * errors.r_hat).sum())
    level.update(whole)
    before = level.moments.clone()
    level.update(whole)
    close(level.moments, 0.99 * before + whole)


def test_the_optimal_noise_level_by_name():
    world = make_gaussian_world(2, "matrix", 4)
    model, x = world.model(SCHEDULE), world.sample(8, generator(0))
    with pytest.raises(ValueError, match="tightness"):
        dc.elbo(model, x, noise_level="optimal")
    fitted = tightness(model, world.sample(100, generator(1)), depths=9)
    model.optimal_noise_level = fitted.noise_level
    named = dc.elbo(model, x, noise_level="optimal", generator=generator(2))
    given_ = dc.elbo(model, x, noise_level=fitted.noise_level, generator=generator(2))
    close(named.total, given_.total)
    finite = dc.elbo(model, x, depth=5, noise_level="optimal", generator=generator(2))
    close(
        finite.total,
        dc.elbo(model, x, depth=5, noise_level=fitted.noise_level, generator=generator(2)).total,
    )
