"""The dynamics as the solver libraries see them: moments of the SDEs, the flow's exact map, states of images."""

import pytest
import torch
import torchdiffeq
import torchsde
from hypothesis import given

import diffenc_ct as dc
from diffenc_ct.dynamics import ConditionalReverseSDE, ForwardSDE, ProbabilityFlow, ReverseSDE
from diffenc_ct.model import reverse_drift
from diffenc_ct.process import marginal
from diffenc_ct.worlds import GaussianWorld
from tests.refusals import refused
from tests.strategies import cases, close, make_encoder, make_gaussian_world, normal

F64 = torch.float64


def moments(case, t):
    """Mean (batch, d) and variance of q(z_t | x) at one t, and their derivatives with respect to t."""
    t = t.clone().requires_grad_()
    gamma = case.model.schedule(t).gamma
    x_t = case.model.encoder.encode(case.x, gamma.expand(len(case.x)))
    q = marginal(x_t, gamma.expand(len(case.x)))
    mean, variance = q.mean.flatten(1), (q.std**2).flatten()[0]
    velocity = [torch.autograd.grad(m, t, retain_graph=True)[0] for m in mean.flatten()]
    (growth,) = torch.autograd.grad(variance, t)
    return mean.detach(), variance.detach(), torch.stack(velocity).view_as(mean), growth


def law_of(sde, time, mean):
    """The drift at the mean, its slope in z and the squared diffusion at `time`, for a drift affine in z."""
    drift, moved = sde.f(time, mean), sde.f(time, mean + 1)
    slope, diffusion = (moved - drift).flatten()[0], sde.g(time, mean)
    assert diffusion.shape == mean.shape
    return drift, slope, diffusion.flatten()[0] ** 2


@given(cases())
def test_the_forward_sde_has_the_marginals(case):
    """d mean/dt = f(mean), d variance/dt = 2 slope variance + g^2, from t = 0 to 1."""
    t = case.t[0]
    mean, variance, velocity, growth = moments(case, t)
    sde = ForwardSDE(case.model.schedule, case.model.encoder, case.x)
    drift, slope, diffusion = law_of(sde, t, mean)
    close(drift.detach(), velocity, 1e-9)
    close(2 * slope * variance + diffusion, growth, 1e-9)


@given(cases())
def test_the_reverse_sde_given_data_has_the_marginals(case):
    """The same in tau = 1 - t, where time runs against t, at any noise level."""
    t = case.t[0]
    mean, variance, velocity, growth = moments(case, t)
    for level in (case.noise_level, 0.0):
        sde = ConditionalReverseSDE(
            case.model.schedule, case.model.encoder, case.x, noise_level=level
        )
        drift, slope, diffusion = law_of(sde, 1 - t, mean)
        close(drift.detach(), -velocity, 1e-8)
        close(2 * slope * variance + diffusion, -growth, 1e-8)


@given(cases())
def test_the_generative_sde(case):
    """f = -b_eta and g = eta sqrt(beta) at t = 1 - tau; the flow is b_0, its velocity b_0 over gamma'."""
    model, t, level = case.model, case.t[0], case.noise_level
    point, z = model.schedule(t), case.noise
    heads = model.predict(z, point.gamma.expand(len(z)))
    sde = ReverseSDE(model, noise_level=level, shape=tuple(z.shape[1:]))
    drift = reverse_drift(z, heads, point, level.squared(point.gamma))
    close(sde.f(1 - t, z.flatten(1)), -drift.flatten(1), 1e-9)
    squared = level.squared(point.gamma) * point.beta
    close(sde.g(1 - t, z.flatten(1)) ** 2, squared.expand_as(z.flatten(1)), 1e-9)
    flow = ProbabilityFlow(model)
    close(flow(t, z), reverse_drift(z, heads, point, torch.zeros_like(point.gamma)), 1e-9)
    close(flow.velocity(z, point.gamma.expand(len(z))) * point.rate, flow(t, z), 1e-9)


