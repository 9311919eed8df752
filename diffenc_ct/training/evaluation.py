"""Test-set evaluation: every image once, every ELBO term in bits per dimension with its standard error.

Each image gets `draws` independent estimates; depths are stratified over each batch. The mean over an image's draws
is one number an image, and the standard error is that of the mean over images: it contains both the spread of
images and of draws (and, ignoring the stratification, is on the safe side). Depths may be drawn by importance, denser
where the loss of training images is larger: the same mean, and a smaller error where the loss varies most.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diffenc_ct.data import Dataset
from diffenc_ct.distributed import Work
from diffenc_ct.elbo import (
    Bound,
    Depths,
    Draws,
    ImportanceDepths,
    InfiniteDepth,
    LowDiscrepancyDepths,
    elbo,
)
from diffenc_ct.model import DiffEnc, evaluating
from diffenc_ct.training.randomness import EVALUATION, generator_for

TERMS = ("total", "reconstruction", "diffusion", "latent")


@dataclass(frozen=True)
class Evaluation:
    """What was found of each image.

    Attributes:
        terms: of TERMS, in bits per dimension.
        t: depths that were looked at.
        integrand: diffusion loss there, in bits per dimension per unit of t.
        weight: 1 over the density with which t was drawn.
    """

    terms: dict[str, Float[Tensor, " images"]]
    t: Float[Tensor, " estimates"] = field(repr=False)
    integrand: Float[Tensor, " estimates"] = field(repr=False)
    weight: Float[Tensor, " estimates"] = field(repr=False)

    def mean(self, term: str) -> float:
        """Mean over images, in bits per dimension."""
        return self.terms[term].mean().item()

    def error(self, term: str) -> float:
        """Standard error of that mean."""
        values = self.terms[term]
        return values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan

    def metrics(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        named = {term: self.mean(term) for term in TERMS[1:]}
        return {"bpd": self.mean("total"), "bpd_error": self.error("total"), **named}

    def by_depth(self, bins: int = 20) -> list[dict[str, float]]:
        """Mean integrand (bits per dimension) in equal bins of t, with standard errors and counts."""
        cell = (self.t * bins).long().clamp(0, bins - 1)
        rows = []
        for i in range(bins):
            values, weights = self.integrand[cell == i], self.weight[cell == i]
            if len(values) > 1:
                share = weights / weights.sum()
                mean = (share * values).sum()
                # Of equal weights it is the standard error of a mean.
                correction = len(values) / (len(values) - 1)
                error = (correction * (share * (values - mean)).square().sum()).sqrt()
                rows.append(
                    {
                        "t": (i + 0.5) / bins,
                        "bpd": mean.item(),
                        "error": error.item(),
                        "count": len(values),
                    }
                )
        return rows


@torch.no_grad()
def evaluate(
    model: DiffEnc,
    images: Shaped[Tensor, "images *data"],
    bound: Bound | None = None,
    *,
    draws: int = 1,
    depths: Depths | None = None,
    seed: int = 0,
    work: Work | None = None,
) -> Evaluation:
    """Every image `draws` times through a bound.

    The noise depends on seed and batch size only, so that bounds are compared on the same draws, and so that
    processes that share the batches find what one finds.

    Args:
        model: DiffEnc.
        images: levels or reals.
        bound: InfiniteDepth() by default, or FiniteDepth(...).
        draws: of depth and noise an image.
        depths: how depths are drawn; LowDiscrepancyDepths() by default, or what `importance_depths` found.
        seed: of the draws.
        work: batches (of 250 by default), progress (counts images), processes.

    Raises:
        ValueError: for no images or draws below 1.
    """
    if draws < 1 or not len(images):
        raise ValueError(f"draws={draws}, {len(images)} images: both must be at least 1")
    work, bound = Work(250) if work is None else work, InfiniteDepth() if bound is None else bound
    depths = LowDiscrepancyDepths() if depths is None else depths
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def estimate(start: int) -> Tensor:
        """The terms, depths and integrands of a batch, (draws, batch, 7), on the CPU."""
        some, rows = slice(start, start + work.batch_size), []
        x, part = images[some].to(device), model.rows(some)
        for draw in range(draws):
            generator = generator_for(seed, EVALUATION, start, draw, device=device)
            like = torch.empty((), device=device)
            t, weight = depths.draw(len(x), like=like, generator=generator)
            terms = elbo(part, x, bound, draws=Draws(t=t, weight=weight), generator=generator)
            terms = terms.bits_per_dimension()
            columns = [getattr(terms, term) for term in TERMS]
            columns += [*bound.along(t, terms.diffusion / weight), weight]
            rows.append(torch.stack([column.double().cpu() for column in columns], 1))
        work.progress(len(x))
        return torch.stack(rows)

    starts = range(0, len(images), work.batch_size)
    with evaluating(model):
        found = torch.cat(work.processes.spread(estimate, starts), 1)
    *terms, t, integrand, weight = found.unbind(2)
    means = {term: values.mean(0) for term, values in zip(TERMS, terms, strict=True)}
    return Evaluation(means, t.flatten(), integrand.flatten(), weight.flatten())


def importance_depths(
    model: DiffEnc,
    images: Shaped[Tensor, "images *data"],
    bound: Bound | None = None,
    *,
    draws: int = 4,
    seed: int = 0,
    work: Work | None = None,
) -> ImportanceDepths:
    """Depths of a density proportional to the root mean square of the loss over some images.

    Args:
        model: DiffEnc.
        images: training examples, some hundred; not those that are to be evaluated.
        bound: whose loss it is.
        draws: of depth and noise an image.
        seed: of the draws.
        work: batches, progress, processes.
    """
    seen = evaluate(model, images, bound, draws=draws, seed=seed, work=work)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    # Cells that hold some dozen estimates each.
    depths = ImportanceDepths(max(1, min(64, len(seen.t) // 32)))
    depths.update(depths.count(seen.t, seen.integrand))
    return depths.to(device)


def baselines(data: Dataset) -> dict[str, float]:
    """Bits per dimension of the test set under models without learning; empty for real data.

    uniform: log2(levels). independent: each dimension's own histogram over the training set, one added to every
    count.

    Args:
        data: both parts of which are counted.
    """
    if data.levels is None:
        return {}
    train, test = (part.flatten(1).long().numpy() for part in (data.train, data.test))
    total = 0.0
    for i in range(train.shape[1]):
        counts = np.bincount(train[:, i], minlength=data.levels) + 1.0
        total -= np.log2(counts[test[:, i]] / counts.sum()).sum()
    return {"uniform": math.log2(data.levels), "independent": float(total / test.size)}


# More images than these are in the CSV only.
MOST_IN_JSON = 10_000


def report(evaluation: Evaluation, **facts: Any) -> dict[str, Any]:
    """The evaluation as plain values, for JSON; of up to MOST_IN_JSON images also the terms of each, by "each_image".

    Args:
        evaluation: whose numbers they are.
        facts: how it was made.
    """
    images = len(evaluation.terms["total"])
    each = {term: evaluation.terms[term].tolist() for term in TERMS}
    return {
        **facts,
        "images": images,
        "bits_per_dimension": {
            term: {"mean": evaluation.mean(term), "standard_error": evaluation.error(term)}
            for term in TERMS
        },
        "loss_by_depth": evaluation.by_depth(),
        **({"each_image": each} if images <= MOST_IN_JSON else {}),
    }
