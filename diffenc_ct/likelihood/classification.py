"""p(c | x) from the bounds of all conditions: a conditional generative model as a classifier.

    p(c | x) = p(c) p(x | c) / sum_c' p(c') p(x | c'),        log p(x | c) from below by -L(x | c)

All conditions of an example share their depths and noises, so that what their losses have in common cancels, error
and all. With L the mean over K draws and p = softmax(ln p(c) - L), the influence of draw k on p_c is

    I_k = -p_c (L_k(c) - sum_c' p_c' L_k(c')).

Depths are stratified over the draws, in increasing order, so that neighbouring draws differ by their noise rather than
their depth: p_c's variance is sum_k (I_k - I_{k+1})^2 / (2 K (K - 1)) (delta method; successive differences).
The gaps log p - (-L) of the bounds need not be alike, so this is the classifier of the bounds, not of p itself.

Reference: Li et al. 2023 (diffusion classifiers); the errors: derived here.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from diffenc_ct.distributed import Work
from diffenc_ct.elbo import Bound, Draws, ImportanceDepths, InfiniteDepth, elbo
from diffenc_ct.likelihood.flow import example_seeds
from diffenc_ct.likelihood.randomness import example_generator
from diffenc_ct.model import DiffEnc, evaluating


@dataclass(frozen=True)
class Classification:
    """Bounds of every condition, and what follows from them.

    Attributes:
        losses: of each draw in nats, L_k(c), (N, conditions, K), in the order of their depths.
        dimensions: d.
        log_prior: ln p(c), (conditions,).
    """

    losses: Float[Tensor, "N conditions K"]
    dimensions: int
    log_prior: Float[Tensor, " conditions"]

    @property
    def probabilities(self) -> Float[Tensor, "N conditions"]:
        """p(c | x)."""
        return (self.log_prior - self.losses.mean(2)).softmax(1)

    @property
    def standard_errors(self) -> Float[Tensor, "N conditions"]:
        """Of the probabilities, by the draws; NaN for one draw, and of a wide distribution for few."""
        p, draws = self.probabilities[:, :, None], self.losses.shape[2]
        if draws == 1:
            return torch.full_like(p[:, :, 0], math.nan)
        influence = -p * (self.losses - (p * self.losses).sum(1, keepdim=True))
        differences = influence.diff(dim=2).square().sum(2)
        return (differences / (2 * draws * (draws - 1))).sqrt()

    @property
    def bits_per_dimension(self) -> Float[Tensor, "N conditions"]:
        """The bounds on -log p(x | c), means over the draws."""
        return self.losses.mean(2) / (self.dimensions * math.log(2))

    @property
    def choice(self) -> Int64[Tensor, " N"]:
        """The number of the most probable condition."""
        return self.probabilities.argmax(1)

    def accuracy(self, truth: Int64[Tensor, " N"]) -> tuple[float, float]:
        """The part of the examples whose choice is the truth, and its standard error over examples.

        Args:
            truth: numbers of conditions.
        """
        right = (self.choice == truth).double()
        mean = right.mean().item()
        return mean, math.sqrt(mean * (1 - mean) / len(right))

    def calibration_error(self, truth: Int64[Tensor, " N"], bins: int = 15) -> float:
        """The expected calibration error: sum over bins of |accuracy - mean probability|, weighted by their examples.

        Bins are equal in the probability of the choice.

        Args:
            truth: numbers of conditions.
            bins: how many.
        Reference: Guo et al. 2017.
        """
        confidence, choice = self.probabilities.double().max(1)
        right = (choice == truth).double()
        cell = (confidence * bins).ceil().long().clamp(1, bins) - 1
        apart = torch.zeros(bins, dtype=torch.float64).index_add_(0, cell, right - confidence)
        return apart.abs().sum().item() / len(truth)

    def cross_entropy(self, truth: Int64[Tensor, " N"]) -> float:
        """The mean of -ln p(truth | x) in nats.

        Args:
            truth: numbers of conditions.
        """
        logs = (self.log_prior - self.losses.mean(2)).log_softmax(1)
        return -logs.gather(1, truth[:, None]).mean().item()


@torch.no_grad()
def classify(
    model: DiffEnc,
    x: Shaped[Tensor, "N *data"],
    conditions: Shaped[Tensor, "conditions *condition"],
    bound: Bound | None = None,
    *,
    log_prior: Float[Tensor, " conditions"] | None = None,
    draws: int = 16,
    generator: torch.Generator | None = None,
    work: Work | None = None,
) -> Classification:
    """The bound of every example under every condition: N x conditions x draws evaluations of the network.

    Args:
        model: DiffEnc whose network takes conditions.
        x: levels or reals.
        conditions: to choose from, torch.arange(10) for ten labels.
        bound: InfiniteDepth() by default, or FiniteDepth(...); its `depths` may be `telling_depths`.
        log_prior: ln p(c); equal by default.
        draws: of depth and noise an example, the same for all conditions; depths are stratified over them.
        generator: one draw of it seeds every example by its place.
        work: batches (of 250 by default), progress (counts examples), processes.

    Raises:
        ValueError: for no examples, draws below 1, and conditions that the network does not take.

    Example:
        >>> import torch, diffenc_ct as dc
        >>> net = dc.networks.MLP(4, classes=3)
        >>> model = dc.DiffEnc(dc.LinearSchedule(), dc.IdentityEncoder(), dc.Single(net), dc.Levels(16))
        >>> dc.classify(model, torch.randint(0, 16, (8, 4)), torch.arange(3)).probabilities.shape
        torch.Size([8, 3])
    """
    count = len(conditions)
    if log_prior is None:
        log_prior = torch.full((count,), -math.log(count), dtype=torch.float64)
    if log_prior.shape != (count,):
        raise ValueError(f"log_prior has shape {tuple(log_prior.shape)} for {count} conditions")
    bound = InfiniteDepth() if bound is None else bound
    losses, _ = _losses(model, x, conditions, bound, draws, generator, work)
    return Classification(losses, x[0].numel(), log_prior.double().cpu())


@torch.no_grad()
def telling_depths(
    model: DiffEnc,
    x: Shaped[Tensor, "N *data"],
    conditions: Shaped[Tensor, "conditions *condition"],
    *,
    draws: int = 16,
    generator: torch.Generator | None = None,
    work: Work | None = None,
) -> ImportanceDepths:
    """Depths where the conditions' losses lie apart: of a density proportional to their spread's root mean square.

    What depends on the condition is decided at a few noise levels (of MNIST's digits nearly all at the noisiest third);
    draws elsewhere tell nothing.

    Args:
        model: as of `classify`.
        x: training examples, some dozens.
        conditions: to choose from.
        draws: of depth and noise an example.
        generator: as of `classify`.
        work: as of `classify`.

    Returns:
        For InfiniteDepth(depths=...).
    """
    losses, t = _losses(model, x, conditions, InfiniteDepth(), draws, generator, work)
    depths = ImportanceDepths(max(1, min(32, t.numel() // 16)))
    depths.update(depths.count(t.flatten(), losses.std(1).flatten()))
    return depths


def _losses(
    model: DiffEnc,
    x: Tensor,
    conditions: Tensor,
    bound: Bound,
    draws: int,
    generator: torch.Generator | None,
    work: Work | None,
) -> tuple[Tensor, Tensor]:
    """L_k(c) in nats, (N, conditions, K), and the depths of the draws, (N, K), in increasing order; on the CPU."""
    if draws < 1 or not len(x):
        raise ValueError(f"draws={draws}, {len(x)} examples: both must be at least 1")
    work = Work(250) if work is None else work
    model.decoder.check(x)
    model.given(conditions)  # refuses what is none
    device = next((p.device for p in model.parameters()), x.device)
    seeds = example_seeds(generator, len(x))

    def found(start: int) -> tuple[Tensor, Tensor]:
        part = x[start : start + work.batch_size].to(device)
        losses = torch.empty(len(part), len(conditions), draws, dtype=torch.float64)
        data = model.scale(part)
        each = [_draws(data, bound, draws, seed) for seed in seeds[start : start + len(part)]]
        t, noise, noise_0, weight = (torch.stack(column, 1) for column in zip(*each, strict=True))
        for k in range(draws):
            drawn = Draws(t[k], noise[k], noise_0[k], weight[k])
            for c, condition in enumerate(conditions):
                told = condition.expand(len(part), *condition.shape)
                terms = elbo(model.given(told), part, bound, draws=drawn)
                losses[:, c, k] = terms.total.double().cpu()
        work.progress(len(part))
        return losses, t.T.cpu()

    with evaluating(model):
        parts = work.processes.spread(found, range(0, len(x), work.batch_size))
    losses, t = (torch.cat(column) for column in zip(*parts, strict=True))
    return losses, t


def _draws(
    data: Tensor, bound: Bound, count: int, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """t, noise, noise_0 and weight of an example, count of each: they do not depend on its batch."""
    generator = example_generator(seed, "classification")
    t, weight = bound.depths.draw(count, like=data.cpu(), generator=generator)
    shape = (count, *data.shape[1:])
    noises = [torch.randn(shape, generator=generator, dtype=data.dtype) for _ in range(2)]
    order = t.argsort()
    drawn = (t[order], *noises, weight[order])
    return tuple(v.to(data) for v in drawn)  # type: ignore[return-value]
