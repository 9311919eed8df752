"""Samples of a model by any solver: one call.

    z_1 ~ N(0, I),    z_0 = solver(reverse process, z_1, grid),    x = the most probable data given z_0

Each image owns its random numbers: it depends on the generator's state and its own index, not on the batch size (up
to rounding; adaptive ODE solvers share their steps within a batch, so there it is up to their tolerance).

The probability flow (noise level 0) needs E[x_t | z] and E[x_t' | z] apart. A single head that was trained with an
encoder other than the identity or the non-trainable one gives their sum only, which the reverse SDE at eta = 1 needs
and no other process is right with: there sampling defaults to noise level 1.

Reference: Nielsen et al. 2024, section 3; MATH: sections 4 and 6 of the theory.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffenc_ct.distributed import ALONE, Processes
from diffenc_ct.elbo.named_steps import StateRatio
from diffenc_ct.encoders import IdentityEncoder, NonTrainableEncoder
from diffenc_ct.model import DiffEnc, Heads
from diffenc_ct.process import ConstantNoiseLevel, NoiseLevel, as_noise_level
from diffenc_ct.sampling.grids import make_grid
from diffenc_ct.sampling.names import Solver, TorchDiffEq, TorchSDE, make_solver
from diffenc_ct.sampling.problem import Grid, ImageNoise, Problem

DEFAULT = "exponential"
_STEPS = {"exponential": 30, "torchdiffeq": 64, "other": 256}


@dataclass(frozen=True)
class Trajectory:
    """The path of some images: gamma (k,), z and x_hat (k, images, *data), from noise to data."""

    gamma: Tensor
    z: Tensor
    x_hat: Tensor


@dataclass(frozen=True)
class Samples:
    """samples: levels or reals (n, *data); z_1 and z_0: the latents at both ends; log: solver, steps, seconds, ...

    evaluations: network evaluations an image took (the mean over batches where they differ).
    """

    samples: Tensor
    z_0: Tensor
    z_1: Tensor
    evaluations: float
    trajectory: Trajectory | None
    log: dict[str, Any]


def flow_is_exact(model: DiffEnc) -> bool:
    """Whether the model's probability flow can keep the marginals: paired heads, or an encoder that needs none."""
    return model.paired or isinstance(model.encoder, (IdentityEncoder, NonTrainableEncoder))


