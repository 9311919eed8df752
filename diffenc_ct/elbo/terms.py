"""The evidence lower bound at infinite and finite depth.

    -log p(x) <= L_0 + L_1 + L_T,    L_0 = E_q[-log p(x | z_0)],    L_1 = KL(q(z_1 | x) || p(z_1))

Infinite depth, any noise level eta, any heads, kappa = (1 + eta^2)/2:

    L_inf = 1/2 E_{t, eps} [gamma' SNR eta^-2 || kappa (x_t - x_hat) + (x_t' - r_hat) ||^2]

Finite depth, a step from t to s with variance ratio w, Delta = mu_Q - mu_P, S^2 = sigma_s^2 (1 - rho^2):

    KL = d/2 (1/w - 1 + ln w) + ||Delta||^2 / (2 w S^2),     L_T = sum over the steps of E[KL]

and L_T -> L_inf with error O(1/T) where w = 1 (or w -> 1 as fast). All losses are per example, in nats; only
`Terms.bits_per_dimension` divides by d ln 2.

Assumptions: q has the marginals of `process`, p the steps of `model`; p(z_1) = N(0, I).
Reference: Nielsen et al. 2024, sections 3 and 4, appendices; Kingma et al. 2021, section 4.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffenc_ct.elbo import Depths, LowDiscrepancyDepths, check_grid, uniform_grid
from diffenc_ct.elbo.named_steps import CalibratedSteps, Level, Ratio, named_steps
from diffenc_ct.elbo.subsets import encode, evenly, part_rates, spread
from diffenc_ct.encoders import Encoding
from diffenc_ct.model import DiffEnc, Heads
from diffenc_ct.process import (
    ConstantNoiseLevel,
    NoiseLevel,
    as_noise_level,
    marginal,
    normal_like,
)
from diffenc_ct.schedules import SchedulePoint, expand, sigma2, snr


@dataclass(frozen=True)
class Terms:
    """The ELBO's three terms in nats, each of shape (batch,); `dimensions` is d."""

    reconstruction: Tensor
    diffusion: Tensor
    latent: Tensor
    dimensions: int

    @property
    def total(self) -> Tensor:
        """L_0 + L_T + L_1, an upper bound on -log p(x) in nats, (batch,)."""
        return self.reconstruction + self.diffusion + self.latent

    def bits_per_dimension(self) -> "Terms":
        """The same in bits per dimension, nats / (d ln 2)."""
        scale = 1 / (self.dimensions * math.log(2))
        return Terms(
            self.reconstruction * scale,
            self.diffusion * scale,
            self.latent * scale,
            self.dimensions,
        )


def infinite_depth_integrand(
    errors: Heads, point: SchedulePoint, noise_level: NoiseLevel
) -> Tensor:
    """1/2 gamma' SNR eta^-2 || kappa (x_t - x_hat) + (x_t' - r_hat) ||^2 in nats, (batch,).

    errors: x_t - x_hat and x_t' - r_hat. Theorem: elbo.girsanov.
    """
    eta_squared = noise_level.squared(point.gamma)
    kappa = expand((1 + eta_squared) / 2, errors.x_hat)
    squared = (kappa * errors.x_hat + errors.r_hat).square().flatten(1).sum(1)
    return 0.5 * point.rate * point.snr / eta_squared * squared


def mean_difference(
    errors: Heads,
    encoding: Encoding,
    x_s: Tensor,
    gamma_s: Tensor,
    gamma_t: Tensor,
    noise_level: NoiseLevel,
) -> Tensor:
    """Delta = mu_Q - mu_P = alpha_s (x_s - x_hat_s) - rho (sigma_s/sigma_t) alpha_t (x_t - x_hat), over alpha_s.

    With D = gamma_t - gamma_s and x_hat_s = x_hat + D r_hat, divided by alpha_s,
    Delta = -expm1(-(int eta^2 + D)/2) (x_t - x_hat) + (x_s - x_t - D x_t') + D (x_t' - r_hat).
    The rate cancels: an encoding and errors made with x_t' = 0 give the same. Theorem: elbo.step_kl.
    """
    step = gamma_t - gamma_s
    keep = -torch.expm1(-0.5 * (noise_level.integral(gamma_s, gamma_t) + step))
    step = expand(step, x_s)
    return expand(keep, x_s) * errors.x_hat + (
        x_s - encoding.value - step * (encoding.rate - errors.r_hat)
    )


