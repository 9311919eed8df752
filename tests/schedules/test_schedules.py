"""Schedules: identities of alpha, sigma, beta; derivatives against autograd; pinned ends; float32 at the extremes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffenc_ct as dc
from diffenc_ct import schedules as S
from tests.conformance import check_schedule
from tests.strategies import close, depths, dtypes, gammas, monotone, normal, schedules, seeds

F64 = torch.float64


def scalar(value, **options):
    return torch.tensor(value, dtype=F64, **options)


@given(gammas)
def test_variances(value):
    gamma = scalar(value)
    close(S.alpha2(gamma), scalar(1 / (1 + math.exp(value))), 1e-14)
    close(S.sigma2(gamma), scalar(math.exp(value) / (1 + math.exp(value))), 1e-14)
    close(S.alpha2(gamma) + S.sigma2(gamma), scalar(1.0), 1e-14)
    close(S.alpha(gamma) ** 2, S.alpha2(gamma), 1e-14)
    close(S.sigma(gamma) ** 2, S.sigma2(gamma), 1e-14)
    close(S.snr(gamma), S.alpha2(gamma) / S.sigma2(gamma), 1e-13)


@pytest.mark.parametrize("function", [S.alpha, S.alpha2, S.sigma, S.sigma2, S.snr])
def test_float32_keeps_its_digits_at_the_extremes(function):
    gamma = torch.linspace(-20, 20, 81)
    exact = function(gamma.double())
    error = ((function(gamma).double() - exact) / exact).abs()
    assert function(gamma).dtype == torch.float32
    assert error.max() < 2e-6, error.max()


@given(schedules(), depths)
def test_point(schedule, t):
    """A point's properties are the functions of its gamma; beta = (sigma^2)'/alpha^2 = -2 alpha'/alpha."""
    t = scalar(t, requires_grad=True)
    point = schedule(t)
    for name in ("alpha", "sigma", "alpha2", "sigma2", "snr"):
        close(getattr(point, name), getattr(S, name)(point.gamma))
    (variance_rate,) = torch.autograd.grad(point.sigma2, t, retain_graph=True)
    (log_alpha_rate,) = torch.autograd.grad(point.alpha.log(), t)
    close(point.alpha2 * point.beta, variance_rate)
    close(-point.beta / 2, log_alpha_rate)
    assert point.beta >= 0


@given(schedules())
def test_conformance(schedule):
    check_schedule(schedule)


@given(schedules(low=-13.3, high=5.0, pinned=True))
def test_ends_are_pinned(schedule):
    close(schedule(scalar(0.0)).gamma, scalar(-13.3), 1e-12)
    close(schedule(scalar(1.0)).gamma, scalar(5.0), 1e-12)
    like = torch.zeros(2, dtype=F64)
    close(schedule.at(1.0, like).gamma, scalar(5.0), 1e-12)
    close(schedule.at(0.25, like).rate, schedule(scalar(0.25)).rate)


@pytest.mark.parametrize("wrong", ["rate", "falling", "coupled"])
def test_conformance_refuses(wrong):
    class Wrong(dc.LinearSchedule):
        def forward(self, t):
            point = super().forward(t)
            if wrong == "rate":
                return dc.SchedulePoint(point.gamma, point.rate * 1.001)
            if wrong == "falling":
                return dc.SchedulePoint(-point.gamma, -point.rate)
            return dc.SchedulePoint(point.gamma + t.mean() - t.mean().detach() * 2, point.rate)

    with pytest.raises(AssertionError):
        check_schedule(Wrong())


@given(dtypes, schedules())
def test_dtype(dtype, schedule):
    t = torch.linspace(0, 1, 5, dtype=dtype)
    point = schedule(t)
    exact = schedule(t.double())
    close(point.gamma, exact.gamma.to(dtype))
    close(point.rate, exact.rate.to(dtype))


@given(st.floats(-10, -3), st.floats(0, 5), depths)
def test_linear(low, high, t):
    point = dc.LinearSchedule(low, high)(scalar(t))
    close(point.gamma, scalar(low * (1 - t) + high * t))
    close(point.rate, scalar(high - low))


