"""Plugged-in parts that are not what the formulas take them for are refused; others pass, and nothing changes."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

import diffenc_ct as dc
from diffenc_ct.cli import main
from diffenc_ct.schedules import SchedulePoint, expand, sigma2
from diffenc_ct.verification import check_parts
from tests.refusals import refused


class Curve(dc.Schedule):
    """gamma = -8 + 10 t + bend sin(pi t), and a rate that may be told wrong."""

    def __init__(self, bend=0.0, factor=1.0, coupled=0.0):
        super().__init__()
        self.bend, self.factor, self.coupled = bend, factor, coupled

    def forward(self, t):
        gamma = -8 + 10 * t + self.bend * torch.sin(math.pi * t)
        rate = 10 + self.bend * math.pi * torch.cos(math.pi * t)
        if t.ndim:
            gamma = gamma + self.coupled * t.mean() * t
        return SchedulePoint(gamma, self.factor * rate)


class Steps(dc.Schedule):
    """A staircase of gamma beside the rate of its smooth run."""

    def forward(self, t):
        return SchedulePoint(-8 + 10 * t + 0.2 * torch.floor(3 * t), torch.full_like(t, 10.0))


class Shrinking(dc.Encoder):
    """x (1 - sigma^2/2), from gamma that may be rounded, with neighbours that may be mixed in."""

    def __init__(self, step=0.0, mixed=0.0):
        super().__init__()
        self.step, self.mixed = step, mixed

    def encode(self, x, gamma):
        if self.step:
            gamma = torch.round(gamma / self.step) * self.step
        return x * (1 - 0.5 * expand(sigma2(gamma), x)) + self.mixed * x.mean(0)


class Told(Shrinking):
    """The same with its rate in closed form, times a factor."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor

    def forward(self, x, gamma):
        found = dc.Encoder.forward(self, x, gamma)
        return dc.Encoding(found.value, self.factor * found.rate)


class Narrow(Shrinking):
    def encode(self, x, gamma):
        return super().encode(x, gamma).flatten(1)


class Network(nn.Module):
    """Of images; what is between its two convolutions is given."""

    def __init__(self, between=None, out=1, mixed=0.0):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, out, 1)
        self.between = nn.Identity() if between is None else between
        self.mixed = mixed

    def forward(self, z, gamma):
        h = self.first(z) + expand(gamma, z) / 10 + self.mixed * gamma.mean()
        return self.last(self.between(torch.tanh(h)))


DATA = torch.arange(5 * 16).reshape(5, 1, 4, 4) * 7 % 16


def model(schedule=None, encoder=None, network=None):
    return dc.DiffEnc(
        Curve() if schedule is None else schedule,
        dc.IdentityEncoder() if encoder is None else encoder,
        dc.Single(Network() if network is None else network),
        dc.Levels(16),
    )


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"schedule": Curve(bend=2.0)},
        {"encoder": Shrinking()},
        {"encoder": Told()},
        {"network": Network(nn.GroupNorm(2, 4))},
        {"network": Network(nn.Dropout(0.5))},
        {"network": "frozen"},
    ],
)
def test_good_parts_pass_and_nothing_changes(parts):
    """The last one's batch normalisation is frozen: it takes no mean over a batch."""
    if parts.get("network") == "frozen":
        parts = {"network": Network(Frozen(4))}
    tried = model(**parts)
    tried.heads.train(), tried.encoder.eval()
    before = {name: value.clone() for name, value in tried.state_dict().items()}
    modes = [module.training for module in tried.modules()]
    torch.manual_seed(5)
    check_parts(tried, DATA)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert modes == [module.training for module in tried.modules()]
    assert all(torch.equal(value, before[name]) for name, value in tried.state_dict().items())
    assert all(value.dtype == before[name].dtype for name, value in tried.state_dict().items())


class Frozen(nn.BatchNorm2d):
    def train(self, mode=True):
        return super().train(False)


@given(st.floats(-3, 3).filter(lambda factor: abs(factor - 1) > 0.15), st.floats(-2, 2))
@example(-1.0, 1.0)
def test_a_schedules_rate_that_is_not_its_derivative(factor, bend):
    with refused(ValueError, "schedule Curve: rate is not the derivative"):
        check_parts(model(schedule=Curve(bend, factor)), DATA)


