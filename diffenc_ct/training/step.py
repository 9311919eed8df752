"""One step of training: the gradient of the ELBO in bits per dimension, and what follows from it.

Everything random in a step is a function of (seed, step): which examples, their depths t (stratified over the batch),
their noise, dropout. Every process takes its rows of the batch and sums its gradients with the others'.
"""

import math

import torch
from torch import Tensor, nn

from diffenc_ct.calibration._tightness import RunningNoiseLevel
from diffenc_ct.distributed import ALONE, Processes, TrainingStopped
from diffenc_ct.elbo import LowDiscrepancyDepths, elbo
from diffenc_ct.model import DiffEnc, Heads
from diffenc_ct.process import normal_like
from diffenc_ct.training.config import Config
from diffenc_ct.training.heads import regression_loss
from diffenc_ct.training.interior import InteriorGradient
from diffenc_ct.training.meter import TERMS
from diffenc_ct.training.randomness import (
    DEPTH,
    DROPOUT,
    NOISE,
    batch_indices,
    derived_seed,
    generator_for,
)
from diffenc_ct.training.state import State


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