def test_defaults_are_the_papers():
    for schedule in (dc.LinearSchedule(), dc.PolynomialSchedule(), dc.MonotoneSchedule(hidden=4)):
        close(schedule(scalar(0.0)).gamma, scalar(-13.3), 1e-6)
        close(schedule(scalar(1.0)).gamma, scalar(5.0), 1e-6)
    learned = dc.LearnedLinearSchedule()
    close(learned(torch.tensor([0.0, 1.0])).gamma, torch.tensor([-13.3, 5.0]), 1e-6)


@given(schedules(pinned=True), depths)
def test_learned_ends_move_with_their_parameters(other, t):
    """d gamma/d start = 1, d gamma/d|slope| = t; a negative slope counts by its magnitude."""
    for sign in (1.0, -1.0):
        schedule = dc.LearnedLinearSchedule(-7.0, 3.0).double()
        with torch.no_grad():
            schedule.slope.mul_(sign)
        point = schedule(scalar(t))
        close(point.gamma, scalar(-7.0 + 10 * t), 1e-12)
        close(point.rate, scalar(10.0), 1e-12)
        start, slope = torch.autograd.grad(point.gamma, [schedule.start, schedule.slope])
        close(start, scalar(1.0))
        close(slope, scalar(sign * t))


@given(depths)
def test_poly10_is_the_authors(t):
    low, high = -13.3, 5.0
    point = dc.PolynomialSchedule(low, high)(scalar(t))
    close(point.gamma, scalar(high / 2 * t**10 + (high / 2 - low) * t + low))
    close(point.rate, scalar(5 * high * t**9 + high / 2 - low))


@given(seeds, depths)
def test_monotone_network(seed, t):
    """The formula of VDM's appendix, written out; its end points do not feel the parameters."""
    low, high = -6.0, 4.0
    schedule = monotone(low, high, seed)

    def softplus(p):
        return torch.log1p(p.exp())

    def m(u):
        line = softplus(schedule.outer_slope) * u + schedule.outer_bias
        gates = 1 / (1 + torch.exp(-(softplus(schedule.slopes) * line + schedule.biases)))
        return line + (softplus(schedule.heights) * gates).sum()

    share = (m(t) - m(0.0)) / (m(1.0) - m(0.0))
    close(schedule(scalar(t)).gamma, low + (high - low) * share)
    ends = schedule(torch.tensor([0.0, 1.0], dtype=F64)).gamma.sum()
    for gradient in torch.autograd.grad(ends, list(schedule.parameters())):
        assert gradient.abs().max() < 1e-10
    names = {"outer_slope", "outer_bias", "slopes", "biases", "heights"}
    assert {name for name, _ in schedule.named_parameters()} == names
    inside = schedule(scalar(0.37))
    parts = torch.autograd.grad(inside.gamma + inside.rate, list(schedule.parameters()))
    assert all(torch.isfinite(g).all() and g.abs().max() > 0 for g in parts)


def test_an_untrained_monotone_schedule_is_close_to_linear():
    torch.manual_seed(0)
    t = torch.linspace(0, 1, 11, dtype=F64)
    straight = dc.LinearSchedule()(t).gamma
    assert (dc.MonotoneSchedule()(t).gamma - straight).abs().max() < 0.5


@pytest.mark.parametrize("learn_ends", [False, True])
def test_interior_gradients_reach_everything_but_the_ends(learn_ends):
    """What a loss through the interior moves is what leaves gamma(0) and gamma(1) where they are, and all of that."""
    torch.manual_seed(3)
    schedule = dc.MonotoneSchedule(-6.0, 4.0, hidden=5, learn_ends=learn_ends).double()
    names, parameters = zip(*schedule.named_parameters(), strict=True)
    ends = {"gamma_min", "gamma_max"} & set(names)
    assert len(ends) == (2 if learn_ends else 0)
    point = schedule(torch.linspace(0.1, 0.8, 4, dtype=F64))
    loss = sum(part.sin().sum() for part in point.interior)
    for name, gradient in zip(
        names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True
    ):
        assert (gradient is None) == (name in ends), name
        assert name in ends or (torch.isfinite(gradient).all() and gradient.abs().max() > 0), name


