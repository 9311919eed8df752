"""The training loop: steps (see step.py), rows, evaluations and checkpoints, until the end or a fault.

All that a step draws is a function of (seed, step). A run that is killed and resumed therefore ends with the same
weights, bit for bit, as one that was not (on the same CPU and number of threads and processes).

Under torchrun every process runs this loop, and the first one writes. docs/training.md says what is guaranteed.
"""

import math
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from tqdm import tqdm

from diffenc_ct.data import Dataset, load_dataset
from diffenc_ct.distributed import TIMEOUT, Processes, TrainingStopped, Work, launched
from diffenc_ct.elbo import InfiniteDepth
from diffenc_ct.training.changes import Changes
from diffenc_ct.training.checkpoints import (
    Checkpoint,
    checkpoint_path,
    list_checkpoints,
    prune,
    write_checkpoint,
)
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.data_record import DataRecord
from diffenc_ct.training.evaluation import Evaluation, evaluate
from diffenc_ct.training.examples import told
from diffenc_ct.training.folder import RunFolder, StopSignals
from diffenc_ct.training.meter import Meter
from diffenc_ct.training.randomness import NOISE, derived_seed
from diffenc_ct.training.runs import initial_weights
from diffenc_ct.training.state import State
from diffenc_ct.training.step import learning_rate, training_step
from diffenc_ct.training.tensorboard import Events, open_events, require_tensorboard
from diffenc_ct.verification import check_parts

__all__ = ["Summary", "TrainingStopped", "learning_rate", "train", "training_step"]


@dataclass(frozen=True)
class Summary:
    """What a finished run reports.

    Attributes:
        steps: done in all.
        metrics: of the last evaluation.
        skipped: steps that were passed over because a number was not finite.
        images_per_second: of training, without evaluations and saving.
    """

    steps: int
    metrics: dict[str, float]
    skipped: int
    images_per_second: float


def train(
    config: Config,
    run: str | Path,
    *,
    resume: bool = False,
    override: bool = False,
    device: str | torch.device = "cpu",
    data: Dataset | None = None,
    progress: bool = False,
    timeout: float = TIMEOUT,
) -> Summary:
    """Train to config.training.steps in the folder `run`, and leave metrics and checkpoints there.

    Args:
        config: of the run.
        run: its folder.
        resume: go on with what the folder holds (or begin, where it holds nothing). The configuration may differ in
            the learning rate, clipping, accumulation, intervals and length; RUN/changes.json records it.
        override: when resuming, allow any change under which the weights still fit, and other examples.
        device: "cpu", "cuda", or one GPU by number.
        data: in the place of the data set that the configuration names.
        progress: show a bar, and the evaluations.
        timeout: seconds that the processes of a launch wait for each other.

    Raises:
        ValueError: for what is wrong before the start, as OSError.
        TrainingStopped: for what ends training afterwards; the last checkpoint is intact in every case.
        ConnectionError: where another process is lost.
    """
    settings = config.training
    if settings.tensorboard:
        require_tensorboard()
    if data is None:
        data = load_dataset(**config.data.model_dump())
    with launched(device, timeout=timeout) as processes, ExitStack() as stack:
        seen = DataRecord.of(data)
        _check_launch(config, seen, processes)
        folder = RunFolder(run, config, resume=resume, override=override, data=seen)
        processes.on_first(folder.check)
        state = State.fresh(config, data, processes.device)
        if settings.check_parts:
            check_parts(state.averaged, data.test[:3])  # the one that is never compiled
        signals = stack.enter_context(StopSignals())
        saved, changes = processes.on_first(_begin, folder, stack)
        if saved is not None:
            state.restore(saved)
        elif settings.init_from is not None:
            _begin_with(state, settings.init_from, processes)
        processes.on_first(folder.settle, state.step, changes)
        metrics = {} if saved is None else saved.metrics
        events = None
        if processes.first and settings.tensorboard:
            events = stack.enter_context(
                open_events(folder.path / "tensorboard", data, after=state.step)
            )
        waits = processes.device.type == "cpu"  # there nothing is gained by fetching later
        speed = Meter(settings.batch_size, patience=1 if waits else 16)
        bar = stack.enter_context(_bar(config, state, progress and processes.first))
        while state.step < settings.steps:
            values = training_step(state, config, data, processes.device, processes)
            # All stop at the same step, whichever of them a signal reached.
            stop, done = processes.largest(signals.received or 0), state.step == settings.steps
            due = [done or state.step % every == 0 for every in _every(config)]
            # Nothing that is not finite must reach a checkpoint.
            broken = speed.count(state.step - 1, values, now=bool(stop) or any(due))
            bar.set_postfix_str(speed.text(), refresh=False)
            bar.update()
            if broken and settings.on_nan == "stop":
                raise _not_finite(config, broken, folder)
            logging, evaluating, saving = due
            row: dict[str, Any] = {}
            evaluation, unusable = None, False
            if logging:
                row = speed.row() | {"learning_rate": learning_rate(config, state.step - 1)}
            if evaluating:
                evaluation = _evaluate(config, state, data, processes)
                metrics = evaluation.metrics()
                unusable = not math.isfinite(metrics["bpd"])
                row |= {f"test_{name}": value for name, value in metrics.items()}
                if progress and processes.first:
                    bar.write(f"step {state.step}: test {metrics['bpd']:.4f} bits/dim")
            if row or saving or stop:
                fresh = metrics if evaluation else {}
                keeping = (saving or stop) and not unusable
                sealed = state.checkpoint(config, seen, fresh) if keeping else None
                processes.on_first(_record, folder, events, state, row, evaluation, sealed)
                speed.restart()
            if unusable:
                raise TrainingStopped(
                    f"step {state.step}: bits per dimension of test examples are {metrics['bpd']}; "
                    + _remedy(config, folder),
                    exit_code=1,
                )
            if stop and not done:
                raise TrainingStopped(
                    f"stopped by {Signals(stop).name} at step {state.step}, which is saved; "
                    f"resume with: diffenc train --run {folder.path} --resume",
                    exit_code=128 + stop,
                )
        return Summary(state.step, metrics, state.skipped, speed.overall())


