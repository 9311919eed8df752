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
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from diffenc_ct.distributed import Work
from diffenc_ct.likelihood.dequantisation import (
    Dequantisation,
    ModelNoise,
    NoDequantisation,
    Noise,
)
from diffenc_ct.likelihood.divergence import Divergence, Exact
from diffenc_ct.likelihood.flow import (
    FlowDensity,
    Prior,
    checked,
    example_seeds,
    solve_density,
)
from diffenc_ct.likelihood.randomness import example_generator
from diffenc_ct.likelihood.solver import FlowSolver
from diffenc_ct.model import DiffEnc, evaluating


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of every example, (N,), and how it was found.

    Attributes:
        nats: log p(x), or its lower bound (`bound` says which).
        dimensions: d.
        latent: z_1 of the first importance sample, (N, *data).
        evaluations: of the network, of an example over its importance samples.
        accepted: steps, likewise.
        rejected: steps, likewise.
        status: "ok", or why an example has no likelihood.
        solver_error: an estimate of the solver's error in nats, NaN where none was asked for.
        dequantisation_variance: of nats, from the importance samples.
        probe_variance: of nats, from the probes.
        shared_steps: whether examples of a batch shared their steps, so that results depend on the batch.
        paired: whether the heads estimate E[x_t | z] and E[x_t' | z] apart; tied flows are another model.
        bound: what the number is, in words.
        log_jacobian: how much of `nats` is the change of variables of the decoder's scaling, ln |det d scale/dx| of an
            example in nats: 0 unless real data are standardised. In bits per dimension it is what numbers of data
            on another scale differ by, -7 for bytes scaled to (-1, 1).
    """

    nats: Float[Tensor, " N"]
    dimensions: int
    latent: Float[Tensor, "N *data"]
    evaluations: Int[Tensor, " N"]
    accepted: Int[Tensor, " N"]
    rejected: Int[Tensor, " N"]
    status: list[str]
    solver_error: Float[Tensor, " N"]
    dequantisation_variance: Float[Tensor, " N"]
    probe_variance: Float[Tensor, " N"]
    shared_steps: bool
    paired: bool
    bound: str
    log_jacobian: float = 0.0

    @property
    def bits_per_dimension(self) -> Float[Tensor, " N"]:
        """-log p(x) / (d ln 2)."""
        return -self.nats / (self.dimensions * math.log(2))

    @property
    def standard_errors(self) -> dict[str, float]:
        """Of the mean bits per dimension over the examples that were solved; NaN where it cannot be told.

        By name: images, dequantisation, probes, solver.
        """
        solved = [i for i, word in enumerate(self.status) if word == "ok"]
        n, unit = len(solved), self.dimensions * math.log(2)
        if not n:
            return dict.fromkeys(("images", "dequantisation", "probes", "solver"), math.nan)
        images = self.bits_per_dimension[solved].std().item() / math.sqrt(n) if n > 1 else math.nan
        noise, probes = self.dequantisation_variance[solved], self.probe_variance[solved]
        return {
            "images": images,
            "dequantisation": noise.sum().sqrt().item() / (n * unit),
            "probes": probes.sum().sqrt().item() / (n * unit),
            "solver": self.solver_error[solved].mean().item() / unit,
        }


def log_likelihood(
    model: DiffEnc,
    x: Shaped[Tensor, "batch *data"],
    *,
    solver: FlowSolver | None = None,
    divergence: Divergence | None = None,
    dequantisation: Dequantisation | None = None,
    prior: Prior | None = None,
    generator: torch.Generator | None = None,
    work: Work | None = None,
) -> Likelihood:
    """log p(x) under the model's probability flow in nats. Theorem: likelihood.importance.

    In the model's own precision, also where the caller autocasts, and in evaluation mode.

    Args:
        model: DiffEnc.
        x: levels or reals.
        solver: Adams() by default (error control of log p, an example at a time), or TorchDiffEq(...),
            TorchDiffEqFixed(...), SciPy(...).
        divergence: Exact() by default, or Rademacher(probes), GaussianProbes(probes).
        dequantisation: ModelNoise() by default for levels, NoDequantisation() for reals; or UniformNoise(),
            TruncatedNormal(tau); each with K importance samples.
        prior: log density of z_1, (batch, *data) -> (batch,), in place of N(0, I).
        generator: one draw of it seeds every example by its place.
        work: batches, progress (counts solves), processes; with several of them there are no gradients, and on each
            `generator` must be in the same state.

    Returns:
        Likelihood: nats and bits per dimension of each example, with separate standard errors.

    Raises:
        TypeError: for data of the wrong kind, and for a solver that is none of the flow's.
        ValueError: for data that are not in range or none, or a dequantisation that does not fit them.
        SolverError: where an example cannot be solved, unless the solver has on_failure="nan".

    Example:
        >>> import torch, diffenc_ct as dc
        >>> world = dc.worlds.GaussianWorld(torch.zeros(2).double(), torch.tensor([0.5, 0.1]).double())
        >>> model = world.model(dc.LinearSchedule(-8.0, 5.0))
        >>> found = dc.log_likelihood(model, world.sample(4, torch.Generator().manual_seed(0)))
        >>> found.nats.shape, found.bound
        (torch.Size([4]), 'log-density of z_0/alpha_0 under the flow')
    """
    solver, work, divergence = checked(solver), work or Work(), divergence or Exact()
    kind = dequantisation
    if kind is None:
        kind = NoDequantisation() if model.decoder.levels is None else ModelNoise()
    if not len(x):
        raise ValueError("x holds no examples")
    model.decoder.check(x)
    kind.check(model)
    if work.processes.size > 1 and solver.differentiable:
        raise ValueError('gradients do not reach other processes; use gradient="none"')
    count = len(x) * kind.samples
    # Elsewhere examples do not depend on their batch.
    batch_size = work.batch_size if solver.batch_matters else work.share(count)
    seeds = example_seeds(generator, len(x))

    def solve(pairs: Tensor) -> tuple[Tensor, FlowDensity]:
        """log weights and densities of some (example, sample) pairs, numbered example by example."""
        images, draws = pairs // kind.samples, (pairs % kind.samples).tolist()
        own = [seeds[i] for i in images.tolist()]
        some = x[images.to(x.device)]
        noise = _noise(model.scale(some), own, draws)
        with torch.set_grad_enabled(solver.differentiable):
            gamma_0 = model.schedule.at(0.0, model.scale(some)).gamma
            latent = kind.draw(model, some, gamma_0, noise)
            density = solve_density(
                model.rows(images),
                latent.z_0,
                solver,
                divergence,
                own,
                prior=prior,
                progress=work.progress,
            )
            return latent.log_weight + density.log_prob, density

    with evaluating(model), torch.autocast(x.device.type, enabled=False):
        parts = work.processes.spread(
            solve, [torch.arange(count)[i : i + batch_size] for i in range(0, count, batch_size)]
        )
    jacobian = float(model.decoder.log_jacobian(x))
    result = replace(_combine(parts, kind, model.heads.tells_apart), log_jacobian=jacobian)
    solver.refuse_failures(result.status)
    return result


def _noise(data: Tensor, seeds: list[int], draws: list[int]) -> Noise:
    """Noise of the data's shape by its law, each row from its own example's stream and draw."""

    def noise(law: str) -> Tensor:
        function = torch.randn if law == "normal" else torch.rand
        streams = [
            example_generator(seed, "dequantisation", draw)
            for seed, draw in zip(seeds, draws, strict=True)
        ]
        each = [function(data.shape[1:], generator=g, dtype=data.dtype) for g in streams]
        return torch.stack(each).to(data.device)

    return noise


def _combine(
    parts: list[tuple[Tensor, FlowDensity]], kind: Dequantisation, paired: bool
) -> Likelihood:
    """K samples an example to one number."""
    first, samples = parts[0][1], kind.samples
    densities = [density for _, density in parts]

    def by_sample(values: list[Tensor]) -> Tensor:
        joined = torch.cat(values)
        return joined.reshape(-1, samples, *joined.shape[1:])

    weights = by_sample([weight for weight, _ in parts])
    nats = weights.logsumexp(1) - math.log(samples)
    share = weights.detach().softmax(1)
    noise_variance = torch.full_like(nats.detach(), math.nan)
    if not kind.random:
        noise_variance = torch.zeros_like(noise_variance)
    elif samples > 1:
        # sd(exp w)/(mean(exp w) sqrt K), squared: share = exp w / sum
        noise_variance = samples * share.var(1)
    probe_variance = torch.zeros_like(noise_variance)
    if not first.exact:
        # every probe alone, over the same samples: the derivative of nats in an integral is `share`
        per_probe = by_sample([density.per_probe.detach() for density in densities])
        probes = per_probe.shape[2]
        spread = (share[:, :, None] * per_probe).sum(1)
        probe_variance = spread.var(1) / probes if probes > 1 else spread[:, 0] * math.nan

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
        paired=paired,
        bound=kind.bound,
    )


def _worst(words: list[str]) -> str:
    return next((word for word in words if word != "ok"), "ok")
