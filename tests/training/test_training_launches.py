"""Launches that go wrong, and torchrun: a process that is lost, one that would do something else."""

import dataclasses
import signal
import subprocess
import sys
import time

import pytest
from torch.distributed.run import get_args_parser

from diffenc_ct.cli import make_parser
from diffenc_ct.data import load_dataset
from diffenc_ct.distributed import launched
from diffenc_ct.training.checkpoints import latest, list_checkpoints
from diffenc_ct.training.config import replace
from diffenc_ct.training.loop import train
from tests.launching import PATIENCE, Group, train_here
from tests.tiny_runs import tiny


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_process_is_killed_the_others_end_with_an_error(tmp_path, victim):
    config = tiny(training__steps=10**6, training__save_every=5)
    with Group(2, tmp_path) as group:
        group.send(train_here, config, tmp_path / "run")
        wait_for_a_checkpoint(tmp_path / "run")
        group.members[victim].kill()
        with pytest.raises(RuntimeError, match="ConnectionError: another process of this launch"):
            group.receive(1 - victim)  # long before the group's own limit, half an hour
    step = latest(tmp_path / "run" / "checkpoints")[1].step
    assert train_here(replace(config, {"training.steps": step + 1}), tmp_path / "run", True)


def wait_for_a_checkpoint(run, alive=lambda: True):
    deadline = time.monotonic() + PATIENCE
    while not list_checkpoints(run / "checkpoints") and alive() and time.monotonic() < deadline:
        time.sleep(0.02)


@pytest.mark.parametrize("command", ["train", "evaluate", "sample"])
def test_torchrun_takes_no_flag_of_ours_for_its_own(command):
    ours = make_parser()._subparsers._group_actions[0].choices[command]._option_string_actions
    for flag in sorted(set(ours) - {"--run", "-h"}):
        given = ["-m", "diffenc_ct.cli", command, flag]
        assert get_args_parser().parse_args(given).training_script_args == [command, flag]


def test_torchrun_trains_stops_on_sigterm_and_goes_on(tmp_path):
    options = "--network-options width=8 layers=1 --encoder-network-options width=8 layers=1"
    command = f"-m torch.distributed.run --standalone --nproc-per-node 2 -m diffenc_ct.cli train --data swirl {options}"
    more = f"--folder {tmp_path / 'run'} --batch-size 16 --save-every 2 --device cpu --quiet"
    process = subprocess.Popen(
        [sys.executable, *command.split(), *more.split(), "--steps", "1000000"],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_a_checkpoint(tmp_path / "run", lambda: process.poll() is None)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert errors.count("stopped by SIGTERM at step") == 1, errors
    step = latest(tmp_path / "run" / "checkpoints")[1].step
    assert f"stopped by SIGTERM at step {step}, which is saved" in errors


def train_ranked(configs, run):
    """Each process with a configuration of its own."""
    with launched() as processes:
        return train_here(configs[processes.rank], run)


def test_processes_of_different_configurations_are_refused(tmp_path):
    elsewhere = replace(tiny(), {"data.root": "/elsewhere", "data.download": True})
    with Group(2, tmp_path) as group:
        assert group.call(train_ranked, (tiny(), elsewhere), tmp_path / "same")
        group.send(train_ranked, (tiny(), tiny(training__save_every=3)), tmp_path / "run")
        with pytest.raises(RuntimeError, match="process 1 has another configuration"):
            group.receive(1)
        group.members[1].kill()
        with pytest.raises(RuntimeError, match="ConnectionError"):
            group.receive(0)


def train_on_other_data(config, run):
    """The second process with its training examples in another order."""
    data = load_dataset("swirl")
    with launched() as processes:
        if processes.rank == 1:
            data = dataclasses.replace(data, train=data.train.flip(0))
        return train(config, run, data=data).metrics


def test_processes_of_different_data_are_refused(tmp_path):
    with Group(2, tmp_path) as group:
        group.send(train_on_other_data, tiny(), tmp_path / "run")
        with pytest.raises(RuntimeError, match="process 1 has other data than the first"):
            group.receive(1)
        group.members[1].kill()
        with pytest.raises(RuntimeError, match="ConnectionError"):
            group.receive(0)
    assert not (tmp_path / "run").exists()
