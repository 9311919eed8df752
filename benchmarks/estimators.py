"""How much noise do estimators of the ELBO and of its gradient have, at equal evaluations of the score network?

A trained model of digits; batches of images, depths and noises. Of many batches, told in bits per dimension:

    sd of the loss     deviation of a batch's mean over batches
    gradient           sum of the variances of all entries of the batch's gradient, relative to that of low-discrepancy
                       depths on whole terms; of the encoder's and of the score network's weights
    diffusion loss     t uniform; low-discrepancy; importance-sampled by a density fitted to the integrand on other
                       batches, of low-discrepancy numbers
    ends               reconstruction and latent loss on a part of the batch
    rate               the derivative of the encoder's network on a part of the batch

    python benchmarks/estimators.py RUN        RUN: the folder of a trained model, such as `make demo` leaves

Dropout is off: it adds the same noise to all. The last line is JSON.
"""

import argparse
import json
import math

import torch
from torch import Tensor

import diffenc_ct as dc
from diffenc_ct.data import load_dataset
from diffenc_ct.elbo import Depths, ImportanceDepths, LowDiscrepancyDepths, UniformDepths


def fitted(model: dc.DiffEnc, images: Tensor, batches: int, batch: int, generator) -> Depths:
    """Depths of a density proportional to the integrand's root mean square."""
    depths = ImportanceDepths(bins=32, decay=0.9999)
    uniform, loss = LowDiscrepancyDepths(), dc.InfiniteDepth(ends_fraction=1 / batch)
    with torch.no_grad():
        for _ in range(batches):
            x = images[torch.randint(len(images), (batch,), generator=generator)]
            t, _ = uniform.draw(batch, like=torch.zeros(()), generator=generator)
            terms = model(x, loss, draws=dc.Draws(t=t), generator=generator)
            depths.update(depths.count(t, terms.diffusion))
    return depths


class Sums:
    """Means and variances of losses and gradients over batches."""

    def __init__(self, model: dc.DiffEnc) -> None:
        self.model = model
        self.names = [name for name, _ in model.named_parameters()]
        self.parameters = list(model.parameters())
        self.losses: list[float] = []
        self.total = [torch.zeros_like(p, dtype=torch.float64) for p in self.parameters]
        self.squares = [torch.zeros_like(p, dtype=torch.float64) for p in self.parameters]

    def add(self, loss: Tensor) -> None:
        """Take in the mean loss of a batch."""
        self.losses.append(loss.item())
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        for total, square, gradient in zip(self.total, self.squares, gradients, strict=True):
            if gradient is not None:
                total += gradient
                square += gradient.double() ** 2

    def spread(self, part: str) -> float:
        """Sum of the variances of the gradient's entries, of the parameters whose names begin with `part`."""
        n, found = len(self.losses), 0.0
        for name, total, square in zip(self.names, self.total, self.squares, strict=True):
            if name.startswith(part):
                found += float((square - total**2 / n).sum()) / (n - 1)
        return found

    def row(self) -> dict[str, float]:
        """What the table shows."""
        losses = torch.tensor(self.losses, dtype=torch.float64)
        return {
            "mean": losses.mean().item(),
            "sd": losses.std().item(),
            "encoder": self.spread("encoder"),
            "network": self.spread("heads"),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=64)
    settings = parser.parse_args()
    model = dc.load(settings.run).eval().requires_grad_(True)
    images, batch = load_dataset(settings.data).train, settings.batch_size
    generator = torch.Generator().manual_seed(0)
    importance = fitted(model, images, settings.batches, batch, generator)

    estimators = {
        "low-discrepancy t": dc.InfiniteDepth(),
        "uniform t": dc.InfiniteDepth(depths=UniformDepths()),
        "importance-sampled t": dc.InfiniteDepth(depths=importance),
        **{f"ends on 1/{k}": dc.InfiniteDepth(ends_fraction=1 / k) for k in (4, 8, 16)},
        **{f"rate on 1/{k}": dc.InfiniteDepth(rate_fraction=1 / k) for k in (2, 8, 16)},
        "ends on 1/16, rate on 1/8": dc.InfiniteDepth(ends_fraction=1 / 16, rate_fraction=1 / 8),
    }
    rows: dict[str, dict[str, float]] = {}
    print(f"{batch} images a batch, {settings.batches} batches")
    print(
        f"{'estimator':<28}{'mean':>9}{'sd of the loss':>16}{'gradient: encoder':>19}{'score network':>15}"
    )
    for name, loss in estimators.items():
        # The same images and noise for all: differences are the estimators'.
        generator, sums = torch.Generator().manual_seed(1), Sums(model)
        for _ in range(settings.batches):
            x = images[torch.randint(len(images), (batch,), generator=generator)]
            like = model.scale(x)
            noise, noise_0 = (torch.randn(like.shape, generator=generator) for _ in "ab")
            draws = dc.Draws(noise=noise, noise_0=noise_0)
            terms = model(x, loss, draws=draws, generator=generator)
            sums.add(terms.bits_per_dimension().total.mean())
        row = rows[name] = sums.row()
        first = rows["low-discrepancy t"]
        ratios = [
            row[part] / first[part] if first[part] else math.nan for part in ("encoder", "network")
        ]
        print(
            f"{name:<28}{row['mean']:>9.4f}{row['sd']:>16.4f}{ratios[0]:>19.3f}{ratios[1]:>15.3f}",
            flush=True,
        )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
