"""The bound of finite depth: T steps, on any grid, with any noise level and variance ratio.

A step from t to s < t with variance ratio w, Delta = mu_Q - mu_P, S^2 = sigma_s^2 (1 - rho^2), costs

    KL = d/2 (1/w - 1 + ln w) + ||Delta||^2 / (2 w S^2),     L_T = sum over the steps of E[KL]

and L_T -> L_inf with error O(1/T) where w = 1 (or w -> 1 as fast). An estimate visits one step an example and
multiplies its KL by T.

Assumptions: q has the marginals of `process`, p the steps of `model`; p(z_1) = N(0, I); eta > 0.
Reference: Nielsen et al. 2024, sections 3 and 4, appendices; Kingma et al. 2021, section 4.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from diffenc_ct.elbo.depths import Depths, LowDiscrepancyDepths, check_grid, uniform_grid
from diffenc_ct.elbo.infinite import refuse_determinism
from diffenc_ct.elbo.subsets import encode
from diffenc_ct.elbo.terms import (
    Draws,
    Model,
    Residuals,
    Terms,
    latent_loss,
    reconstruction_loss,
    scaled,
)
from diffenc_ct.encoders import Encoding
from diffenc_ct.process import (
    AnyNoiseLevel,
    Errors,
    Estimates,
    NoiseLevel,
    as_noise_level,
    marginal,
)
from diffenc_ct.schedules import SchedulePoint, expand, snr

# A ratio that depends on the state: of steps (batch,), 0 next to the data, and the estimates at z_t; w (batch, *data).
StateRatio = Callable[[Tensor, Estimates], Tensor]
Ratio = float | Tensor | StateRatio


@runtime_checkable
class Steps(Protocol):
    """Steps fitted elsewhere, with their own ratios and noise levels: a Calibration."""

    @property
    def grid(self) -> Tensor: ...

    @property
    def finest_ratio(self) -> Tensor | StateRatio: ...

    @property
    def noise_level(self) -> NoiseLevel: ...


def mean_difference(
    errors: Errors,
    encoding: Encoding,
    x_s: Float[Tensor, "batch *data"],
    gamma_s: Float[Tensor, "..."],
    gamma_t: Float[Tensor, "..."],
    noise_level: NoiseLevel,
) -> Float[Tensor, "batch *data"]:
    """Delta = mu_Q - mu_P = alpha_s (x_s - x_hat_s) - rho (sigma_s/sigma_t) alpha_t (x_t - x_hat), over alpha_s.

    With D = gamma_t - gamma_s and x_hat_s = x_hat + D r_hat, divided by alpha_s,
    Delta = -expm1(-(int eta^2 + D)/2) (x_t - x_hat) + (x_s - x_t - D x_t') + D (x_t' - r_hat).
    The rate cancels: an encoding and errors made with x_t' = 0 give the same. Theorem: elbo.step_kl.

    Args:
        errors: x_t - x_hat and x_t' - r_hat.
        encoding: x_t and x_t'.
        x_s: encoded data at s.
        gamma_s: gamma at s, (batch,) or a scalar.
        gamma_t: gamma at t, likewise.
        noise_level: eta.
    """
    step = gamma_t - gamma_s
    keep = -torch.expm1(-0.5 * (noise_level.integral(gamma_s, gamma_t) + step))
    step = expand(step, x_s)
    return expand(keep, x_s) * errors.x + (x_s - encoding.value - step * (encoding.rate - errors.r))


def step_kl(
    difference: Float[Tensor, "batch *data"],
    gamma_s: Float[Tensor, "..."],
    gamma_t: Float[Tensor, "..."],
    noise_level: NoiseLevel,
    ratio: float | Tensor = 1.0,
) -> Float[Tensor, " batch"]:
    """KL(q(z_s | z_t, x) || p(z_s | z_t)) = d/2 (1/w - 1 + ln w) + ||Delta||^2 / (2 w S^2) in nats.

    NaN where w is not positive. Theorem: elbo.step_kl.

    Args:
        difference: Delta / alpha_s (see mean_difference).
        gamma_s: gamma at s, (batch,) or a scalar.
        gamma_t: gamma at t, likewise.
        noise_level: eta.
        ratio: w, a number or broadcastable to (batch, *data).
    """
    # S^2 / alpha_s^2 = exp(gamma_s) (1 - rho^2)
    variance = -torch.expm1(-noise_level.integral(gamma_s, gamma_t)) / snr(gamma_s)
    # `new_full` and not a tensor made on the CPU, which would wait for the device.
    w = ratio.to(difference) if isinstance(ratio, Tensor) else difference.new_full((), ratio)
    w = torch.where(w > 0, w, math.nan)
    # log1p keeps 1/w - 1 + ln w, which is (w - 1)^2/2 near w = 1, from cancelling.
    mismatch = torch.log1p(w - 1) - (w - 1) / w
    terms = mismatch + difference**2 / (w * expand(variance, difference))
    return 0.5 * terms.flatten(1).sum(1)


@dataclass(frozen=True, eq=False)
class FiniteDepth:
    """A model of T steps, and how its bound is estimated.

    Attributes:
        steps: T, for the uniform grid i/T; or a grid, T + 1 depths increasing from 0 to 1; or a Calibration, which
            brings its grid, and ratio and noise level where they are not given.
        ratio: the variance ratio w, positive: a number; one a step (T,), or one a step and dimension (T, *data),
            counted from the data; or a function of steps (batch,) and Estimates there, whose values are not looked at:
            the loss is NaN where they are not positive.
        noise_level: eta > 0, a number, a NoiseLevel or a function of gamma.
        depths: how the step of each example is drawn.

    Raises:
        TypeError: for steps or a ratio of another kind.
        ValueError: for fewer than one step, a grid that does not increase from 0 to 1, a ratio that is not positive or
            not one a step, and for eta = 0, with which the bound is infinite.

    Example:
        >>> import diffenc_ct as dc
        >>> dc.FiniteDepth(50, ratio=1.05).depth
        50
    """

    steps: "int | Tensor | Steps"
    ratio: Ratio | None = None
    noise_level: AnyNoiseLevel | None = None
    depths: Depths = field(default_factory=LowDiscrepancyDepths)

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int | Tensor | Steps):
            raise TypeError(
                f"steps={self.steps!r}; give a number of steps, a grid of depths or a Calibration"
            )
        nodes = self.grid(torch.empty(0, dtype=torch.float64))
        check_grid(nodes, self.depth, nodes)
        refuse_determinism(self.level)
        check_ratio(self.variance_ratio, self.depth)

    @property
    def depth(self) -> int:
        """T."""
        if isinstance(self.steps, int):
            return self.steps
        return (self.steps if isinstance(self.steps, Tensor) else self.steps.grid).numel() - 1

    def grid(self, like: Tensor) -> Float[Tensor, "..."]:
        """The T + 1 depths.

        Args:
            like: a tensor whose dtype and device they have.
        """
        if isinstance(self.steps, int):
            return uniform_grid(self.steps, like)
        return (self.steps if isinstance(self.steps, Tensor) else self.steps.grid).to(like)

    @property
    def variance_ratio(self) -> Ratio:
        """w: the given one, the calibration's, or 1."""
        if self.ratio is not None:
            return self.ratio
        return 1.0 if isinstance(self.steps, int | Tensor) else self.steps.finest_ratio

    @property
    def level(self) -> NoiseLevel:
        """eta as an object: the given one, the calibration's, or 1."""
        if self.noise_level is not None:
            return as_noise_level(self.noise_level)
        return (
            as_noise_level(1.0) if isinstance(self.steps, int | Tensor) else self.steps.noise_level
        )

    def terms(
        self,
        model: Model,
        x: Shaped[Tensor, "batch *data"],
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
    ) -> Terms:
        """One unbiased estimate of each term, for each example, without a look at the data's values.

        Args:
            model: DiffEnc.
            x: levels or reals, as the model's decoder has it.
            draws: values in the place of random ones; t visits the ceil(t T)-th step.
            generator: of the rest.

        Raises:
            TypeError: for data of the wrong kind.
            ValueError: for shapes that do not fit, that of a ratio a dimension among them.
        """
        data = scaled(model, x)
        drawn = (draws or Draws()).complete(data, self.depths, generator)
        gamma_0, gamma_1 = (model.schedule.at(end, data).gamma for end in (0.0, 1.0))
        nodes, step = self.grid(data), self._step(drawn.t)
        gamma_s = model.schedule(nodes[step]).gamma
        point: SchedulePoint = model.schedule(nodes[step + 1])
        gamma_t = point.gamma
        x_s, x_t = encode(model.encoder, [(data, gamma_s), (data, gamma_t)])
        x_0, x_1 = encode(model.encoder, [(data, gamma_0), (data, gamma_1)])
        encoding = Encoding(x_t, torch.zeros_like(x_t))
        z = marginal(x_t, gamma_t).sample(noise=drawn.noise)
        errors = model.errors(z, drawn.noise, encoding, gamma_t)
        difference = mean_difference(errors, encoding, x_s, gamma_s, gamma_t, self.level)
        estimates = Estimates(x_t - errors.x, -errors.r)
        w = ratio_at(self.variance_ratio, step, estimates)
        diffusion = self.depth * step_kl(difference, gamma_s, gamma_t, self.level, w)
        return Terms(
            reconstruction_loss(model, x, x_0, gamma_0, drawn.noise_0),
            drawn.weight * diffusion,
            latent_loss(x_1, gamma_1),
            data[0].numel(),
            Residuals(point, errors),
        )

    def _step(self, t: Tensor) -> Tensor:
        return (t * self.depth).ceil().long().clamp(1, self.depth) - 1

    def along(
        self, t: Float[Tensor, " batch"], loss: Float[Tensor, " batch"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
        """Where draws look on the grid, and the loss there for each unit of depth.

        Args:
            t: depths that were drawn.
            loss: the diffusion term of each.
        """
        grid, step = self.grid(t), self._step(t)
        width = grid.diff()[step]
        return grid[step] + (t * self.depth - step) * width, loss / (self.depth * width)


def check_ratio(ratio: Ratio, steps: int) -> None:
    """Refuse a ratio that is not positive, or a table that is not one a step.

    Args:
        ratio: w.
        steps: T.

    Raises:
        TypeError: for what is no ratio.
        ValueError: naming what is allowed.
    """
    if callable(ratio):
        return
    if not isinstance(ratio, int | float | Tensor):
        raise TypeError(
            f"ratio={ratio!r}; give a number, a tensor of one a step or a function of steps and estimates"
        )
    w = torch.as_tensor(ratio)
    if not ((w > 0) & w.isfinite()).all() or (w.ndim and len(w) != steps):
        raise ValueError(
            f"ratio multiplies a variance: it must be positive, one number or one a step ({steps}); got {ratio}"
        )


def ratio_at(ratio: Ratio, step: Int[Tensor, " batch"], estimates: Estimates) -> float | Tensor:
    """w of each example's step.

    Args:
        ratio: a number, a table (T,) or (T, *data), or a function of the state.
        step: of each example, 0 next to the data.
        estimates: at the step's z_t, (batch, *data).

    Raises:
        ValueError: for a table of another shape than the data's.
    """
    if callable(ratio):
        return ratio(step, estimates)
    if not isinstance(ratio, Tensor) or ratio.ndim == 0:
        return ratio
    like = estimates.x_hat
    if ratio.ndim > 1 and ratio.shape[1:] != like.shape[1:]:
        raise ValueError(
            f"ratio has shape {tuple(ratio.shape)}; one a step and dimension is {(len(ratio), *like.shape[1:])}"
        )
    return expand(ratio.to(like)[step], like)
