"""What the progress bar and the rows of metrics.csv show of training, fetched from the device when it is needed."""

import math
import time

import torch
from jaxtyping import Float
from torch import Tensor

# What a step reports; the first three make the ELBO.
TERMS = ("reconstruction", "diffusion", "latent", "regression", "gradient_norm")


class Meter:
    """Means of the loss terms since the last row, and images a second, evaluations and saving left out.

    Args:
        batch_size: images a step.
        patience: how many steps may wait on the device before they are fetched.
    """

    def __init__(self, batch_size: int, *, patience: int = 1) -> None:
        self.batch_size, self.patience = batch_size, patience
        self.images, self.seconds = 0, 0.0
        self.recent: list[dict[str, float]] = []
        self._waiting: list[tuple[int, Tensor]] = []
        self.shown = math.nan
        self.since = time.perf_counter()

    def restart(self) -> None:
        """Do not count the time since the last step."""
        self.since = time.perf_counter()

    def count(
        self, step: int, values: Float[Tensor, " terms"], *, now: bool = False
    ) -> dict[int, dict[str, float]]:
        """Take in what a step reported.

        Args:
            step: its number.
            values: of TERMS, on their device.
            now: fetch what waits there, whatever the patience.

        Returns:
            Of the steps that were fetched, those whose numbers are not all finite.
        """
        passed = time.perf_counter()
        self.seconds += passed - self.since
        self.since = passed
        self.images += self.batch_size
        self._waiting.append((step, values))
        return self._fetch() if now or len(self._waiting) >= self.patience else {}

    def _fetch(self) -> dict[int, dict[str, float]]:
        rows = torch.stack([values for _, values in self._waiting]).tolist()
        steps = [step for step, _ in self._waiting]
        self._waiting, broken = [], {}
        for step, row in zip(steps, rows, strict=True):
            terms = dict(zip(TERMS, row, strict=True))
            self.recent.append(terms)
            bpd = sum(row[:3])
            if not all(map(math.isfinite, row)):
                broken[step] = terms
            else:
                self.shown = bpd if math.isnan(self.shown) else 0.95 * self.shown + 0.05 * bpd
        return broken

    def overall(self) -> float:
        """Images a second since the start."""
        return self.images / self.seconds if self.seconds else 0.0

    def text(self) -> str:
        """For the progress bar."""
        return f"{self.shown:.3f} bits/dim, {self.overall():.1f} images/s"

    def row(self) -> dict[str, float]:
        """Means since the last call, of the steps that were fetched."""
        finite = [
            terms for terms in self.recent if all(math.isfinite(value) for value in terms.values())
        ]
        names = finite[0] if finite else {}
        means = {name: sum(terms[name] for terms in finite) / len(finite) for name in names}
        self.recent = []
        bpd = {"bpd": sum(means[name] for name in TERMS[:3])} if means else {}
        return {**bpd, **means, "images_per_second": self.overall()}
