"""Flax's serialisation of a tree of arrays, read and written without JAX.

A file is one msgpack map of maps whose leaves are arrays, in msgpack's extension types:

    1   array          msgpack (shape, dtype name, bytes in C order, little endian)
    2   complex        msgpack (real, imaginary)
    3   numpy scalar   as an array

An array of more than 2^30 bytes is written as a map {"__msgpack_chunked_array__": true, "shape": ..., "chunks": ...}
of flat pieces. Nothing in a file is executed.

Reference: flax.serialization (msgpack_serialize, msgpack_restore).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from diffenc_ct.report.extras import require

_CHUNKED = "__msgpack_chunked_array__"
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
# Whatever a malformed file can raise on the way: a value of another kind where a map, number or name should be.
_MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def _msgpack() -> ModuleType:
    return require("msgpack", "jax")


@dataclass(frozen=True)
class Array:
    """An array as the file holds it, not yet decoded.

    Attributes:
        shape: of the array.
        dtype: its name.
        data: bytes in C order, little endian.
    """

    shape: tuple[int, ...]
    dtype: str
    data: bytes

    def numpy(self) -> np.ndarray:
        """The array, a copy.

        Raises:
            ValueError: where the dtype is unknown to numpy or the bytes do not fill the shape.
        """
        try:
            dtype = np.dtype(self.dtype).newbyteorder("<")
        except TypeError:
            raise ValueError(f"dtype {self.dtype!r} is not one of numpy's") from None
        if math.prod(self.shape) * dtype.itemsize != len(self.data):
            raise ValueError(
                f"{len(self.data)} bytes do not fill {self.dtype} of shape {self.shape}"
            )
        return np.frombuffer(self.data, dtype).reshape(self.shape).astype(np.dtype(self.dtype))


def unpack(data: bytes) -> Any:
    """The tree in `data`: nested dicts with strings as keys, leaves Array or plain numbers and strings.

    Args:
        data: a whole file.

    Raises:
        ValueError: where the bytes are truncated, corrupt or of another format.
        MissingExtra: without msgpack.
    """
    try:
        tree = _msgpack().unpackb(data, ext_hook=_extension, raw=False, strict_map_key=False)
        return _joined(tree)
    except _MALFORMED as error:
        raise ValueError(f"not a readable Flax msgpack: {error}") from error


def pack(tree: Mapping[str, Any]) -> bytes:
    """The bytes that Flax would write.

    Args:
        tree: of dicts, numpy arrays, numpy scalars and plain numbers.

    Raises:
        TypeError: for another leaf.
        MissingExtra: without msgpack.
    """
    packed: bytes = _msgpack().packb(tree, default=_packed, strict_types=True)
    return packed


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by path: {"a": {"b": x}} -> {"a/b": x}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        flat |= flatten(value, f"{path}/") if isinstance(value, Mapping) else {path: value}
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of flatten: {"a/b": x} -> {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    return tree


def _extension(code: int, data: bytes) -> Any:
    if code == _COMPLEX:
        return complex(*_msgpack().unpackb(data))
    if code not in (_ARRAY, _SCALAR):
        raise ValueError(f"extension type {code} is none of Flax's")
    shape, dtype, content = _msgpack().unpackb(data, raw=True)
    if not all(isinstance(n, int) and n >= 0 for n in shape) or not isinstance(content, bytes):
        raise ValueError(f"an array of shape {shape} and {type(content).__name__} content")
    return Array(tuple(shape), dtype.decode("ascii"), content)


def _joined(tree: Any) -> Any:
    """The tree with its chunked arrays put together."""
    if not isinstance(tree, dict):
        return tree
    if _CHUNKED not in tree:
        return {str(key): _joined(value) for key, value in tree.items()}
    shape, chunks = tree["shape"], tree["chunks"]
    pieces = [chunks[str(i)] for i in range(len(chunks))]
    if not pieces or not all(isinstance(piece, Array) for piece in pieces):
        raise ValueError("a chunked array without arrays in it")
    if len({piece.dtype for piece in pieces}) != 1:
        raise ValueError("a chunked array of several dtypes")
    whole = b"".join(piece.data for piece in pieces)
    return Array(tuple(int(shape[str(i)]) for i in range(len(shape))), pieces[0].dtype, whole)


def _packed(leaf: Any) -> Any:
    if isinstance(leaf, (np.ndarray, np.generic)):
        code = _ARRAY if isinstance(leaf, np.ndarray) else _SCALAR
        array = np.asarray(leaf)
        little = array.astype(array.dtype.newbyteorder("<"))
        content = (array.shape, array.dtype.name, little.tobytes("C"))
        packed = _msgpack().packb(content, use_bin_type=True)
        return _msgpack().ExtType(code, packed)
    raise TypeError(f"Flax's msgpack has no form for {type(leaf).__name__}")
