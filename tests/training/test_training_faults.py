"""Faults: killed at any moment, corrupt files, a full disk, losses that are not finite."""

import csv
import itertools
import math
import os
import resource
import shutil
import signal
import subprocess
import time

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from diffenc_ct.data import load_dataset
from diffenc_ct.training.checkpoints import (
    checkpoint_path,
    latest,
    list_checkpoints,
)
from diffenc_ct.training.config import replace
from diffenc_ct.training.loop import TrainingStopped, train, training_step
from diffenc_ct.training.meter import Meter
from diffenc_ct.training.randomness import derived_seed
from diffenc_ct.training.runs import open_run
from diffenc_ct.training.state import State
from tests.launching import Kill, run_killed
from tests.tiny_runs import CPU, Dropping, assert_same, tensors_of, tiny


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
    operation = st.builds(Kill, st.just("operation"), st.integers(1, 32))  # of 36
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


def spoil(path, place):
    """Change a byte, or cut the file off there for a negative place."""
    written = bytearray(path.read_bytes())
    if place < 0:
        del written[place:]
    else:
        written[place % len(written)] ^= 1
    path.write_bytes(written)


@given(st.integers(-2000, 10**6), st.booleans())
@settings(max_examples=8)
def test_a_corrupt_checkpoint_is_passed_over_with_a_warning(tmp_path_factory, data, place, both):
    folder = tmp_path_factory.mktemp("corrupt")
    run, config = folder / "run", tiny(training__keep=3)
    train(config, run, data=data)
    *_, older, newest = list_checkpoints(run / "checkpoints")
    whole = tensors_of(run)
    for path in (older, newest) if both else (newest,):
        spoil(path, place)
    with pytest.warns(UserWarning, match=r"step-00000006.*trying the one before"):
        assert open_run(run).step == (2 if both else 4)
    # The spoiled file is the newest by its name: it must not count as the one that is kept.
    stop = tiny(training__keep=1, training__steps=3 if both else 5)
    with pytest.warns(UserWarning, match="trying the one before"):
        train(stop, run, data=data, resume=True)
    assert open_run(run).step == stop.training.steps
    assert (run / "checkpoints" / (newest.name + ".corrupt")).exists()
    train(config, run, data=data, resume=True)
    assert_same(whole, tensors_of(run))


def test_with_no_checkpoint_intact_a_run_begins_anew_with_warnings(tmp_path, data):
    run = tmp_path / "run"
    train(tiny(), run, data=data)
    whole = tensors_of(run)
    for path in list_checkpoints(run / "checkpoints"):
        spoil(path, 1000)
    with pytest.warns(UserWarning, match="trying the one before"):
        train(tiny(), run, data=data, resume=True)
    assert_same(whole, tensors_of(run))


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


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory):
    """A file system of 512 KiB."""
    place = tmp_path_factory.mktemp("disk")
    options = ["-t", "tmpfs", "-o", "size=512k", "none", str(place)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not allowed here; a failing write is tested instead")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


# TensorBoard writes in a thread, which shows its failure there as well as to training.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@example(free=0.0, tensorboard=False)  # not even the configuration can be written
@example(free=0.9, tensorboard=False)
@given(free=st.floats(0, 2), tensorboard=st.booleans())
@settings(max_examples=4)
def test_a_full_disk_ends_training_with_the_last_checkpoint_intact(
    small_disk, tmp_path_factory, free, tensorboard, data
):
    config = tiny(training__tensorboard=tensorboard, training__keep=3)
    run, filler = small_disk / "run", small_disk / "filler"
    for leftover in small_disk.iterdir():
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    train(replace(config, {"training.steps": 2}), run, data=data)
    kept = checkpoint_path(run / "checkpoints", 2).read_bytes()
    room = os.statvfs(small_disk)
    filler.write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - int(free * len(kept)))))
    with pytest.raises((TrainingStopped, OSError), match="No space left on device") as stopped:
        train(config, run, data=data, resume=True)
    assert getattr(stopped.value, "exit_code", 2) == 2
    assert checkpoint_path(run / "checkpoints", 2).read_bytes() == kept
    assert not list(run.rglob("*.part"))
    filler.unlink()
    train(config, run, data=data, resume=True)
    whole = tmp_path_factory.mktemp("whole") / "run"
    train(tiny(), whole, data=data)
    assert_same(tensors_of(whole), tensors_of(run))
    rows = list(csv.DictReader(open(run / "metrics.csv", encoding="utf-8")))
    assert [int(row["step"]) for row in rows] == [2, 4, 6]


def test_a_loss_that_is_not_finite_stops_with_its_name_and_seed(tmp_path, data):
    config = tiny(network__kind="tests.tiny_runs:Breaking", network__options={})
    with pytest.raises(TrainingStopped) as stopped:
        train(config, tmp_path / "run", data=data)
    seed = derived_seed(1, 1, 2)
    for word in ("step 2", "diffusion is nan", f"batch seed {seed}", "--on-nan skip"):
        assert word in str(stopped.value)
    assert stopped.value.exit_code == 1
    assert open_run(tmp_path / "run").step == 2


