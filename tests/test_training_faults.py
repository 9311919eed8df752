"""Faults: killed at any moment, corrupt files, a full disk, losses that are not finite."""

import csv
import itertools
import os
import resource
import signal
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffenc_ct.data import load_dataset
from diffenc_ct.training.checkpoints import (
    Checkpoint,
    CorruptCheckpoint,
    checkpoint_path,
    latest,
    list_checkpoints,
    read_checkpoint,
    write_checkpoint,
)
from diffenc_ct.training.loop import TrainingStopped, train, training_step
from diffenc_ct.training.randomness import derived_seed
from diffenc_ct.training.runs import open_run
from diffenc_ct.training.state import State
from tests.launching import Kill, run_killed
from tests.tiny_runs import CPU, assert_same, tensors_of, tiny


@pytest.fixture(scope="module")
def data():
    return load_dataset("swirl")


KILLS = int(os.environ.get("DIFFENC_KILLS", "6"))

# Everything that a checkpoint holds: dropout, several averages, moments of the noise level, a schedule that learns.
FULL = {
    "network__kind": "tests.tiny_runs:Dropping",
    "network__options": {},
    "schedule__kind": "learned-linear",
    "optimizer__ema": (0.99, 0.5),
    "optimizer__decay": "cosine",
    "training__noise_level": "optimal",
    "training__steps": 12,
    "training__save_every": 3,
}


def test_killed_at_random_moments_the_run_still_ends_bit_for_bit_the_same(tmp_path):
    config, strikes, runs = tiny(**FULL), [], itertools.count()
    started = time.perf_counter()
    assert run_killed(config, tmp_path / "whole") == 0
    lasts = time.perf_counter() - started
    whole = latest(tmp_path / "whole" / "checkpoints")[1]
    size = checkpoint_path(tmp_path / "whole" / "checkpoints", 12).stat().st_size
    operation = st.builds(Kill, st.just("operation"), st.integers(1, 40))
    write = st.builds(Kill, st.just("write"), st.integers(0, size - 1))
    after = st.builds(Kill, st.just("after"), st.floats(0, lasts))

    @settings(max_examples=KILLS)
    @given(st.tuples(operation | write, st.lists(operation | write | after, max_size=2)))
    def check(kills):
        run = tmp_path / f"run{next(runs)}"
        for kill in (kills[0], *kills[1]):
            code = run_killed(config, run, kill)
            assert code in (0, -signal.SIGKILL, -signal.SIGXFSZ), (kill, code)
            strikes.append(code != 0)
            assert strikes[-1] or kill is not kills[0], "the first process must not get away"
        assert run_killed(config, run) == 0
        found = latest(run / "checkpoints")[1]
        assert_same(whole.tensors, found.tensors)
        assert (found.step, found.metrics, found.skipped) == (12, whole.metrics, whole.skipped)
        rows = list(csv.DictReader(open(run / "metrics.csv", encoding="utf-8")))
        assert [int(row["step"]) for row in rows] == list(range(2, 13, 2))
        assert not list((run / "checkpoints").glob(".*"))

    check()
    print(f"{sum(strikes)} kills survived")
    assert sum(strikes) >= KILLS


def test_sigterm_saves_and_says_how_to_go_on(tmp_path, data, monkeypatch):
    def signalled(state, *rest):
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return training_step(state, *rest)

    monkeypatch.setattr("diffenc_ct.training.loop.training_step", signalled)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(
        TrainingStopped, match=r"SIGTERM at step 4, which is saved.*--resume"
    ) as stopped:
        train(tiny(), tmp_path / "run", data=data)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.undo()
    train(tiny(), tmp_path / "run", data=data, resume=True)
    train(tiny(), tmp_path / "whole", data=data)
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "run"))


def test_a_corrupt_checkpoint_is_passed_over_with_a_warning(tmp_path, data):
    train(tiny(), tmp_path / "run", data=data)
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    whole = tensors_of(tmp_path / "run")
    spoiled = bytearray(newest.read_bytes())
    spoiled[len(spoiled) // 2] ^= 1
    newest.write_bytes(spoiled)
    with pytest.warns(UserWarning, match=r"step-00000006.*trying the one before"):
        assert open_run(tmp_path / "run").step == 4
    with pytest.warns(UserWarning, match="trying the one before"):
        train(tiny(), tmp_path / "run", data=data, resume=True)
    assert_same(whole, tensors_of(tmp_path / "run"))


def test_a_write_that_fails_leaves_the_checkpoint_before(tmp_path, data):
    run = tmp_path / "run"
    train(tiny(training__steps=2), run, data=data)
    kept = checkpoint_path(run / "checkpoints", 2).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept) // 2, hard))
    try:
        with pytest.raises(
            TrainingStopped, match=r"step 4 leaves cannot be written.*last checkpoint is intact"
        ) as stopped:
            train(tiny(), run, data=data, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert stopped.value.exit_code == 2
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002.safetensors"]
    assert checkpoint_path(run / "checkpoints", 2).read_bytes() == kept
    train(tiny(), run, data=data, resume=True)
    train(tiny(), tmp_path / "whole", data=data)
    assert_same(tensors_of(tmp_path / "whole"), tensors_of(run))


def test_a_loss_that_is_not_finite_stops_with_its_name_and_seed(tmp_path, data):
    config = tiny(network__kind="tests.tiny_runs:Breaking", network__options={})
    with pytest.raises(TrainingStopped) as stopped:
        train(config, tmp_path / "run", data=data)
    seed = derived_seed(1, 1, 2)
    for word in ("step 2", "diffusion is nan", f"batch seed {seed}", "--on-nan skip"):
        assert word in str(stopped.value)
    assert stopped.value.exit_code == 1
    assert open_run(tmp_path / "run").step == 2


def test_skipped_steps_are_counted_and_change_nothing(tmp_path, data):
    config = tiny(
        network__kind="tests.tiny_runs:Breaking", network__options={}, training__on_nan="skip"
    )
    summary = train(config, tmp_path / "run", data=data)
    assert summary.skipped == 2 and summary.steps == 6
    assert all(torch.isfinite(tensor).all() for tensor in tensors_of(tmp_path / "run").values())
    state = State.fresh(config, data, CPU)
    for _ in range(2):
        training_step(state, config, data.train, CPU)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    training_step(state, config, data.train, CPU)
    assert_same(before, state.model.state_dict())
    assert (state.step, state.skipped) == (3, 1)


@given(st.data())
@settings(max_examples=200)
def test_any_changed_byte_or_lost_tail_is_recognised(sealed, tmp_path_factory, data):
    written = bytearray(sealed.read_bytes())
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(written) - 1))
        written[place] ^= data.draw(st.integers(1, 255))
    else:
        del written[data.draw(st.integers(0, len(written) - 1)) :]
    path = tmp_path_factory.getbasetemp() / "spoiled.safetensors"
    path.write_bytes(written)
    with pytest.raises(CorruptCheckpoint, match="truncated, altered or no checkpoint"):
        read_checkpoint(path)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    path = tmp_path_factory.mktemp("sealed") / "step-00000003.safetensors"
    tensors = {
        "model/a": torch.arange(6.0).reshape(2, 3),
        "ema/0.9/a": torch.ones(2),
        "n": torch.tensor(3),
    }
    write_checkpoint(path, Checkpoint(tensors, {"version": 1}, 3, (2,), 256, {"bpd": 1.5}))
    return path
