"""A model of T steps as a code of a batch of examples, on a stack of bits.

The latent at s lives on a grid of width S 2^-b, S the deviation of the step that ends there (sigma_1 at depth 1).
Integrals over its cells diverge no more than densities do; what the grid costs is that a latent is off by up to half a
cell when the next law is computed from it, a relative O(4^-b) of the noise.

Means and deviations are float64; the networks see latents in their own type. Encoder and decoder call the same
functions with the same numbers, in batches of the same size, so that every law is the same bit for bit.

Theorems: elbo.step_kl, elbo.mixture_kl, process.noise_level.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor

from diffenc_ct.coding.laws import Choices, Law, Mixed, Normals, Parts
from diffenc_ct.coding.stack import Stack, Symbols
from diffenc_ct.elbo import FiniteDepth, ratio_at
from diffenc_ct.elbo.ratios import ratio_of_values
from diffenc_ct.model import DiffEnc, reverse_step
from diffenc_ct.process import Estimates, Gaussian, marginal, posterior, posterior_std
from diffenc_ct.schedules import alpha, sigma

# Probabilities of levels that are held at a time.
_HELD = 2**22


@dataclass(frozen=True)
class BitsBack:
    """The code of a model's batches.

    Attributes:
        model: of levels.
        steps: grid, noise level, ratio and kind of the T steps.
        shape: of one example.
        bits: b, of the grid.
    """

    model: DiffEnc
    steps: FiniteDepth
    shape: tuple[int, ...]
    bits: int

    # Where latents live -------------------------------------------------------------------------------

    @cached_property
    def gamma(self) -> Float[Tensor, " nodes"]:
        """gamma at the T + 1 depths, float64."""
        device = next(self.model.parameters(), torch.empty(0)).device
        grid = self.steps.grid(torch.empty(0, dtype=torch.float64, device=device))
        found: Tensor = self.model.schedule(grid).gamma
        return found.double()

    @cached_property
    def widths(self) -> list[float]:
        """Of the latents' grids, by depth."""
        stds = posterior_std(self.gamma[:-1], self.gamma[1:], self.steps.level)
        return [float(s) * 2.0**-self.bits for s in [*stds, sigma(self.gamma[-1])]]

    def latents(self, node: int, k: Symbols) -> Float[Tensor, "batch *data"]:
        """z = k width, float64."""
        z = torch.from_numpy(k * self.widths[node]).to(self.gamma.device)
        return z.view(-1, *self.shape)

    def _gammas(self, node: int, batch: int) -> Float[Tensor, " batch"]:
        return self.gamma[node].expand(batch)

    # Coding -------------------------------------------------------------------------------------------

    def push(self, stack: Stack, x: Integer[Tensor, "batch *data"]) -> list[Symbols]:
        """Code examples.

        Args:
            stack: of bits.
            x: levels.
        Returns:
            The latents that were coded, by depth, in widths of their grids.
        """
        q = self._inference(x.to(self.gamma.device))
        k = [q[-1](None).pop(stack)]
        for node in reversed(range(self.steps.depth)):
            k.insert(0, q[node](k[0]).pop(stack))
        self.likelihood(k[0]).push(stack, x.flatten().cpu().numpy().astype(np.int64))
        for node in range(self.steps.depth):
            self.reverse(node, k[node + 1]).push(stack, k[node])
        self.prior(len(x)).push(stack, k[-1])
        return k

    def pop(self, stack: Stack, batch: int) -> Int[Tensor, "batch *data"]:
        """Decode examples, and give back the bits that their latents were drawn from.

        Args:
            stack: of bits.
            batch: how many.
        """
        k = [self.prior(batch).pop(stack)]
        for node in reversed(range(self.steps.depth)):
            k.insert(0, self.reverse(node, k[0]).pop(stack))
        x = torch.from_numpy(self.likelihood(k[0]).pop(stack)).view(-1, *self.shape)
        q = self._inference(x.to(self.gamma.device))
        for node in range(self.steps.depth):
            q[node](k[node + 1]).push(stack, k[node])
        q[-1](None).push(stack, k[-1])
        return x

    # Laws ---------------------------------------------------------------------------------------------

    def _inference(
        self, x: Integer[Tensor, "batch *data"]
    ) -> list[Callable[[Symbols | None], Normals]]:
        """q of the latents at every depth, given the one above it; at depth 1 given nothing."""
        data, batch = self.model.scale(x), len(x)
        encoded = [
            self.model.encoder.encode(data, self._gammas(node, batch).to(data)).double()
            for node in range(len(self.gamma))
        ]

        def law(node: int, above: Symbols | None) -> Normals:
            gamma_s, x_s = self._gammas(node, batch), encoded[node]
            if above is None:
                found = marginal(x_s, gamma_s)
            else:
                z_t, x_t = self.latents(node + 1, above), encoded[node + 1]
                gamma_t = self._gammas(node + 1, batch)
                found = posterior(z_t, x_s, x_t, gamma_s, gamma_t, self.steps.level)
            return Normals(found, self.widths[node], escape=False)

        return [lambda above, node=node: law(node, above) for node in range(len(self.gamma))]  # type: ignore[misc]

    def prior(self, batch: int) -> Normals:
        """p(z_1) = N(0, I)."""
        like = self.gamma.new_zeros(batch, *self.shape)
        return Normals(Gaussian(like, torch.ones_like(like)), self.widths[-1])

    def reverse(self, node: int, above: Symbols) -> Law:
        """p(z_s | z_t) of the step that ends at a depth.

        Args:
            node: of s.
            above: the latents at t.
        """
        z_t = self.latents(node + 1, above)
        batch, width = len(z_t), self.widths[node]
        gamma_s, gamma_t = (self._gammas(n, batch) for n in (node, node + 1))
        step = torch.full((batch,), node, device=z_t.device)
        like = self.model.scale(torch.zeros(1, 1, dtype=torch.long, device=z_t.device))
        seen = z_t.to(like), gamma_t.to(like)
        ratio, level = self.steps.variance_ratio, self.steps.level
        if self.steps.step_kind == "gaussian":
            found = _double(self.model.predict(*seen))
            p = reverse_step(z_t, found, gamma_s, gamma_t, level)
            w = torch.as_tensor(ratio_at(ratio, step, found)).to(z_t)
            return Normals(Gaussian(p.mean, p.std * w.sqrt()), width)
        values = self.model.values(*seen).double()
        mixtures = values.step(z_t, gamma_s, level, ratio_of_values(ratio, step, values))
        return Parts(mixtures.slices(), lambda rows: Mixed(mixtures.mixture(rows), width))

    def likelihood(self, k_0: Symbols) -> Law:
        """p(x | z_0)."""
        u = (self.latents(0, k_0) / alpha(self.gamma[0])).flatten()
        decoder = self.model.decoder
        rows = max(1, _HELD // (decoder.levels or 1))
        slices = [slice(i, i + rows) for i in range(0, len(u), rows)]
        return Parts(slices, lambda part: Choices(decoder.logits(u[part], self.gamma[0])))


def _double(found: Estimates) -> Estimates:
    return Estimates(found.x_hat.double(), found.r_hat.double())
