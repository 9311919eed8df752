"""A training loss never waits for the device: it is traced on tensors that have no values.

FakeTensorMode, with whose tensors torch.compile and torch.export trace, knows shapes and types only, so whatever asks
for a value fails in it: item, int, float, bool, tolist, masks as indices, nonzero. What moves values to the CPU fails
on the device "meta", which has none. Where there is a GPU, it says itself whether it was waited for.
"""

import itertools
import subprocess
import sys
import textwrap
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

import diffenc_ct as dc
from diffenc_ct.calibration import RunningNoiseLevel
from diffenc_ct.elbo import ImportanceDepths
from diffenc_ct.encoders import Encoding
from diffenc_ct.model import MixturePosterior, Posterior
from diffenc_ct.process import ConstantNoiseLevel
from tests.strategies import RandomNetwork

BATCH = 8
WAITED = (DataDependentOutputException, DynamicOutputShapeException)


def unet():
    return dc.networks.EncoderUNet(1, width=4, layers=1, groups=2, block_groups=2)


def halving_unet():
    return dc.networks.UNet(1, width=8, halvings=1, patch=2, bounded=True, features=False)


def posterior(shape):
    """Of as many levels as the decoder has, each value with a prior of its own."""
    network = RandomNetwork(shape, 0, multiple=Posterior.outputs_for(16, functions=3, paired=True))
    return Posterior(network, 16, functions=3, paired=True, prior=torch.zeros(*shape, 16))


def mixture(shape):
    network = RandomNetwork(shape, 0, multiple=MixturePosterior.outputs_for(components=2))
    return MixturePosterior(network, components=2)


# name -> the data's shape and an encoder; the U-Net takes jets, the MLP is differentiated forwards
ENCODERS = {
    "identity": ((4,), dc.IdentityEncoder),
    "nontrainable": ((4,), dc.NonTrainableEncoder),
    "trainable": ((4,), lambda: dc.TrainableEncoder(dc.networks.MLP(4, width=8, bounded=True))),
    "trainable U-Net": ((1, 4, 4), lambda: dc.TrainableEncoder(unet())),
    "residual U-Net": ((1, 4, 4), lambda: dc.ResidualEncoder(halving_unet())),
}
DECODERS = {"levels": lambda: dc.Levels(16), "reals": dc.Reals}
HEADS = {
    "single": lambda shape: dc.Single(RandomNetwork(shape, 0)),
    "paired": lambda shape: dc.Paired(RandomNetwork(shape, 0, multiple=2)),
    "posterior": posterior,
    "mixture": mixture,
}
NOISE_LEVELS = {
    "constant": lambda device: ConstantNoiseLevel(0.8),
    "tight": lambda device: dc.NonTrainableNoiseLevel(),
    "running": lambda device: RunningNoiseLevel(-13.3, 5.0).to(device),
}
EVERY = [
    *itertools.product(list(ENCODERS)[:-1], DECODERS, ["single", "paired"]),
    ("identity", "levels", "posterior"),
    ("trainable", "reals", "mixture"),
    ("residual U-Net", "levels", "posterior"),
    ("residual U-Net", "reals", "single"),
]


def make(encoder, decoder, heads, schedule=None):
    shape, encoder = ENCODERS[encoder]
    schedule = dc.LinearSchedule() if schedule is None else schedule
    model = dc.DiffEnc(schedule, encoder(), HEADS[heads](shape), DECODERS[decoder]())
    return model.float(), shape


def without_values(model):
    """The model with fake tensors, inside FakeTensorMode, for its parameters and buffers."""
    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.empty(p.shape, dtype=p.dtype)))
        for name, b in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(b.shape, dtype=b.dtype))
    return model


def train(model, shape, level, fraction, device="cpu"):
    """A training step's loss, its gradient, and what a running noise level and depths by importance take in."""
    size, integers = (BATCH, *shape), model.decoder.levels is not None
    x = torch.zeros(size, dtype=torch.uint8 if integers else torch.float32, device=device)
    noises = (torch.randn(size, device=device) for _ in range(2))
    depths = ImportanceDepths(4).to(device)
    loss = dc.InfiniteDepth(level, ends_fraction=fraction, rate_fraction=fraction)
    with watched(device):
        t, weight = depths.draw(BATCH, like=torch.empty(0, device=device))
        draws = dc.Draws(t, *noises, weight)
        terms = model(x, loss, draws=draws)
        terms.total.mean().backward()
        if isinstance(level, RunningNoiseLevel):
            level.update(level.count(terms.residuals.point.gamma, terms.residuals.errors))
        depths.update(depths.count(t, terms.diffusion / weight))
    return terms


