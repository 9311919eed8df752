"""One step of training: the gradient of the ELBO in bits per dimension, and what follows from it.

Everything random in a step is a function of (seed, step): which examples, their depths t (stratified over the batch;
denser where the loss is larger, if so configured), their noise, dropout. Every process takes its rows of the batch;
torch's DistributedDataParallel averages the gradients.

Three gradients are not the ELBO's own:

    regression   of heads that estimate two quantities: it reaches their network only; the encoder is to serve the ELBO
    interior     of a schedule learned between its ends: L_inf does not depend on it, but its estimate's variance does.
                 Since E[l] does not, l an example's diffusion loss at its depth,

                     grad Var[l] = grad E[l^2] = E[2 l grad l],

                 which the one backward pass has but for the factor 2 l
    clip         the largest norm

Nothing here waits for the device, except with on_nan="skip", which must know whether to.

Reference: Kingma et al. 2021, appendix I.2 (the interior of the schedule).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffenc_ct.calibration import RunningNoiseLevel
from diffenc_ct.data import Dataset
from diffenc_ct.distributed import ALONE, Processes
from diffenc_ct.elbo import Draws, ImportanceDepths, InfiniteDepth, Terms
from diffenc_ct.model import Heads
from diffenc_ct.process import normal_like
from diffenc_ct.schedules import Schedule, SchedulePoint
from diffenc_ct.training.config import Config
from diffenc_ct.training.examples import examples_of, labels_of
from diffenc_ct.training.randomness import (
    DEPTH,
    DROPOUT,
    NOISE,
    derived_seed,
    generator_for,
)
from diffenc_ct.training.recorded import Recorded
from diffenc_ct.training.state import State

Part = Callable[[Tensor, Draws, Tensor | None], tuple[Tensor, Terms]]


def training_step(
    state: State,
    config: Config,
    data: Dataset,
    device: torch.device,
    processes: Processes = ALONE,
) -> Float[Tensor, " terms"]:
    """One optimiser step, in place.

    Every process takes its rows of the batch, in `accumulate` parts. Depths and noise are those of the whole batch,
    so that the numbers of processes and parts change the result by rounding (and dropout's draws) only.

    Args:
        state: what is changed.
        config: of the run.
        data: to train on.
        device: of the model.
        processes: of the launch.

    Returns:
        The batch's means of reconstruction, diffusion and latent loss in bits per dimension, the regression of paired
        heads (per dimension), and the gradient's norm, on `device`: see meter.TERMS.

    Raises:
        ConnectionError: where another process is lost.
    """
    settings, level = config.training, state.noise_level
    x, draws, labels = _batch(state, config, data, device, processes)
    parallel = state.parallel(processes, x[:1])
    state.model.train()
    torch.manual_seed(derived_seed(settings.seed, DROPOUT, state.step, processes.rank))
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config, state.step)

    if not settings.cuda_graph:  # a recorded gradient is written where the last one lies
        state.optimizer.zero_grad(set_to_none=True)
    sums, counts, depths = torch.zeros(4, device=device), [], state.depths
    seen: list[Tensor] = []
    part = partial(_part, state, config, parallel, processes.size)
    parts = list(zip(x.chunk(settings.accumulate), draws, labels, strict=True))
    for number, (x_, draws_, labels_) in enumerate(parts, start=1):
        # The last part's backward pass is the one in which the processes meet.
        with processes.answered(), _apart(parallel, number < len(parts)):
            found, nats = (
                _recorded(state, part, x_, draws_, labels_)
                if settings.cuda_graph
                else part(x_, draws_, labels_)
            )
        sums += found
        if isinstance(level, RunningNoiseLevel):
            assert nats.residuals is not None
            counts.append(level.count(nats.residuals.point.gamma, nats.residuals.errors))
        if isinstance(depths, ImportanceDepths):
            assert draws_.t is not None and draws_.weight is not None
            seen.append(depths.count(draws_.t, nats.diffusion / draws_.weight))
    counted, sighted = ([torch.stack(each).sum(0)] if each else [] for each in (counts, seen))
    processes.sum([sums, *counted, *sighted])
    limit = math.inf if config.optimizer.clip is None else config.optimizer.clip
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), limit)
    values = torch.cat([sums / settings.batch_size, norm.detach().reshape(1).to(sums)])

    if settings.on_nan == "skip" and not values.isfinite().all():
        state.skipped += 1
        state.step += 1
        return values
    state.optimizer.step()
    state.step += 1
    state.update_averages()
    if isinstance(level, RunningNoiseLevel):
        level.update(counted[0])
    if isinstance(depths, ImportanceDepths):
        depths.update(sighted[0])
    return values


def _recorded(
    state: State, part: Part, x: Tensor, draws: Draws, labels: Tensor | None
) -> tuple[Tensor, Terms]:
    """What part(x, draws, labels) does, recorded at the first step and launched as one graph from then on."""
    inputs = (x, draws.t, draws.noise, draws.noise_0, draws.weight, labels)
    if state.recorded is None:

        def call(x: Tensor, *rest: Tensor | None) -> tuple[Tensor, Terms]:
            return part(x, Draws(*rest[:-1]), rest[-1])

        state.recorded = Recorded(call, inputs, lambda: state.optimizer.zero_grad(set_to_none=True))
    return state.recorded(*inputs)


def _part(
    state: State,
    config: Config,
    parallel: nn.Module,
    size: int,
    x: Tensor,
    draws: Draws,
    labels: Tensor | None,
) -> tuple[Tensor, Terms]:
    """Add a part of the batch to the gradients; sums over it of what a step reports, (4,), and its terms in nats."""
    settings, heads = config.training, state.model.heads
    loss = InfiniteDepth(
        state.noise_level,
        ends_fraction=settings.ends_fraction,
        rate_fraction=settings.rate_fraction,
    )
    low = torch.autocast(x.device.type, torch.bfloat16, enabled=settings.precision == "bf16")
    with low, _interior(state.model.schedule) as interior:
        nats: Terms = parallel(x, loss, draws=draws, condition=labels)
    terms, residuals = nats.bits_per_dimension(), nats.residuals
    assert residuals is not None
    share = settings.batch_size / size  # for the mean over processes is taken
    regression = heads.regression(residuals.errors, residuals.point.gamma)
    if regression is not None:
        _add_regression(heads, regression.sum() / share)
    for tensor in interior:
        _scale_gradient(tensor, 2 * terms.diffusion.detach())
    (terms.total.sum() / share).backward()  # type: ignore[no-untyped-call]
    each = [terms.reconstruction, terms.diffusion, terms.latent]
    each.append(terms.latent.new_zeros(1) if regression is None else regression)
    return torch.stack([term.detach().sum() for term in each]), nats


def _batch(
    state: State, config: Config, data: Dataset, device: torch.device, processes: Processes
) -> tuple[Tensor, list[Draws], list[Tensor | None]]:
    """This process's examples of a step, and for each of their parts what is drawn, and labels."""
    settings, seed, step = config.training, config.training.seed, state.step
    batch, rows = settings.batch_size, processes.rows(settings.batch_size)
    x = examples_of(data, seed, step, batch, rows)
    x = x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)
    like = torch.empty((batch, *x.shape[1:]), device=device)
    t, weight = state.depths.draw(
        batch, like=like, generator=generator_for(seed, DEPTH, step, device=device)
    )
    generator = generator_for(seed, NOISE, step, device=device)
    noise, noise_0 = normal_like(like, generator), normal_like(like, generator)
    if settings.channels_last and x.ndim == 4:
        # After the draws, whose order is that of memory.
        last = torch.channels_last
        x, noise, noise_0 = (v.contiguous(memory_format=last) for v in (x, noise, noise_0))
    parts = (v[rows].chunk(settings.accumulate) for v in (t, noise, noise_0, weight))
    labels = labels_of(data, seed, step, batch, rows, settings.condition_dropout)
    told: list[Tensor | None] = [None] * settings.accumulate
    if labels is not None:
        told = list(labels.to(device).chunk(settings.accumulate))
    return x, [Draws(*part) for part in zip(*parts, strict=True)], told


