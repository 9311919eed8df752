"""A model is a module: torch's wrappers of modules give the gradients of one process on the whole batch.

DistributedDataParallel   takes any model.
fully_shard               takes a model, and before it the networks, whose `forward` is what is called of them (not
                          heads or encoder, which the loss asks by other methods). What PyTorch 2.14's cannot do:
                          - parameters without dimensions: those of a learned schedule are to be left out, and their
                            few gradients averaged by hand;
                          - an encoder's network without jets by itself, where the schedule is learned: its hook on
                            gamma has no derivative in forward mode.
"""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import diffenc_ct as dc
from tests.launching import Group

BATCH = 4
OUTPUTS = dc.Posterior.outputs_for(16, functions=2)


def posterior(network):
    return dc.Posterior(network, 16, functions=2)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    with Group(2, tmp_path_factory.mktemp("pair")) as group:
        yield group


def make(kind, heads, schedule):
    """A model with a trainable encoder, nothing in it at its start; a batch, and what is drawn for it. In float64."""
    torch.manual_seed(0)
    multiple = {dc.Single: 1, dc.Paired: 2}.get(heads, OUTPUTS)
    if kind == "MLP":
        shape = (3,)
        encoder = dc.networks.MLP(3, width=8, layers=1, bounded=True)
        network = dc.networks.MLP(3, width=8, layers=1, outputs=3 * multiple)
    else:
        shape = (1, 4, 4)
        options = {"width": 8, "layers": 1, "groups": 2, "block_groups": 4, "dropout": 0.0}
        encoder = dc.networks.EncoderUNet(1, **options)
        network = dc.networks.ScoreUNet(1, out_channels=multiple, **options)
    parts = (schedule(-5.0, 3.0), dc.TrainableEncoder(encoder), heads(network), dc.Levels(16))
    model = dc.DiffEnc(*parts).double()
    for parameter in (*model.encoder.parameters(), *model.heads.parameters()):
        nn.init.normal_(parameter, std=0.3)
    x = torch.randint(0, 16, (BATCH, *shape))
    noise, noise_0 = torch.randn(2, BATCH, *shape, dtype=torch.float64)
    return model, x, dc.Draws(torch.rand(BATCH, dtype=torch.float64), noise, noise_0)


def loss_and_gradients(call, model, x, draws):
    """The loss of each example by call(x, draws=...), and the gradients of their mean that it leaves in `model`."""
    total = call(x, draws=draws).total
    total.mean().backward()
    return total.detach(), {name: p.grad for name, p in model.named_parameters()}


def whole(*parts):
    model, x, draws = make(*parts)
    return loss_and_gradients(model, model, x, draws)


def share(x, draws):
    """This process's half of a batch."""
    size = BATCH // dist.get_world_size()
    rows = slice(dist.get_rank() * size, (dist.get_rank() + 1) * size)
    return x[rows], dc.Draws(draws.t[rows], draws.noise[rows], draws.noise_0[rows])


def replicated(*parts):
    """In DistributedDataParallel."""
    model, *batch = make(*parts)
    parallel = nn.parallel.DistributedDataParallel(model)
    return loss_and_gradients(parallel, model, *share(*batch))


def sharded(networks_too, *parts):
    """In fully_shard, the networks by themselves or not."""
    model, *batch = make(*parts)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    left_out = set(model.schedule.parameters())
    for network in (model.heads.network, model.encoder.network) if networks_too else ():
        fully_shard(network, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params=left_out)
    total, gradients = loss_and_gradients(model, model, *share(*batch))
    for parameter in left_out:
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()
    spread = {name for name, g in gradients.items() if hasattr(g, "full_tensor")}
    assert spread == {name for name in gradients if not name.startswith("schedule.")}
    return total, {n: g.full_tensor() if n in spread else g for n, g in gradients.items()}


def assert_whole(found, parts):
    """Every process's gradients are those of one on the whole batch, and its losses those of its rows."""
    total, gradients = whole(*parts)
    assert min(float(g.abs().max()) for n, g in gradients.items() if n.endswith("weight")) > 0
    scale = max(float(g.abs().max()) for g in gradients.values())
    for _, wrapped in found:
        assert wrapped.keys() == gradients.keys()
        for name, gradient in gradients.items():
            size = max(float(gradient.abs().max()), 1e-6 * scale)
            torch.testing.assert_close(
                wrapped[name], gradient, rtol=0, atol=1e-6 * size, msg=lambda m, n=name: f"{n}: {m}"
            )
    torch.testing.assert_close(torch.cat([theirs for theirs, _ in found]), total)


kinds = pytest.mark.parametrize("kind", ["MLP", "U-Net"])
all_heads = pytest.mark.parametrize("heads", [dc.Single, dc.Paired])
schedules = pytest.mark.parametrize("schedule", [dc.LinearSchedule, dc.LearnedLinearSchedule])


@kinds
@all_heads
@schedules
def test_replicas_have_the_gradients_of_one_process(pair, kind, heads, schedule):
    parts = (kind, heads, schedule)
    assert_whole(pair.call(replicated, *parts), parts)


@kinds
@all_heads
@schedules
@pytest.mark.parametrize("networks_too", [False, True])
def test_shards_have_the_gradients_of_one_process(pair, networks_too, kind, heads, schedule):
    parts = (kind, heads, schedule)
    if networks_too and kind == "MLP" and schedule is dc.LearnedLinearSchedule:
        pair.send(sharded, networks_too, *parts)
        for rank in range(2):
            with pytest.raises(RuntimeError, match="custom Function's forward .* jvp"):
                pair.receive(rank)
    else:
        assert_whole(pair.call(sharded, networks_too, *parts), parts)


def test_half_a_batch_has_other_gradients():
    """What the tests above would find if the processes did not meet."""
    parts = ("MLP", dc.Single, dc.LinearSchedule)
    model, x, draws = make(*parts)
    half = dc.Draws(draws.t[:2], draws.noise[:2], draws.noise_0[:2])
    with pytest.raises(AssertionError):
        assert_whole([loss_and_gradients(model, model, x[:2], half)], parts)
