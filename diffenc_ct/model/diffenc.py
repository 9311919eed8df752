"""The generative model: what the network predicts, the reverse step, the decoder.

Two quantities are unknown when a latent is to be denoised: encoded data and their rate,

    x_hat ~ E[x_t | z_t],      r_hat ~ E[x_t' | z_t].

A single head predicts x_hat and sets r_hat = c x_hat (c = sigma^2; 0 for the identity encoder); paired heads
predict both. The network's output u is read as

    "v":    x_hat = alpha z - sigma u         x_t - x_hat = sigma (u - v),            v = alpha eps - sigma x_t
    "eps":  x_hat = (z - sigma u) / alpha     x_t - x_hat = (sigma/alpha) (u - eps)
    "x":    x_hat = u

and a step from t to s < t is, with x_hat_s = x_hat + (lambda_s - lambda_t) r_hat,

    p(z_s | z_t) = N(alpha_s x_hat_s + rho (sigma_s/sigma_t) (z_t - alpha_t x_hat), w sigma_s^2 (1 - rho^2) I).

Its limit s -> t is the reverse-time SDE dz = b_eta dt + eta sqrt(beta) dw_bar, kappa = (1 + eta^2)/2:

    b_eta = beta [-z/2 + kappa z/sigma^2 - (alpha/sigma^2) (kappa x_hat + r_hat)].

Data: p(z_1) = N(0, I); a pixel k of V levels is x = 2 (k + 1/2)/V - 1, with p(x | z_0) a categorical of logits
-(z_0/alpha_0 - x_k)^2 / (2 exp(gamma_0)); real data have p(x | z_0) = N(z_0/alpha_0, exp(gamma_0) I).

Reference: Nielsen et al. 2024, sections 2 to 4; Kingma et al. 2021; Salimans and Ho 2022 (v-prediction).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from diffenc_ct.encoders import Encoder, Encoding
from diffenc_ct.process import Gaussian, NoiseLevel, as_noise_level, posterior
from diffenc_ct.schedules import Schedule, SchedulePoint, alpha, expand, sigma, sigma2

Prediction = Literal["v", "x", "eps", "heads"]
_PREDICTIONS = ("v", "x", "eps", "heads")


@dataclass(frozen=True)
class Heads:
    """x_hat ~ E[x_t | z_t] and r_hat ~ E[x_t' | z_t], each of z's shape. Also the errors of the two."""

    x_hat: Tensor
    r_hat: Tensor


def reverse_drift(z: Tensor, heads: Heads, point: SchedulePoint, eta_squared: Tensor) -> Tensor:
    """b_eta, the drift of the reverse-time SDE, of z's shape; with x_t and x_t' for the heads it is b_Q.

    eta_squared has gamma's shape: 1 is the paper's process, 0 the probability flow. Computed as
    gamma' [(eta^2 + alpha^2)/2 z - alpha (kappa x_hat + r_hat)], where z/sigma^2 - z leaves nothing to cancel.
    Theorems: model.reverse_limit, model.stable_drift.
    """
    kappa = expand((1 + eta_squared) / 2, z)
    own = expand((eta_squared + point.alpha2) / 2, z)
    pull = expand(point.alpha, z) * (kappa * heads.x_hat + heads.r_hat)
    return expand(point.rate, z) * (own * z - pull)


class DiffEnc(nn.Module):
    """A variational diffusion model with a depth-dependent encoder.

    schedule, encoder: see those modules. network(z, gamma) -> u of z's shape (single head), or with twice the
    channels for heads="paired": the second half u' gives r_hat = sigma^2 (x_hat + u'). prediction says how u
    is read ("v", "x", "eps"); "heads" means that the network returns Heads itself.

    head: an optional second network(z, gamma), of the same prediction, for E[x_t | z_t] alone, beside a single
    head that learned (E[x_t + x_t' | z_t]) / (1 + c). Then x_hat is the head's and
    r_hat = (1 + c) x_hat_network - x_hat_head; the paper's ELBO (eta = 1) is untouched by it.

    levels: number of levels of integer data, None for real data. shape: of one example, where it is known; then
    `sample` need not be told. optimal_noise_level: what noise_level="optimal" means for `elbo` (see `tightness`).
    Raises ValueError for an unknown prediction or heads, or fewer than two levels.
    """

    def __init__(
        self,
        schedule: Schedule,
        encoder: Encoder,
        network: nn.Module,
        *,
        levels: int | None = 256,
        prediction: Prediction = "v",
        heads: Literal["single", "paired"] = "single",
        head: nn.Module | None = None,
        shape: tuple[int, ...] | None = None,
        optimal_noise_level: NoiseLevel | None = None,
    ) -> None:
        super().__init__()
        if prediction not in _PREDICTIONS:
            raise ValueError(f"prediction={prediction!r}; choose one of {', '.join(_PREDICTIONS)}")
        if heads not in ("single", "paired"):
            raise ValueError(f'heads={heads!r}; choose "single" or "paired"')
        if head is not None and (heads == "paired" or prediction == "heads"):
            raise ValueError(
                'a separate head goes with heads="single"; this network has both heads already'
            )
        if levels is not None and levels < 2:
            raise ValueError(
                f"levels={levels}; integer data need at least 2 levels, real data None"
            )
        self.schedule, self.encoder, self.network, self.head = schedule, encoder, network, head
        self.levels, self.prediction, self.heads = levels, prediction, heads
        self.shape, self.optimal_noise_level = shape, optimal_noise_level

    @property
    def paired(self) -> bool:
        """Whether x_hat and r_hat are predicted apart, as the probability flow needs."""
        return self.heads == "paired" or self.prediction == "heads" or self.head is not None

    # Predictions ------------------------------------------------------------------------------------

    def predict(self, z: Tensor, gamma: Tensor) -> Heads:
        """x_hat and r_hat at latents z (batch, *data) of depths gamma (batch,). Theorem: encoders.v_identity."""
        if self.prediction == "heads":
            return self.network(z, gamma)
        u, rate_output = self._outputs(z, gamma)
        x_hat, factor = self._x_hat(u, z, gamma), expand(self.encoder.rate_factor(gamma), z)
        if rate_output is not None:
            return Heads(x_hat, expand(sigma2(gamma), z) * (x_hat + rate_output))
        if self.head is None:
            return Heads(x_hat, factor * x_hat)
        x_head = self._x_hat(self.head(z, gamma), z, gamma)
        return Heads(x_head, (1 + factor) * x_hat - x_head)

    def errors(self, z: Tensor, noise: Tensor, encoding: Encoding, gamma: Tensor) -> Heads:
        """(x_t - x_hat, x_t' - r_hat) at z = alpha x_t + sigma noise, without cancellation at small sigma.

        The same as subtracting `predict` from `encoding`; in v- and eps-prediction the first is sigma times
        an error of order one, and is computed so.
        """
        if self.prediction == "heads":
            heads = self.network(z, gamma)
            return Heads(encoding.value - heads.x_hat, encoding.rate - heads.r_hat)
        u, rate_output = self._outputs(z, gamma)
        error, factor = (
            self.x_error(u, noise, encoding.value, gamma),
            expand(self.encoder.rate_factor(gamma), z),
        )
        if rate_output is not None:
            variance = expand(sigma2(gamma), z)
            return Heads(error, encoding.rate - variance * (encoding.value - error + rate_output))
        rate_error = encoding.rate - factor * encoding.value + factor * error
        if self.head is None:
            return Heads(error, rate_error)
        head_error = self.x_error(self.head(z, gamma), noise, encoding.value, gamma)
        return Heads(head_error, rate_error + error - head_error)

    def _outputs(self, z: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor | None]:
        out = self.network(z, gamma)
        wanted = (z.shape[0], z.shape[1] * (2 if self.heads == "paired" else 1), *z.shape[2:])
        if out.shape != wanted:
            raise ValueError(
                f"the network returned {tuple(out.shape)} for latents {tuple(z.shape)}; "
                f"heads={self.heads!r} needs {wanted}"
            )
        if self.heads == "paired":
            first, second = out.chunk(2, dim=1)
            return first, second
        return out, None

    def _x_hat(self, u: Tensor, z: Tensor, gamma: Tensor) -> Tensor:
        if self.prediction == "x":
            return u
        alpha_, sigma_ = expand(alpha(gamma), z), expand(sigma(gamma), z)
        return alpha_ * z - sigma_ * u if self.prediction == "v" else (z - sigma_ * u) / alpha_

    def x_error(self, u: Tensor, noise: Tensor, x_t: Tensor, gamma: Tensor) -> Tensor:
        """x_t - x_hat for a network's output u at z = alpha x_t + sigma noise, without cancellation."""
        if self.prediction == "x":
            return x_t - u
        alpha_, sigma_ = expand(alpha(gamma), x_t), expand(sigma(gamma), x_t)
        if self.prediction == "v":
            return sigma_ * (u - (alpha_ * noise - sigma_ * x_t))
        return (sigma_ / alpha_) * (u - noise)

    # The reverse step ---------------------------------------------------------------------------------

    def reverse(
        self,
        z_t: Tensor,
        gamma_s: Tensor,
        gamma_t: Tensor,
        *,
        noise_level: float | NoiseLevel = 1.0,
        ratio: float | Tensor = 1.0,
    ) -> Gaussian:
        """p(z_s | z_t) for s < t with variance ratio w = `ratio`. Theorem: model.reverse_mean."""
        heads = self.predict(z_t, gamma_t)
        # lambda_s - lambda_t = gamma_t - gamma_s
        x_hat_s = heads.x_hat + expand(gamma_t - gamma_s, z_t) * heads.r_hat
        step = posterior(z_t, x_hat_s, heads.x_hat, gamma_s, gamma_t, as_noise_level(noise_level))
        return Gaussian(
            step.mean, step.std * torch.as_tensor(ratio, dtype=z_t.dtype, device=z_t.device).sqrt()
        )

    # Data and the decoder -----------------------------------------------------------------------------

    def scale(self, x: Tensor) -> Tensor:
        """Levels k -> 2 (k + 1/2)/V - 1, in the schedule's default float type; real data pass unchanged.

        Raises TypeError where levels meet floats or reals meet integers, ValueError where a level is not in
        0..V-1.
        """
        if self.levels is None:
            if not x.is_floating_point():
                raise TypeError(
                    f"levels=None means real data, but x is {x.dtype}; give floats, or set levels"
                )
            return x
        if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
            raise TypeError(
                f"levels={self.levels} means integer data, but x is {x.dtype}; give integers 0..{self.levels - 1}"
            )
        if x.numel() and (int(x.max()) >= self.levels or int(x.min()) < 0):
            raise ValueError(
                f"x has values from {int(x.min())} to {int(x.max())}; with levels={self.levels} they must lie in "
                f"0..{self.levels - 1}"
            )
        return self._centres(x)

    def _centres(self, k: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        assert self.levels is not None
        return 2 * (k.to(dtype or self._dtype()) + 0.5) / self.levels - 1

    def _dtype(self) -> torch.dtype:
        for parameter in self.parameters():
            return parameter.dtype
        return torch.get_default_dtype()

    def decode_log_prob(self, x: Tensor, z_0: Tensor, gamma_0: Tensor) -> Tensor:
        """log p(x | z_0) in nats, (batch,); x as the data are given (levels or reals), gamma_0 a scalar."""
        if x.shape != z_0.shape:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, but the latents z_0 {tuple(z_0.shape)}"
            )
        return self.decode_log_prob_scaled(x, z_0 / alpha(gamma_0), gamma_0)

    def decode_log_prob_scaled(self, x: Tensor, u: Tensor, gamma_0: Tensor) -> Tensor:
        """log p(x | z_0) in nats, (batch,), from u = z_0/alpha_0: what float32 resolves beside a level's edge."""
        if self.levels is None:
            return Gaussian(u, torch.exp(0.5 * gamma_0)).log_prob(x)
        nearby, precision = self._nearby(u, gamma_0), torch.exp(-gamma_0)
        distances = (u.unsqueeze(-1) - self._centres(nearby, u.dtype)) ** 2
        outside = (nearby < 0) | (nearby >= self.levels)
        logits = (-0.5 * precision * distances).masked_fill(outside, -math.inf)
        own = -0.5 * precision * (u - self._centres(x, u.dtype)) ** 2
        return (own - logits.logsumexp(-1)).flatten(1).sum(1)

    def _nearby(self, u: Tensor, gamma_0: Tensor) -> Tensor:
        """The levels that carry all mass of p(x | z_0) at float64's precision: (*u.shape, K), some outside 0..V-1.

        k bins beyond the nearest level, a logit is lower by at least k (k - 1) h^2 / (2 exp(gamma_0)), h the
        bin's width; beyond 45 nats a level adds less than rounding.
        """
        assert self.levels is not None
        per_bin = (2 / self.levels) ** 2 / (2 * math.exp(float(gamma_0.detach())))
        reach = min(math.ceil(0.5 + math.sqrt(0.25 + 45 / per_bin)), self.levels)
        offsets = torch.arange(-reach, reach + 1, device=u.device)
        return self._nearest(u).unsqueeze(-1) + offsets

    def _nearest(self, u: Tensor) -> Tensor:
        assert self.levels is not None
        return (((u.detach() + 1) * self.levels / 2).floor().long()).clamp(0, self.levels - 1)

    def decode(
        self,
        z_0: Tensor,
        gamma_0: Tensor,
        *,
        sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Data from latents z_0: the most probable x (levels as int64, or reals), or a draw from p(x | z_0)."""
        u = z_0 / alpha(gamma_0)
        if self.levels is None:
            return Gaussian(u, torch.exp(0.5 * gamma_0)).sample(generator) if sample else u
        if not sample:
            return self._nearest(u)
        nearby = self._nearby(u, gamma_0)
        logits = (
            -0.5 * torch.exp(-gamma_0) * (u.unsqueeze(-1) - self._centres(nearby, u.dtype)) ** 2
        )
        weights = logits.masked_fill((nearby < 0) | (nearby >= self.levels), -math.inf).softmax(-1)
        choice = torch.multinomial(weights.flatten(0, -2), 1, generator=generator).reshape(
            *u.shape, 1
        )
        return nearby.gather(-1, choice).squeeze(-1)
