"""What mixture steps cost: E KL of every step between N + 1 candidate depths, from one network evaluation a depth.

What the heads know of a value at t serves every s < t and every noise level, so that a step's expected divergence

    cost_eta(s, t) = E KL(q_eta(z_s | z_t, x) || p_eta(z_s | z_t)),      p a product of mixtures (see `process.values`)

is measured for all of them on a fair sample of values. The best grid of T steps and its noise levels are a shortest
path, as those of Gaussian steps.

Theorems: calibration.grid_cost, elbo.mixture_kl, elbo.mixture_noise_level.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from diffenc_ct.calibration.paths import shortest_path, uniform_nodes
from diffenc_ct.calibration.steps import Calibration
from diffenc_ct.calibration.tables import Measurement
from diffenc_ct.distributed import Progress, silent
from diffenc_ct.elbo import uniform_grid
from diffenc_ct.model import DiffEnc, evaluating
from diffenc_ct.process import NoiseLevel, Values, marginal, normal_like


@dataclass(frozen=True)
class MixtureCosts:
    """E KL of every mixture step, in nats an example, float64.

    Attributes:
        t: candidate depths, (N + 1,), increasing.
        gamma: there.
        costs: by noise level, group of examples and (s, t), (levels, groups, N + 1, N + 1); 0 unless s < t.
        examples: how many.
    """

    t: Float[Tensor, " nodes"]
    gamma: Float[Tensor, " nodes"]
    costs: Float[Tensor, "levels groups nodes nodes"]
    examples: int

    def plan(self, depth: int, levels: Sequence[NoiseLevel], *, uniform: bool) -> Calibration:
        """The cheapest grid of `depth` steps among the candidates, with the noise level of each.

        Args:
            depth: T.
            levels: those that were measured.
            uniform: keep every (candidates/depth)-th depth.

        Raises:
            ValueError: where there are not so many intervals, or a uniform grid of them is none of the candidates.
        """
        cost, which = self.costs.mean(1).min(0)
        nodes = uniform_nodes(len(self.t) - 1, depth) if uniform else shortest_path(cost, depth)
        index = torch.tensor(nodes)
        gamma, (s, t) = self.gamma[index], (index[:-1], index[1:])
        chosen = which[s, t].tolist()
        ends = zip((levels[k] for k in chosen), gamma[:-1], gamma[1:], strict=True)
        losses = self.costs[chosen, :, s, t].sum(0)
        return Calibration(
            grid=self.t[index],
            gamma=gamma,
            ratio=torch.ones(depth, dtype=torch.float64),
            ratio_error=torch.zeros(depth, dtype=torch.float64),
            eta_squared=torch.stack([eta.integral(a, b) / (b - a) for eta, a, b in ends]),
            ratio_per_dimension=None,
            ratio_per_value=None,
            loss=float(losses.mean()),
            loss_error=float(losses.std() / len(losses) ** 0.5),
            examples=self.examples,
            step="mixture",
        )


@torch.no_grad()
def measure_mixture_steps(
    model: DiffEnc,
    data: Shaped[Tensor, "examples *data"],
    levels: Sequence[NoiseLevel],
    how: Measurement | None = None,
    *,
    nodes: int = 6,
    generator: torch.Generator | None = None,
    progress: Progress = silent,
) -> MixtureCosts:
    """Costs over data for candidates + 1 uniform depths.

    Args:
        model: DiffEnc, of heads that know a distribution of every value.
        data: levels or reals.
        levels: eta, each of them tried for each step.
        how: Measurement() by default; `keep` says of how many values the divergences are taken, 0 for all.
        nodes: of their quadrature.
        generator: of the noise.
        progress: called with the number of examples that were done.

    Raises:
        ValueError: for fewer examples than groups, and heads that estimate means only.
    """
    how = Measurement() if how is None else how
    how.check(data)
    t = uniform_grid(how.candidates, model.scale(data[:1]))
    gamma = model.schedule(t).gamma
    group = torch.arange(len(data)) % how.groups
    costs = torch.zeros(len(levels), len(t), len(t), how.groups, dtype=torch.float64)
    picked = torch.Generator().manual_seed(0)
    for rows in torch.split(torch.arange(len(data)), how.batch_size):
        x = model.scale(data[rows])
        share = min(1.0, how.keep / data.numel()) if how.keep else 1.0
        some = torch.randperm(x.numel(), generator=picked)[: max(1, round(share * x.numel()))]
        of = group[rows].repeat_interleave(x[0].numel())[some]
        # A value stands for its group's mean over examples, and for the values that were not picked.
        weight = x.numel() / len(some) / group.bincount()[of].double()
        shared = normal_like(x, generator)

        def noise(like: Tensor = shared) -> Tensor:
            return like if how.shared_noise else normal_like(like, generator)

        for i, j, known, moved in _steps(model.rows(rows), x, gamma, some.to(x.device), noise):
            at = gamma[i].expand(len(some))
            for cost, level in zip(costs, levels, strict=True):
                kl = known.step_from(*moved, at, level).divergence(nodes=nodes)
                cost[i, j].index_add_(0, of, weight * kl.double().cpu())
        progress(len(rows))
    return MixtureCosts(t.double().cpu(), gamma.double().cpu(), costs.movedim(3, 1), len(data))


def _steps(
    model: DiffEnc,
    x: Float[Tensor, "batch *data"],
    gamma: Float[Tensor, " nodes"],
    some: Int[Tensor, " some"],
    noise: Callable[[], Tensor],
) -> Iterator[tuple[int, int, Values, tuple[Tensor, Tensor]]]:
    """Every step: s and t by number, what is known of some values at t, and their x_t and x_s."""
    x_at = [model.encoder.encode(x, at.expand(len(x))) for at in gamma]
    for j in range(1, len(gamma)):
        eps, here = noise(), gamma[j].expand(len(x))
        z = marginal(x_at[j], here).sample(noise=eps)
        with evaluating(model):
            known = model.values_beside(z, eps, x_at[j], here).some(some)
        x_t = x_at[j].flatten()[some, None]
        for i in range(j):
            yield i, j, known, (x_t, x_at[i].flatten()[some, None])
