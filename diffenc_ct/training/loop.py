"""The training loop.

Minimises the ELBO in bits per dimension. Everything random in a step is a function of (seed, step): which examples,
their depths t (stratified over the batch), their noise, dropout. A run that is killed and resumed therefore
ends with the same weights, bit for bit, as one that was not (on the same CPU and number of threads).
"""

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
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
from diffenc_ct.training.checkpoints import checkpoint_path, prune, write_checkpoint
from diffenc_ct.training.config import Config
from diffenc_ct.training.evaluation import evaluate
from diffenc_ct.training.folder import RunFolder, StopSignals
from diffenc_ct.training.randomness import (
    DEPTH,
    DROPOUT,
    NOISE,
    batch_indices,
    derived_seed,
    generator_for,
)
from diffenc_ct.training.state import State

# What a step reports; the first three make the ELBO.
TERMS = ("reconstruction", "diffusion", "latent", "regression", "gradient_norm")


class TrainingStopped(RuntimeError):
    """Training ended early on purpose: a loss that is not finite, or a signal. The message says what to do."""

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


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
) -> Summary:
    """Train to config.training.steps in the folder `run`, and leave metrics and checkpoints there.

    resume: go on with what the folder holds (or begin, where it holds nothing). data: instead of the named data
    set. Raises ValueError or OSError for what is wrong before the start, TrainingStopped afterwards; the last
    checkpoint is intact in every case.
    """
    settings = config.training
    device = torch.device(device)
    if data is None:
        named = config.data
        data = load_dataset(
            named.name, root=named.root, levels=named.levels, download=named.download
        )
    folder = RunFolder(run, config, resume=resume)
    folder.check()
    state = State.fresh(config, data, device)
    with folder, StopSignals() as signals:
        if (saved := folder.latest()) is not None:
            state.restore(saved)
        folder.forget_after(state.step)
        metrics = {} if saved is None else saved.metrics
        speed = Meter(settings.batch_size)
        bar = tqdm(
            total=settings.steps,
            initial=state.step,
            unit="step",
            disable=not progress,
            dynamic_ncols=True,
            mininterval=0.2 if sys.stderr.isatty() else 60,
        )
        with bar:
            while state.step < settings.steps:
                terms = training_step(state, config, data.train, device)
                speed.count(terms)
                bar.update()
                bar.set_postfix_str(speed.text(), refresh=False)
                done = state.step == settings.steps
                row: dict[str, Any] = {}
                if done or state.step % settings.log_every == 0:
                    row = speed.row() | {"learning_rate": learning_rate(config, state.step - 1)}
                if done or state.step % settings.eval_every == 0:
                    metrics = evaluate(
                        state.averaged,
                        data.test[: settings.eval_examples],
                        noise_level=state.noise_level,
                    ).metrics()
                    row |= {f"test_{name}": value for name, value in metrics.items()}
                    speed.restart()
                    if progress:
                        bar.write(f"step {state.step}: test {metrics['bpd']:.4f} bits/dim")
                if row:
                    folder.log({"step": state.step, "skipped": state.skipped, **row})
                if done or signals.received or state.step % settings.save_every == 0:
                    fresh = metrics if done or state.step % settings.eval_every == 0 else {}
                    save(state, config, data, folder, fresh)
                    speed.restart()
                if signals.received and not done:
                    raise TrainingStopped(
                        f"stopped by {signals.received.name} at step {state.step}, which is saved; "
                        f"resume with: diffenc train --run {folder.path} --resume",
                        exit_code=128 + signals.received,
                    )
        return Summary(state.step, metrics, state.skipped, speed.overall())


