"""A learned schedule's interior has the gradient of the loss's second moment, all else that of the loss."""

import pytest
import torch
from torch import nn

import diffenc_ct as dc
from diffenc_ct.data import load_dataset
from diffenc_ct.training.interior import InteriorGradient
from diffenc_ct.training.loop import training_step
from diffenc_ct.training.state import State
from tests.strategies import close, generator, make_model, normal
from tests.tiny_runs import CPU, tiny

F64 = torch.float64


def learned(seed=0):
    """A monotone network away from its start, with end points of its own."""
    torch.manual_seed(seed)
    schedule = dc.MonotoneSchedule(-6.0, 3.0, hidden=8, learn_ends=True).double()
    with torch.no_grad():
        schedule.heights.copy_(normal(seed, 8))
    return schedule


def test_which_parameters_are_the_interior():
    schedule = learned()
    ends = {id(schedule.gamma_min), id(schedule.gamma_max)}
    assert {id(p) for p in schedule.parameters()} == ends | {id(p) for p in schedule.interior()}
    assert len(list(schedule.interior())) == len(list(schedule.parameters())) - 2
    pinned = dc.MonotoneSchedule(hidden=4)
    assert len(list(pinned.interior())) == len(list(pinned.parameters())) == 5
    assert not list(dc.LinearSchedule().interior()) + list(dc.LearnedLinearSchedule().interior())
    t = torch.tensor([0.0, 1.0], dtype=F64)
    close(schedule(t).gamma.detach(), torch.tensor([-6.0, 3.0], dtype=F64), 1e-12)


@pytest.mark.parametrize("parts", [1, 2])
def test_gradients_by_parameter(parts):
    """Against autograd on the two losses apart; parts of a batch add up."""
    encoder = dc.TrainableEncoder(dc.networks.MLP(3, width=4, bounded=True))
    model = make_model(learned(), encoder, (3,), 1).double()
    for i, parameter in enumerate(encoder.parameters()):
        parameter.data = normal(i, *parameter.shape)
    x, t = normal(2, 4, 3), torch.tensor([0.1, 0.35, 0.6, 0.85], dtype=F64)
    noise, noise_0 = normal(3, 4, 3), normal(4, 4, 3)

    def terms(rows):
        return dc.elbo(model, x[rows], t=t[rows], noise=noise[rows], noise_0=noise_0[rows])

    parameters = dict(model.named_parameters())
    interior = {id(p) for p in model.schedule.interior()}
    whole = terms(slice(None))
    first = torch.autograd.grad(
        whole.total.mean(), parameters.values(), retain_graph=True, allow_unused=True
    )
    second = torch.autograd.grad(
        whole.diffusion.square().mean(), parameters.values(), allow_unused=True
    )
    model.zero_grad()
    gradient = InteriorGradient(model)
    for rows in torch.arange(4).chunk(parts):
        with gradient:
            part = terms(rows)
        gradient.backward(part.total.sum() / 4, part.diffusion)
    for (name, parameter), of_mean, of_square in zip(
        parameters.items(), first, second, strict=True
    ):
        expected = of_square if id(parameter) in interior else of_mean
        assert expected is not None and expected.abs().max() > 0, name
        close(parameter.grad, expected, 1e-9)
    assert (parameters["schedule.gamma_min"].grad - second[0]).abs().max() > 1e-3


class Nothing(nn.Module):
    def forward(self, z, gamma):
        return torch.zeros_like(z)


def test_the_variance_falls_and_the_mean_stays():
    """A network that predicts v = 0 errs much at some depths and little at others."""
    schedule = dc.MonotoneSchedule(-6.0, 4.0, hidden=16)
    model = dc.DiffEnc(schedule, dc.IdentityEncoder(), Nothing(), levels=None)
    x = normal(0, 512, 2).float()

    def moments():
        terms = dc.elbo(model, x.repeat(8, 1), generator=generator(1))
        return terms.diffusion.mean().item(), terms.diffusion.std().item()

    optimizer = torch.optim.Adam(schedule.parameters(), 0.05)
    mean, deviation = moments()
    gradient, draws = InteriorGradient(model), generator(2)
    for _ in range(150):
        optimizer.zero_grad()
        with gradient:
            terms = dc.elbo(model, x, generator=draws)
        gradient.backward(terms.total.mean(), terms.diffusion)
        optimizer.step()
    trained_mean, trained_deviation = moments()
    assert trained_deviation < 0.8 * deviation
    assert trained_mean == pytest.approx(mean, rel=0.1)


def test_a_step_of_training_trains_the_interior_so(monkeypatch):
    """The loop's step, in parts: without an interior the gradient there is another, and elsewhere the same."""
    data = load_dataset("swirl")
    config = tiny(
        schedule__kind="monotone",
        schedule__options={"hidden": 4, "learn_ends": True},
        training__accumulate=2,
    )

    def gradients():
        state = State.fresh(config, data, CPU)
        training_step(state, config, data.train, CPU)
        return {name: p.grad for name, p in state.model.named_parameters()}

    ours = gradients()
    monkeypatch.setattr(dc.MonotoneSchedule, "interior", dc.schedules.Schedule.interior)
    for name, plain in gradients().items():
        if name.startswith("schedule.") and "gamma" not in name:
            assert (ours[name] - plain).abs().max() > 0.01 * plain.abs().max() > 0
        else:
            close(ours[name], plain, 1e-5)
