"""The flow's density at a latent, and samples of the flow with theirs: change of variables by a solver of the flow.

    forward    log p_0(z_0) = log p_1(z_1) + int_{gamma_0}^{gamma_1} div f dgamma,   z_1 the end of the path
    from z_0
    inverse    z_1 ~ p_1, z_0 the end of the path backwards, the same log p_0(z_0)

p_1 = N(0, I) unless a `prior` is given. Reference: Chen et al. 2018, theorem 1.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.distributed import Progress, silent
from diffenc_ct.likelihood.adams import Adams
from diffenc_ct.likelihood.divergence import Divergence, Exact
from diffenc_ct.likelihood.randomness import example_generator
from diffenc_ct.likelihood.solver import FlowProblem, FlowSolver, Solution
from diffenc_ct.model import DiffEnc, evaluating

# log density of z_1, (batch, *data) -> (batch,), in nats.
Prior = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FlowDensity:
    """log p_0 at latents.

    Attributes:
        log_prob: nats, (batch,).
        per_probe: the same by each probe alone, (batch, K).
        z_0: the path's end at the data, (batch, *data).
        z_1: its end at the noise.
        solution: what the solver found.
        shared_steps: whether the examples of a batch shared their steps.
        exact: whether the divergence was no estimate.
    """

    log_prob: Float[Tensor, " batch"]
    per_probe: Float[Tensor, "batch K"]
    z_0: Float[Tensor, "batch *data"]
    z_1: Float[Tensor, "batch *data"]
    solution: Solution
    shared_steps: bool
    exact: bool


def log_density(
    model: DiffEnc,
    z_0: Float[Tensor, "batch *data"],
    *,
    solver: FlowSolver | None = None,
    divergence: Divergence | None = None,
    prior: Prior | None = None,
    generator: torch.Generator | None = None,
) -> FlowDensity:
    """log p_0(z_0) of the model's probability flow in nats. Theorem: likelihood.change_of_variables.

    Args:
        model: DiffEnc.
        z_0: latents.
        solver: Adams() by default, or TorchDiffEq(...), TorchDiffEqFixed(...), SciPy(...).
        divergence: Exact() by default, or Rademacher(...), GaussianProbes(...).
        prior: log density of z_1, (batch, *data) -> (batch,), in place of N(0, I).
        generator: one draw of it seeds every example by its place.

    Raises:
        TypeError: for integers (a density of undequantised levels has no meaning), and for what is no FlowSolver.
        SolverError: where an example cannot be solved, unless the solver has on_failure="nan".
    """
    if not z_0.is_floating_point():
        raise TypeError(
            f"z_0 is {z_0.dtype}: a density at integers has no meaning; dequantise them, as log_likelihood does"
        )
    solver = checked(solver)
    seeds = example_seeds(generator, len(z_0))
    found = solve_density(model, z_0, solver, divergence or Exact(), seeds, prior=prior)
    solver.refuse_failures(found.solution.status)
    return found


def sample_with_log_prob(
    model: DiffEnc,
    shape: tuple[int, ...],
    *,
    solver: FlowSolver | None = None,
    divergence: Divergence | None = None,
    z_1: Float[Tensor, "batch *data"] | None = None,
    prior: Prior | None = None,
    generator: torch.Generator | None = None,
) -> FlowDensity:
    """Samples z_0 of the flow with their log p_0(z_0). Theorem: likelihood.change_of_variables.

    Data are model.decode(z_0, gamma_0).

    Args:
        model: DiffEnc.
        shape: (batch, *data).
        solver: as in log_density.
        divergence: as in log_density.
        z_1: starts in place of draws from N(0, I).
        prior: their log density in place of that of N(0, I).
        generator: one draw of it seeds every example by its place.

    Raises:
        TypeError: for what is no FlowSolver.
        SolverError: where an example cannot be solved, unless the solver has on_failure="nan".
    """
    solver = checked(solver)
    seeds = example_seeds(generator, shape[0])
    if z_1 is None:
        tensors = chain(model.parameters(), model.buffers(), [torch.empty(())])
        like = next(tensor for tensor in tensors if tensor.is_floating_point())
        draws = [
            torch.randn(shape[1:], generator=example_generator(seed, "z_1"), dtype=like.dtype)
            for seed in seeds
        ]
        z_1 = torch.stack(draws).to(like.device)
    found = solve_density(
        model, z_1, solver, divergence or Exact(), seeds, prior=prior, inverse=True
    )
    solver.refuse_failures(found.solution.status)
    return found


def checked(solver: FlowSolver | None) -> FlowSolver:
    """The solver, Adams() for None.

    Raises:
        TypeError: for what is no FlowSolver: other solvers' paths have no density by change of variables.
    """
    solver = Adams() if solver is None else solver
    if not isinstance(solver, FlowSolver):
        raise TypeError(
            f"solver={solver!r} is no solver of the probability flow, and the paths of stochastic ones have no density "
            "by change of variables; give Adams(), TorchDiffEq(...), TorchDiffEqFixed(...) or SciPy(...), or take the "
            "ELBO"
        )
    return solver


def example_seeds(generator: torch.Generator | None, n: int) -> list[int]:
    """One seed an example, from one draw of `generator`: an example's noise depends on its place alone."""
    device = "cpu" if generator is None else generator.device
    base = int(torch.randint(0, 2**31 - 1, (), generator=generator, device=device))
    return [base * 2**31 + i for i in range(n)]


