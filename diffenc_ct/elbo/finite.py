"""The bound of finite depth: T steps, on any grid, with any noise level and variance ratio.

A step from t to s < t with variance ratio w, Delta = mu_Q - mu_P, S^2 = sigma_s^2 (1 - rho^2), costs

    KL = d/2 (1/w - 1 + ln w) + ||Delta||^2 / (2 w S^2),     L_T = sum over the steps of E[KL]

and L_T -> L_inf with error O(1/T) where w = 1 (or w -> 1 as fast). A mixture step, of heads that know a distribution of
every value, lets each value follow the process of its own x (see `process.values`): its KL is a sum of integrals over
one value each, and of exact heads what it costs beyond L_inf is what the values have to do with each other. An estimate
visits one step an example and multiplies its KL by T. Theorems: elbo.step_kl, elbo.mixture_kl.

Assumptions: q has the marginals of `process`, p the steps of `model`; p(z_1) = N(0, I); eta > 0.
Reference: Nielsen et al. 2024, sections 3 and 4, appendices; Kingma et al. 2021, section 4.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from diffenc_ct.elbo.depths import Depths, LowDiscrepancyDepths, check_grid, uniform_grid
from diffenc_ct.elbo.infinite import refuse_determinism
from diffenc_ct.elbo.ratios import Ratio, StateRatio, check_ratio, ratio_at, ratio_of_values
from diffenc_ct.elbo.steps import (
    StepKind,
    Visited,
    check_step,
    mean_difference,
    step_kls,
)
from diffenc_ct.elbo.subsets import encode
from diffenc_ct.elbo.terms import (
    Draws,
    Maps,
    Model,
    Residuals,
    Terms,
    latent_losses,
    reconstruction_losses,
    scaled,
)
from diffenc_ct.process import (
    AnyNoiseLevel,
    Errors,
    Estimates,
    NoiseLevel,
    as_noise_level,
    marginal,
    normal_like,
)
from diffenc_ct.schedules import SchedulePoint, expand


@runtime_checkable
class Steps(Protocol):
    """Steps fitted elsewhere, with their own ratios and noise levels: a Calibration."""

    @property
    def grid(self) -> Tensor: ...

    @property
    def finest_ratio(self) -> Tensor | StateRatio: ...

    @property
    def noise_level(self) -> NoiseLevel: ...

    @property
    def step(self) -> StepKind: ...


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
        step: "gaussian", N(mu_P, w S^2) around the heads' estimates; "mixture", each value the process of its own x,
            for heads that know a distribution of every value (w multiplies S^2 there, too).
        nodes: of a mixture step's divergence: 0 for one draw of z_s, unbiased and the best at equal cost with many
            levels; else those of Gauss-Hermite quadrature of each value, which has less variance (16 err by less than
            1e-4 bits per dimension on trained models of 4 to 64 steps, 8 by 3e-4).

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
    step: StepKind | None = None
    nodes: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int | Tensor | Steps):
            raise TypeError(
                f"steps={self.steps!r}; give a number of steps, a grid of depths or a Calibration"
            )
        nodes = self.grid(torch.empty(0, dtype=torch.float64))
        check_grid(nodes, self.depth, nodes)
        refuse_determinism(self.level)
        check_ratio(self.variance_ratio, self.depth)
        check_step(self.step_kind)
        if self.nodes < 0:
            raise ValueError(f"nodes={self.nodes}; give 1 or more of the quadrature, 0 for a draw")

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

    @property
    def step_kind(self) -> StepKind:
        """The given kind of step, the calibration's, or "gaussian"."""
        if self.step is not None:
            return self.step
        return "gaussian" if isinstance(self.steps, int | Tensor) else self.steps.step

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
        z = marginal(x_t, gamma_t).sample(noise=drawn.noise)
        at = Visited(step, z, drawn.noise, x_s, x_t, gamma_s, gamma_t)
        kl, errors = self._divergence(model, at, generator)
        each = Maps(
            reconstruction_losses(model, x, x_0, gamma_0, drawn.noise_0),
            expand(drawn.weight * self.depth, data) * kl,
            latent_losses(x_1, gamma_1),
        )
        return Terms.of(each, None if errors is None else Residuals(point, errors))

    def _divergence(
        self, model: Model, at: Visited, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, "batch *data"], Errors | None]:
        """KL of each example's step in every dimension, and of Gaussian steps the errors that it is made of."""
        ratio, level = self.variance_ratio, self.level
        if self.step_kind == "gaussian":
            errors = model.errors(at.z, at.noise, at.encoding, at.gamma_t)
            found = Estimates(at.x_t - errors.x, -errors.r)
            difference = mean_difference(errors, at.encoding, at.x_s, at.gamma_s, at.gamma_t, level)
            w = ratio_at(ratio, at.step, found)
            return step_kls(difference, at.gamma_s, at.gamma_t, level, w), errors
        values = model.values_beside(at.z, at.noise, at.x_t, at.gamma_t)
        w = ratio_of_values(ratio, at.step, values)
        p = values.step_from(at.x_t, at.x_s, at.gamma_s, level, w)
        if self.nodes:
            return p.divergences(nodes=self.nodes), None
        return p.divergences(noise=normal_like(at.z, generator)), None

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
