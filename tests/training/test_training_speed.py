"""What makes training fast changes no numbers: compiled networks, bf16, memory formats, terms on part of a batch."""

import copy
import shutil

import pytest
import torch
from torch import nn

import diffenc_ct as dc
from diffenc_ct.data import Dataset
from diffenc_ct.networks import EncoderUNet, ScoreUNet
from diffenc_ct.process import normal_like
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.cost import measure_cost
from diffenc_ct.training.loop import training_step
from diffenc_ct.training.state import State, compile_networks, leaves_out
from tests.launching import unchecked

CPU = torch.device("cpu")
UNET = {"width": 8, "layers": 1, "groups": 2, "block_groups": 4, "dropout": 0.0}
CONFIG = replace(
    Config(),
    {
        "network": {"kind": "score-unet", "options": UNET},
        "encoder.network": {"kind": "encoder-unet", "options": UNET},
        "training.batch_size": 4,
    },
)


@pytest.fixture(scope="module")
def data():
    images = torch.randint(0, 256, (32, 2, 4, 4), generator=torch.Generator().manual_seed(0))
    return Dataset("random", images.to(torch.uint8), images[:4].to(torch.uint8), 256)


def fresh(data, **changes):
    """A state none of whose layers is zero."""
    config = replace(CONFIG, {f"training.{name}": value for name, value in changes.items()})
    state = State.fresh(config, data, CPU)
    torch.manual_seed(0)
    for parameter in state.model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return state, config


def step_of(state, config, data):
    """The terms of a step and the gradients that it leaves."""
    values = training_step(state, config, data, CPU)
    return values[:3].double(), {name: p.grad.clone() for name, p in state.model.named_parameters()}


def assert_equal_steps(ours, theirs, tolerance):
    torch.testing.assert_close(ours[0], theirs[0], rtol=tolerance, atol=0)
    scale = max(float(g.abs().max()) for g in theirs[1].values())
    for name, gradient in theirs[1].items():
        size = max(float(gradient.abs().max()), 1e-3 * scale)
        torch.testing.assert_close(ours[1][name], gradient, rtol=0, atol=tolerance * size)


def traced_and_eager(data):
    """A step with traced networks, one without, and what the tracer counted: breaks and graphs."""
    eager, config = fresh(data, rate_fraction=0.5)
    traced, _ = fresh(data, rate_fraction=0.5)
    compile_networks(traced.model, "aot_eager", encoder=True)
    assert not leaves_out(traced.model, data.train[:1])  # is not worth a graph
    assert traced.model.state_dict().keys() == eager.model.state_dict().keys()
    steps = step_of(traced, config, data), step_of(eager, config, data)
    counters = torch._dynamo.utils.counters
    return *steps, dict(counters["graph_break"]), counters["stats"]["unique_graphs"]


def test_traced_networks_give_the_losses_and_gradients_of_eager_ones(data):
    """Both passes of both networks as torch.compile traces them, without breaks, in a whole step."""
    ours, theirs, breaks, graphs = unchecked(traced_and_eager, data)
    assert_equal_steps(ours, theirs, 1e-5)
    assert not breaks
    # One graph of the score network; of the encoder's one for jets and one for tensors.
    assert graphs == 3


def rates_traced_and_eager():
    """An encoder's values, rates and gradients, traced and not."""
    torch.manual_seed(0)
    eager = EncoderUNet(1, **UNET | {"width": 4, "groups": 2, "block_groups": 2})
    for parameter in eager.parameters():
        nn.init.normal_(parameter, std=0.3)
    traced = copy.deepcopy(eager)
    traced.compile(backend="aot_eager", dynamic=False)
    x, gamma = torch.randn(2, 1, 4, 4), torch.tensor([-5.0, 1.0])
    results = []
    for network in (traced, eager):
        y = dc.encoders.with_rate(network, x, gamma)
        loss = y.value.pow(3).sum() + (y.rate.square() * (1 + y.value)).sum()
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        results.append([v.detach() for v in (y.value, y.rate, *gradients)])
    return results


def test_the_traced_encoder_gives_the_rates_and_gradients_of_the_eager_one():
    traced, eager = unchecked(rates_traced_and_eager)
    assert traced[1].abs().max() > 1e-2
    assert_close_by_size(traced, eager)


def scores_compiled_and_eager():
    """A score network's values and gradients, compiled and not."""
    torch.manual_seed(0)
    eager = ScoreUNet(1, **UNET | {"width": 4, "groups": 2, "block_groups": 2, "dropout": 0.0})
    for parameter in eager.parameters():
        nn.init.normal_(parameter, std=0.3)
    heads = dc.Single(copy.deepcopy(eager))
    model = dc.DiffEnc(dc.LinearSchedule(), dc.IdentityEncoder(), heads, dc.Levels(256))
    compile_networks(model)
    z, gamma = torch.randn(2, 1, 4, 4), torch.tensor([-5.0, 1.0])
    results = []
    for network in (model.heads.network, eager):
        u = network(z, gamma)
        gradients = torch.autograd.grad(u.pow(3).sum(), list(network.parameters()))
        results.append([v.detach() for v in (u, *gradients)])
    return results


@pytest.mark.skipif(not shutil.which("g++"), reason="the compiler's own compiler is missing")
def test_the_compiled_score_network_gives_the_values_and_gradients_of_the_eager_one():
    assert_close_by_size(*unchecked(scores_compiled_and_eager))