def step_kl(
    difference: Tensor,
    gamma_s: Tensor,
    gamma_t: Tensor,
    noise_level: NoiseLevel,
    ratio: float | Tensor = 1.0,
) -> Tensor:
    """KL(q(z_s | z_t, x) || p(z_s | z_t)) = d/2 (1/w - 1 + ln w) + ||Delta||^2 / (2 w S^2) in nats, (batch,).

    difference: Delta / alpha_s (see mean_difference). ratio: w, a number or broadcastable to (batch, *data).
    Theorem: elbo.step_kl.
    """
    # S^2 / alpha_s^2 = exp(gamma_s) (1 - rho^2)
    variance = -torch.expm1(-noise_level.integral(gamma_s, gamma_t)) / snr(gamma_s)
    w = torch.as_tensor(ratio, dtype=difference.dtype, device=difference.device)
    if not (w > 0).all():
        raise ValueError(f"ratio={ratio} must be positive: it multiplies a variance")
    # log1p keeps 1/w - 1 + ln w, which is (w - 1)^2/2 near w = 1, from cancelling.
    mismatch = torch.log1p(w - 1) - (w - 1) / w
    terms = mismatch + difference**2 / (w * expand(variance, difference))
    return 0.5 * terms.flatten(1).sum(1)


def latent_loss(x_1: Tensor, gamma_1: Tensor) -> Tensor:
    """L_1 = KL(q(z_1 | x) || N(0, I)) in nats, (batch,). Theorem: elbo.gaussian_kl."""
    # The authors' order of operations, so that float32 gives their numbers to the last digits; it rounds at d 2^-24.
    variance = expand(sigma2(gamma_1), x_1)
    terms = ((1 - variance) * x_1**2 + variance) - variance.log() - 1
    return 0.5 * terms.flatten(1).sum(1)


def reconstruction_loss(
    model: DiffEnc, x: Tensor, x_0: Tensor, gamma_0: Tensor, noise: Tensor
) -> Tensor:
    """L_0's estimate -log p(x | z_0) at z_0 = alpha_0 x_0 + sigma_0 noise, in nats, (batch,)."""
    # u = z_0/alpha_0 at once: a product and a quotient by alpha_0 would round twice more.
    u = x_0 + torch.exp(0.5 * gamma_0) * noise
    return -model.decode_log_prob_scaled(x, u, gamma_0)


