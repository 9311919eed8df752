"""What is pushed and popped: integers on a grid under Gaussians and mixtures, and choices of one of K.

A latent z = k width is coded by its integer k. Each law pops what its `push` pushed, bit for bit, whatever the numbers:
they only say how long the code is. Of a Gaussian that is -ln of its mass between k - 1/2 and k + 1/2; of a mixture

    pop j ~ r(j | z) = p_j N_j(z) / sum,   push k under N_j,   push j under p:      -ln sum_j p_j N_j(z) on average

bits back over the component. No symbol has a probability below 2^-24, which wastes that much for each that is possible:
so choices are made in two digits of base sqrt(K), and Gaussians reach 8 deviations, with an escape beyond.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from diffenc_ct.coding.stack import Stack, Symbols, constriction
from diffenc_ct.process import Gaussian, Mixture

# Deviations on either side that have symbols of their own, and the most symbols that may take.
DEVIATIONS, MOST = 8, 2**15
# Means lie within so many widths of 0, NaN and infinity do not: they have an integer next to them.
FARTHEST = 2.0**62
# How small a logarithm of a weight may be: a component that has none can still be popped, at a price.
LEAST = -1e5


@runtime_checkable
class Law(Protocol):
    """A distribution of some integers."""

    def push(self, stack: Stack, k: Symbols) -> None: ...

    def pop(self, stack: Stack) -> Symbols: ...


@dataclass(frozen=True)
class Normals:
    """k with k width ~ N(mean, std^2), independent values.

    Attributes:
        gaussian: of flattened values, float64.
        width: of the grid.
        escape: whether any integer can be pushed; else those within `reach` of the mean.
    Raises:
        ValueError: where a mean or a deviation is not finite.
    Example:
        >>> law, stack = Normals(Gaussian(torch.zeros(2).double(), torch.ones(2).double()), 0.1), Stack(0)
        >>> law.push(stack, np.array([3, -1000]))
        >>> law.pop(stack).tolist()
        [3, -1000]
    """

    gaussian: Gaussian
    width: float
    escape: bool = True

    def push(self, stack: Stack, k: Symbols) -> None:
        """Code integers.

        Args:
            stack: of bits.
            k: one a value.
        """
        centre, mean, std, reach = self._on_the_grid()
        offset = k - centre
        inside = offset.clip(-reach, reach)
        if self.escape:
            far = np.abs(inside) == reach
            _push_excess(stack, np.abs(offset - inside)[far])
        stack.push(inside, _normal(reach), mean, std)

    def pop(self, stack: Stack) -> Symbols:
        """Decode integers.

        Args:
            stack: of bits.
        """
        centre, mean, std, reach = self._on_the_grid()
        offset = stack.pop(len(centre), _normal(reach), mean, std)
        if self.escape:
            far = np.abs(offset) == reach
            offset[far] += np.sign(offset[far]) * _pop_excess(stack, int(far.sum()))
        return centre + offset

    def _on_the_grid(self) -> tuple[Symbols, NDArray[np.float64], NDArray[np.float64], int]:
        """The grid's point next to each mean, the mean from there, the deviation, and the reach, all in widths."""
        mean = self.gaussian.mean.flatten().cpu().numpy() / self.width
        std = self.gaussian.std.expand_as(self.gaussian.mean).flatten().cpu().numpy() / self.width
        if not ((np.abs(mean) < FARTHEST).all() and np.isfinite(std).all() and (std > 0).all()):
            raise ValueError(
                "a step's mean or deviation is not finite and positive: the model cannot code these data"
            )
        centre = np.rint(mean)
        reach = min(math.ceil(DEVIATIONS * float(std.max())) + 1, MOST)
        return centre.astype(np.int64), mean - centre, std, reach


def _normal(reach: int) -> object:
    return constriction().stream.model.QuantizedGaussian(-reach, reach)