def _add_regression(heads: Heads, loss: Tensor) -> None:
    """Add its gradient to that of the heads' parameters alone.

    Not by `backward`: a backward pass of its own would count as the one that DistributedDataParallel waits for.
    """
    parameters = [p for p in heads.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    for parameter, gradient in zip(parameters, found, strict=True):
        if gradient is not None:
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


@contextmanager
def _interior(schedule: Schedule) -> Iterator[list[Tensor]]:
    """The interior's tensors of the depths at which the schedule is evaluated meanwhile (its ends are scalars).

    Taken where they arise: what DistributedDataParallel returns may be behind the loss, not before it.
    """
    found: list[Tensor] = []

    def note(module: nn.Module, arguments: object, point: SchedulePoint) -> None:
        if point.gamma.ndim:
            found.extend(tensor for tensor in point.interior if tensor.requires_grad)

    with schedule.register_forward_hook(note):
        yield found


def _apart(parallel: nn.Module, waits: bool) -> AbstractContextManager[None]:
    """A context whose backward passes leave the gradients on their process, if there are more parts to come."""
    if waits and isinstance(parallel, nn.parallel.DistributedDataParallel):
        return parallel.no_sync()
    return nullcontext()


def _scale_gradient(tensor: Tensor, factor: Tensor) -> None:
    """Multiply what arrives at a tensor in the backward pass."""
    tensor.register_hook(lambda gradient: factor * gradient)  # type: ignore[no-untyped-call]


def learning_rate(config: Config, step: int) -> float:
    """Linear warm-up to the full rate, then constant or half a cosine to zero at the last step."""
    optimizer, steps = config.optimizer, config.training.steps
    rate = optimizer.learning_rate * min(1.0, (step + 1) / max(optimizer.warmup, 1))
    if optimizer.decay == "cosine":
        done = max(0, step - optimizer.warmup) / max(1, steps - optimizer.warmup)
        rate *= 0.5 * (1 + math.cos(math.pi * done))
    return rate
