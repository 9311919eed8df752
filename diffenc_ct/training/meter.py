"""What the progress bar and the rows of metrics.csv show of training."""

import math
import time

# What a step reports; the first three make the ELBO.
TERMS = ("reconstruction", "diffusion", "latent", "regression", "gradient_norm")


class Meter:
    """Means of the loss terms since the last row, and images a second, evaluations and saving left out."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size, self.images, self.seconds = batch_size, 0, 0.0
        self.recent: list[dict[str, float]] = []
        self.shown = math.nan
        self.since = time.perf_counter()

    def restart(self) -> None:
        """Do not count the time since the last step."""
        self.since = time.perf_counter()

    def count(self, terms: dict[str, float]) -> None:
        """Take in a step."""
        now = time.perf_counter()
        self.seconds += now - self.since
        self.since = now
        self.images += self.batch_size
        self.recent.append(terms)
        bpd = sum(terms[name] for name in TERMS[:3])
        self.shown = bpd if math.isnan(self.shown) else 0.95 * self.shown + 0.05 * bpd

    def overall(self) -> float:
        """Images a second since the start."""
        return self.images / self.seconds if self.seconds else 0.0

    def text(self) -> str:
        """For the progress bar."""
        return f"{self.shown:.3f} bits/dim, {self.overall():.1f} images/s"

    def row(self) -> dict[str, float]:
        """Means since the last call."""
        finite = [
            terms for terms in self.recent if all(math.isfinite(value) for value in terms.values())
        ]
        names = finite[0] if finite else {}
        means = {name: sum(terms[name] for terms in finite) / len(finite) for name in names}
        self.recent = []
        bpd = {"bpd": sum(means[name] for name in TERMS[:3])} if means else {}
        return {**bpd, **means, "images_per_second": self.overall()}