def elbo(
    model: DiffEnc,
    x: Tensor,
    *,
    depth: int | None = None,
    ratio: Ratio = 1.0,
    noise_level: Level = 1.0,
    calibration: CalibratedSteps | None = None,
    grid: Tensor | None = None,
    depths: Depths | None = None,
    t: Tensor | None = None,
    noise: Tensor | None = None,
    noise_0: Tensor | None = None,
    ends_fraction: float = 1.0,
    rate_fraction: float = 1.0,
    observe: Callable[[Tensor, Heads], None] | None = None,
    generator: torch.Generator | None = None,
) -> Terms:
    """An unbiased one-sample estimate of every ELBO term, for each example, in nats.

    x: (batch, *data), levels or reals as the model expects. depth: None for infinite depth, T for a model of T
    steps on the uniform grid i/T, or on `grid`, an increasing tensor of T + 1 depths from 0 to 1. At finite depth each
    example visits one step, the ceil(t T)-th, and its KL is multiplied by T. ratio: the variance ratio w, a number or
    one a step (T,) (optionally per dimension, (T, *data)), or a function of the state: of steps (batch,), 0 next to
    the data, and the heads at z_t. noise_level: eta, a number, NoiseLevel or function.
    calibration: what `calibrate` fitted: its grid and depth are used, and its w* for ratio="optimal" (or
    "per dimension", "per value") and eta* for noise_level="optimal". Without a calibration noise_level="optimal" is
    model.optimal_noise_level, which `tightness` fits and `load` reads from beside the checkpoint.
    depths: how t is drawn (low-discrepancy by default); t, noise, noise_0: given values instead of draws, t in [0, 1]
    of shape (batch,). ends_fraction: below 1, reconstruction and latent loss are computed for that fraction of the
    batch only (evenly spread examples), scaled up there and 0 elsewhere: their batch mean stays unbiased, at a cost in
    variance and a gain in time where the encoder is a network. rate_fraction: below 1, at infinite depth, the
    derivative of the encoder's network is computed for that fraction of the batch only, and what it changes scaled up
    (see `subsets`): unbiased, too; `observe` sees the error without it. observe: called once with gamma (batch,) and
    the errors (x_t - x_hat, x_t' - r_hat) behind the diffusion loss, for one's own statistics; at finite depth x_t' is
    0 in them.

    Raises ValueError for eta = 0, for which p and q are deterministic and the bound is infinite, for a ratio at
    infinite depth other than 1, and for bad shapes; TypeError for data of the wrong kind.
    """
    depth, grid, ratio, noise_level = named_steps(
        model, calibration, depth, grid, ratio, noise_level
    )
    level = as_noise_level(noise_level)
    data = model.scale(x)
    if data.ndim < 2:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be (batch, *data)")
    if isinstance(level, ConstantNoiseLevel) and level.eta == 0:
        raise ValueError(
            "noise_level=0 makes both processes deterministic: the bound is infinite; use eta > 0"
        )
    for name, fraction in (("ends_fraction", ends_fraction), ("rate_fraction", rate_fraction)):
        if not 0 < fraction <= 1:
            raise ValueError(f"{name}={fraction} must lie in (0, 1]")
    if depth is None and grid is not None:
        depth = len(grid) - 1
    if depth is None and not (isinstance(ratio, (int, float)) and ratio == 1):
        raise ValueError(
            "at infinite depth only ratio=1 gives a finite bound; set depth to use another ratio"
        )
    for name, given in (("noise", noise), ("noise_0", noise_0)):
        if given is not None and given.shape != data.shape:
            raise ValueError(
                f"{name} has shape {tuple(given.shape)}; it must be x's, {tuple(x.shape)}"
            )
    noise = normal_like(data, generator) if noise is None else noise
    noise_0 = normal_like(data, generator) if noise_0 is None else noise_0
    sampler = LowDiscrepancyDepths() if depths is None else depths
    weight: Tensor | float = 1.0
    if t is None:
        t, weight = sampler.draw(len(data), like=data, generator=generator)
    if t.shape != (len(data),):
        raise ValueError(f"t has shape {tuple(t.shape)}; it must be (batch,) = ({len(data)},)")

    gamma_0, gamma_1 = (model.schedule.at(end, data).gamma for end in (0.0, 1.0))
    ends = evenly(ends_fraction, data)
    at_ends = [(data[ends], gamma_0), (data[ends], gamma_1)]
    if depth is None:
        point = model.schedule(t)
        gamma_t = point.gamma
        some = evenly(rate_fraction, data)
        if rate_fraction == 1:
            encoding = model.encoder(data, gamma_t)
            x_0, x_1 = encode(model.encoder, at_ends)
        else:
            encoding, rest, (x_0, x_1) = part_rates(model.encoder, data, gamma_t, some, at_ends)
        z = marginal(encoding.value, gamma_t).sample(noise=noise)
        errors = model.errors(z, noise, encoding, gamma_t)
        diffusion = infinite_depth_integrand(errors, point, level)
        if rate_fraction < 1:
            exact = Heads(errors.x_hat[some], errors.r_hat[some] + rest)
            there = SchedulePoint(gamma_t[some], point.rate[some])
            lacking = infinite_depth_integrand(exact, there, level) - diffusion[some]
            diffusion = diffusion + spread(lacking, some, len(data))
    else:
        nodes = uniform_grid(depth, data) if grid is None else check_grid(grid, depth, data)
        step = (t * depth).ceil().long().clamp(1, depth) - 1
        gamma_s, gamma_t = model.schedule(nodes[step]).gamma, model.schedule(nodes[step + 1]).gamma
        x_s, x_t = encode(model.encoder, [(data, gamma_s), (data, gamma_t)])
        x_0, x_1 = encode(model.encoder, at_ends)
        encoding = Encoding(x_t, torch.zeros_like(x_t))
        z = marginal(x_t, gamma_t).sample(noise=noise)
        errors = model.errors(z, noise, encoding, gamma_t)
        difference = mean_difference(errors, encoding, x_s, gamma_s, gamma_t, level)
        w: float | Tensor
        if callable(ratio):
            w = ratio(step, Heads(x_t - errors.x_hat, -errors.r_hat))
        else:
            w = _ratio_of_step(ratio, depth, step, data)
        diffusion = depth * step_kl(difference, gamma_s, gamma_t, level, w)

    if observe is not None:
        observe(gamma_t, errors)

    reconstruction = reconstruction_loss(model, x[ends], x_0, gamma_0, noise_0[ends])
    latent = latent_loss(x_1, gamma_1)
    return Terms(
        spread(reconstruction, ends, len(data)),
        weight * diffusion,
        spread(latent, ends, len(data)),
        data[0].numel(),
    )


def _ratio_of_step(ratio: float | Tensor, depth: int, step: Tensor, data: Tensor) -> float | Tensor:
    """w of each example's step from a number or a table (T,) or (T, *data)."""
    if not isinstance(ratio, Tensor) or ratio.ndim == 0:
        return ratio
    if ratio.shape not in ((depth,), (depth, *data.shape[1:])):
        raise ValueError(
            f"ratio has shape {tuple(ratio.shape)}; one number a step is ({depth},), one a step and dimension "
            f"{(depth, *data.shape[1:])}"
        )
    return expand(ratio.to(data)[step], data)
