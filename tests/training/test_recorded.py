"""A step whose gradient is one CUDA graph: the same steps, and refusals where there is nothing to record."""

import dataclasses

import pytest
import torch

from diffenc_ct.data import Dataset, Labels
from diffenc_ct.distributed import ALONE
from diffenc_ct.training import step as step_module
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.data_record import DataRecord
from diffenc_ct.training.loop import _check_launch, train
from diffenc_ct.training.state import State
from diffenc_ct.training.step import training_step

UNET = {"width": 8, "halvings": 1}
CONFIG = replace(
    Config(),
    {
        "network": {"kind": "unet", "options": UNET},
        "encoder": {"kind": "residual", "network": {"kind": "unet", "options": UNET}},
        "model.heads": "paired",
        "optimizer.clip": 1.0,
        "training.batch_size": 8,
        "training.ends_fraction": 0.5,
        "training.rate_fraction": 0.5,
    },
)
CHANGES = {
    "paired heads": {},
    "VDM, importance": {
        "encoder": {"kind": "identity"},
        "model.heads": "single",
        "training.depths": "importance",
    },
    "learned schedule": {"schedule": {"kind": "monotone"}, "model.heads": "single"},
    "labels": {"data.labels": True, "encoder": {"kind": "identity"}, "model.heads": "single"},
}


@pytest.fixture(scope="module")
def data():
    images = torch.randint(0, 256, (32, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(32) % 3
    return Dataset("random", images.to(torch.uint8), images[:4].to(torch.uint8), 256), Labels(
        labels, labels[:4], 3
    )


class Replayed:
    """What a graph does, without one: inputs of its own, gradients written anew."""

    recordings = 0

    def __init__(self, call, inputs, before):
        Replayed.recordings += 1
        self.call, self.before = call, before
        self.inputs = [None if v is None else torch.full_like(v, 1) for v in inputs]

    def __call__(self, *inputs):
        for mine, given in zip(self.inputs, inputs, strict=True):
            if mine is not None:
                mine.copy_(given)
        self.before()
        return self.call(*self.inputs)


def steps(config, data, labels, device, count=4):
    """Weights, averages and terms after some steps."""
    if config.data.labels:
        data = Dataset(data.name, data.train, data.test, data.levels, labels=labels)
    state = State.fresh(config, data, device)
    found = [training_step(state, config, data, device) for _ in range(count)]
    return [*state.model.parameters(), *state.averaged.parameters(), *found]


@pytest.mark.parametrize("name", CHANGES)
def test_recorded_steps_are_the_steps(name, data, monkeypatch):
    config, before = replace(CONFIG, CHANGES[name]), Replayed.recordings
    monkeypatch.setattr(step_module, "Recorded", Replayed)
    cpu = torch.device("cpu")
    plain = steps(config, *data, cpu)
    assert Replayed.recordings == before
    recorded = steps(replace(config, {"training.cuda_graph": True}), *data, cpu)
    assert Replayed.recordings == before + 1
    assert all(torch.equal(a, b) for a, b in zip(plain, recorded, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", CHANGES)
def test_a_gpu_s_graph_gives_the_same_steps(name, data):
    config, gpu = replace(CONFIG, CHANGES[name]), torch.device("cuda")
    plain = steps(config, *data, gpu)
    recorded = steps(replace(config, {"training.cuda_graph": True}), *data, gpu)
    for a, b in zip(plain, recorded, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "device, change, said",
    [
        ("cpu", {}, "1 processes on cpu"),
        ("cuda", {"training.accumulate": 2}, "accumulate = 2"),
        ("cuda", {"training.noise_level": "optimal"}, "noise_level = optimal"),
    ],
)
def test_what_cannot_be_recorded_is_refused(device, change, said, data):
    config = replace(CONFIG, {"training.cuda_graph": True, **change})
    processes = dataclasses.replace(ALONE, device=torch.device(device))
    with pytest.raises(ValueError, match=f"{said}.*--no-cuda-graph"):
        _check_launch(config, DataRecord.of(data[0]), processes)
    _check_launch(
        replace(config, {"training.cuda_graph": False}), DataRecord.of(data[0]), processes
    )


@pytest.mark.parametrize(
    "more", [{}, {"training.noise_level": 1.2}, {"training.depths": "importance"}]
)
def test_what_can_be_recorded_is_taken(more, data):
    """By a process alone, with a GPU, in one part."""
    config = replace(CONFIG, {"training.cuda_graph": True, **more})
    processes = dataclasses.replace(ALONE, device=torch.device("cuda"))
    _check_launch(config, DataRecord.of(data[0]), processes)


def test_the_command_says_so_before_it_occupies_the_folder(tmp_path, data):
    config = replace(CONFIG, {"training.cuda_graph": True})
    with pytest.raises(ValueError, match="cuda_graph"):
        train(config, tmp_path / "run", device="cpu", data=data[0])
    assert not (tmp_path / "run").exists()