def _bar(config: Config, state: State, shown: bool) -> tqdm:
    return tqdm(
        total=config.training.steps,
        initial=state.step,
        unit="step",
        disable=not shown,
        dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 60,
    )


def _evaluate(config: Config, state: State, data: Dataset, processes: Processes) -> Evaluation:
    """The averaged model on test examples."""
    images, level = data.test[: config.training.eval_examples], InfiniteDepth(state.noise_level)
    model = told(state.averaged, data, "test", len(images))
    return evaluate(model, images, level, work=Work(250, processes=processes))


def _every(config: Config) -> tuple[int, ...]:
    """Steps from row to row, from evaluation to evaluation, from checkpoint to checkpoint."""
    settings = config.training
    return settings.log_every, settings.eval_every, settings.save_every


def _not_finite(
    config: Config, broken: dict[int, dict[str, float]], folder: RunFolder
) -> TrainingStopped:
    step, terms = next(iter(broken.items()))
    name, value = next((n, v) for n, v in terms.items() if not math.isfinite(v))
    seed = config.training.seed
    return TrainingStopped(
        f"step {step}: {name} is {value} (seed {seed}, batch seed {derived_seed(seed, NOISE, step)}); "
        f"{_remedy(config, folder)}, or pass over such steps with --on-nan skip",
        exit_code=1,
    )


def _remedy(config: Config, folder: RunFolder) -> str:
    less = f"--learning-rate {config.optimizer.learning_rate / 2:g} or --clip 1"
    if list_checkpoints(folder.checkpoints):
        return f"the last checkpoint is intact, go on with: diffenc train --run {folder.path} --resume {less}"
    return f"no checkpoint was written yet, start the same again with {less}"


def _begin_with(state: State, run: str, processes: Processes) -> None:
    """Take a run's weights, and say which."""
    fresh = state.begin_with(
        processes.on_first(initial_weights, run), f"training.init_from = {run!r}"
    )
    if processes.first:
        count = len(state.model.state_dict())
        rest = f"; fresh are {', '.join(fresh)}" if fresh else ""
        print(f"{count - len(fresh)} of {count} tensors are those of {run}{rest}", flush=True)


def _begin(folder: RunFolder, stack: ExitStack) -> tuple[Checkpoint | None, Changes]:
    """Take the folder until the stack is left; the checkpoint to go on from, and what has changed since."""
    return stack.enter_context(folder).go_back()


def _record(
    folder: RunFolder,
    events: Events | None,
    state: State,
    row: dict[str, Any],
    evaluation: Evaluation | None,
    sealed: Checkpoint | None,
) -> None:
    """Write what a step leaves: a row, pictures, a checkpoint (and delete those no longer kept)."""
    try:
        if row:
            row = {"skipped": state.skipped, **row}
            folder.log({"step": state.step, **row})
        if events is not None:
            events.add(state.step, state.averaged, row, evaluation)
        if sealed is not None:
            write_checkpoint(checkpoint_path(folder.checkpoints, state.step), sealed)
            prune(folder.checkpoints, folder.config.training.keep)
    except OSError as error:
        raise TrainingStopped(
            f"what step {state.step} leaves cannot be written ({error}); the last checkpoint is intact. "
            f"Make room, then: diffenc train --run {folder.path} --resume",
            exit_code=2,
        ) from error


def _check_launch(config: Config, seen: DataRecord, processes: Processes) -> None:
    """Refuse a batch that the processes cannot share, and processes that would not do the same."""
    settings = config.training
    if settings.batch_size % (settings.accumulate * processes.size):
        raise ValueError(
            f"training.batch_size = {settings.batch_size}; among {processes.size} processes in {settings.accumulate} "
            f"parts each it must be a multiple of {settings.accumulate * processes.size}"
        )
    if settings.cuda_graph and not (
        processes.device.type == "cuda"
        and processes.size == settings.accumulate == 1
        and settings.noise_level != "optimal"
    ):
        raise ValueError(
            "training.cuda_graph records a step of one process with a GPU, in one part, at a fixed noise level: not of "
            f"{processes.size} processes on {processes.device.type}, training.accumulate = {settings.accumulate}, "
            f"training.noise_level = {settings.noise_level}; leave it out (--no-cuda-graph)"
        )
    same = replace(config, {"data.root": None, "data.download": False}).to_json()
    for name, mine in (("another configuration", same), ("other data", str(seen))):
        if processes.on_first(str, mine) != mine:
            raise ValueError(
                f"process {processes.rank} has {name} than the first; start all with the same arguments and files"
            )