@contextmanager
def watched(device):
    """On a GPU, RuntimeError for whatever waits for it."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("encoder, decoder, heads", EVERY)
def test_nothing_asks_for_a_value(encoder, decoder, heads):
    model, shape = make(encoder, decoder, heads)
    with FakeTensorMode():
        model = without_values(model)
        for level, fraction in itertools.product(NOISE_LEVELS.values(), (1.0, 0.25)):
            terms = train(model, shape, level("cpu"), fraction)
            assert terms.total.shape == (BATCH,)


@pytest.mark.parametrize(
    "options, condition",
    [
        ({"classes": 3}, torch.zeros(BATCH, dtype=torch.int64)),
        ({"conditions": 2}, torch.zeros(BATCH, 2)),
    ],
    ids=["labels", "vectors"],
)
def test_nothing_asks_for_a_condition(options, condition):
    network = dc.networks.UNet(1, width=8, halvings=1, **options)
    model = dc.DiffEnc(
        dc.LinearSchedule(), dc.IdentityEncoder(), dc.Single(network), dc.Levels(16)
    ).float()
    with FakeTensorMode() as mode:
        model = without_values(model)
        x = torch.zeros(BATCH, 1, 4, 4, dtype=torch.uint8)
        terms = model(x, condition=mode.from_tensor(condition))
        terms.total.mean().backward()
    assert terms.total.shape == (BATCH,)


@pytest.mark.parametrize("schedule", [dc.LearnedLinearSchedule, dc.MonotoneSchedule])
def test_nothing_asks_a_learned_schedule_for_its_ends(schedule):
    """The decoder of levels, which would have few of them to look at if it knew gamma_0."""
    options = {"hidden": 4, "learn_ends": True} if schedule is dc.MonotoneSchedule else {}
    model, shape = make("nontrainable", "levels", "single", schedule(**options))
    with FakeTensorMode():
        train(without_values(model), shape, 1.0, 0.25)


@pytest.mark.parametrize(
    "encoder", ["identity", "nontrainable", "trainable U-Net", "residual U-Net"]
)
def test_nothing_is_moved_to_the_cpu(encoder):
    """Not of the MLP: torch's forward mode does not know the device "meta"."""
    for decoder, heads in (
        ("levels", "paired"),
        ("reals", "single"),
        ("levels", "posterior"),
        ("reals", "mixture"),
    ):
        model, shape = make(encoder, decoder, heads)
        for level in NOISE_LEVELS.values():
            terms = train(model.to("meta"), shape, level("meta"), 0.25, "meta")
            assert terms.total.device.type == "meta"


def test_depths_and_noise_are_drawn_without_waiting():
    model, shape = make("nontrainable", "reals", "paired")
    with FakeTensorMode():
        terms = without_values(model)(torch.randn(BATCH, *shape))
        terms.total.mean().backward()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("encoder, decoder, heads", EVERY)
def test_a_gpu_is_not_waited_for(encoder, decoder, heads):
    model, shape = make(encoder, decoder, heads)
    for level, fraction in itertools.product(NOISE_LEVELS.values(), (1.0, 0.25)):
        train(model.cuda(), shape, level("cuda"), fraction, "cuda")


# Controls: what would be seen ---------------------------------------------------------------------

FAULTS = {
    "item": lambda x: x * x.max().item(),
    "int": lambda x: x * int(x.max()),
    "float": lambda x: x * float(x.max()),
    "bool": lambda x: x if (x > 0).all() else -x,
    "list": lambda x: x * x.sum((1,)).tolist()[0],
    "nonzero": lambda x: x * len(x.nonzero()),
    "mask": lambda x: x * x[x > 0].sum(),
}


class Faulty(dc.IdentityEncoder):
    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def encode(self, x, gamma):
        return self.fault(x)

    def forward(self, x, gamma):
        return Encoding(self.fault(x), torch.zeros_like(x))


@pytest.mark.parametrize("fault", FAULTS)
def test_an_encoder_that_asks_is_caught(fault):
    model = dc.DiffEnc(
        dc.LinearSchedule(), Faulty(FAULTS[fault]), HEADS["single"]((4,)), dc.Reals()
    )
    train(model.float(), (4,), 1.0, 1.0)  # it does work where there are values
    with FakeTensorMode():
        model = without_values(model)
        with pytest.raises(WAITED):
            train(model, (4,), 1.0, 1.0)


def test_an_encoder_that_moves_its_data_is_caught():
    model = dc.DiffEnc(
        dc.LinearSchedule(),
        Faulty(lambda x: x.cpu().to(x.device)),
        HEADS["single"]((4,)),
        dc.Reals(),
    )
    with pytest.raises(NotImplementedError, match="no data"):
        train(model.float().to("meta"), (4,), 1.0, 1.0, "meta")


# One graph ----------------------------------------------------------------------------------------

# In a process of its own: the checks of types that tests add cannot be traced.
COMPILED = """
    import torch, diffenc_ct as dc
    torch.manual_seed(0)
    network = dc.networks.MLP(4, width=8, bounded=True)
    if POSTERIOR:
        encoder, options = dc.ResidualEncoder(network), dict(functions=3, paired=True)
        outputs = 4 * dc.Posterior.outputs_for(16, **options)
        heads = dc.Posterior(dc.networks.MLP(4, width=8, outputs=outputs), 16, **options)
        for parameter in (*encoder.parameters(), *heads.parameters()):
            torch.nn.init.normal_(parameter, std=0.3)
    else:
        encoder = dc.TrainableEncoder(network)
        heads = dc.Paired(dc.networks.MLP(4, width=8, outputs=8))
    model = dc.DiffEnc(dc.LinearSchedule(), encoder, heads, dc.Levels(16))
    loss = dc.InfiniteDepth(dc.NonTrainableNoiseLevel(), ends_fraction=0.5, rate_fraction=0.5)
    x, noise = torch.randint(0, 16, (4, 4)), torch.randn(4, 4)
    draws = dc.Draws(torch.rand(4), noise, noise.flip(0), torch.rand(4))
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    terms = [m(x, loss, draws=draws) for m in (compiled, model)]
    torch.testing.assert_close(*(t.total for t in terms))
    torch.testing.assert_close(*(t.residuals.errors.r for t in terms))
    parameters = list(model.parameters())
    torch.testing.assert_close(*(torch.autograd.grad(t.total.mean(), parameters) for t in terms))
"""


@pytest.mark.parametrize("posterior", [False, True])
def test_the_loss_is_one_graph_of_torch_compile(posterior):
    """The same losses, errors and gradients, with an encoder that is differentiated forwards."""
    code = textwrap.dedent(COMPILED).replace("POSTERIOR", str(posterior))
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
