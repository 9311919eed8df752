"""Samples of a model by any solver: one call.

    z_1 ~ N(0, I),    z_0 = solver(reverse process, z_1, grid),    x = the most probable data given z_0

Each image owns its random numbers: it depends on the generator's state and its own index, not on the batch size (up
to rounding; adaptive ODE solvers share their steps within a batch, so there it is up to their tolerance).

The probability flow (noise level 0) needs E[x_t | z] and E[x_t' | z] apart. A single head that was trained with an
encoder other than the identity or the non-trainable one gives their sum only, which the reverse SDE at eta = 1 needs
and no other process is right with: there sampling defaults to noise level 1.

Reference: Nielsen et al. 2024, section 3; theory, chapters process and dynamics.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diffenc_ct.distributed import Work
from diffenc_ct.model import DiffEnc, evaluating
from diffenc_ct.sampling.exponential import Exponential
from diffenc_ct.sampling.problem import Grid, ImageNoise, Problem
from diffenc_ct.sampling.solver import Solver


@dataclass(frozen=True)
class Trajectory:
    """The path of some images, from noise to data.

    Attributes:
        gamma: (points,).
        z: latents, (points, images, *data).
        x_hat: estimates of encoded data, (points, images, *data).
    """

    gamma: Float[Tensor, " points"]
    z: Float[Tensor, "points images *data"]
    x_hat: Float[Tensor, "points images *data"]


@dataclass(frozen=True)
class Samples:
    """What `sample` returns.

    Attributes:
        samples: levels or reals, (n, *data).
        z_0: latents at the data's end, (n, *data).
        z_1: latents at the noise's end, (n, *data).
        evaluations: network evaluations an image took, the mean where they differ.
        trajectory: the path of the first images, if it was asked for.
        log: solver, steps (None where it chose its own), noise_level, seconds, evaluations.
    """

    samples: Shaped[Tensor, "n *data"]
    z_0: Float[Tensor, "n *data"]
    z_1: Float[Tensor, "n *data"]
    evaluations: float
    trajectory: Trajectory | None
    log: dict[str, Any]


@torch.no_grad()
def sample(
    model: DiffEnc,
    n: int | None = None,
    *,
    solver: Solver | None = None,
    shape: tuple[int, ...] | None = None,
    latents: Float[Tensor, "n *data"] | None = None,
    trajectory: int = 0,
    generator: torch.Generator | None = None,
    work: Work | None = None,
) -> Samples:
    """n samples of the model.

    Args:
        model: DiffEnc.
        n: how many; where it is not given, as many as latents, or as conditions that the model is given.
        solver: Exponential() by default; Ancestral(...), TorchSDE(...), Adams(...), TorchDiffEq(...), ...
        shape: of one example, unless model.shape or latents say it.
        latents: z_1 instead of draws.
        trajectory: the path of the first so many images, by a solver that takes them through the same depths.
        generator: one draw of it seeds every image by its index.
        work: batches, progress (counts images), processes; on each process `generator` must be in the same state.

    Returns:
        Samples: data, latents at both ends, and how they were made.

    Raises:
        TypeError: where `solver` is no Solver.
        ValueError: for bad shapes or numbers, or a solver that diverged.
        SolverError: where a solver of the flow gave up.

    Example:
        >>> import torch, diffenc_ct as dc
        >>> model = dc.DiffEnc(
        ...     dc.LinearSchedule(), dc.IdentityEncoder(), dc.Single(dc.networks.MLP(4)), dc.Levels(16)
        ... )
        >>> dc.sample(model, 3, shape=(4,), solver=dc.Ancestral(steps=8)).samples.shape
        torch.Size([3, 4])
    """
    solver, work = Exponential() if solver is None else solver, Work() if work is None else work
    if not isinstance(solver, Solver):
        raise TypeError(f"solver={solver!r} is no Solver; give an object such as Exponential()")
    level, grid = solver.level(model), solver.grid(model.schedule)
    like, seed = _like(model), _seed(generator)
    shape = _shape(model, shape, latents)
    for known in (latents, model.condition):
        n = len(known) if n is None and known is not None else n
    if n is None or n < 1 or not 0 <= trajectory <= min(n, work.batch_size):
        raise ValueError(
            f"n={n} must be at least 1, trajectory={trajectory} between 0 and n and batch_size={work.batch_size}"
        )
    if model.condition is not None and len(model.condition) != n:
        raise ValueError(f"the model is given {len(model.condition)} conditions, but n={n}")
    if latents is not None and latents.shape != (n, *shape):
        raise ValueError(f"latents {tuple(latents.shape)} must be {(n, *shape)}")
    if trajectory and not solver.depths_are_shared:
        raise ValueError(
            f"trajectory={trajectory}: {solver.name} takes every image through depths of its own; take another solver"
        )
    batch_size = work.batch_size if solver.batch_matters else max(trajectory, work.share(n))

    def solve_part(first: int) -> tuple[Tensor, Tensor, int, list[tuple[Tensor, Tensor, Tensor]]]:
        """z_1, z_0, evaluations and the recorded path of a batch."""
        indices = range(first, min(first + batch_size, n))
        noise = ImageNoise(seed, indices)
        z = noise(like.new_empty(len(indices), *shape))
        if latents is not None:
            z = latents[first : first + len(indices)].to(like)
        problem = Problem(
            model.rows(indices), level, noise, recorded=trajectory if first == 0 else 0
        )
        z_0 = solver(problem, z, grid)
        work.progress(len(indices))
        return z, z_0, problem.evaluated_images, problem.path

    began = time.perf_counter()
    with evaluating(model):
        parts = work.processes.spread(solve_part, range(0, n, batch_size))
    starts, ends, counts, paths = zip(*parts, strict=True)
    z_0, evaluations, path = torch.cat(ends), sum(counts) / n, paths[0]
    _refuse_divergence(z_0, solver, grid)
    return Samples(
        model.decode(z_0, grid.gamma[-1].to(z_0)),
        z_0,
        torch.cat(starts),
        evaluations,
        Trajectory(*(torch.stack(part) for part in zip(*path, strict=True))) if path else None,
        {
            "solver": solver.name,
            "steps": None if solver.adaptive else grid.steps,
            "noise_level": str(level),
            "seconds": time.perf_counter() - began,
            "evaluations": evaluations,
        },
    )


def _refuse_divergence(z_0: Tensor, solver: Solver, grid: Grid) -> None:
    bad = int((~z_0.flatten(1).isfinite().all(1)).sum())
    if bad:
        more = f"more steps than {grid.steps}"
        raise ValueError(
            f"{bad} of {len(z_0)} samples are not finite: {solver.name} diverged; "
            f"take {'a smaller tolerance' if solver.adaptive else more}"
        )


def _like(model: DiffEnc) -> Tensor:
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor.detach().new_empty(0)
    return torch.empty(0)


def _seed(generator: torch.Generator | None) -> int:
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))


def _shape(
    model: DiffEnc, shape: tuple[int, ...] | None, latents: Shaped[Tensor, "n *data"] | None
) -> tuple[int, ...]:
    known = shape or (latents.shape[1:] if latents is not None else model.shape)
    if known is None:
        raise ValueError(
            "the model does not know the shape of its data; give shape=(channels, ...)"
        )
    return tuple(known)
