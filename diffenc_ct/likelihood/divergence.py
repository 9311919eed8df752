"""How the divergence of the flow is found: exactly, or by Hutchinson's estimate.

Along dz/dgamma = f(z, gamma),

    log p_0(z_0) = log p_1(z_1) + int_{gamma_0}^{gamma_1} div f dgamma,        div f = tr df/dz

The trace is exact, from the d directional derivatives e_i^T (df/dz) e_i in chunks, or Hutchinson's estimate,
the mean of v^T (df/dz) v over K fixed probes with E[v v^T] = I:

    Rademacher        v_i = +-1         variance of a probe: sum_{i != j} (J_ij^2 + J_ij J_ji)
    GaussianProbes    v_i ~ N(0, 1)     variance of a probe: sum_ij (J_ij^2 + J_ij J_ji)

Reference: Chen et al. 2018 (continuous normalising flows); Grathwohl et al. 2019 (FFJORD); Hutchinson 1989.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.likelihood.field import FlowField
from diffenc_ct.likelihood.randomness import example_generator
from diffenc_ct.model import DiffEnc

Data = Float[Tensor, "batch *data"]


class Divergence(ABC):
    """How the trace of df/dz is found."""

    @abstractmethod
    def field(self, model: DiffEnc, z: Data, seeds: Sequence[int]) -> FlowField:
        """What a solver integrates from z.

        Args:
            model: DiffEnc.
            z: where it starts.
            seeds: of each example's probes.
        """


@dataclass(frozen=True)
class Exact(Divergence):
    """The trace from d directional derivatives; from one evaluation where the heads know their traces.

    Attributes:
        chunk: directions in one batch; by default as many as make batches of 4096 examples.

    Raises:
        ValueError: for a chunk below 1.

    Example:
        >>> import diffenc_ct as dc
        >>> dc.Exact(chunk=64)
        Exact(chunk=64)
    """

    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"chunk={self.chunk} must be at least 1")

    def field(self, model: DiffEnc, z: Data, seeds: Sequence[int]) -> FlowField:
        return FlowField(model, chunk=self.chunk)


@dataclass(frozen=True)
class _Hutchinson(Divergence):
    """Probes, drawn once and fixed along each example's path.

    Attributes:
        probes: K, how many an example.

    Raises:
        ValueError: for fewer than one probe.
    """

    probes: int = 1

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise ValueError(f"probes={self.probes} must be at least 1")

    @abstractmethod
    def draw(
        self, generator: torch.Generator, shape: torch.Size, like: Tensor
    ) -> Float[Tensor, "K *data"]:
        """Probes of one example.

        Args:
            generator: the example's own.
            shape: (K, *data).
            like: of their dtype and device.
        """

    def field(self, model: DiffEnc, z: Data, seeds: Sequence[int]) -> FlowField:
        shape = torch.Size((self.probes, *z.shape[1:]))
        each = [self.draw(example_generator(seed, "probes"), shape, z) for seed in seeds]
        return FlowField(model, probes=torch.stack(each))


@dataclass(frozen=True)
class Rademacher(_Hutchinson):
    """Hutchinson's estimate with probes of +-1.

    Attributes:
        probes: K, how many an example.

    Raises:
        ValueError: for fewer than one probe.

    Example:
        >>> import diffenc_ct as dc
        >>> dc.Rademacher(probes=4).probes
        4
    """

    def draw(
        self, generator: torch.Generator, shape: torch.Size, like: Tensor
    ) -> Float[Tensor, "K *data"]:
        signs = torch.randint(0, 2, shape, generator=generator, device=generator.device)
        return (2 * signs - 1).to(like)


@dataclass(frozen=True)
class GaussianProbes(_Hutchinson):
    """Hutchinson's estimate with standard normal probes.

    Attributes:
        probes: K, how many an example.

    Raises:
        ValueError: for fewer than one probe.

    Example:
        >>> from diffenc_ct.likelihood import GaussianProbes
        >>> GaussianProbes(probes=2).probes
        2
    """

    def draw(
        self, generator: torch.Generator, shape: torch.Size, like: Tensor
    ) -> Float[Tensor, "K *data"]:
        noise = torch.randn(shape, generator=generator, dtype=like.dtype, device=generator.device)
        return noise.to(like)
