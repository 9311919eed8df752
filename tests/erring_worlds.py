"""Closed-form worlds whose heads have a known error, and the mean of their ELBO without draws."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

import diffenc_ct as dc
from diffenc_ct.elbo import Bound
from diffenc_ct.model import Direct
from diffenc_ct.schedules import alpha, expand, sigma2
from diffenc_ct.worlds import World
from diffenc_ct.worlds.gaussian import quadrature

# the score's error at z, gamma and the score there
Error = Callable[[Tensor, Tensor, Tensor], Tensor]


class Erring(nn.Module):
    """A world's optimal estimates, x_hat off by (sigma^2/alpha) delta, so that the score is off by delta."""

    def __init__(self, world: World, delta: Error) -> None:
        super().__init__()
        self.world, self.delta = world, delta

    def forward(self, z: Tensor, gamma: Tensor) -> dc.Estimates:
        best = self.world.estimates(z, gamma)
        a, s2 = expand(alpha(gamma), z), expand(sigma2(gamma), z)
        delta = self.delta(z, gamma, (a * best.x_hat - z) / s2)
        return dc.Estimates(best.x_hat + s2 / a * delta, best.r_hat)


def erring_model(world: World, schedule: dc.Schedule, delta: Error) -> dc.DiffEnc:
    """The world's model with that error of the score."""
    return dc.DiffEnc(schedule, world.encoder, Direct(Erring(world, delta)), dc.Reals())


def diffused(gamma: Tensor, schedule: dc.Schedule) -> Tensor:
    """u = int_0^t beta: sigma^2 is the derivative of the softplus of gamma."""
    return F.softplus(gamma) - F.softplus(schedule.at(0.0, gamma).gamma)


def mean_elbo(
    model: dc.DiffEnc,
    points: tuple[Tensor, Tensor],
    bound: Bound | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """The ELBO's mean over data and noise (n, d), of those weights, and over depth, by quadrature."""
    (x, noise), (t, share) = points, quadrature(0.0, 1.0, panels=16, nodes=8)
    n = len(x)
    x, noise = x.repeat(len(t), 1), noise.repeat(len(t), 1)
    draws = dc.Draws(
        t=t.repeat_interleave(n),
        noise=noise,
        noise_0=noise,
        weight=len(t) * share.repeat_interleave(n),
    )
    total = dc.elbo(model, x, bound, draws=draws).total.reshape(len(t), n).mean(0)
    return total.mean() if weights is None else (weights * total).sum()