@torch.no_grad()
def sample(
    model: DiffEnc,
    n: int | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    solver: str | Solver = DEFAULT,
    steps: int | None = None,
    noise_level: float | NoiseLevel | None = None,
    ratio: float | Tensor | StateRatio = 1.0,
    schedule: str | Tensor | None = None,
    calibration: Any = None,
    latents: Tensor | None = None,
    trajectory: int = 0,
    batch_size: int = 256,
    rtol: float | None = None,
    atol: float | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    processes: Processes = ALONE,
) -> Samples:
    """n samples of the model.

    shape: of one example, unless model.shape or latents say it. solver: a name (see `solvers`) or a callable
    (problem, z, grid) -> z_0. steps: 30 for exponential integrators, 64 for fixed ODE methods, else 256; adaptive ODE
    methods take rtol and atol instead. noise_level: eta; by default 0 for the exponential integrators (1 where the
    flow is not exact), 0 for ODE methods, else 1. ratio: w of the ancestral steps, a number or one a step, counted
    from the data (steps,) or (steps, *data), or a function of the step and the heads (see `elbo`). schedule:
    "uniform", "log-snr", "balanced", or depths (steps + 1,) increasing from 0 to 1. calibration: its grid, finest w*
    and eta*, for the ancestral solver. latents: z_1 (n, *data) instead of draws. trajectory: the path of the first so
    many images. batch_size: at a time. processes: share the batches, and all return all images; `generator` must be
    in the same state on each.

    Raises ValueError for unknown names, impossible combinations, bad shapes, or a solver that diverged.
    """
    solve = make_solver(solver, rtol=rtol, atol=atol) if isinstance(solver, str) else solver
    if not callable(solve):
        raise TypeError(f"solver={solver!r} must be a name or a callable (problem, z, grid) -> z_0")
    flow = isinstance(solve, TorchDiffEq)
    adaptive = bool(getattr(solve, "adaptive", False))
    if calibration is not None:
        if solver != "ancestral" or not (ratio == 1.0 and schedule is None and steps is None):
            raise ValueError(
                'a calibration belongs to solver="ancestral" and brings its own grid, steps and ratio; leave them out'
            )
        steps, schedule = calibration.depth, calibration.grid
        ratio = calibration.finest_ratio
        noise_level = calibration.noise_level if noise_level is None else noise_level
    if adaptive and not (steps is None and schedule is None):
        raise ValueError(f"solver={solver!r} chooses its own steps; give rtol and atol, not steps")
    kind = "exponential" if _is_exponential(solve) else "torchdiffeq" if flow else "other"
    if steps is None:
        steps = len(schedule) - 1 if isinstance(schedule, Tensor) else _STEPS[kind]
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps={steps!r}; a sampler needs a whole number of at least 1")
    level = _noise_level(model, noise_level, kind, solver)
    if not callable(ratio):
        ratio = torch.as_tensor(ratio)
        if not (ratio > 0).all() or (ratio.ndim and len(ratio) != steps):
            raise ValueError(
                f"ratio must be positive, one number or one a step ({steps}); got {ratio}"
            )
    if kind != "other" or isinstance(solve, TorchSDE):
        if callable(ratio) or not (ratio == 1).all():
            raise ValueError(
                f'ratio is for solver="ancestral"; {solver!r} has no steps of that form'
            )
    depths = make_grid(
        model.schedule, steps, schedule if schedule is not None else _placement(kind)
    )
    grid = Grid(depths.flip(0).cpu(), model.schedule(depths.flip(0)).gamma.double().cpu())

    like, seed = _like(model), _seed(generator)
    shape = _shape(model, shape, latents)
    n = len(latents) if n is None and latents is not None else n
    if n is None or n < 1 or batch_size < 1 or not 0 <= trajectory <= min(n, batch_size):
        raise ValueError(
            f"n={n} and batch_size={batch_size} must be at least 1, trajectory={trajectory} between 0 and both"
        )
    if latents is not None and latents.shape != (n, *shape):
        raise ValueError(f"latents {tuple(latents.shape)} must be {(n, *shape)}")

    if not adaptive:  # elsewhere images do not depend on their batch
        batch_size = max(trajectory, min(batch_size, -(-n // processes.size)))

    def solve_part(first: int) -> tuple[Tensor, Tensor, int, list[tuple[Tensor, Tensor, Tensor]]]:
        """z_1, z_0, evaluations and the observed path of a batch."""
        indices = range(first, min(first + batch_size, n))
        noise, path = ImageNoise(seed, indices), []

        def observe(z: Tensor, gamma: Tensor, heads: Heads) -> None:
            path.append((gamma.cpu(), z[:trajectory].cpu(), heads.x_hat[:trajectory].cpu()))

        z = noise(like.new_empty(len(indices), *shape))
        if latents is not None:
            z = latents[first : first + len(indices)].to(like)
        problem = Problem(
            model,
            level,
            noise,
            ratio=ratio,
            observer=observe if trajectory and first == 0 else None,
        )
        return z, solve(problem, z, grid), problem.evaluations * len(indices), path

    began = time.perf_counter()
    parts = processes.spread(solve_part, range(0, n, batch_size), progress)
    starts, ends, counts, paths = zip(*parts, strict=True)
    z_0, evaluations, path = torch.cat(ends), sum(counts), paths[0]
    if not z_0.isfinite().all():
        bad = int((~z_0.flatten(1).isfinite().all(1)).sum())
        raise ValueError(
            f"{bad} of {n} samples are not finite: solver={solver!r} diverged with steps={steps}; take more steps"
        )
    name = solver if isinstance(solver, str) else getattr(solver, "__name__", type(solver).__name__)
    log = {
        "solver": name,
        "steps": None if adaptive else steps,
        "noise_level": getattr(
            level, "eta", "one a step" if calibration is not None else "a function of gamma"
        ),
        "seconds": time.perf_counter() - began,
        "evaluations": evaluations / n,
    }
    return Samples(
        model.decode(z_0, grid.gamma[-1].to(z_0)),
        z_0,
        torch.cat(starts),
        evaluations / n,
        Trajectory(*(torch.stack(part) for part in zip(*path, strict=True))) if path else None,
        log,
    )


def _is_exponential(solve: Any) -> bool:
    from diffenc_ct.sampling.exponential import ExponentialMultistep, ExponentialSinglestep

    return isinstance(solve, (ExponentialMultistep, ExponentialSinglestep))


def _placement(kind: str) -> str:
    return {"exponential": "balanced", "torchdiffeq": "log-snr", "other": "uniform"}[kind]


def _noise_level(model: DiffEnc, given: Any, kind: str, solver: Any) -> NoiseLevel:
    if given is None:
        deterministic = kind == "torchdiffeq" or (kind == "exponential" and flow_is_exact(model))
        return ConstantNoiseLevel(0.0 if deterministic else 1.0)
    level = as_noise_level(given)
    if kind == "torchdiffeq" and not (isinstance(level, ConstantNoiseLevel) and level.eta == 0):
        raise ValueError(
            f"solver={solver!r} solves the probability flow, which has no noise; leave noise_level out, or take an "
            "exponential, ancestral or torchsde solver"
        )
    return level


def _like(model: DiffEnc) -> Tensor:
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor.detach().new_empty(0)
    return torch.empty(0)


def _seed(generator: torch.Generator | None) -> int:
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))


def _shape(
    model: DiffEnc, shape: tuple[int, ...] | None, latents: Tensor | None
) -> tuple[int, ...]:
    known = shape or (latents.shape[1:] if latents is not None else getattr(model, "shape", None))
    if known is None:
        raise ValueError(
            "the model does not know the shape of its data; give shape=(channels, ...)"
        )
    return tuple(known)
