"""Heads: what a model predicts of the unknown, and what its network is told.

Two quantities are unknown when a latent is to be denoised, encoded data and their rate in log-SNR,

    x_hat ~ E[x_t | z_t],      r_hat ~ E[x_t' | z_t].

Heads of one's own derive from `Heads` and implement `forward`; `errors` where the difference x_t - x_hat would lose its
digits beside small noise. With a condition c of each example the same are given z_t and c.

Reference: Nielsen et al. 2024, sections 2 to 4.
"""

import copy
import inspect
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from diffenc_ct.encoders import Encoder, Encoding
from diffenc_ct.model.readings import (
    Data,
    Gammas,
    regression_loss,
)
from diffenc_ct.process import Errors, Estimates, Values

# Which rows of a batch: numbers, or a slice.
Rows = Tensor | Sequence[int] | slice
Traces = tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]


class Heads(nn.Module):
    """Base class: implement `forward(z, gamma, encoder) -> Estimates`.

    Attributes:
        tells_apart: whether x_hat and r_hat are estimated apart, as the probability flow of any encoder needs; if not,
            they are right in the sum that the reverse SDE at eta = 1 needs.
        knows_values: whether they know a distribution of every value, of which mixture steps are made.
        condition: what is known of each example of a batch, None where nothing is.
    Example:
        >>> class Shrinking(Heads):  # right for data N(0, 1) and the identity encoder
        ...     def forward(self, z, gamma, encoder):
        ...         return Estimates(expand(alpha(gamma), z) * z, 0 * z)
    """

    network: nn.Module
    tells_apart: bool = True
    knows_values: bool = False
    condition: Shaped[Tensor, "batch *condition"] | None = None

    def forward(self, z: Data, gamma: Gammas, encoder: Encoder) -> Estimates:
        """x_hat and r_hat at latents z of depths gamma; `encoder` is the model's."""
        raise NotImplementedError("heads implement forward(z, gamma, encoder) -> Estimates")

    def errors(
        self, z: Data, noise: Data, encoding: Encoding, gamma: Gammas, encoder: Encoder
    ) -> Errors:
        """x_t - x_hat and x_t' - r_hat at z = alpha x_t + sigma noise.

        The same as subtracting `forward` from `encoding`, which is what this does; override it where that cancels.

        Args:
            z: latents.
            noise: their eps.
            encoding: x_t and x_t'.
            gamma: depths.
            encoder: the model's.
        """
        found = self(z, gamma, encoder)
        return Errors(encoding.value - found.x_hat, encoding.rate - found.r_hat)

    def values(self, z: Data, gamma: Gammas, encoder: Encoder) -> Values:
        """What is known of every value at latents z, where `knows_values`: of what mixture steps are made.

        Args:
            z: latents.
            gamma: their depths.
            encoder: the model's.
        Raises:
            ValueError: where the heads estimate means only.
        """
        raise ValueError(
            f'step="mixture": {type(self).__name__} heads estimate means only; mixture steps need heads that know a '
            'distribution of every value (Posterior, MixturePosterior): use step="gaussian"'
        )

    def values_beside(
        self, z: Data, noise: Data, x_t: Data, gamma: Gammas, encoder: Encoder
    ) -> Values:
        """The same at z = alpha x_t + sigma noise; override it where deviations from x_t keep more digits.

        Args:
            z: latents.
            noise: their eps.
            x_t: encoded data.
            gamma: depths.
            encoder: the model's.
        """
        return self.values(z, gamma, encoder)

    def regression(self, errors: Errors, gamma: Gammas) -> Float[Tensor, " batch"] | None:
        """A loss besides the ELBO that tells the two estimates apart, None where there is none.

        Its gradient is for these heads' parameters only.

        Args:
            errors: what the heads missed at latents z.
            gamma: depths.
        """
        return None

    def x_loss(self, error: Data, gamma: Gammas) -> Float[Tensor, " batch"]:
        """The regression of x_hat on x_t, by which a head is fitted: weighted as if the network predicted x.

        Args:
            error: x_t - x_hat.
            gamma: depths.
        """
        return regression_loss(error, gamma, "x")

    def output(self, z: Data, gamma: Gammas) -> Any:
        """What the network says: net(z, gamma), or net(z, gamma, condition) where these heads are given one.

        Args:
            z: latents.
            gamma: their depths.
        Raises:
            ValueError: for another number of latents than of conditions.
        """
        return self.network(z, gamma, *self.known(z))

    def known(self, z: Data) -> tuple[Tensor, ...]:
        """The condition of each latent, as a further argument of a network; nothing where nothing is known.

        Args:
            z: latents.
        Raises:
            ValueError: for another number of latents than of conditions.
        """
        if self.condition is None:
            return ()
        if len(self.condition) != len(z):
            raise ValueError(
                f"the model is given the conditions of {len(self.condition)} examples, but there are {len(z)}"
            )
        return (self.condition.to(z.device),)

    def given(
        self, condition: Shaped[Tensor, "batch *condition"] | None, *, values: bool = True
    ) -> "Heads":
        """The same heads, sharing their weights, with what is known of each example of a batch.

        Args:
            condition: what the network takes behind gamma, one an example; None for nothing.
            values: look at the condition's values, which waits for its device.
        Raises:
            ValueError: for a network that takes none, or not this one.
        """
        if condition is not None:
            _check_condition(self.network, condition, values)
        found = copy.copy(self)
        found.condition = condition
        return found

    def rows(self, index: Rows) -> "Heads":
        """These heads for some examples of the batch whose conditions they are given.

        Args:
            index: of the examples.
        """
        if self.condition is None:
            return self
        found = copy.copy(self)
        found.condition = self.condition[index]
        return found

    def on(self, network: nn.Module) -> "Heads":
        """The same heads on another network.

        Args:
            network: in the place of `self.network`, with the same outputs.
        """
        return copy.deepcopy(self, {id(self.network): network})

    def traces(self, z: Data, gamma: Gammas) -> Traces | None:
        """tr dx_hat/dz and tr dr_hat/dz where they are known in closed form, else None."""
        return None


def _check_condition(network: nn.Module, condition: Tensor, values: bool) -> None:
    """Refuse a condition that the network does not take: by its own `check_condition` if it has one."""
    check = getattr(network, "check_condition", None)
    if check is not None:
        if values:
            check(condition)
        return
    taken = inspect.signature(network.forward).parameters.values()
    several = any(p.kind is p.VAR_POSITIONAL for p in taken)
    if len(taken) < 3 and not several:
        raise ValueError(
            f"the network {type(network).__name__} takes no condition; give it forward(z, gamma, condition=None)"
        )
