"""The training loop.

Minimises the ELBO in bits per dimension. Everything random in a step is a function of (seed, step): which examples,
their depths t (stratified over the batch), their noise, dropout. A run that is killed and resumed therefore
ends with the same weights, bit for bit, as one that was not (on the same CPU and number of threads and processes).

Under torchrun every process takes its rows of each batch and sums its gradients with the others'; the first one writes.
docs/training.md says what is guaranteed.
"""

import math
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from diffenc_ct.data import Dataset, load_dataset
from diffenc_ct.depths import LowDiscrepancyDepths
from diffenc_ct.elbo import elbo
from diffenc_ct.heads import regression_loss
from diffenc_ct.model import DiffEnc, Heads
from diffenc_ct.process import normal_like
from diffenc_ct.tightness import RunningNoiseLevel
from diffenc_ct.training.checkpoints import Checkpoint, checkpoint_path, prune, write_checkpoint
from diffenc_ct.training.config import Config, replace
from diffenc_ct.training.evaluation import Evaluation, evaluate
from diffenc_ct.training.folder import RunFolder, StopSignals
from diffenc_ct.training.interior import InteriorGradient
from diffenc_ct.training.meter import TERMS, Meter
from diffenc_ct.training.processes import ALONE, TIMEOUT, Processes, TrainingStopped, launched
from diffenc_ct.training.randomness import (
    DEPTH,
    DROPOUT,
    NOISE,
    batch_indices,
    derived_seed,
    generator_for,
)
from diffenc_ct.training.state import State
from diffenc_ct.training.tensorboard import Events, open_events, require_tensorboard

__all__ = ["Summary", "TrainingStopped", "learning_rate", "train", "training_step"]


@dataclass(frozen=True)
class Summary:
    """What a finished run reports: steps done, last evaluation, steps skipped, training speed."""

    steps: int
    metrics: dict[str, float]
    skipped: int
    images_per_second: float


def train(
    config: Config,
    run: str | Path,
    *,
    resume: bool = False,
    device: str | torch.device = "cpu",
    data: Dataset | None = None,
    progress: bool = False,
    timeout: float = TIMEOUT,
) -> Summary:
    """Train to config.training.steps in the folder `run`, and leave metrics and checkpoints there.

    resume: go on with what the folder holds (or begin, where it holds nothing). data: instead of the named data
    set. timeout: seconds that the processes of a launch wait for each other. Raises ValueError or OSError for what is
    wrong before the start, TrainingStopped afterwards, and ConnectionError where another process is lost; the last
    checkpoint is intact in every case.
    """
    settings = config.training
    if settings.tensorboard:
        require_tensorboard()
    if data is None:
        named = config.data
        data = load_dataset(
            named.name, root=named.root, levels=named.levels, download=named.download
        )
    with launched(device, timeout=timeout) as processes, ExitStack() as stack:
        _check_launch(config, processes)
        folder = RunFolder(run, config, resume=resume)
        processes.on_first(folder.check)
        state = State.fresh(config, data, processes.device)
        signals = stack.enter_context(StopSignals())
        saved = processes.on_first(_begin, folder, stack)
        if saved is not None:
            state.restore(saved)
        metrics = {} if saved is None else saved.metrics
        events = None
        if processes.first and settings.tensorboard:
            events = stack.enter_context(
                open_events(folder.path / "tensorboard", data, after=state.step)
            )
        speed = Meter(settings.batch_size)
        bar = tqdm(
            total=settings.steps,
            initial=state.step,
            unit="step",
            disable=not (progress and processes.first),
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 60,
        )
        stack.enter_context(bar)
        while state.step < settings.steps:
            terms = training_step(state, config, data.train, processes.device, processes)
            speed.count(terms)
            bar.update()
            bar.set_postfix_str(speed.text(), refresh=False)
            done = state.step == settings.steps
            row: dict[str, Any] = {}
            evaluation = None
            if done or state.step % settings.log_every == 0:
                row = speed.row() | {"learning_rate": learning_rate(config, state.step - 1)}
            if done or state.step % settings.eval_every == 0:
                evaluation = evaluate(
                    state.averaged,
                    data.test[: settings.eval_examples],
                    noise_level=state.noise_level,
                    processes=processes,
                )
                metrics = evaluation.metrics()
                row |= {f"test_{name}": value for name, value in metrics.items()}
                if progress and processes.first:
                    bar.write(f"step {state.step}: test {metrics['bpd']:.4f} bits/dim")
            # All stop at the same step, whichever of them a signal reached.
            stop = processes.largest(signals.received or 0)
            saving = done or stop or state.step % settings.save_every == 0
            if row or saving:
                fresh = metrics if evaluation else {}
                sealed = state.checkpoint(config, data, fresh) if saving else None
                processes.on_first(_record, folder, events, state, row, evaluation, sealed)
                speed.restart()
            if stop and not done:
                raise TrainingStopped(
                    f"stopped by {Signals(stop).name} at step {state.step}, which is saved; "
                    f"resume with: diffenc train --run {folder.path} --resume",
                    exit_code=128 + stop,
                )
        return Summary(state.step, metrics, state.skipped, speed.overall())


