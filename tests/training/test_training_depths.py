"""Depths drawn where the loss is: the same mean, a smaller spread, and runs that resume; untrained posterior models."""

import math

import pytest
import torch

import diffenc_ct as dc
from diffenc_ct.data import load_dataset
from diffenc_ct.elbo import ImportanceDepths
from diffenc_ct.training.build import build_model
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.evaluation import baselines
from diffenc_ct.training.loop import train
from diffenc_ct.training.randomness import DEPTH, NOISE, batch_indices, generator_for
from diffenc_ct.training.state import State
from diffenc_ct.training.step import training_step
from tests.strategies import close, generator
from tests.tiny_runs import CPU, assert_same, step_of, tensors_of, tiny


@pytest.fixture(scope="module")
def data():
    return load_dataset("swirl")


def by_importance(**settings):
    return tiny(training__depths="importance", training__batch_size=128, **settings)


def taught(config, data, steps=3):
    """A state whose depths have seen every cell, and so are no longer uniform."""
    state = State.fresh(config, data, CPU)
    for _ in range(steps):
        training_step(state, config, data, CPU)
    assert (state.depths.moments[:, 1] > 0).all() and state.depths.density().std() > 0.05
    return state


def test_a_step_against_the_bound_with_its_draws(data):
    """What is reported is the mean of weight x loss, the gradient is its, and what is learned is the loss's square."""
    config = by_importance(training__ends_fraction=0.5)
    state = taught(config, data)
    before = state.depths.moments.clone()
    seed, step, size = config.training.seed, state.step, config.training.batch_size
    x = data.train[batch_indices(seed, step, size, len(data.train))]
    t, weight = state.depths.draw(
        size, like=torch.empty(1), generator=generator_for(seed, DEPTH, step)
    )
    assert weight.std() > 0.01
    noise = torch.randn(2, *x.shape, generator=generator_for(seed, NOISE, step))
    draws = dc.Draws(t, *noise, weight)
    parameters = list(state.model.parameters())
    bound = dc.InfiniteDepth(ends_fraction=0.5)
    terms = dc.elbo(state.model, x, bound, draws=draws)
    bits = terms.bits_per_dimension()
    unweighted = dc.elbo(state.model, x, draws=dc.Draws(t, *noise))
    wanted = torch.autograd.grad(bits.total.mean(), parameters, allow_unused=True)
    values = step_of(state, config, data)
    for name in ("reconstruction", "diffusion", "latent"):
        assert values[name] == pytest.approx(getattr(bits, name).mean().item(), rel=1e-5), name
    for parameter, gradient in zip(parameters, wanted, strict=True):
        if gradient is not None:
            assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-7)
    seen = state.depths.count(t, unweighted.diffusion)
    close(state.depths.moments, 0.99 * before + seen, 1e-6)


def test_the_mean_stays_and_the_spread_falls(data):
    """Over many draws of the same images, at the density that a few steps have found."""
    state = taught(by_importance(), data, steps=12)
    x, found = data.train[:200], {}
    for name, bound in (
        ("importance", dc.InfiniteDepth(depths=state.depths)),
        ("even", dc.InfiniteDepth()),
    ):
        losses = torch.stack(
            [
                dc.elbo(state.model, x, bound, generator=generator(i)).diffusion.detach()
                for i in range(30)
            ]
        )
        # Independent over repetitions, stratified within: the error is that of the repetitions' means.
        means = losses.mean(1)
        found[name] = (means.mean(), means.std() / math.sqrt(len(means)), losses.std())
    (a, error_a, spread_a), (b, error_b, spread_b) = found["importance"], found["even"]
    assert abs(a - b) < 5 * (error_a**2 + error_b**2).sqrt()
    assert spread_a < 0.9 * spread_b


@pytest.mark.parametrize("stop", [2, 5])
def test_an_interrupted_run_ends_bit_for_bit_like_an_undisturbed_one(tmp_path, data, stop):
    config = by_importance(training__steps=6)
    train(config, tmp_path / "whole", data=data)
    train(replace(config, {"training.steps": stop}), tmp_path / "parts", data=data)
    torch.rand(stop)
    train(config, tmp_path / "parts", data=data, resume=True)
    whole = tensors_of(tmp_path / "whole")
    assert_same(whole, tensors_of(tmp_path / "parts"))
    assert whole["depths/moments"].shape == (ImportanceDepths().bins, 2)


def test_accumulation_is_the_whole_batch(data):
    results = []
    for parts in (1, 2, 4):
        config = by_importance(training__accumulate=parts)
        state = taught(config, data, steps=2)
        values = step_of(state, config, data)
        gradients = [p.grad.clone() for p in state.model.parameters()]
        results.append((values, gradients, state.depths.moments))
    for values, gradients, moments in results[1:]:
        assert values == pytest.approx(results[0][0], rel=1e-4)
        close(moments, results[0][2], 1e-4)
        for mine, whole in zip(gradients, results[0][1], strict=True):
            assert torch.allclose(mine, whole, rtol=1e-3, atol=1e-5)


def test_a_skipped_step_teaches_nothing(data):
    config = by_importance(
        network__kind="tests.tiny_runs:Breaking",
        network__options={},
        model__prediction="v",
        training__on_nan="skip",
    )
    state = State.fresh(config, data, CPU)
    for _ in range(3):
        before = state.depths.moments.clone()
        training_step(state, config, data, CPU)
    assert state.skipped == 1 and torch.equal(state.depths.moments, before)


# What training begins with --------------------------------------------------------------------------


def test_an_untrained_model_is_the_one_of_independent_pixels():
    """Of build_model with its automatic networks: the bound of test images is the baseline's surprise, within the error
    of many draws, and to the last bit the same with a residual encoder."""
    digits, found = load_dataset("digits"), {}
    images = digits.test
    for kind in ("identity", "residual"):
        options = {"width": 8, "halvings": 1}
        config = replace(
            Config(), {"encoder.kind": kind, "network.options": options, "model.prior": "value"}
        )
        if kind == "residual":
            config = replace(config, {"encoder.network.options": options})
        model = build_model(config, digits).eval()
        with torch.no_grad():
            found[kind] = [
                dc.elbo(model, images, generator=generator(i)).bits_per_dimension()
                for i in range(16 if kind == "identity" else 2)
            ]
    for one, other in zip(*found.values(), strict=False):
        for name in ("reconstruction", "diffusion", "latent"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
    log_prior = model.heads.prior.expand(*images.shape, -1)
    surprise = -log_prior.gather(-1, images.long()[..., None]).flatten(1).mean(1) / math.log(2)
    assert float(surprise.mean()) == pytest.approx(baselines(digits)["independent"], rel=1e-6)
    # Stratified over the images, independent over draws.
    means = torch.stack([(terms.total - surprise).mean() for terms in found["identity"]])
    error = float(means.std()) / math.sqrt(len(means))
    assert error < 0.03 and abs(float(means.mean())) < 4 * error