@pytest.mark.parametrize("signalled", [False, True])
def test_what_is_fetched_late_reaches_no_checkpoint(tmp_path, data, monkeypatch, signalled):
    """As on a GPU, whose numbers are fetched every 16 steps: before a checkpoint at a save, or at a signal, too."""
    import diffenc_ct.training.loop as loop

    def step(state, *rest):
        if signalled and state.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return training_step(state, *rest)

    monkeypatch.setattr(loop, "training_step", step)
    monkeypatch.setattr(loop, "Meter", lambda batch_size, patience: Meter(batch_size, patience=16))
    config = tiny(
        network__kind="tests.tiny_runs:Breaking",
        network__options={},
        training__save_every=2 if not signalled else 6,
        training__log_every=6,
        training__eval_every=6,
    )
    with pytest.raises(TrainingStopped, match="step 2: diffusion is nan"):
        train(config, tmp_path / "run", data=data)
    found = latest(tmp_path / "run" / "checkpoints")
    assert found is None if signalled else found[1].step == 2


def test_the_meter_shows_and_averages_what_is_finite():
    meter = Meter(4, patience=2)
    good, bad = torch.tensor([1.0, 2, 3, 0, 1]), torch.tensor([1.0, math.nan, 3, 0, math.inf])
    assert meter.count(7, good) == {} and meter.text().startswith("nan bits/dim")
    broken = meter.count(8, bad)
    assert list(broken) == [8] and math.isnan(broken[8]["diffusion"])
    assert broken[8]["gradient_norm"] == math.inf and broken[8]["reconstruction"] == 1
    assert meter.text().startswith("6.000 bits/dim")
    assert meter.count(9, 2 * good, now=True) == {}
    assert meter.text().startswith("6.300 bits/dim")
    row = meter.row()
    assert row["bpd"] == 9 and row["gradient_norm"] == 1.5 and row["images_per_second"] > 0
    assert set(meter.row()) == {"images_per_second"}


def test_skipped_steps_are_counted_and_change_nothing(tmp_path, data):
    config = tiny(
        network__kind="tests.tiny_runs:Breaking", network__options={}, training__on_nan="skip"
    )
    summary = train(config, tmp_path / "run", data=data)
    assert summary.skipped == 2 and summary.steps == 6
    assert all(torch.isfinite(tensor).all() for tensor in tensors_of(tmp_path / "run").values())
    state = State.fresh(config, data, CPU)
    for _ in range(2):
        training_step(state, config, data, CPU)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    training_step(state, config, data, CPU)
    assert_same(before, state.model.state_dict())
    assert (state.step, state.skipped) == (3, 1)


class BreaksLate(Dropping):
    """Fine in training; NaN where it is evaluated, from the second evaluation on."""

    seen = 0

    def forward(self, z, gamma):
        type(self).seen += not self.training
        return super().forward(z, gamma) * (math.nan if type(self).seen > 1 else 1.0)


@pytest.mark.parametrize("steps", [6, 8])  # the evaluation at the end, and one on the way
@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_an_evaluation_that_is_not_finite_stops(tmp_path, data, steps, on_nan, monkeypatch):
    monkeypatch.setattr(BreaksLate, "seen", 0)
    config = tiny(
        network__kind=f"{__name__}:BreaksLate",
        network__options={},
        training__steps=steps,
        training__eval_every=3,
        training__on_nan=on_nan,
        training__check_parts=False,  # the network counts its calls
    )
    with pytest.raises(
        TrainingStopped, match=r"step 6: bits per dimension.*nan.*--resume"
    ) as stopped:
        train(config, tmp_path / "run", data=data)
    assert stopped.value.exit_code == 1 and "\n" not in str(stopped.value)
    assert latest(tmp_path / "run" / "checkpoints")[1].step == 4
    rows = list(csv.DictReader(open(tmp_path / "run" / "metrics.csv", encoding="utf-8")))
    assert rows[-1]["step"] == "6" and rows[-1]["test_bpd"] == "nan"


def test_a_stop_names_what_can_be_changed_and_it_can(tmp_path, data):
    """The remedies of a run that stopped are taken by its resumption."""
    run = tmp_path / "run"
    config = tiny(network__kind="tests.tiny_runs:Breaking", network__options={})
    with pytest.raises(TrainingStopped) as stopped:
        train(config, run, data=data)
    for words in (f"diffenc train --run {run} --resume", "--learning-rate 0.0001", "--clip 1"):
        assert words in str(stopped.value)
    remedies = {"optimizer.learning_rate": 1e-4, "optimizer.clip": 1.0, "training.on_nan": "skip"}
    assert train(replace(config, remedies), run, data=data, resume=True).steps == 6
