"""The generative model: estimates of the unknown, the reverse step, the decoder, and the loss that trains them.

A step from t to s < t is, with x_hat_s = x_hat + (lambda_s - lambda_t) r_hat,

    p(z_s | z_t) = N(alpha_s x_hat_s + rho (sigma_s/sigma_t) (z_t - alpha_t x_hat), w sigma_s^2 (1 - rho^2) I).

Its limit s -> t is the reverse-time SDE dz = b_eta dt + eta sqrt(beta) dw_bar (see `reverse`). p(z_1) = N(0, I), and
p(x | z_0) is the decoder's.

Reference: Nielsen et al. 2024, sections 2 to 4; Kingma et al. 2021.
"""

import copy

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from diffenc_ct.elbo import Draws, InfiniteDepth, Terms
from diffenc_ct.encoders import Encoder, Encoding
from diffenc_ct.model.decoder import Decoder
from diffenc_ct.model.guidance import Guided
from diffenc_ct.model.heads import Heads, Rows
from diffenc_ct.model.reverse import reverse_step
from diffenc_ct.process import (
    AnyNoiseLevel,
    Errors,
    Estimates,
    Gaussian,
    Values,
    as_noise_level,
)
from diffenc_ct.schedules import Schedule, alpha


class DiffEnc(nn.Module):
    """A variational diffusion model with a depth-dependent encoder.

    Calling it gives the loss: the terms of the infinite-depth ELBO of each example, so that hooks, torch.compile,
    DistributedDataParallel and fully_shard work on it as on any module.

    Args:
        schedule: gamma(t).
        encoder: x -> x_t.
        heads: Single(net), Paired(net), Separate(tied, head), Posterior(net, levels), or one's own.
        decoder: Levels(V) for integers 0..V-1, Reals() for floats.
        shape: of one example, where it is known; then `sample` need not be told.
    Raises:
        TypeError: where a part is of another kind.
    Example:
        >>> import torch, diffenc_ct as dc
        >>> net = dc.networks.MLP(4)
        >>> model = dc.DiffEnc(dc.LinearSchedule(), dc.IdentityEncoder(), dc.Single(net), dc.Levels(16))
        >>> model(torch.randint(0, 16, (8, 4))).total.shape
        torch.Size([8])
    """

    def __init__(
        self,
        schedule: Schedule,
        encoder: Encoder,
        heads: Heads,
        decoder: Decoder,
        *,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        for name, part, kind in (
            ("schedule", schedule, Schedule),
            ("encoder", encoder, Encoder),
            ("heads", heads, Heads),
            ("decoder", decoder, Decoder),
        ):
            if not isinstance(part, kind):
                raise TypeError(
                    f"{name} is a {type(part).__name__}; give a {kind.__name__}"
                    + (", such as Single(network)" if kind is Heads else "")
                    + (", such as Levels(256) or Reals()" if kind is Decoder else "")
                )
        self.schedule, self.encoder, self.heads = schedule, encoder, heads
        self.decoder, self.shape = decoder, shape

    def forward(
        self,
        x: Shaped[Tensor, "batch *data"],
        loss: InfiniteDepth | None = None,
        *,
        draws: Draws | None = None,
        generator: torch.Generator | None = None,
        condition: Shaped[Tensor, "batch *condition"] | None = None,
    ) -> Terms:
        """The infinite-depth ELBO of each example in nats. Values of x and of the condition are not looked at: `elbo`
        and `given` do that.

        Args:
            x: data as the decoder has it.
            loss: how the bound is estimated; InfiniteDepth() by default.
            draws: values in the place of random ones.
            generator: of the rest.
            condition: what is known of each example, as in `given`.
        """
        model = self
        if condition is not None:
            model = self._with(self.heads.given(condition, values=False))
        return (InfiniteDepth() if loss is None else loss).terms(model, x, draws, generator)

    @property
    def flow_is_exact(self) -> bool:
        """Whether the probability flow of optimal heads keeps the data's marginals."""
        return self.heads.tells_apart or self.encoder.flow_is_exact_with_one_head

    # Conditions ---------------------------------------------------------------------------------------

    def given(self, condition: Shaped[Tensor, "batch *condition"] | None) -> "DiffEnc":
        """The conditional model p(x | c) of a batch: the same parts and weights, whose network is told each c.

        Bounds, likelihoods, samples and calibrations take it as they take any model, with as many examples as there
        are conditions. The encoder is told nothing: it is the same for all c.

        Args:
            condition: one an example: labels (batch,), -1 for none, or what the network takes; None for no condition.
        Raises:
            ValueError: where the network takes no condition, or not this one.
        Example:
            >>> import torch, diffenc_ct as dc
            >>> net = dc.networks.MLP(4, classes=3)
            >>> model = dc.DiffEnc(dc.LinearSchedule(), dc.IdentityEncoder(), dc.Single(net), dc.Levels(16))
            >>> dc.elbo(model.given(torch.tensor([0, 2])), torch.randint(0, 16, (2, 4))).total.shape
            torch.Size([2])
        """
        return self._with(self.heads.given(condition))

    def rows(self, index: Rows) -> "DiffEnc":
        """The conditional model of some examples of its batch; without conditions the model itself.

        Args:
            index: of the examples.
        """
        return self if self.condition is None else self._with(self.heads.rows(index))

    def guided(self, weight: float) -> "DiffEnc":
        """The given model with classifier-free guidance, for sampling (see `guidance`).

        Args:
            weight: 1 is the conditional model, 0 the one without condition.
        Raises:
            ValueError: where the model is given no condition, or the weight is not finite.
        """
        return self._with(Guided(self.heads, weight))

    @property
    def condition(self) -> Shaped[Tensor, "batch *condition"] | None:
        """What the model is given."""
        found: Tensor | None = self.heads.condition
        return found

    def _with(self, heads: Heads) -> "DiffEnc":
        """The same model with other heads; weights are shared."""
        found = copy.copy(self)
        found._modules = self._modules | {"heads": heads}
        return found

    # Predictions ------------------------------------------------------------------------------------

    def predict(self, z: Float[Tensor, "batch *data"], gamma: Float[Tensor, " batch"]) -> Estimates:
        """x_hat and r_hat at latents z of depths gamma. Theorem: encoders.v_identity."""
        estimates: Estimates = self.heads(z, gamma, self.encoder)
        return estimates

    def errors(
        self,
        z: Float[Tensor, "batch *data"],
        noise: Float[Tensor, "batch *data"],
        encoding: Encoding,
        gamma: Float[Tensor, " batch"],
    ) -> Errors:
        """(x_t - x_hat, x_t' - r_hat) at z = alpha x_t + sigma noise, without cancellation at small sigma.

        Theorem: elbo.prediction_errors.

        Args:
            z: latents.
            noise: their eps.
            encoding: x_t and x_t'.
            gamma: depths.
        """
        return self.heads.errors(z, noise, encoding, gamma, self.encoder)

    def values(self, z: Float[Tensor, "batch *data"], gamma: Float[Tensor, " batch"]) -> Values:
        """What the heads know of every value at latents z of depths gamma.

        `model.values(z_t, gamma_t).step(z_t, gamma_s, level)` is the mixture step p(z_s | z_t): a density, draws, and
        weights, means and deviations of its values.

        Args:
            z: latents.
            gamma: their depths.
        Raises:
            ValueError: where the heads estimate means only.
        """
        return self.heads.values(z, gamma, self.encoder)

    def values_beside(
        self,
        z: Float[Tensor, "batch *data"],
        noise: Float[Tensor, "batch *data"],
        x_t: Float[Tensor, "batch *data"],
        gamma: Float[Tensor, " batch"],
    ) -> Values:
        """The same at z = alpha x_t + sigma noise, without cancellation at small sigma.

        Args:
            z: latents.
            noise: their eps.
            x_t: encoded data.
            gamma: depths.
        Raises:
            ValueError: where the heads estimate means only.
        """
        return self.heads.values_beside(z, noise, x_t, gamma, self.encoder)

    # The reverse step ---------------------------------------------------------------------------------

    def reverse(
        self,
        z_t: Float[Tensor, "batch *data"],
        gamma_s: Float[Tensor, " batch"],
        gamma_t: Float[Tensor, " batch"],
        *,
        noise_level: AnyNoiseLevel = 1.0,
        ratio: float | Tensor = 1.0,
    ) -> Gaussian:
        """p(z_s | z_t) for s < t. Theorem: model.reverse_mean.

        Args:
            z_t: latents at t.
            gamma_s: gamma at s.
            gamma_t: gamma at t.
            noise_level: eta.
            ratio: the variance ratio w.
        """
        found, level = self.predict(z_t, gamma_t), as_noise_level(noise_level)
        step = reverse_step(z_t, found, gamma_s, gamma_t, level)
        w = torch.as_tensor(ratio, dtype=z_t.dtype, device=z_t.device)
        return Gaussian(step.mean, step.std * w.sqrt())

    # Data and the decoder -----------------------------------------------------------------------------

    def scale(self, x: Shaped[Tensor, "batch *data"]) -> Float[Tensor, "batch *data"]:
        """Data on the decoder's scale, levels in the parameters' float type; see the decoder."""
        parameter = next(self.parameters(), None)
        return self.decoder.scale(
            x, torch.get_default_dtype() if parameter is None else parameter.dtype
        )

    def decode(
        self,
        z_0: Float[Tensor, "batch *data"],
        gamma_0: Float[Tensor, ""],
        *,
        sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> Shaped[Tensor, "batch *data"]:
        """Data from latents z_0: the most probable x (levels as int64, or reals), or a draw from p(x | z_0).

        Args:
            z_0: latents at depth 0.
            gamma_0: gamma there.
            sample: draw.
            generator: of the draw.
        """
        u = z_0 / alpha(gamma_0)
        if sample:
            return self.decoder.draw(u, gamma_0, generator)
        return self.decoder.most_probable(u)

    def decode_log_prob(
        self,
        x: Shaped[Tensor, "batch *data"],
        z_0: Float[Tensor, "batch *data"],
        gamma_0: Float[Tensor, ""],
    ) -> Float[Tensor, " batch"]:
        """log p(x | z_0) in nats. Waits for gamma_0's device.

        Theorems: model.decoder, model.continuous_decoder.

        Args:
            x: data as they are given.
            z_0: latents at depth 0.
            gamma_0: gamma there.
        Raises:
            ValueError: where x and z_0 differ in shape.
        """
        if x.shape != z_0.shape:
            raise ValueError(
                f"x has shape {tuple(x.shape)}, but the latents z_0 {tuple(z_0.shape)}"
            )
        # At the gamma that is given: it need not be the schedule's.
        start = float(gamma_0.detach())
        return self.decoder.log_prob(x, z_0 / alpha(gamma_0), gamma_0, start)
