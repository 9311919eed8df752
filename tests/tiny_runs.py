"""Tiny training runs on two-dimensional data, and networks that show what happens inside."""

import os

import torch
from torch import nn

import diffenc_ct as dc
from diffenc_ct.elbo import LowDiscrepancyDepths
from diffenc_ct.process import normal_like
from diffenc_ct.training.checkpoints import latest
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.meter import TERMS
from diffenc_ct.training.randomness import DEPTH, NOISE, batch_indices, generator_for
from diffenc_ct.training.step import training_step

CPU = torch.device("cpu")


def tiny(**settings):
    """DiffEnc with a trainable encoder on the 8-bit swirl, a step of a few milliseconds."""
    values = {
        "data.name": "swirl",
        "model.prediction": "v",
        "network.options": {"width": 8, "layers": 1},
        "encoder.network.options": {"width": 8, "layers": 1},
        "optimizer.warmup": 2,
        "training.steps": 6,
        "training.batch_size": 16,
        "training.log_every": 2,
        "training.eval_every": 4,
        "training.eval_examples": 20,
        "training.save_every": 2,
    }
    return replace(Config(), values | {k.replace("__", "."): v for k, v in settings.items()})


def batch_of(config, data, step=0):
    """The examples of a step, and what is drawn for them."""
    seed, size = config.training.seed, config.training.batch_size
    x = data.train[batch_indices(seed, step, size, len(data.train))]
    like = torch.empty(x.shape)
    t, _ = LowDiscrepancyDepths().draw(size, like=like, generator=generator_for(seed, DEPTH, step))
    generator = generator_for(seed, NOISE, step)
    return x, dc.Draws(t, normal_like(like, generator), normal_like(like, generator))


def step_of(state, config, data, *rest):
    """What a step reports, by name."""
    return dict(zip(TERMS, training_step(state, config, data, CPU, *rest).tolist(), strict=True))


def tensors_of(run):
    found = latest(run / "checkpoints")
    assert found is not None
    return found[1].tensors


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


class Dropping(nn.Module):
    """A network with dropout, whose draws must resume too."""

    def __init__(self, dimensions):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dimensions + 1, 8), nn.SiLU(), nn.Dropout(0.3), nn.Linear(8, dimensions)
        )

    def forward(self, z, gamma):
        return self.layers(torch.cat([z, gamma[:, None] / 10], dim=1))


class Breaking(Dropping):
    """NaN at every third training step, so at steps 2 and 5."""

    def __init__(self, dimensions):
        super().__init__(dimensions)
        self.calls = 0

    def forward(self, z, gamma):
        self.calls += self.training
        spoil = self.training and self.calls % 3 == 0
        return super().forward(z, gamma) * (float("nan") if spoil else 1.0)


class BreakingSecond(Breaking):
    """The same in the second process of a launch only."""

    def forward(self, z, gamma):
        broken = super().forward(z, gamma)
        return broken if os.environ.get("RANK") == "1" else broken.nan_to_num()


class Partly(nn.Module):
    """A network with a parameter that it does not use."""

    def __init__(self, dimensions, outputs=None):
        super().__init__()
        self.used = nn.Linear(dimensions + 1, outputs or dimensions)
        self.idle = nn.Parameter(torch.ones(3))

    def forward(self, z, gamma):
        return self.used(torch.cat([z, gamma[:, None] / 10], dim=1))


class Refusing(Partly):
    """An error in training whose words could be those of a lost process."""

    def forward(self, z, gamma):
        if self.training:
            raise RuntimeError("the skip connection timed out in its peer store")
        return super().forward(z, gamma)
