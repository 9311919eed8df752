"""Processes that networks are trained on, with the time of a gamma in closed form.

    Table                gammas at whole times 0..T-1, from alphas_cumprod, betas or sigmas; between them t is linear in
                         the log SNR, and so is ln s
    Cosine               a = cos(theta), b = sin(theta), theta = pi/2 (t + offset)/(1 + offset)
    VarianceExploding    a = 1, b = sigma = t
    RectifiedFlow        a = 1 - t, b = t; or a = t, b = 1 - t where the data are at t = 1

Reference: Ho et al. 2020 (tables); Nichol and Dhariwal 2021 (cosine); Karras et al. 2022 (sigmas); Liu et al. 2023,
Lipman et al. 2023 (rectified flow, flow matching).
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from diffenc_ct.adapters.native import NativeProcess, Times


class Table(NativeProcess):
    """Noise levels of whole times 0..T-1, from the least noise to the most: DDPM's 1000.

    Between two times the log SNR is linear in time. The T - 1 steps between the table's own noise levels are those of
    `FiniteDepth(table.depths())`; DDPM's T-th step is the decoder.

    Args:
        a: the signal's scales, (T,).
        b: the noise's scales, (T,).
        rounded: whether the network takes whole times only (an embedding of them, say).
        told: from a time to what the network is told.
    Raises:
        ValueError: for fewer than two times, shapes that differ, or a log SNR that does not fall.
    Example:
        >>> table = Table.of_betas(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
        >>> gamma = table.gamma(torch.tensor([0.0, 999.0], dtype=torch.float64))
        >>> gamma.round(decimals=3)
        tensor([-9.2100, 10.1180], dtype=torch.float64)
        >>> len(table)
        1000
    """

    log_snr: Tensor
    log_scale: Tensor

    def __init__(
        self,
        a: Float[Tensor, " times"],
        b: Float[Tensor, " times"],
        *,
        rounded: bool = False,
        told: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
            raise ValueError(
                f"schedule: a of shape {tuple(a.shape)} and b of {tuple(b.shape)}; give one of each for every time, "
                "two times or more"
            )
        super().__init__(0, len(a) - 1, told=told, rounded=rounded)
        a, b = a.detach().double().cpu(), b.detach().double().cpu()
        empty = (~((a > 0) & (b > 0))).nonzero()
        if len(empty):
            i = int(empty[0])
            raise ValueError(
                f"schedule: at time {i} the log SNR is not finite (a = {float(a[i]):g}, b = {float(b[i]):g}); leave "
                "out times without signal or without noise"
            )
        self.register_buffer("log_snr", 2 * (a.log() - b.log()), persistent=False)
        self.register_buffer("log_scale", torch.hypot(a, b).log(), persistent=False)
        self.check()

    @classmethod
    def of_alphas_cumprod(
        cls, alphas_cumprod: Float[Tensor, " times"], *, rounded: bool = False
    ) -> "Table":
        """Variance preserving: a^2 = alphas_cumprod, b^2 = 1 - alphas_cumprod.

        Args:
            alphas_cumprod: of every time, between 0 and 1.
            rounded: whether the network takes whole times only.
        Raises:
            ValueError: where the log SNR does not fall; where it is infinite leave that time out.
        """
        share = alphas_cumprod.detach().double()
        return cls(share.sqrt(), (1 - share).sqrt(), rounded=rounded)

    @classmethod
    def of_betas(cls, betas: Float[Tensor, " times"], *, rounded: bool = False) -> "Table":
        """Variance preserving: alphas_cumprod = prod (1 - beta), 1 - alphas_cumprod without cancellation.

        Args:
            betas: of every time, between 0 and 1.
            rounded: whether the network takes whole times only.
        Raises:
            ValueError: as of_alphas_cumprod.
        """
        log_share = torch.log1p(-betas.detach().double()).cumsum(0)
        return cls((log_share / 2).exp(), (-torch.expm1(log_share)).sqrt(), rounded=rounded)

    @classmethod
    def of_sigmas(cls, sigmas: Float[Tensor, " times"], *, rounded: bool = False) -> "Table":
        """Variance exploding: a = 1, b = sigma, increasing.

        Args:
            sigmas: of every time, from the least noise to the most.
            rounded: whether the network takes whole times only.
        Raises:
            ValueError: where they do not increase.
        """
        return cls(torch.ones_like(sigmas), sigmas, rounded=rounded)

    def __len__(self) -> int:
        return len(self.log_snr)

    def nodes(self) -> Float[Tensor, " n"]:
        """The table's times."""
        return torch.arange(len(self), dtype=torch.float64)

    def coefficients(self, t: Times) -> tuple[Times, Times]:
        """a and b, between the table's times too."""
        half, scale = self._between(self.log_snr, t) / 2, self._between(self.log_scale, t).exp()
        # alpha and sigma by the log SNR
        return scale * torch.sigmoid(2 * half).sqrt(), scale * torch.sigmoid(-2 * half).sqrt()

    def gamma(self, t: Times) -> Times:
        """-log SNR."""
        return -self._between(self.log_snr, t)

    def time(self, gamma: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Linear in gamma between the table's times."""
        table = -self.log_snr.to(gamma)
        cell = (
            torch.searchsorted(table, gamma.contiguous(), right=True).clamp(1, len(table) - 1) - 1
        )
        share = (gamma - table[cell]) / (table[cell + 1] - table[cell])
        return cell + share.clamp(0, 1)

    def depths(self) -> Float[Tensor, " times"]:
        """The model's depths of the table's times, from 0 to 1: a grid for `FiniteDepth` and solvers.

        Example:
            >>> table = Table.of_sigmas(torch.tensor([0.1, 1.0, 1000.0]))
            >>> table.depths().round(decimals=3)
            tensor([0.0000, 0.2500, 1.0000], dtype=torch.float64)
        """
        gamma = -self.log_snr.double().cpu()
        return (gamma - gamma[0]) / (gamma[-1] - gamma[0])

    @staticmethod
    def _between(table: Tensor, t: Tensor) -> Tensor:
        table = table.to(t)
        cell = t.detach().floor().long().clamp(0, len(table) - 2)
        return table[cell] + (t - cell) * (table[cell + 1] - table[cell])


class Cosine(NativeProcess):
    """a = cos(theta), b = sin(theta), theta = pi/2 (t + offset)/(1 + offset), continuous in t.

    Args:
        start: the time of least noise.
        end: the time of most noise, below 1.
        offset: 0 of the plain cosine; Nichol and Dhariwal's is 0.008.
        told: from a time to what the network is told.
        rounded: whether that is a whole number.
    Raises:
        ValueError: for times outside (0, 1).
    Example:
        >>> Cosine(0.01, 0.99)(torch.zeros(1)).told.round(decimals=6)
        tensor([0.5000], dtype=torch.float64)
    """

    def __init__(
        self,
        start: float = 1e-3,
        end: float = 1 - 1e-3,
        *,
        offset: float = 0.0,
        told: Callable[[Tensor], Tensor] | None = None,
        rounded: bool = False,
    ) -> None:
        super().__init__(start, end, told=told, rounded=rounded)
        self.offset = offset
        self.check()

    def coefficients(self, t: Times) -> tuple[Times, Times]:
        """cos and sin, the cosine as a sine of what is left: it keeps its digits where it is small."""
        theta = (math.pi / 2) * (t + self.offset) / (1 + self.offset)
        left = (math.pi / 2) * (1 - t) / (1 + self.offset)
        return left.sin(), theta.sin()

    def time(self, gamma: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """theta = arctan(exp(gamma/2))."""
        theta = (gamma / 2).exp().atan()
        return theta * (2 / math.pi) * (1 + self.offset) - self.offset


class VarianceExploding(NativeProcess):
    """a = 1, b = sigma = t: what EDM's denoisers D(z; sigma) and score networks of sigmas are trained on.

    Args:
        sigma_min: the least noise.
        sigma_max: the most.
        told: from sigma to what the network is told, such as `lambda sigma: sigma.log() / 4`; sigma by default.
    Raises:
        ValueError: where sigma_min is not below sigma_max, or not positive.
    Example:
        >>> VarianceExploding(0.002, 80.0)(torch.zeros(1)).told  # gamma = 2 ln sigma
        tensor([1.], dtype=torch.float64)
    """

    def __init__(
        self,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        *,
        told: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(sigma_min, sigma_max, told=told)
        self.check()

    def coefficients(self, t: Times) -> tuple[Times, Times]:
        """1 and sigma."""
        return torch.ones_like(t), t

    def time(self, gamma: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """sigma = exp(gamma/2)."""
        return (gamma / 2).exp()


class RectifiedFlow(NativeProcess):
    """z on the straight line between data and noise, z = (1 - r) x + r eps, r = t or 1 - t.

    The line's ends have infinite log SNR: the model begins and ends a little before them, at r = margin and 1 - margin.

    Args:
        data_at: the time of the data: 0 in Liu et al.'s and Stable Diffusion 3's convention, 1 in that of Lipman et
            al.'s and of torchcfm.
        margin: how far from the ends the model stays.
        told: from a time to what the network is told, such as `lambda t: 1000 * t`.
    Raises:
        ValueError: for a data_at that is neither 0 nor 1, and a margin outside (0, 1/2).
    Example:
        >>> RectifiedFlow(data_at=1, margin=1e-3)(torch.tensor([-3.0])).told.round(decimals=4)
        tensor([0.8176], dtype=torch.float64)
    """

    def __init__(
        self,
        *,
        data_at: int = 0,
        margin: float = 1e-5,
        told: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if data_at not in (0, 1) or not 0 < margin < 0.5:
            raise ValueError(
                f"data_at={data_at}, margin={margin}; data are at time 0 or 1, and the margin lies between 0 and 1/2"
            )
        ends = (margin, 1 - margin)
        super().__init__(*(ends if data_at == 0 else ends[::-1]), told=told)
        self.data_at = data_at
        self.check()

    def coefficients(self, t: Times) -> tuple[Times, Times]:
        """1 - t and t, or t and 1 - t."""
        return (t, 1 - t) if self.data_at else (1 - t, t)

    def time(self, gamma: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """r = sigmoid(gamma/2)."""
        return torch.sigmoid(-gamma / 2 if self.data_at else gamma / 2)
