"""The flow's density at a latent, and samples of the flow with theirs: change of variables by a named solver.

    forward    log p_0(z_0) = log p_1(z_1) + int_{gamma_0}^{gamma_1} div f dgamma,   z_1 the end of the path
    from z_0
    inverse    z_1 ~ p_1, z_0 the end of the path backwards, the same log p_0(z_0)

p_1 = N(0, I) unless a `prior` is given. Reference: Chen et al. 2018, theorem 1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
from torch import Tensor

from diffenc_ct.likelihood.adams import Solution, solve_adams
from diffenc_ct.likelihood.divergence import DIVERGENCES, Divergence, FlowField, draw_probes
from diffenc_ct.likelihood.randomness import example_generator
from diffenc_ct.likelihood.solvers import Method, parse_solver, solve_torchdiffeq
from diffenc_ct.model import DiffEnc

Gradient = Literal["none", "solve", "adjoint"]
ADAMS_ATOL, TORCHDIFFEQ_TOLERANCE, STEPS = 1e-5, 1e-5, 64


class SolverError(RuntimeError):
    """The ODE could not be solved for some examples; `status` says why, one word an example."""

    def __init__(self, status: list[str], advice: str) -> None:
        bad = [f"{i}: {word}" for i, word in enumerate(status) if word != "ok"]
        shown = ", ".join(bad[:3]) + (", ..." if len(bad) > 3 else "")
        super().__init__(
            f"{len(bad)} of {len(status)} examples have no likelihood ({shown}); {advice}, or pass "
            'on_failure="nan" for NaN in their place'
        )
        self.status = status


@dataclass(frozen=True)
class FlowDensity:
    """log p_0 at latents, nats, (batch,); per_probe (batch, K) the same by each probe alone; the solution
    behind it.

    z_0, z_1: the path's two ends. shared_steps: whether the examples of a batch shared their steps; exact: the
    divergence was.
    """

    log_prob: Tensor
    per_probe: Tensor
    z_0: Tensor
    z_1: Tensor
    solution: Solution
    shared_steps: bool
    exact: bool


@dataclass(frozen=True)
class Settings:
    """How the flow is solved: the options of log_density, checked."""

    method: Method
    rtol: float
    atol: float
    steps: int
    max_steps: int
    divergence: Divergence
    probes: int
    chunk: int | None
    gradient: Gradient
    estimate_error: bool = False


def check_settings(
    solver: str,
    rtol: float | None,
    atol: float | None,
    steps: int | None,
    max_steps: int,
    divergence: Divergence,
    probes: int,
    chunk: int | None,
    gradient: Gradient,
) -> Settings:
    """Settings, or a ValueError that names the argument and what is allowed."""
    method = parse_solver(solver)
    if divergence not in DIVERGENCES:
        raise ValueError(f"divergence={divergence!r}; choose one of {', '.join(DIVERGENCES)}")
    if gradient not in ("none", "solve", "adjoint"):
        raise ValueError(f'gradient={gradient!r}; choose "none", "solve" or "adjoint"')
    for name, number in (
        ("probes", probes),
        ("max_steps", max_steps),
        ("steps", steps or STEPS),
        ("chunk", chunk or 1),
    ):
        if number < 1:
            raise ValueError(f"{name}={number} must be at least 1")
    if steps is not None and not method.fixed:
        raise ValueError(
            f"steps={steps} is for solvers on a fixed grid; {solver!r} chooses its own steps by tolerance"
        )
    if method.fixed and not (rtol is None and atol is None):
        raise ValueError(f"{solver!r} takes `steps`, not tolerances: its grid is fixed")
    if not method.shared and rtol is not None:
        raise ValueError(
            f"rtol={rtol}: {solver!r} controls the error of log p, in nats a dimension, by atol alone"
        )
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name}={value} must be a positive number")
    if gradient == "adjoint" and not (method.shared or method.fixed):
        raise ValueError(
            f'gradient="adjoint" is torchdiffeq\'s; with {solver!r} use gradient="solve"'
        )
    if gradient != "none" and method.scipy:
        raise ValueError("scipy's solvers leave torch: they have no gradients")
    default = TORCHDIFFEQ_TOLERANCE if method.shared else ADAMS_ATOL
    return Settings(
        method,
        TORCHDIFFEQ_TOLERANCE if rtol is None else rtol,
        default if atol is None else atol,
        STEPS if steps is None else steps,
        max_steps,
        divergence,
        probes,
        chunk,
        gradient,
    )


def log_density(
    model: DiffEnc,
    z_0: Tensor,
    *,
    solver: str = "adams",
    rtol: float | None = None,
    atol: float | None = None,
    steps: int | None = None,
    max_steps: int = 10_000,
    divergence: Divergence = "exact",
    probes: int = 1,
    chunk: int | None = None,
    prior: Callable[[Tensor], Tensor] | None = None,
    gradient: Gradient = "none",
    generator: torch.Generator | None = None,
) -> FlowDensity:
    """log p_0(z_0) of the model's probability flow in nats, at latents z_0 (batch, *data).

    prior: log density of z_1, (batch, *data) -> (batch,); N(0, I) unless given. Other options: see
    log_likelihood. Raises ValueError for bad options, TypeError for integers (a density of undequantised
    levels has no meaning). Examples that cannot be solved get NaN and a status. Theorem:
    likelihood.change_of_variables.
    """
    settings = check_settings(
        solver, rtol, atol, steps, max_steps, divergence, probes, chunk, gradient
    )
    if not z_0.is_floating_point():
        raise TypeError(
            f"z_0 is {z_0.dtype}: a density at integers has no meaning; dequantise them, as log_likelihood does"
        )
    seeds = example_seeds(generator, len(z_0))
    return solve_density(model, z_0, settings, seeds, prior=prior)


def sample_with_log_prob(
    model: DiffEnc,
    shape: tuple[int, ...],
    *,
    solver: str = "adams",
    rtol: float | None = None,
    atol: float | None = None,
    steps: int | None = None,
    max_steps: int = 10_000,
    divergence: Divergence = "exact",
    probes: int = 1,
    chunk: int | None = None,
    z_1: Tensor | None = None,
    prior: Callable[[Tensor], Tensor] | None = None,
    gradient: Gradient = "none",
    generator: torch.Generator | None = None,
) -> FlowDensity:
    """Samples z_0 of the flow with their log p_0(z_0): shape (batch, *data). Data are model.decode(z_0,
    gamma_0).

    z_1: given starts instead of draws from N(0, I) (then prior, if given, is their log density).
    Other options and errors as in log_density. Theorem: likelihood.change_of_variables.
    """
    settings = check_settings(
        solver, rtol, atol, steps, max_steps, divergence, probes, chunk, gradient
    )
    seeds = example_seeds(generator, shape[0])
    if z_1 is None:
        tensors = chain(model.parameters(), model.buffers(), [torch.empty(())])
        like = next(tensor for tensor in tensors if tensor.is_floating_point())
        z_1 = torch.stack(
            [
                torch.randn(shape[1:], generator=example_generator(seed, "z_1"), dtype=like.dtype)
                for seed in seeds
            ]
        ).to(like.device)
    return solve_density(model, z_1, settings, seeds, prior=prior, inverse=True)


def example_seeds(generator: torch.Generator | None, n: int) -> list[int]:
    """One seed an example, from one draw of `generator`: an example's noise depends on its place alone."""
    device = "cpu" if generator is None else generator.device
    base = int(torch.randint(0, 2**31 - 1, (), generator=generator, device=device))
    return [base * 2**31 + i for i in range(n)]