@given(st.one_of(st.floats(-40, -8), st.floats(8, 40)))
def test_a_schedule_that_falls(bend):
    with refused(ValueError, "schedule Curve: gamma.t. must increase with t; it falls by"):
        check_parts(model(schedule=Curve(bend)), DATA)


def test_a_schedule_that_jumps():
    with refused(ValueError, "schedule Steps: rate is not the derivative"):
        check_parts(model(schedule=Steps()), DATA)


@given(st.floats(0.01, 5))
def test_depths_that_see_each_other(coupled):
    with refused(ValueError, "schedule Curve: gamma.t. depends on the other t of its batch"):
        check_parts(model(schedule=Curve(coupled=coupled)), DATA)


def test_a_rate_of_another_shape():
    class Scalar(Curve):
        def forward(self, t):
            return SchedulePoint(super().forward(t).gamma, torch.tensor(10.0, dtype=t.dtype))

    with refused(ValueError, "schedule Scalar: rate has shape .. for depths"):
        check_parts(model(schedule=Scalar()), DATA)


@given(st.floats(0.05, 5))
def test_an_encoder_that_rounds_gamma(step):
    with refused(ValueError, "encoder Shrinking: rate dx/dlambda is not the derivative"):
        check_parts(model(encoder=Shrinking(step)), DATA)


@given(st.floats(-3, 3).filter(lambda factor: abs(factor - 1) > 0.15))
@example(-1.0)
def test_an_encoders_rate_that_is_not_its_derivative(factor):
    with refused(ValueError, "encoder Told: rate dx/dlambda is not the derivative"):
        check_parts(model(encoder=Told(factor)), DATA)


@given(st.one_of(st.floats(0.01, 3), st.floats(-3, -0.01)))
def test_examples_that_see_each_other(mixed):
    with refused(ValueError, "encoder Shrinking: its value of an example depends on the other"):
        check_parts(model(encoder=Shrinking(mixed=mixed)), DATA)
    with refused(ValueError, "heads Single in evaluation mode: x_hat of an example depends"):
        check_parts(model(network=Network(mixed=mixed / 10)), DATA)


def test_batch_normalisation_is_caught_in_training_mode():
    with refused(ValueError, "heads Single in training mode: .*group or layer normalisation"):
        check_parts(model(network=Network(nn.BatchNorm2d(4))), DATA)


def test_shapes():
    with refused(ValueError, "encoder Narrow: value has shape .3, 16. for data .3, 1, 4, 4."):
        check_parts(model(encoder=Narrow()), DATA)


def test_a_library_of_its_own_is_not_tried():
    """What it would cost is not spent: parts of this library are tested with it."""
    network = dc.networks.UNet(1, width=8, halvings=1)
    network.forward = None
    own = dc.DiffEnc(dc.LinearSchedule(), dc.IdentityEncoder(), dc.Single(network), dc.Levels(16))
    check_parts(own, DATA)
    with pytest.raises(TypeError):
        check_parts(
            dc.DiffEnc(Curve(), dc.IdentityEncoder(), dc.Single(Broken()), dc.Levels(16)), DATA
        )


class Broken(nn.Module):
    forward = None


class Rounded(Shrinking):
    """For the command line, which names parts by import path."""

    def __init__(self):
        super().__init__(step=0.5)


def test_commands_try_parts_unless_told_not_to(tmp_path, capsys):
    tiny = "--network-options width=8 layers=1 --steps 2 --batch-size 16 --eval-examples 30"
    arguments = ["train", "--data", "swirl", "--encoder", f"{__name__}:Rounded", *tiny.split()]
    arguments += ["--device", "cpu", "--quiet", "--run", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert "encoder Rounded: rate dx/dlambda is not the derivative" in capsys.readouterr().err
    assert main([*arguments, "--no-check-parts"]) == 0
    assert main(["evaluate", str(tmp_path / "run"), "--device", "cpu"]) == 0
