"""A learned schedule's interior has the gradient of the loss's second moment, all else that of the loss."""

import dataclasses

import pytest
import torch
from torch import nn

import diffenc_ct as dc
from diffenc_ct.data import Dataset, load_dataset
from diffenc_ct.training.loop import training_step
from diffenc_ct.training.state import State
from tests.strategies import close, generator, normal
from tests.tiny_runs import CPU, batch_of, tiny

F64 = torch.float64
ENDS = {"schedule.gamma_min", "schedule.gamma_max"}


@pytest.fixture
def double():
    torch.set_default_dtype(F64)
    yield
    torch.set_default_dtype(torch.float32)


def learned(parts):
    """A state whose monotone schedule is away from its start, with end points of its own; 3 dimensions, float64."""
    config = tiny(
        schedule__kind="monotone",
        schedule__options={"gamma_min": -6.0, "gamma_max": 3.0, "hidden": 8, "learn_ends": True},
        training__batch_size=4,
        training__accumulate=parts,
        network__options={"width": 4},
        encoder__network__options={"width": 4},
    )
    data = Dataset("reals", normal(2, 4, 3), normal(3, 1, 3), None)
    state = State.fresh(config, data, CPU)
    for i, parameter in enumerate(state.model.parameters()):
        if parameter.ndim:
            parameter.data = normal(i, *parameter.shape)
    return state, config, data


@pytest.mark.parametrize("parts", [1, 2])
def test_gradients_by_parameter(double, parts):
    """Against autograd on the two losses apart; parts of a batch add up."""
    state, config, data = learned(parts)
    model = state.model
    x, draws = batch_of(config, data)
    parameters = dict(model.named_parameters())
    whole = dc.elbo(model, x, draws=draws).bits_per_dimension()
    first = torch.autograd.grad(whole.total.mean(), parameters.values(), retain_graph=True)
    second = torch.autograd.grad(whole.diffusion.square().mean(), parameters.values())
    training_step(state, config, data, CPU)
    for (name, parameter), of_mean, of_square in zip(
        parameters.items(), first, second, strict=True
    ):
        interior = name.startswith("schedule.") and name not in ENDS
        expected = of_square if interior else of_mean
        assert expected.abs().max() > 0, name
        close(parameter.grad, expected, 1e-9)
    assert (parameters["schedule.gamma_min"].grad - second[0]).abs().max() > 1e-3


class Nothing(nn.Module):
    def forward(self, z, gamma):
        return torch.zeros_like(z)


def test_the_variance_falls_and_the_mean_stays():
    """A network that predicts v = 0 errs much at some depths and little at others."""
    config = tiny(
        schedule__kind="monotone",
        schedule__options={"gamma_min": -6.0, "gamma_max": 4.0, "hidden": 16},
        encoder__kind="identity",
        encoder__network__options={},
        network__kind=f"{__name__}:Nothing",
        network__options={},
        optimizer__learning_rate=0.05,
        optimizer__weight_decay=0.0,
        training__batch_size=512,
    )
    x = normal(0, 512, 2).float()
    data = Dataset("reals", x, x[:1], None)
    state = State.fresh(config, data, CPU)

    def moments():
        terms = dc.elbo(state.model, x.repeat(8, 1), generator=generator(1))
        return terms.diffusion.mean().item(), terms.diffusion.std().item()

    mean, deviation = moments()
    for _ in range(150):
        training_step(state, config, data, CPU)
    trained_mean, trained_deviation = moments()
    assert trained_deviation < 0.8 * deviation
    assert trained_mean == pytest.approx(mean, rel=0.1)


class Plain(dc.MonotoneSchedule):
    """The same without an interior."""

    def forward(self, t):
        return dataclasses.replace(super().forward(t), interior=())


def test_a_step_of_training_trains_the_interior_so():
    """Without an interior the gradient there is another, and elsewhere the same."""
    data, found = load_dataset("swirl"), {}
    for kind in ("monotone", f"{__name__}:Plain"):
        config = tiny(
            schedule__kind=kind,
            schedule__options={"hidden": 4, "learn_ends": True, "gamma_min": -13.3},
            training__accumulate=2,
        )
        state = State.fresh(config, data, CPU)
        training_step(state, config, data, CPU)
        found[kind] = {name: p.grad for name, p in state.model.named_parameters()}
    ours, plain = found.values()
    for name, gradient in plain.items():
        if name.startswith("schedule.") and name not in ENDS:
            assert (ours[name] - gradient).abs().max() > 0.01 * gradient.abs().max() > 0
        else:
            close(ours[name], gradient, 1e-5)
