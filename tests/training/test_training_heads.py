"""Training of paired heads, and at the optimal noise level."""

import pytest
import torch

import diffenc_ct as dc
from diffenc_ct.calibration import RunningNoiseLevel, tightness
from diffenc_ct.data import load_dataset
from diffenc_ct.model import regression_loss
from diffenc_ct.training.config import replace
from diffenc_ct.training.loop import train
from diffenc_ct.training.runs import TIGHTNESS, open_run
from diffenc_ct.training.state import State
from tests.strategies import close, generator
from tests.tiny_runs import CPU, assert_same, batch_of, step_of, tensors_of, tiny

PAIRED = {"model__heads": "paired", "training__noise_level": "optimal"}


@pytest.fixture(scope="module")
def data():
    return load_dataset("swirl")


@pytest.mark.parametrize("prediction", ["v", "x", "eps"])
def test_the_regression_reaches_the_network_only(data, prediction):
    config = tiny(model__heads="paired", model__prediction=prediction)
    state = State.fresh(config, data, CPU)
    model = State.fresh(config, data, CPU).model.train()  # the same, before the step
    values = step_of(state, config, data)
    x, draws = batch_of(config, data)
    terms = dc.elbo(model, x, draws=draws)
    loss = terms.bits_per_dimension().total.mean()
    gamma, errors = terms.residuals.point.gamma, terms.residuals.errors
    regression = regression_loss(errors.x, gamma, prediction).mean()
    weight = (-gamma).sigmoid() if prediction == "eps" else 1.0
    square = errors.x.square().mean(1)
    close(regression, (weight / gamma.sigmoid() * square).mean(), 1e-5)
    assert values["regression"] == pytest.approx(regression.item(), rel=1e-5)
    for part, total in (("encoder", loss), ("heads", loss + regression)):
        parameters = list(getattr(model, part).parameters())
        wanted = torch.autograd.grad(total, parameters, retain_graph=True)
        trained = getattr(state.model, part).parameters()
        for mine, other in zip(trained, wanted, strict=True):
            close(mine.grad, other, 1e-4)


def test_the_residuals_are_what_the_loss_saw(data):
    model = State.fresh(tiny(), data, CPU).model
    terms = dc.elbo(model, data.train[:8], generator=generator(0))
    gamma, errors = terms.residuals.point.gamma, terms.residuals.errors
    rate = model.schedule(torch.tensor([0.5])).rate
    square = (errors.x + errors.r).square().flatten(1).sum(1)
    close(terms.diffusion, 0.5 * rate * torch.exp(-gamma) * square, 1e-5)


def test_running_estimates_resume_bit_for_bit(tmp_path, data):
    config = tiny(**PAIRED)
    train(config, tmp_path / "whole", data=data)
    train(replace(config, {"training.steps": 3}), tmp_path / "parts", data=data)
    train(config, tmp_path / "parts", data=data, resume=True)
    assert "noise_level/moments" in tensors_of(tmp_path / "whole")
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts"))


def test_parts_of_a_batch_change_nothing_but_rounding(data):
    results = []
    for parts in (1, 2):
        config = tiny(training__accumulate=parts, training__ends_fraction=0.25, **PAIRED)
        state = State.fresh(config, data, CPU)
        for _ in range(3):
            values = step_of(state, config, data)
        results.append((values, state.noise_level.moments, state.model.state_dict()))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-4)
    close(results[1][1], results[0][1], 1e-4)
    for name, value in results[0][2].items():
        close(results[1][2][name], value, 1e-4)


def test_a_run_brings_its_noise_level_and_shape(tmp_path, data):
    config = tiny(training__steps=30, training__eval_every=100, training__save_every=30, **PAIRED)
    train(config, tmp_path / "run", data=data)
    opened = open_run(tmp_path / "run")
    model, level = opened.model, opened.optimal_noise_level
    assert model.shape == data.shape and isinstance(level, RunningNoiseLevel)
    gamma = torch.linspace(-13, 5, 7)
    squared = level.squared(gamma)
    assert (squared != 1).any() and (squared >= 0.25).all() and (squared <= 16).all()
    assert dc.elbo(model, data.test[:4], dc.InfiniteDepth(level)).total.isfinite().all()
    fitted = tightness(model, data.train[:20], depths=5)
    fitted.save(tmp_path / "run" / TIGHTNESS)  # a fit of the finished model goes first
    again = open_run(tmp_path / "run").optimal_noise_level
    close(again.squared(gamma), fitted.noise_level.squared(gamma))


def test_a_run_at_another_noise_level_has_no_optimal_one(tmp_path, data):
    train(tiny(training__steps=2), tmp_path / "run", data=data)
    assert open_run(tmp_path / "run").optimal_noise_level is None
