"""Classifier-free guidance: estimates beyond those of the conditional model, away from those without condition.

    x_hat = x_hat(z) + w (x_hat(z, c) - x_hat(z)),        r_hat likewise

In terms of scores this is (1 - w) grad log q(z) + w grad log q(z | c), the score of q(z | c)^w q(z)^(1 - w) at one
depth. These are not the marginals of any one forward process, so the samples have no law that a formula names, and the
bounds of the conditional model say nothing of them. (Any x_hat is a model, and has bounds of its own; those of a guided
one are above the conditional model's wherever the latter is right.)

Reference: Ho and Salimans 2021.
"""

import math

from jaxtyping import Shaped
from torch import Tensor

from diffenc_ct.encoders import Encoder
from diffenc_ct.model.heads import Heads, Rows
from diffenc_ct.model.readings import Data, Gammas
from diffenc_ct.process import Estimates


class Guided(Heads):
    """Heads with guidance: two evaluations of the network each time.

    Args:
        heads: that are given a condition.
        weight: w, 1 for the conditional model, 0 for the one without condition, mostly above 1.
    Raises:
        ValueError: where the heads are given none, or the weight is not finite.
    """

    def __init__(self, heads: Heads, weight: float) -> None:
        super().__init__()
        if heads.condition is None:
            raise ValueError(
                "guidance needs a condition; take model.given(condition).guided(weight)"
            )
        if not math.isfinite(weight):
            raise ValueError(f"guidance={weight} is not finite")
        self.heads, self.weight = heads, weight
        self.tells_apart = heads.tells_apart

    @property
    def condition(self) -> Tensor | None:  # type: ignore[override]
        """What the heads are given."""
        return self.heads.condition

    def forward(self, z: Data, gamma: Gammas, encoder: Encoder) -> Estimates:
        given, free = self.heads(z, gamma, encoder), self.heads.given(None)(z, gamma, encoder)
        w = self.weight
        return Estimates(
            free.x_hat + w * (given.x_hat - free.x_hat), free.r_hat + w * (given.r_hat - free.r_hat)
        )

    def given(
        self, condition: Shaped[Tensor, "batch *condition"] | None, *, values: bool = True
    ) -> Heads:
        return Guided(self.heads.given(condition, values=values), self.weight)

    def rows(self, index: Rows) -> Heads:
        return Guided(self.heads.rows(index), self.weight)