def solve_density(
    model: DiffEnc,
    z: Float[Tensor, "batch *data"],
    solver: FlowSolver,
    divergence: Divergence,
    seeds: Sequence[int],
    *,
    prior: Prior | None = None,
    inverse: bool = False,
    progress: Progress = silent,
) -> FlowDensity:
    """The flow from z at one end to the other, and log p_0 at the data's end; NaN where it failed.

    Where a batch shares its steps and could not be solved, its halves are, if failures are to become NaN: so the
    failure of one example is not that of its batch mates.

    Args:
        model: DiffEnc.
        z: z_0, or z_1 where `inverse`.
        solver: of the flow.
        divergence: how the trace is found.
        seeds: of each example's probes.
        prior: as in log_density.
        inverse: from noise to data.
        progress: called with the number of examples that came to an end.
    """
    field = divergence.field(model, z, seeds)
    # Solvers and traces are in one precision: where a caller autocasts, nothing here is.
    whole = torch.autocast(z.device.type, enabled=False)
    with evaluating(model), torch.set_grad_enabled(solver.differentiable), whole:
        start, end = (model.schedule.at(t, z).gamma for t in (0.0, 1.0))
        if inverse:
            start, end = end, start

        def by_probe(last: Tensor, integral: Tensor) -> Tensor:
            at_end = (standard_normal if prior is None else prior)(z if inverse else last).double()
            return at_end[:, None] + (-integral if inverse else integral)

        solution = solver.integrate(FlowProblem(field, z, start, end, by_probe, progress))
        z_0, z_1 = (solution.z, z) if inverse else (z, solution.z)
        per_probe = by_probe(solution.z, solution.integral)
        found = FlowDensity(
            log_prob=per_probe.mean(1),
            per_probe=per_probe,
            z_0=z_0,
            z_1=z_1,
            solution=solution,
            shared_steps=solver.batch_matters,
            exact=field.exact,
        )
    failed = any(word != "ok" for word in solution.status)
    if not (failed and solver.batch_matters and solver.on_failure == "nan" and len(z) > 1):
        return found
    halves = [
        solve_density(
            model.rows(half), z[half], solver, divergence, seeds[half], prior=prior, inverse=inverse
        )
        for half in (slice(len(z) // 2), slice(len(z) // 2, None))
    ]
    joined: FlowDensity = _joined(*halves)
    return joined


def _joined(one: Any, other: Any) -> Any:
    """Two batches as one: tensors and lists one after the other, field by field; what is no entry an example stays."""
    if isinstance(one, Tensor):
        return torch.cat([one, other])
    if isinstance(one, list):
        return one + other
    if is_dataclass(one) and not isinstance(one, type):
        pairs = ((f.name, getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
        return replace(one, **{name: _joined(*pair) for name, *pair in pairs})
    return one


def standard_normal(z: Float[Tensor, "batch *data"]) -> Float[Tensor, " batch"]:
    """log N(z; 0, I)."""
    return -0.5 * (z.double() ** 2 + math.log(2 * math.pi)).flatten(1).sum(1)