def assert_close_by_size(ours, theirs):
    scale = max(float(value.detach().abs().max()) for value in theirs)
    for mine, other in zip(ours, theirs, strict=True):
        size = max(float(other.detach().abs().max()), 1e-3 * scale)
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-5 * size)


def test_the_option_compiles_what_can_be(data):
    """The model that is trained, not its averages; an encoder's network without jets is left to forward mode."""
    config = replace(CONFIG, {"training.compile": True})
    state = State.fresh(config, data, CPU)
    assert state.model.heads.network._compiled_call_impl is not None
    assert state.model.encoder.network._compiled_call_impl is None
    assert state.averaged.heads.network._compiled_call_impl is None
    compile_networks(state.model, encoder=True)
    assert state.model.encoder.network._compiled_call_impl is not None
    heads = dc.Single(nn.Identity())
    plain = dc.DiffEnc(dc.LinearSchedule(), dc.TrainableEncoder(nn.Identity()), heads, dc.Reals())
    compile_networks(plain, encoder=True)
    assert plain.encoder.network._compiled_call_impl is None
    assert State.fresh(CONFIG, data, CPU).model.heads.network._compiled_call_impl is None


def losses(model, x, precision=None):
    generator = torch.Generator().manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        return dc.elbo(model, x, generator=generator)


def test_bf16_keeps_losses_and_levels_in_float32(data):
    """Convolutions compute in bf16; gamma, alpha, sigma and every term stay float32, within 1e-2 of it."""
    state, _ = fresh(data)
    model, x, seen = state.model, data.train, {}
    convolution = model.encoder.network.conv_in
    convolution.register_forward_hook(lambda *a: seen.update(convolution=a[2].dtype))
    model.heads.network.register_forward_pre_hook(
        lambda _, a: seen.update(z=a[0].dtype, gamma=a[1].dtype)
    )
    whole = losses(model, x)
    bf16 = losses(model, x, "bf16")
    assert seen == {"convolution": torch.bfloat16, "z": torch.float32, "gamma": torch.float32}
    for name in ("reconstruction", "diffusion", "latent", "total"):
        ours, theirs = getattr(bf16, name), getattr(whole, name)
        assert ours.dtype == torch.float32
        assert abs(ours.mean() / theirs.mean() - 1) < 1e-2
    assert not torch.equal(bf16.diffusion, whole.diffusion)
    with torch.autocast("cpu", torch.bfloat16):
        t = torch.linspace(0, 1, 5)
        for schedule in (dc.LinearSchedule(), dc.MonotoneSchedule(hidden=8)):
            point = schedule(t)
            values = (point.gamma, point.rate, point.alpha, point.sigma, point.snr, point.beta)
            assert {value.dtype for value in values} == {torch.float32}


@pytest.mark.parametrize("jets", [True, False])
def test_the_rate_under_autocast(data, jets):
    """By jets and by forward mode: close to float32, and so are gradients through it."""
    state, _ = fresh(data)
    network = state.model.encoder.network
    function = network if jets else (lambda x, gamma: network(x, gamma))
    x, gamma = state.model.scale(data.train), torch.linspace(-9, 3, 32)
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            y = dc.encoders.with_rate(function, x, gamma)
        loss = y.value.float().square().sum() + y.rate.float().square().sum()
        gradients = torch.autograd.grad(loss, list(network.parameters()))
        results.append((y.value, y.rate, torch.cat([g.flatten() for g in gradients])))
    for exact, rough in zip(*results, strict=True):
        assert (rough.float() - exact).norm() < 0.05 * exact.norm()


def test_channels_last_gives_equal_steps(data):
    ordinary, config = fresh(data)
    other, other_config = fresh(data, channels_last=True)
    other.model.load_state_dict(ordinary.model.state_dict())
    kernel = other.model.heads.network.conv_in.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last) and not kernel.is_contiguous()
    assert_equal_steps(step_of(other, other_config, data), step_of(ordinary, config, data), 1e-4)


def test_the_encoder_sees_few_examples_twice(data):
    """rate_fraction saves the derivative of the others: counted FLOPs fall, and by what jets cost."""
    whole = measure_cost(CONFIG, data).flops
    half = measure_cost(replace(CONFIG, {"training.rate_fraction": 0.5}), data).flops
    quarter = measure_cost(replace(CONFIG, {"training.rate_fraction": 0.25}), data).flops
    assert half < whole and whole - half == pytest.approx(2 * (half - quarter), rel=0.05)
    # A batch of four has one such example at least: an eighth of it is a quarter, too.
    eighth = measure_cost(replace(CONFIG, {"training.rate_fraction": 0.125}), data).flops
    assert eighth == quarter


def test_jets_are_what_the_encoder_uses(data, monkeypatch):
    """Forward mode is not entered by the package's own encoder network."""
    state, _ = fresh(data)
    assert EncoderUNet.takes_jets
    monkeypatch.setattr("diffenc_ct.encoders.forward_ad", None)
    x = state.model.scale(data.train)
    rate = state.model.encoder(x, torch.linspace(-9, 3, 32)).rate
    assert rate.abs().max() > 1e-3 and rate.shape == normal_like(x).shape