def _push_excess(stack: Stack, excess: Symbols) -> None:
    """Integers from 0, rarely any: the number of their bytes, then the bytes."""
    uniform = constriction().stream.model.Uniform
    sizes = np.array([(int(e).bit_length() + 7) // 8 for e in excess], np.int64)
    for place in reversed(range(int(sizes.max(initial=0)))):
        stack.push(excess[sizes > place] >> 8 * place & 255, uniform(256))
    if len(excess):
        stack.push(sizes, uniform(9))


def _pop_excess(stack: Stack, count: int) -> Symbols:
    uniform = constriction().stream.model.Uniform
    excess = np.zeros(count, np.int64)
    sizes = stack.pop(count, uniform(9)) if count else excess
    for place in range(int(sizes.max(initial=0))):
        more = sizes > place
        excess[more] |= stack.pop(int(more.sum()), uniform(256)) << 8 * place
    return excess


@dataclass(frozen=True)
class Choices:
    """One of K for each value, in two digits of base sqrt(K).

    Attributes:
        log_weights: ln p_k up to a constant, (values, K).
    Example:
        >>> law, stack = Choices(torch.tensor([[0.5, 0.25, 0.25]]).log()), Stack(0)
        >>> law.push(stack, np.array([2]))
        >>> law.pop(stack).tolist()
        [2]
    """

    log_weights: Float[Tensor, "values components"]

    def push(self, stack: Stack, k: Symbols) -> None:
        """Code choices.

        Args:
            stack: of bits.
            k: one a value.
        """
        groups = self._groups()
        first, second = k // groups.shape[1], k % groups.shape[1]
        stack.push(second, _categorical(), self._within(groups, first))
        stack.push(first, _categorical(), self._between(groups))

    def pop(self, stack: Stack) -> Symbols:
        """Decode choices.

        Args:
            stack: of bits.
        """
        groups = self._groups()
        first = stack.pop(len(groups), _categorical(), self._between(groups))
        second = stack.pop(len(groups), _categorical(), self._within(groups, first))
        return first * groups.shape[1] + second

    def _groups(self) -> Float[Tensor, "values first second"]:
        """The weights by both digits; those of no component are the least."""
        values, components = self.log_weights.shape
        base = max(2, math.ceil(math.sqrt(components)))
        weights = self.log_weights.double().cpu().log_softmax(-1).clamp(min=LEAST)
        padded = torch.nn.functional.pad(weights, (0, base**2 - components), value=LEAST)
        return padded.view(values, base, base)

    @staticmethod
    def _between(groups: Tensor) -> NDArray[np.float64]:
        found: NDArray[np.float64] = groups.logsumexp(-1).softmax(-1).numpy()
        return found

    @staticmethod
    def _within(groups: Tensor, first: Symbols) -> NDArray[np.float64]:
        own = groups[torch.arange(len(groups)), torch.from_numpy(first)]
        found: NDArray[np.float64] = own.softmax(-1).numpy()
        return found


def _categorical() -> object:
    return constriction().stream.model.Categorical(perfect=False)


@dataclass(frozen=True)
class Mixed:
    """k with k width ~ sum_j p_j N(mean_j, std_j^2), by bits back over the component. Theorem: elbo.mixture_step.

    Attributes:
        mixture: of flattened values, float64.
        width: of the grid.
    """

    mixture: Mixture
    width: float

    def push(self, stack: Stack, k: Symbols) -> None:
        """Code integers.

        Args:
            stack: of bits.
            k: one a value.
        """
        j = self._which(k).pop(stack)
        self._component(j).push(stack, k)
        Choices(self.mixture.log_weights).push(stack, j)

    def pop(self, stack: Stack) -> Symbols:
        """Decode integers.

        Args:
            stack: of bits.
        """
        j = Choices(self.mixture.log_weights).pop(stack)
        k = self._component(j).pop(stack)
        self._which(k).push(stack, j)
        return k

    def _which(self, k: Symbols) -> Choices:
        """r(j | z)."""
        z = torch.from_numpy(k * self.width).to(self.mixture.mean)
        return Choices(self.mixture.log_weights + self.mixture.log_densities(z))

    def _component(self, j: Int[np.ndarray, " values"]) -> Normals:
        # A digit beyond the last component can be popped, if hardly ever: it stands for the last.
        last = self.mixture.mean.shape[-1] - 1
        own = torch.from_numpy(j).to(self.mixture.mean.device).clamp(max=last)[:, None]
        mean, std = (
            v.expand_as(self.mixture.mean).gather(-1, own)[:, 0]
            for v in (self.mixture.mean, self.mixture.std)
        )
        return Normals(Gaussian(mean, std), self.width)


@dataclass(frozen=True)
class Parts:
    """Independent values, a slice at a time: no more of them are held at once than need be.

    Attributes:
        slices: of the flattened values.
        law: of the values in one of them.
    """

    slices: list[slice]
    law: Callable[[slice], Law]

    def push(self, stack: Stack, k: Symbols) -> None:
        """Code integers, the last slice first, so that they are popped in their order.

        Args:
            stack: of bits.
            k: one a value.
        """
        for rows in reversed(self.slices):
            self.law(rows).push(stack, k[rows])

    def pop(self, stack: Stack) -> Symbols:
        """Decode integers.

        Args:
            stack: of bits.
        """
        return np.concatenate([self.law(rows).pop(stack) for rows in self.slices])