@pytest.mark.parametrize("kind", ["identity", "nontrainable", "matrix"])
def test_the_flow_carries_quantiles(kind):
    """d = 1, Gaussian: z_0 = mean_0 + sqrt(var_0/var_1) (z_1 - mean_1), by torchdiffeq, there and back."""
    world = make_gaussian_world(1, kind, 3)
    flow = ProbabilityFlow(world.model(dc.LinearSchedule(-3.0, 4.0)))
    start = torch.tensor([[-1.7], [0.2], [2.0]], dtype=F64)
    low, high = (world.marginal(torch.tensor([g], dtype=F64)) for g in (-3.0, 4.0))
    expected = low.mean + (low.variance / high.variance).sqrt() * (start - high.mean)
    options = {"method": "dopri5", "rtol": 1e-8, "atol": 1e-8}
    times = torch.tensor([1.0, 0.0], dtype=F64)
    with torch.no_grad():
        close(torchdiffeq.odeint(flow, start, times, **options)[-1], expected, 1e-6)
        close(torchdiffeq.odeint(flow, expected, times.flip(0), **options)[-1], start, 1e-6)


@pytest.mark.parametrize("sde_type", ["ito", "stratonovich"])
@pytest.mark.parametrize("noise_level", [1.0, 0.5])
def test_torchsde_takes_them_as_they_are(sde_type, noise_level):
    """4,000 paths of a Gaussian world's generative SDE end at q_0: mean, variance to five errors and a step."""
    world = GaussianWorld(torch.tensor([0.6], dtype=F64), torch.tensor([0.3], dtype=F64))
    model, n = world.model(dc.LinearSchedule(-2.0, 5.0)), 4000
    sde = ReverseSDE(model, noise_level=noise_level, sde_type=sde_type)
    times = torch.tensor([0.0, 1.0], dtype=F64)
    motion = torchsde.BrownianInterval(0.0, 1.0, size=(n, 1), dtype=F64, entropy=3)
    method = {"ito": "euler", "stratonovich": "midpoint"}[sde_type]
    with torch.no_grad():
        z = torchsde.sdeint(sde, normal(1, n, 1), times, bm=motion, dt=1 / 100, method=method)[-1]
    exact = world.marginal(torch.tensor([-2.0], dtype=F64))
    spread = float(exact.variance)
    assert abs(float(z.mean()) - float(exact.mean)) < 5 * (spread / n) ** 0.5 + 0.02
    assert abs(float(z.var()) / spread - 1) < 5 * (2 / n) ** 0.5 + 0.04


def test_states_of_images_are_flat_for_torchsde():
    """An SDE on images and the same on their flattened vectors agree, in float32 too."""
    x = normal(1, 2, 1, 2, 2)
    encoder, schedule = make_encoder("nontrainable", (1, 2, 2), 0), dc.LinearSchedule(-4.0, 4.0)
    t, y = torch.tensor(0.4, dtype=F64), normal(2, 2, 4)
    for kind in (ForwardSDE, ConditionalReverseSDE):
        images, vectors = kind(schedule, encoder, x), kind(schedule, encoder, x.flatten(1))
        close(images.f(t, y), vectors.f(t, y))
        close(images.g(t, y), vectors.g(t, y))
        single = kind(schedule, encoder, x.float())
        close(single.f(t, y.float()), images.f(t, y).float())
        assert images.noise_type == "diagonal" and images.sde_type == "ito"


@pytest.mark.parametrize("kind", [ForwardSDE, ConditionalReverseSDE])
def test_a_bad_type_is_refused(kind):
    arguments = dc.LinearSchedule(), dc.IdentityEncoder(), torch.zeros(1, 2)
    with refused(ValueError, 'sde_type=.Ito.; choose "ito" or "stratonovich"'):
        kind(*arguments, sde_type="Ito")
