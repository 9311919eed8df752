"""Building blocks of the tests: comparison, seeded tensors, users' own parts, exact expectations."""

import math
from typing import Any

import torch
from torch import Tensor, nn

import diffenc_ct as dc
from diffenc_ct.model import MixturePosterior, Posterior
from diffenc_ct.schedules import expand, sigma2
from diffenc_ct.worlds import GaussianWorld, LinearEncoder

# Relative tolerance of an identity by dtype.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 3e-5}


def close(actual: Tensor, expected: Tensor, tolerance: float | None = None) -> None:
    """Equal shape and dtype; equal values relative to the larger of 1 and the largest magnitude."""
    assert actual.dtype == expected.dtype, (actual.dtype, expected.dtype)
    tolerance = TOLERANCE[actual.dtype] if tolerance is None else tolerance
    scale = max(1.0, float(expected.detach().abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * scale)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=generator(seed)).to(dtype)


def randomise(module: nn.Module, seed: int, scale: float = 0.5) -> nn.Module:
    """Every parameter drawn anew, in float64."""
    module, g = module.double(), generator(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(scale * torch.randn(p.shape, dtype=p.dtype, generator=g))
    return module


class WavySchedule(dc.Schedule):
    """A user's schedule: gamma_min + width (t + a sin(2 pi t) / (2 pi)), |a| < 1."""

    def __init__(self, gamma_min: float, gamma_max: float, a: float) -> None:
        super().__init__()
        self.gamma_min, self.gamma_max, self.a = gamma_min, gamma_max, a

    def forward(self, t: Tensor) -> dc.SchedulePoint:
        width, turn = self.gamma_max - self.gamma_min, 2 * math.pi
        gamma = self.gamma_min + width * (t + self.a * torch.sin(turn * t) / turn)
        return dc.SchedulePoint(gamma, width * (1 + self.a * torch.cos(turn * t)))


def monotone(gamma_min: float, gamma_max: float, seed: int) -> dc.MonotoneSchedule:
    schedule, g = dc.MonotoneSchedule(gamma_min, gamma_max, hidden=8).double(), generator(seed)
    with torch.no_grad():
        for p in schedule.parameters():
            p.copy_(torch.randn(p.shape, dtype=p.dtype, generator=g))
    return schedule


class RandomNetwork(nn.Module):
    """A smooth nonlinear net(z, gamma) that mixes all dimensions; `multiple` times the channels out."""

    def __init__(self, shape: tuple[int, ...], seed: int, *, multiple: int = 1) -> None:
        super().__init__()
        d, self.out = math.prod(shape), (multiple * shape[0], *shape[1:])
        self.first, self.second = nn.Linear(d + 2, 6), nn.Linear(6, multiple * d)
        randomise(self, seed, 0.7)

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        g = gamma[:, None] / 6
        h = torch.tanh(self.first(torch.cat([z.flatten(1), g, torch.cos(g)], 1)))
        return self.second(h).unflatten(1, self.out)


class BoundedNetwork(RandomNetwork):
    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        return torch.tanh(super().forward(z, gamma))


class Fixed(nn.Module):
    """A network that says the same whatever it sees: outputs (outputs channels, ...)."""

    def __init__(self, out: Tensor) -> None:
        super().__init__()
        self.register_buffer("out", out)

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        return self.out.expand(len(z), *self.out.shape)


LEVELS = 5


def posterior_heads(kind: str, shape: tuple[int, ...], seed: int, **options: Any) -> dc.Heads:
    """Posterior heads of LEVELS levels, or of a mixture of 3 Gaussians, with a random network and log-probabilities."""
    if kind == "mixture":
        options = {"components": 3} | options
        outputs = MixturePosterior.outputs_for(**options)
        return MixturePosterior(RandomNetwork(shape, seed, multiple=outputs), **options).double()
    options = {"functions": 2} | options
    outputs = Posterior.outputs_for(LEVELS, **options)
    prior = normal(seed + 1, *shape, LEVELS)
    network = RandomNetwork(shape, seed, multiple=outputs)
    return Posterior(network, LEVELS, prior=prior, **options).double()


class HeadsNetwork(nn.Module):
    """A network that returns Estimates itself."""

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        super().__init__()
        self.x, self.r = RandomNetwork(shape, seed), RandomNetwork(shape, seed + 1)

    def forward(self, z: Tensor, gamma: Tensor) -> dc.Estimates:
        return dc.Estimates(self.x(z, gamma), self.r(z, gamma))


class UserEncoder(dc.Encoder):
    """A user's encoder with `encode` alone: x_t = x + sigma^2 (tanh(W x + u gamma / 8) - x / 3)."""

    def __init__(self, shape: tuple[int, ...], seed: int) -> None:
        super().__init__()
        self.mix = RandomNetwork(shape, seed)

    def encode(self, x: Tensor, gamma: Tensor) -> Tensor:
        return x + expand(sigma2(gamma), x) * (torch.tanh(self.mix(x, gamma)) - x / 3)


def random_matrix_encoder(d: int, seed: int) -> LinearEncoder:
    """A(gamma) = I + sigma^2 (W + V sin(gamma / 3)): not symmetric, A and A' do not commute."""
    W, V = 0.4 * normal(seed, d, d), 0.4 * normal(seed + 1, d, d)
    eye = torch.eye(d, dtype=torch.float64)

    def matrix(gamma: Tensor) -> Tensor:
        g = gamma[:, None, None]
        return eye + sigma2(g) * (W + V * torch.sin(g / 3))

    return LinearEncoder(matrix)


class ScaleEncoder(dc.Encoder):
    """A user's scalar encoder: x_t = x (1 - sigma^2 (0.6 + 0.3 sin(gamma / 2)))."""

    def encode(self, x: Tensor, gamma: Tensor) -> Tensor:
        return x * expand(1 - sigma2(gamma) * (0.6 + 0.3 * torch.sin(gamma / 2)), x)


def cubature(n: int) -> Tensor:
    """2n points of equal weight with which E[f(u)], u ~ N(0, I_n), is exact for every f of degree at most 3."""
    eye = math.sqrt(n) * torch.eye(n, dtype=torch.float64)
    return torch.cat([eye, -eye])


def world_points(world: GaussianWorld) -> tuple[Tensor, Tensor]:
    """Data and noise (4 d, d) with which expectations of quadratics over x ~ the world, eps ~ N(0, I) are exact."""
    d = world.dimensions
    u = cubature(2 * d)
    return world.mean + u[:, :d] @ torch.linalg.cholesky(world.covariance).mT, u[:, d:]