def test_all_of_gamma_but_its_ends_passes_through_the_interior():
    """With the interior cut off, gamma and its rate are no longer moved but by the learned ends."""
    torch.manual_seed(3)
    schedule = dc.MonotoneSchedule(-6.0, 4.0, hidden=5, learn_ends=True).double()
    point = schedule(torch.linspace(0.1, 0.8, 4, dtype=F64))
    assert len(point.interior) == 2
    for part in point.interior:
        assert part.shape == point.gamma.shape
        part.register_hook(torch.zeros_like)
    (point.gamma.sin() + point.rate.cos()).sum().backward()
    for name, parameter in schedule.named_parameters():
        if name in ("gamma_min", "gamma_max"):
            assert parameter.grad.abs() > 0
        else:
            assert not parameter.grad.any()
    # d gamma/d gamma_max = share, d rate/d gamma_max = slope
    share, slope = (part.detach() for part in point.interior)
    expected = (point.gamma.cos() * share - point.rate.sin() * slope).sum().detach()
    close(schedule.gamma_max.grad, expected)


@given(schedules())
def test_schedules_without_an_interior_say_so(schedule):
    inside = schedule(scalar(0.3)).interior
    assert len(inside) == (2 if isinstance(schedule, dc.MonotoneSchedule) else 0)


@given(schedules())
def test_fixed_start(schedule):
    """gamma(0), or None where training can move it."""
    learned = isinstance(schedule, dc.LearnedLinearSchedule)
    assert (schedule.fixed_start is None) == learned
    if not learned:
        close(scalar(schedule.fixed_start), schedule(scalar(0.0)).gamma.detach(), 1e-12)
    assert dc.MonotoneSchedule(hidden=4, learn_ends=True).fixed_start is None


def test_the_start_of_a_users_schedule_that_learns_or_stores_is_not_fixed():
    """What it stores may lie on a device, where a number of it would have to be fetched from."""

    class Users(dc.LinearSchedule):
        fixed_start = dc.Schedule.fixed_start

    assert Users().fixed_start == -13.3
    learning, storing = Users(), Users()
    learning.register_parameter("bend", torch.nn.Parameter(torch.zeros(())))
    storing.register_buffer("table", torch.zeros(3))
    assert learning.fixed_start is None and storing.fixed_start is None


def test_learned_linear_keeps_its_parameters_names():
    """A checkpoint's names."""
    assert set(dc.LearnedLinearSchedule().state_dict()) == {"start", "slope"}


@given(seeds)
def test_expand(seed):
    a = normal(seed, 3)
    for shape in ((3,), (3, 2), (3, 2, 4, 1)):
        like = normal(seed + 1, *shape)
        expected = torch.stack([a[i] * like[i] for i in range(3)])
        close(S.expand(a, like) * like, expected)
    close(S.expand(a[0], like), a[0])


@pytest.mark.parametrize(
    "kind",
    [dc.LinearSchedule, dc.LearnedLinearSchedule, dc.PolynomialSchedule, dc.MonotoneSchedule],
)
@pytest.mark.parametrize("ends", [(1.0, 1.0), (5.0, -13.0), (math.nan, 5.0)])
def test_ends_out_of_order_are_refused(kind, ends):
    with pytest.raises(ValueError, match="gamma_min"):
        kind(*ends)


@pytest.mark.parametrize(
    "options", [{"weight": -0.1}, {"weight": 1.1}, {"degree": 0}, {"weight": math.nan}]
)
def test_a_polynomial_that_falls_is_refused(options):
    with pytest.raises(ValueError, match="not increasing"):
        dc.PolynomialSchedule(-5.0, 5.0, **options)


@pytest.mark.parametrize("options", [{"weight": 0.0}, {"weight": 1.0}, {"degree": 1}])
def test_a_polynomial_of_one_term_is_linear_or_a_power(options):
    """The ends of what is accepted belong to it."""
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    point = dc.PolynomialSchedule(-2.0, 3.0, **options)(t)
    power = t**10 if options.get("weight") == 1.0 else t
    rate = 10 * t**9 if options.get("weight") == 1.0 else torch.ones_like(t)
    close(point.gamma, -2 + 5 * power)
    close(point.rate, 5 * rate)


def test_a_negative_end_makes_poly10_fall_and_is_refused():
    with pytest.raises(ValueError, match="not increasing"):
        dc.PolynomialSchedule(-13.0, -5.0)


def test_the_base_class_says_what_to_implement():
    with pytest.raises(NotImplementedError, match="forward"):
        dc.Schedule()(torch.zeros(1))