def solve_density(
    model: DiffEnc,
    z: Tensor,
    settings: Settings,
    seeds: list[int],
    *,
    prior: Callable[[Tensor], Tensor] | None = None,
    inverse: bool = False,
    progress: Callable[[int], None] | None = None,
) -> FlowDensity:
    """The flow from z at one end to the other, and log p_0 at the data's end."""
    s = settings
    probes = None
    if s.divergence != "exact":
        shape = torch.Size((s.probes, *z.shape[1:]))
        probes = torch.stack(
            [draw_probes(s.divergence, example_generator(i, "probes"), shape, z) for i in seeds]
        )
    field = FlowField(model, probes=probes, chunk=s.chunk)
    with torch.set_grad_enabled(s.gradient != "none"):
        start, end = (model.schedule.at(t, z).gamma for t in (0.0, 1.0))
        if inverse:
            start, end = end, start

        def by_probe(last: Tensor, integral: Tensor) -> Tensor:
            at_end = (standard_normal if prior is None else prior)(z if inverse else last).double()
            return at_end[:, None] + (-integral if inverse else integral)

        if s.method.shared or s.method.fixed:
            solution = solve_torchdiffeq(
                s.method,
                field,
                model,
                z,
                start,
                end,
                rtol=s.rtol,
                atol=s.atol,
                steps=s.steps,
                max_steps=s.max_steps,
                adjoint=s.gradient == "adjoint",
                by_probe=by_probe if s.estimate_error else None,
            )
            if progress is not None:
                progress(len(z))
        else:
            solution = solve_adams(
                field,
                z,
                start,
                end,
                tolerance=s.atol * z[0].numel(),
                nodes=6 if s.atol > 1e-8 else 8,
                max_steps=s.max_steps,
                progress=progress,
            )
        z_0, z_1 = (solution.z, z) if inverse else (z, solution.z)
        per_probe = by_probe(solution.z, solution.integral)
        return FlowDensity(
            log_prob=per_probe.mean(1),
            per_probe=per_probe,
            z_0=z_0,
            z_1=z_1,
            solution=solution,
            shared_steps=s.method.shared,
            exact=s.divergence == "exact",
        )


def standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I), (batch,)."""
    return -0.5 * (z.double() ** 2 + math.log(2 * math.pi)).flatten(1).sum(1)