def training_step(
    state: State,
    config: Config,
    images: Tensor,
    device: torch.device,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """One optimiser step, in place; returns the ELBO's terms in bits per dimension, the regression of paired heads
    (per dimension) and the gradient's norm.

    Every process takes its rows of the batch, in `accumulate` parts. Depths and noise are those of the whole batch,
    so that the numbers of processes and parts change the result by rounding (and dropout's draws) only.
    """
    settings, seed, step = config.training, config.training.seed, state.step
    batch, rows = settings.batch_size, processes.rows(settings.batch_size)
    x = images[batch_indices(seed, step, batch, len(images))[rows]].to(device)
    like = torch.empty((batch, *x.shape[1:]), device=device)
    t, _ = LowDiscrepancyDepths().draw(
        batch, like=like, generator=generator_for(seed, DEPTH, step, device=device)
    )
    generator = generator_for(seed, NOISE, step, device=device)
    noise, noise_0 = normal_like(like, generator), normal_like(like, generator)
    if settings.channels_last and x.ndim == 4:
        # After the draws, whose order is that of memory.
        last = torch.channels_last
        x, noise, noise_0 = (v.contiguous(memory_format=last) for v in (x, noise, noise_0))
    torch.manual_seed(derived_seed(seed, DROPOUT, step, processes.rank))
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, step)

    model = state.model.train()
    interior = InteriorGradient(model)
    state.optimizer.zero_grad(set_to_none=True)
    sums = torch.zeros(4, device=device)
    level = state.noise_level
    seen: list[tuple[Tensor, Heads]] = []
    counts: list[Tensor] = []
    parts = (v.chunk(settings.accumulate) for v in (x, t[rows], noise[rows], noise_0[rows]))
    for x_, t_, noise_, noise_0_ in zip(*parts, strict=True):
        low = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
        with low, interior:
            terms = elbo(
                model,
                x_,
                noise_level=level,
                t=t_,
                noise=noise_,
                noise_0=noise_0_,
                ends_fraction=settings.ends_fraction,
                rate_fraction=settings.rate_fraction,
                observe=lambda gamma, errors: seen.append((gamma, errors)),
            ).bits_per_dimension()
        gamma, errors = seen.pop()
        regression = regress_first_head(model, gamma, errors)
        interior.backward(
            terms.total.sum() / batch, terms.diffusion, retain_graph=model.heads == "paired"
        )
        if model.heads == "paired":
            # Into the network only: the encoder is to serve the ELBO, not this regression.
            (regression.sum() / batch).backward(inputs=list(model.network.parameters()))
        each = (terms.reconstruction, terms.diffusion, terms.latent, regression)
        sums += torch.stack([term.detach().sum() for term in each])
        if isinstance(level, RunningNoiseLevel):
            counts.append(level.count(gamma, errors))
    counted = [torch.stack(counts).sum(0)] if counts else []
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    processes.sum([*gradients, sums, *counted])
    limit = math.inf if config.optimizer.clip is None else config.optimizer.clip
    norm = nn.utils.clip_grad_norm_(model.parameters(), limit)
    values = dict(zip(TERMS, [*(sums / batch).tolist(), norm.item()], strict=True))

    if broken := [name for name, value in values.items() if not math.isfinite(value)]:
        if settings.on_nan == "stop":
            raise TrainingStopped(
                f"step {step}: {broken[0]} is {values[broken[0]]} (seed {seed}, batch seed "
                f"{derived_seed(seed, NOISE, step)}); lower optimizer.learning_rate, set optimizer.clip, or pass "
                "over such steps with --on-nan skip. The last checkpoint is intact.",
                exit_code=1,
            )
        state.skipped += 1
        state.step += 1
        return values
    state.optimizer.step()
    state.step += 1
    state.update_averages()
    if isinstance(level, RunningNoiseLevel):
        level.update(counted[0])
    return values


def regress_first_head(model: DiffEnc, gamma: Tensor, errors: Heads) -> Tensor:
    """The loss that tells paired heads apart, of which the ELBO sees one sum only: (batch,); 0 for a single head."""
    if model.heads != "paired":
        return torch.zeros_like(gamma)
    return regression_loss(errors.x_hat, gamma, model.prediction)


def learning_rate(config: Config, step: int) -> float:
    """Linear warm-up to the full rate, then constant or half a cosine to zero at the last step."""
    optimizer, steps = config.optimizer, config.training.steps
    rate = optimizer.learning_rate * min(1.0, (step + 1) / max(optimizer.warmup, 1))
    if optimizer.decay == "cosine":
        done = max(0, step - optimizer.warmup) / max(1, steps - optimizer.warmup)
        rate *= 0.5 * (1 + math.cos(math.pi * done))
    return rate


def _begin(folder: RunFolder, stack: ExitStack) -> Checkpoint | None:
    """Take the folder until the stack is left; the checkpoint to go on from."""
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


def _check_launch(config: Config, processes: Processes) -> None:
    """Refuse a batch that the processes cannot share, and processes that would not do the same."""
    settings = config.training
    if settings.batch_size % (settings.accumulate * processes.size):
        raise ValueError(
            f"training.batch_size = {settings.batch_size}; among {processes.size} processes in {settings.accumulate} "
            f"parts each it must be a multiple of {settings.accumulate * processes.size}"
        )
    mine = replace(config, {"data.root": None, "data.download": False}).to_json()
    if processes.on_first(str, mine) != mine:
        raise ValueError(
            f"process {processes.rank} has another configuration than the first; start all with the same arguments "
            "and files"
        )
