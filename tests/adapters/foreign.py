"""Networks of a world as somebody else would have trained them: own time, own scaling, own parameterisation.

Everything is written anew here, from textbooks: a(t), b(t) and their derivatives by hand, and what each
parameterisation means. Nothing is taken from the adapters but the object that is to describe it.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffenc_ct import adapters
from diffenc_ct.worlds import World
from tests.strategies import seeded

PREDICTS = ("eps", "x0", "v", "score", "velocity", "denoiser")


@dataclass(frozen=True)
class Family:
    """A process in textbook form, and the adapters' description of it.

    coefficients(told) are a, b, da/dt, db/dt at the time as the network is told it.
    """

    name: str
    process: adapters.NativeProcess
    coefficients: Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


class Foreign(nn.Module):
    """E[combination | z] of a world, z = a x + b eps at a native time."""

    def __init__(self, world: World, family: Family, predicts: str, channels: int = 1) -> None:
        super().__init__()
        self.world, self.family, self.predicts, self.channels = world, family, predicts, channels

    def forward(self, z: Tensor, told: Tensor) -> Tensor:
        shape = (-1, *[1] * (z.ndim - 1))
        a, b, da, db = (c.to(z).reshape(shape) for c in self.family.coefficients(told))
        gamma = 2 * torch.log(b / a).flatten()
        x = self.world.posterior_mean(z / torch.sqrt(a**2 + b**2), gamma)
        eps = (z - a * x) / b
        says = {
            "eps": eps,
            "x0": x,
            "denoiser": x,
            "v": a * eps - b * x,
            "score": -eps / b,
            "velocity": da * x + db * eps,
        }[self.predicts]
        return torch.cat([says, *[0 * says - 3] * (self.channels - 1)], 1)


def betas_of(steps: int, least: float, most: float) -> Tensor:
    return torch.linspace(least, most, steps, dtype=torch.float64)


def table_family(log_snr: Tensor, log_scale: Tensor, process, name: str) -> Family:
    """Linear in the log SNR and in ln s between whole times."""

    def coefficients(told: Tensor) -> tuple[Tensor, ...]:
        t = told.to(log_snr)
        low = t.floor().clamp(0, len(log_snr) - 2).long()
        d_lam, d_scale = log_snr.diff()[low], log_scale.diff()[low]
        lam, scale = log_snr[low] + (t - low) * d_lam, log_scale[low] + (t - low) * d_scale
        a = torch.exp(scale) / torch.sqrt(1 + torch.exp(-lam))
        b = torch.exp(scale) / torch.sqrt(1 + torch.exp(lam))
        # d ln a = d ln s + sigma^2/2 d lambda, d ln b = d ln s - alpha^2/2 d lambda
        da = a * (d_scale + d_lam / 2 / (1 + torch.exp(lam)))
        db = b * (d_scale - d_lam / 2 / (1 + torch.exp(-lam)))
        return a, b, da, db

    return Family(name, process, coefficients)


@seeded
def families(pick: random.Random, kind: str = "") -> Family:
    """Every family, with random ends and times told in another unit."""
    kind = kind or pick.choice(("betas", "sigmas", "cosine", "exploding", "flow", "flow 1", "pair"))
    unit = pick.choice([1.0, 1000.0])
    told = None if unit == 1 else (lambda t: unit * t)
    if kind == "betas":
        betas = betas_of(
            pick.randint(5, 60), 10 ** pick.uniform(-3.5, -2.5), pick.uniform(0.2, 0.7)
        )
        share = torch.cumprod(1 - betas, 0)
        by_share = adapters.Table.of_alphas_cumprod(share)
        process = pick.choice([adapters.Table.of_betas(betas), by_share])
        return table_family(torch.log(share / (1 - share)), 0 * share, process, kind)
    if kind == "sigmas":
        low, high = math.log10(pick.uniform(0.02, 0.1)), math.log10(pick.uniform(10, 50))
        sigmas = torch.logspace(low, high, pick.randint(3, 20), dtype=torch.float64)
        process = adapters.Table.of_sigmas(sigmas)
        return table_family(-2 * sigmas.log(), torch.log(1 + sigmas**2) / 2, process, kind)
    start, end = pick.uniform(0.005, 0.05), pick.uniform(0.9, 0.99)
    if kind == "cosine":
        offset = pick.choice([0.0, 0.008])
        process = adapters.Cosine(start, end, offset=offset, told=told)

        def cosine(t: Tensor) -> tuple[Tensor, ...]:
            speed = math.pi / 2 / (1 + offset) / 1
            theta = speed * (t / unit + offset)
            a, b = torch.cos(theta), torch.sin(theta)
            return a, b, -speed * b, speed * a

        return Family(kind, process, cosine)
    if kind == "exploding":
        log_told = pick.random() < 0.5
        process = adapters.VarianceExploding(
            start, 80 * end, told=(lambda s: s.log() / 4) if log_told else None
        )

        def exploding(t: Tensor) -> tuple[Tensor, ...]:
            sigma = torch.exp(4 * t) if log_told else t
            one = torch.ones_like(sigma)
            return one, sigma, 0 * one, one

        return Family(kind, process, exploding)
    if kind in ("flow", "flow 1"):
        data_at, sign = (0, 1.0) if kind == "flow" else (1, -1.0)
        process = adapters.RectifiedFlow(data_at=data_at, margin=start, told=told)

        def flow(t: Tensor) -> tuple[Tensor, ...]:
            r = t / unit if data_at == 0 else 1 - t / unit
            one = torch.ones_like(r)
            return 1 - r, r, -sign * one, sign * one

        return Family(kind, process, flow)
    power = pick.uniform(1.5, 3)
    process = adapters.Pair(lambda t: 2 * (1 - t**power), lambda t: 0.7 * t, start, end, told=told)

    def pair(t: Tensor) -> tuple[Tensor, ...]:
        t = t / unit
        return (
            2 * (1 - t**power),
            0.7 * t,
            -2 * power * t ** (power - 1),
            0.7 * torch.ones_like(t),
        )

    return Family("pair", process, pair)