def training_step(
    state: State, config: Config, images: Tensor, device: torch.device
) -> dict[str, float]:
    """One optimiser step, in place; returns the ELBO's terms in bits per dimension, the regression of paired heads
    (per dimension) and the gradient's norm.

    The batch is cut into `accumulate` parts whose depths and noise are those of the whole batch, so that the
    number of parts changes the result by rounding (and dropout's draws) only.
    """
    settings, seed, step = config.training, config.training.seed, state.step
    x = images[batch_indices(seed, step, settings.batch_size, len(images))].to(device)
    like = torch.empty(x.shape, device=device)
    if settings.channels_last and x.ndim == 4:
        x, like = (part.contiguous(memory_format=torch.channels_last) for part in (x, like))
    t, _ = LowDiscrepancyDepths().draw(
        len(x), like=like, generator=generator_for(seed, DEPTH, step, device=device)
    )
    generator = generator_for(seed, NOISE, step, device=device)
    noise, noise_0 = normal_like(like, generator), normal_like(like, generator)
    torch.manual_seed(derived_seed(seed, DROPOUT, step))
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, step)

    model = state.model.train()
    state.optimizer.zero_grad(set_to_none=True)
    sums = torch.zeros(4, device=device)
    seen: list[tuple[Tensor, Heads]] = []
    parts = (values.chunk(settings.accumulate) for values in (x, t, noise, noise_0))
    for x_, t_, noise_, noise_0_ in zip(*parts, strict=True):
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            terms = elbo(
                model,
                x_,
                noise_level=state.noise_level,
                t=t_,
                noise=noise_,
                noise_0=noise_0_,
                ends_fraction=settings.ends_fraction,
                observe=lambda gamma, errors: seen.append((gamma, errors)),
            ).bits_per_dimension()
        regression = regress_first_head(model, *seen[-1])
        (terms.total.sum() / len(x)).backward(retain_graph=model.heads == "paired")
        if model.heads == "paired":
            # Into the network only: the encoder is to serve the ELBO, not this regression.
            (regression.sum() / len(x)).backward(inputs=list(model.network.parameters()))
        each = (terms.reconstruction, terms.diffusion, terms.latent, regression)
        sums += torch.stack([term.detach().sum() for term in each])
    limit = math.inf if config.optimizer.clip is None else config.optimizer.clip
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), limit)
    values = dict(zip(TERMS, [*(sums / len(x)).tolist(), norm.item()], strict=True))

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
    if isinstance(state.noise_level, RunningNoiseLevel):
        counted = torch.stack([state.noise_level.count(*pair) for pair in seen])
        state.noise_level.update(counted.sum(0))
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


def save(
    state: State, config: Config, data: Dataset, folder: RunFolder, metrics: dict[str, float]
) -> None:
    """Write the checkpoint of this step and delete those no longer kept."""
    try:
        write_checkpoint(
            checkpoint_path(folder.checkpoints, state.step), state.checkpoint(config, data, metrics)
        )
    except OSError as error:
        raise TrainingStopped(
            f"the checkpoint of step {state.step} cannot be written ({error}); the one before is intact. "
            f"Make room, then: diffenc train --run {folder.path} --resume",
            exit_code=2,
        ) from error
    prune(folder.checkpoints, config.training.keep)


class Meter:
    """Means of the loss terms since the last row, and images a second, evaluations and saving left out."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size, self.images, self.seconds = batch_size, 0, 0.0
        self.recent: list[dict[str, float]] = []
        self.shown = math.nan
        self.since = time.perf_counter()

    def restart(self) -> None:
        """Do not count the time since the last step."""
        self.since = time.perf_counter()

    def count(self, terms: dict[str, float]) -> None:
        """Take in a step."""
        now = time.perf_counter()
        self.seconds += now - self.since
        self.since = now
        self.images += self.batch_size
        self.recent.append(terms)
        bpd = sum(terms[name] for name in TERMS[:3])
        self.shown = bpd if math.isnan(self.shown) else 0.95 * self.shown + 0.05 * bpd

    def overall(self) -> float:
        """Images a second since the start."""
        return self.images / self.seconds if self.seconds else 0.0

    def text(self) -> str:
        """For the progress bar."""
        return f"{self.shown:.3f} bits/dim, {self.overall():.1f} images/s"

    def row(self) -> dict[str, float]:
        """Means since the last call."""
        finite = [
            terms for terms in self.recent if all(math.isfinite(value) for value in terms.values())
        ]
        names = finite[0] if finite else {}
        means = {name: sum(terms[name] for terms in finite) / len(finite) for name in names}
        self.recent = []
        bpd = {"bpd": sum(means[name] for name in TERMS[:3])} if means else {}
        return {**bpd, **means, "images_per_second": self.overall()}
