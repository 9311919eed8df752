"""A stack of bits by asymmetric numeral systems, with a floor that is laid as deep as it is dug.

Bits back pops bits before anything was pushed. Those initial bits are a stream of pseudorandom words, the same in every
file of a seed; a message holds the words that were dug up, and no more of them.

Reference: Duda 2009; Bamler 2022 (constriction).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffenc_ct.report.extras import require

Words = NDArray[np.uint32]
Symbols = NDArray[np.int64]

# Bits that one symbol takes at most: constriction's precision.
PRECISION = 24
# Bits of a word, and words of floor that are laid at a time.
WORD, SLAB = 32, 2**12


def constriction() -> Any:
    """The entropy coder.

    Raises:
        MissingExtra: it is not installed.
    """
    # Its submodules are attributes; they cannot be imported by name.
    return require("constriction", "coding")


def initial_words(seed: int, count: int) -> Words:
    """The uppermost words below everything that is pushed, from the bottom to the top.

    Args:
        seed: of the stream.
        count: how many words. The uppermost is 1: a stack must not end in zeros.

    Example:
        >>> initial_words(0, 3)[1:].tolist() == initial_words(0, 2).tolist()
        True
    """
    return np.fromiter(_stream(seed), np.uint32, count)[::-1]


def _stream(seed: int) -> Iterator[int]:
    """1, then pseudorandom words; numpy promises never to change a bit generator's."""
    yield 1
    bits = np.random.Philox(key=seed)
    while True:
        yield int(bits.random_raw()) & 0xFFFFFFFF


class Stack:
    """Bits on a floor of initial ones.

    Args:
        seed: of the floor.
        words: a message to be decoded; None to begin one.
    Attributes:
        dug: words of the floor that were popped so far, the part of the message that is no information.
    Example:
        >>> stack, uniform = Stack(0), constriction().stream.model.Uniform(10)
        >>> stack.push(np.array([3, 1, 4]), uniform)
        >>> stack.pop(3, uniform).tolist()
        [3, 1, 4]
    """

    def __init__(self, seed: int, words: Words | None = None) -> None:
        self._floor = _stream(seed) if words is None else None
        self._laid = self._untouched = 0
        self._coder = constriction().stream.stack.AnsCoder(
            self._slab() if words is None else np.ascontiguousarray(words)
        )

    @property
    def words(self) -> Words:
        """The message: everything down to the deepest word that was touched."""
        compressed: Words = self._coder.get_compressed()
        return compressed[self._untouched :]

    @property
    def dug(self) -> int:
        """How many words of the floor the message holds."""
        return self._laid - self._untouched

    def push(self, symbols: Symbols, law: Any, *parameters: NDArray[np.float64]) -> None:
        """Code symbols; the first is popped first.

        Args:
            symbols: integers.
            law: a model of constriction's.
            parameters: one of each kind a symbol, where the law has them.
        """
        self._coder.encode_reverse(symbols.astype(np.int32), law, *parameters)

    def pop(self, count: int, law: Any, *parameters: NDArray[np.float64]) -> Symbols:
        """Decode symbols.

        Args:
            count: how many.
            law: a model of constriction's.
            parameters: one of each kind a symbol, where the law has them.
        """
        if self._floor is not None:
            self._deepen(count * PRECISION // WORD + 4)
        found = (
            self._coder.decode(law, *parameters) if parameters else self._coder.decode(law, count)
        )
        # Two words are the coder's state; what lies below them has not been looked at.
        self._untouched = min(self._untouched, max(0, self._coder.num_words() - 2))
        symbols: Symbols = found.astype(np.int64)
        return symbols

    def _deepen(self, needed: int) -> None:
        """Lay more floor below the stack until it is so many words high."""
        while self._coder.num_words() < needed:
            below, above = self._slab(), self._coder.get_compressed()
            self._coder = constriction().stream.stack.AnsCoder(np.concatenate([below, above]))

    def _slab(self) -> Words:
        """The floor's next words, from the bottom to the top."""
        assert self._floor is not None
        self._laid, self._untouched = self._laid + SLAB, self._untouched + SLAB
        slab: Words = np.fromiter(self._floor, np.uint32, SLAB)[::-1].copy()
        return slab
