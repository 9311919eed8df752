"""log_likelihood: data in, nats and bits per dimension out, with three kinds of standard error kept apart.

Each example gets K importance samples of the dequantisation noise, each one solve of the flow, and

    log p(x) ~ log 1/K sum_k exp(w_k)

The errors of the mean bits per dimension over N images, each in bits per dimension:

    images           the spread of images over sqrt N
    dequantisation   the delta method on K samples, sd(exp w)/(mean(exp w) sqrt K) an image
    probes           the spread of Hutchinson's probes over sqrt probes
    solver           the mean of the solver's own estimate of its error (not random)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffenc_ct.distributed import ALONE, Processes
from diffenc_ct.likelihood.dequantisation import DEQUANTISATIONS, Dequantisation, dequantise
from diffenc_ct.likelihood.divergence import Divergence
from diffenc_ct.likelihood.flow import (
    FlowDensity,
    Gradient,
    Settings,
    SolverError,
    check_settings,
    example_seeds,
    solve_density,
)
from diffenc_ct.likelihood.randomness import example_generator
from diffenc_ct.model import DiffEnc

__all__ = ["Likelihood", "SolverError", "log_likelihood"]


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of every example, (N,), and how it was found.

    nats: log p(x), or its lower bound (`bound` says which). latent: z_1 of the first importance sample.
    solver_error: an estimate of the solver's error in nats, (N,), NaN where none was asked for. evaluations,
    accepted, rejected: of an example, over its importance samples. shared_steps: whether examples of a batch
    shared their steps, so that results depend on the batch. paired: whether the flow has paired heads; tied
    flows are another model.
    """

    nats: Tensor
    dimensions: int
    latent: Tensor
    evaluations: Tensor
    accepted: Tensor
    rejected: Tensor
    status: list[str]
    solver_error: Tensor
    dequantisation_variance: Tensor
    probe_variance: Tensor
    shared_steps: bool
    paired: bool
    bound: str

    @property
    def bits_per_dimension(self) -> Tensor:
        """-log p(x) / (d ln 2), (N,)."""
        return -self.nats / (self.dimensions * math.log(2))

    @property
    def standard_errors(self) -> dict[str, float]:
        """Of the mean bits per dimension: images, dequantisation, probes, solver; NaN where it cannot be told."""
        n, unit = len(self.nats), self.dimensions * math.log(2)
        images = self.bits_per_dimension.std().item() / math.sqrt(n) if n > 1 else math.nan
        return {
            "images": images,
            "dequantisation": self.dequantisation_variance.sum().sqrt().item() / (n * unit),
            "probes": self.probe_variance.sum().sqrt().item() / (n * unit),
            "solver": self.solver_error.mean().item() / unit,
        }


