"""Which weights, which data, which mode: what is evaluated, exported and fitted is what it is said to be."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import diffenc_ct as dc
from diffenc_ct.cli import main
from diffenc_ct.data import Dataset, load_dataset
from diffenc_ct.distributed import Work
from diffenc_ct.training.checkpoints import (
    checkpoint_path,
    read_checkpoint,
    write_checkpoint,
)
from diffenc_ct.training.config import replace
from diffenc_ct.training.evaluation import evaluate
from diffenc_ct.training.loop import train, training_step
from diffenc_ct.training.runs import export, load, open_run
from diffenc_ct.training.state import State
from tests.tiny_runs import CPU, Dropping, assert_same, tensors_of, tiny

DROPPING = {"network__kind": "tests.tiny_runs:Dropping", "network__options": {}}


@pytest.fixture(scope="module")
def data():
    return load_dataset("swirl")


@given(
    noise_level=st.sampled_from([1.0, 1.5, "tight", "optimal"]),
    examples=st.integers(2, 40),
    rates=st.sampled_from([(0.5,), (0.9, 0.1)]),
)
@settings(max_examples=6)
def test_training_evaluates_the_average_on_test_examples_at_its_noise_level(
    tmp_path_factory, data, noise_level, examples, rates
):
    """With dropout, which would show another mode, and a second average."""
    run = tmp_path_factory.mktemp("evaluated") / "run"
    config = tiny(
        **DROPPING,
        optimizer__ema=rates,
        optimizer__learning_rate=1e-2,
        training__noise_level=noise_level,
        training__eval_examples=examples,
    )
    summary = train(config, run, data=data)
    opened, saved = open_run(run), read_checkpoint(checkpoint_path(run / "checkpoints", 6))
    level = {"tight": dc.NonTrainableNoiseLevel(), "optimal": opened.optimal_noise_level}
    bound = dc.InfiniteDepth(level.get(noise_level, noise_level))
    own = evaluate(opened.model, data.test[:examples], bound, work=Work(250)).metrics()
    assert saved.metrics == pytest.approx(own) and summary.metrics == pytest.approx(own)
    raw = evaluate(load(run, weights="raw"), data.test[:examples], bound).mean("total")
    assert raw != pytest.approx(own["bpd"], rel=1e-6)


def test_evaluations_leave_training_as_it_is(tmp_path, data):
    for every in (1, 100):
        train(tiny(**DROPPING, training__eval_every=every), tmp_path / str(every), data=data)
    assert_same(tensors_of(tmp_path / "1"), tensors_of(tmp_path / "100"))


def test_evaluate_takes_the_split_the_weights_and_the_step_it_is_told(tmp_path, data):
    run, out = tmp_path / "run", tmp_path / "e.json"
    train(tiny(optimizer__ema=(0.9, 0.1), optimizer__learning_rate=1e-2), run)
    cases = [
        (["--split", "train"], data.train, {}),
        (["--split", "test"], data.test, {}),
        (["--weights", "raw"], data.test, {"weights": "raw"}),
        (["--weights", "0.1"], data.test, {"weights": "0.1"}),
        (["--checkpoint", "4"], data.test, {"checkpoint": 4}),
    ]
    found = []
    for options, images, which in cases:
        command = ["evaluate", str(run), *options, "--examples", "30", "--device", "cpu"]
        assert main([*command, "--out", str(out)]) == 0
        told = json.loads(out.read_text())["bits_per_dimension"]["total"]["mean"]
        assert told == pytest.approx(evaluate(load(run, **which), images[:30]).mean("total"))
        found.append(told)
    assert len(set(found)) == len(cases)


@pytest.mark.parametrize("weights", ["ema", "raw", "0.1"])
@pytest.mark.parametrize("checkpoint", ["latest", "4"])
def test_exports_are_of_the_weights_and_the_step_asked_for(tmp_path, data, weights, checkpoint):
    run = tmp_path / "run"
    train(tiny(optimizer__ema=(0.9, 0.1), optimizer__learning_rate=1e-2), run, data=data)
    export(run, tmp_path / "small", weights=weights, checkpoint=checkpoint)
    step = 6 if checkpoint == "latest" else 4
    saved = read_checkpoint(checkpoint_path(run / "checkpoints", step)).tensors
    prefix = {"ema": "ema/0.9/", "raw": "model/", "0.1": "ema/0.1/"}[weights]
    for name, tensor in load(tmp_path / "small").state_dict().items():
        assert torch.equal(tensor, saved[prefix + name])
    assert open_run(tmp_path / "small").step == step


@given(st.lists(st.floats(1, 9), min_size=3, max_size=3, unique=True))
@settings(max_examples=5)
def test_the_best_is_the_one_with_the_lowest_bits_per_dimension(tmp_path_factory, data, scores):
    run = tmp_path_factory.mktemp("best") / "run"
    train(tiny(training__keep=9), run, data=data)
    for step, score in zip((2, 4, 6), scores, strict=True):
        path = checkpoint_path(run / "checkpoints", step)
        saved = read_checkpoint(path)
        saved.metrics.clear()
        saved.metrics["bpd"] = score
        write_checkpoint(path, saved)
    best = (2, 4, 6)[int(np.argmin(scores))]
    assert open_run(run, checkpoint="best").step == best and open_run(run).step == 6
    export(run, run.parent / "small", checkpoint="best")
    assert open_run(run.parent / "small").step == best


def test_where_none_was_evaluated_there_is_no_best(tmp_path, data):
    train(tiny(), tmp_path / "run", data=data)
    for step in (4, 6):
        path = checkpoint_path(tmp_path / "run" / "checkpoints", step)
        saved = read_checkpoint(path)
        saved.metrics["bpd"] = float("nan")
        write_checkpoint(path, saved)
    with pytest.raises(ValueError, match="evaluated to a number; use latest"):
        open_run(tmp_path / "run", checkpoint="best")


class Counting(Dropping):
    """With a buffer that training changes, as batch normalisation has."""

    def __init__(self, dimensions):
        super().__init__(dimensions)
        self.register_buffer("seen", torch.zeros(()))
        self.mean = nn.BatchNorm1d(dimensions, affine=False)

    def forward(self, z, gamma):
        if self.training:
            self.seen += len(z)
            self.mean(z)
        return super().forward(z, gamma)


def test_averages_have_the_buffers_of_the_model(tmp_path, data):
    config = tiny(
        network__kind=f"{__name__}:Counting", network__options={}, optimizer__ema=(0.9, 0.1)
    )
    state = State.fresh(config, data, CPU)
    for _ in range(3):
        training_step(state, config, data, CPU)
    own = dict(state.model.named_buffers())
    assert own["heads.network.seen"] == 48 and own["heads.network.mean.running_mean"].any()
    for averaged in state.averages.values():
        for name, buffer in averaged.named_buffers():
            assert torch.equal(buffer, own[name]), name
            assert buffer is not own[name]
    train(config, tmp_path / "run", data=data)
    assert load(tmp_path / "run").heads.network.seen == 6 * 16


@pytest.mark.parametrize("levels", [255, 257, None])
def test_other_levels_of_the_same_shape_are_refused(tmp_path, data, levels):
    train(tiny(training__steps=1), tmp_path / "run", data=data)
    opened = open_run(tmp_path / "run")
    kind = torch.float32 if levels is None else torch.uint8
    x = data.train.clamp(max=200).to(kind)
    with pytest.raises(ValueError, match=rf"256 levels.*{levels or 'no'} levels"):
        opened.check(Dataset("other", x, x, levels))
    opened.check(data)


@pytest.mark.parametrize("name", ["swirl", "swirl-real", "checkerboard"])
def test_toys_are_tested_on_points_of_their_own(name):
    data = load_dataset(name)
    train_, test = ({tuple(point) for point in part.tolist()} for part in (data.train, data.test))
    assert len(test & train_) < len(test) / 2  # of rounded points some coincide


@given(st.integers(2, 9), st.integers(2, 9))
@settings(max_examples=10)
def test_a_level_that_only_a_test_shows_counts(tmp_path_factory, train_levels, test_levels):
    path = tmp_path_factory.mktemp("levels") / "a.npz"
    parts = {"train": train_levels, "test": test_levels}
    np.savez(
        path, **{k: np.arange(2 * n).reshape(n, 2).astype(np.uint8) % n for k, n in parts.items()}
    )
    assert load_dataset(str(path)).levels == max(train_levels, test_levels)


def test_a_run_on_more_steps_is_evaluated_at_its_own_noise_level(tmp_path, data):
    """A number in the configuration is obeyed by evaluations in training: they differ where it differs."""
    found = []
    for level in (1.0, 1.5):
        config = replace(tiny(optimizer__learning_rate=1e-30), {"training.noise_level": level})
        found.append(train(config, tmp_path / str(level), data=data).metrics["bpd"])
    assert found[0] != pytest.approx(found[1], rel=1e-3)