def log_likelihood(
    model: DiffEnc,
    x: Tensor,
    *,
    solver: str = "adams",
    rtol: float | None = None,
    atol: float | None = None,
    steps: int | None = None,
    max_steps: int = 10_000,
    divergence: Divergence = "exact",
    probes: int = 1,
    chunk: int | None = None,
    dequantisation: Dequantisation | None = None,
    tau: float = 3.0,
    importance_samples: int = 1,
    prior: Callable[[Tensor], Tensor] | None = None,
    gradient: Gradient = "none",
    on_failure: str = "raise",
    estimate_error: bool = True,
    batch_size: int = 256,
    generator: torch.Generator | None = None,
    progress: Callable[[int], None] | None = None,
    processes: Processes = ALONE,
) -> Likelihood:
    """log p(x) under the model's probability flow, for levels or reals x (batch, *data), in nats.

    solver: "adams" (the default: error control of log p, an example at a time), any method of torchdiffeq, or
    "scipy_solver:NAME". atol: for "adams" the error of log p allowed a step, in nats a dimension (1e-5); for
    torchdiffeq's adaptive methods their atol, with rtol. steps: of a fixed grid, equal in gamma (64).
    max_steps: the limit on steps. divergence: "exact" (chunk directions at a time), or Hutchinson's
    "rademacher" or "gaussian" with `probes` probes an example, drawn once and fixed along its path.
    dequantisation: "model", "uniform", "truncated_normal" (cut at tau), or "none" for real data; by default
    "model" for levels, "none" for reals. importance_samples: K of the bound. prior: log density of z_1 in
    place of N(0, I). gradient: "none", "solve" (through the solver's steps), or "adjoint" (torchdiffeq's).
    estimate_error: for torchdiffeq's methods, a second, coarser solve that tells the error, for about half as many
    evaluations again; "adams" knows its own. on_failure: "raise", or
    "nan" for NaN with a status where an example cannot be solved. batch_size: examples solved at a time; results do
    not depend on it unless shared_steps says so. generator: one draw of it seeds every example by its place.
    progress: called with the number of solves that ended. processes: share the solves, and all return all examples,
    without gradients; `generator` must be in the same state on each.

    Raises ValueError or TypeError naming the argument; SolverError. Theorem: likelihood.importance.
    """
    settings = replace(
        check_settings(solver, rtol, atol, steps, max_steps, divergence, probes, chunk, gradient),
        estimate_error=estimate_error,
    )
    kind = _check_dequantisation(model, x, dequantisation, importance_samples, tau)
    if on_failure not in ("raise", "nan") or batch_size < 1:
        raise ValueError(
            f'on_failure={on_failure!r} must be "raise" or "nan", batch_size={batch_size} at least 1'
        )
    if processes.size > 1 and gradient != "none":
        raise ValueError(f'gradient={gradient!r} does not reach other processes; use "none"')
    if not settings.method.shared:  # elsewhere examples do not depend on their batch
        batch_size = min(batch_size, -(-len(x) * importance_samples // processes.size))
    seeds = example_seeds(generator, len(x))

    def solve(pairs: Tensor) -> tuple[Tensor, FlowDensity]:
        return _solve_pairs(
            model, x, kind, tau, importance_samples, pairs, settings, seeds, prior, progress
        )

    pairs = torch.arange(len(x) * importance_samples)
    parts = processes.spread(solve, pairs.split(batch_size))
    result = _combine(parts, importance_samples, model, kind)
    if on_failure == "raise" and any(word != "ok" for word in result.status):
        raise SolverError(
            result.status, "a laxer tolerance, more max_steps or another solver may do"
        )
    return result


def _check_dequantisation(
    model: DiffEnc, x: Tensor, kind: Dequantisation | None, samples: int, tau: float
) -> Dequantisation:
    model.scale(x[:1])  # levels or reals, as the model has it
    if not len(x):
        raise ValueError("x holds no examples")
    if kind is None:
        kind = "none" if model.levels is None else "model"
    if kind not in DEQUANTISATIONS:
        raise ValueError(f"dequantisation={kind!r}; choose one of {', '.join(DEQUANTISATIONS)}")
    if kind == "none" and model.levels is not None:
        raise ValueError(
            'dequantisation="none": a density at undequantised integers can be made as high as one likes; '
            'choose "model", "uniform" or "truncated_normal"'
        )
    if kind in ("uniform", "truncated_normal") and model.levels is None:
        raise ValueError(
            f'dequantisation={kind!r} spreads levels over bins; these are real data: "none" or "model"'
        )
    if samples < 1 or (kind == "none" and samples > 1):
        raise ValueError(
            f"importance_samples={samples} with dequantisation={kind!r}: at least 1, and 1 where nothing is drawn"
        )
    if not tau > 0:
        raise ValueError(f"tau={tau} must be positive")
    return kind


def _solve_pairs(
    model: DiffEnc,
    x: Tensor,
    kind: Dequantisation,
    tau: float,
    samples: int,
    pairs: Tensor,
    settings: Settings,
    seeds: list[int],
    prior: Callable[[Tensor], Tensor] | None,
    progress: Callable[[int], None] | None,
) -> tuple[Tensor, FlowDensity]:
    """log weights and densities of some (example, sample) pairs, numbered example by example."""
    images, draws = pairs // samples, (pairs % samples).tolist()
    some = x[images.to(x.device)]
    data = model.scale(some)
    own = [seeds[i] for i in images.tolist()]

    def noise(law: str) -> Tensor:
        function = torch.randn if law == "normal" else torch.rand
        streams = [
            example_generator(seed, "dequantisation", draw)
            for seed, draw in zip(own, draws, strict=True)
        ]
        each = [function(data.shape[1:], generator=g, dtype=data.dtype) for g in streams]
        return torch.stack(each).to(data.device)

    with torch.set_grad_enabled(settings.gradient != "none"):
        gamma_0 = model.schedule.at(0.0, data).gamma
        latent = dequantise(model, some, gamma_0, kind, noise, tau=tau)
        density = solve_density(model, latent.z_0, settings, own, prior=prior, progress=progress)
        return latent.log_weight + density.log_prob, density


def _combine(
    parts: list[tuple[Tensor, FlowDensity]], samples: int, model: DiffEnc, kind: Dequantisation
) -> Likelihood:
    """K samples an example to one number."""
    first = parts[0][1]
    densities = [density for _, density in parts]

    def by_sample(values: list[Tensor]) -> Tensor:
        return torch.cat(values).unflatten(0, (-1, samples))

    weights = by_sample([weight for weight, _ in parts])
    nats = weights.logsumexp(1) - math.log(samples)
    share = weights.detach().softmax(1)
    noise_variance = torch.full_like(nats.detach(), math.nan)
    if kind == "none":
        noise_variance = torch.zeros_like(noise_variance)
    elif samples > 1:
        # sd(exp w)/(mean(exp w) sqrt K), squared: share = exp w / sum
        noise_variance = samples * share.var(1)
    probe_variance = torch.zeros_like(noise_variance)
    if not first.exact:
        # every probe alone, over the same samples: the derivative of nats in an integral is `share`
        per_probe = by_sample([density.per_probe.detach() for density in densities])
        probe_variance = (share[:, :, None] * per_probe).sum(1).var(1) / per_probe.shape[2]

    def total(name: str) -> Tensor:
        return by_sample([getattr(d.solution, name) for d in densities]).sum(1)

    words = [word for density in densities for word in density.solution.status]
    return Likelihood(
        nats=nats,
        dimensions=first.z_0[0].numel(),
        latent=by_sample([density.z_1 for density in densities])[:, 0],
        evaluations=total("evaluations"),
        accepted=total("accepted"),
        rejected=total("rejected"),
        status=[_worst(words[i : i + samples]) for i in range(0, len(words), samples)],
        solver_error=(share * by_sample([d.solution.error for d in densities])).sum(1),
        dequantisation_variance=noise_variance,
        probe_variance=probe_variance,
        shared_steps=first.shared_steps,
        paired=model.paired,
        bound=_bound(kind, samples, model),
    )


def _worst(words: list[str]) -> str:
    return next((word for word in words if word != "ok"), "ok")


def _bound(kind: Dequantisation, samples: int, model: DiffEnc) -> str:
    if kind == "none":
        return "log-density of z_0/alpha_0 under the flow"
    target = (
        "the flow with the model's decoder"
        if kind == "model"
        else "the flow's mass in a level's bin"
    )
    return f"lower bound on the log-likelihood of {target}, {samples} sample{'s' * (samples > 1)}"
