"""Checkpoints: one sealed safetensors file each, written atomically; loading executes nothing.

A file holds tensors by name,

    model/NAME    ema/RATE/NAME    optimizer/NAME/{exp_avg,exp_avg_sq,step}

and JSON metadata (configuration, step, shape, levels and digests of the data, last evaluation). Its header carries the
SHA-256 of the whole file, computed with the digest's own place filled with zeros, so that a change of any
byte is recognised. A file appears under its name only when it is complete on disk.
"""

import hashlib
import json
import math
import re
import struct
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from diffenc_ct.report.files import NOT_FINITE, as_json, write_atomically

__all__ = [
    "Checkpoint",
    "CorruptCheckpoint",
    "latest",
    "prune",
    "read_checkpoint",
    "write_checkpoint",
]

FORMAT = "diffenc_ct checkpoint 2"
FORMAT_1 = "diffenc_ct checkpoint 1"  # its networks were not yet parts of heads
EXPORTED = "weights.safetensors"  # one set of weights, in a folder of its own
_BLANK = "0" * 64


class CorruptCheckpoint(ValueError):
    """A checkpoint that is truncated, altered or of another format."""


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name and what describes them.

    Attributes:
        tensors: see the module.
        config: of the run, as plain values.
        step: at which it was taken.
        shape: of one example.
        levels: of integer data, None for reals.
        metrics: of the evaluation made at this step, if any.
        skipped: steps passed over so far.
        data: the parts of a DataRecord; nothing in files of version 0.1.
    """

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    step: int
    shape: tuple[int, ...]
    levels: int | None
    metrics: dict[str, float] = field(default_factory=dict)
    skipped: int = 0
    data: dict[str, Any] = field(default_factory=dict)

    def under(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix`, without it."""
        return {
            name[len(prefix) :]: t for name, t in self.tensors.items() if name.startswith(prefix)
        }

    def ema_rates(self) -> list[str]:
        """Rates of the moving averages that the file holds, in the order of the configuration.

        (A safetensors file keeps no order of its own.)
        """
        held = {name.split("/")[1] for name in self.tensors if name.startswith("ema/")}
        configured = map(rate_name, self.config.get("optimizer", {}).get("ema", ()))
        first = [rate for rate in configured if rate in held]
        return first + sorted(held - set(first))


def rate_name(rate: float) -> str:
    """A moving average's name: its rate, in as many digits as it takes.

    Args:
        rate: of the average.

    Example:
        >>> rate_name(0.9999), rate_name(0.99990001)
        ('0.9999', '0.99990001')
    """
    short = f"{rate:g}"
    return short if float(short) == rate else repr(rate)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically: to a temporary file, flushed to disk, then renamed.

    Args:
        path: where it is to appear.
        checkpoint: what is written.

    Raises:
        OSError: and `path` is as it was.
    """
    description = {
        "config": checkpoint.config,
        "step": checkpoint.step,
        "shape": list(checkpoint.shape),
        "levels": checkpoint.levels,
        "metrics": checkpoint.metrics,
        "skipped": checkpoint.skipped,
        "data": checkpoint.data,
    }
    metadata = {"format": FORMAT, "description": as_json(description), "sha256": _BLANK}
    tensors = {name: t.detach().cpu().contiguous() for name, t in checkpoint.tensors.items()}
    data = bytearray(safetensors.torch.save(tensors, metadata))
    place = _digest_place(data)
    data[place : place + 64] = hashlib.sha256(data).hexdigest().encode()
    write_atomically(path, data)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a file of this format or the one before.

    Args:
        path: of the file.

    Raises:
        CorruptCheckpoint: where it is truncated, altered or something else.
        OSError: where it cannot be read at all.
    """
    data = bytearray(path.read_bytes())
    try:
        place = _digest_place(data)
        digest = data[place : place + 64].decode()
        data[place : place + 64] = _BLANK.encode()
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError("its contents do not match its checksum")
        metadata = _metadata(data)
        if metadata["format"] not in (FORMAT, FORMAT_1):
            raise ValueError(f"its format is {metadata['format']!r}, not {FORMAT!r}")
        tensors = safetensors.torch.load(bytes(data))
        if metadata["format"] == FORMAT_1:
            tensors = {_renamed(name): tensor for name, tensor in tensors.items()}
    except (ValueError, KeyError, struct.error, SafetensorError) as error:
        raise CorruptCheckpoint(
            f"checkpoint {path} is truncated, altered or no checkpoint ({error}); use another or train again"
        ) from error
    return Checkpoint(tensors=tensors, **_description(metadata))


def _renamed(name: str) -> str:
    """A tensor's name in format 1 as format 2 has it."""
    return re.sub(r"^(model|ema/[^/]+|optimizer)/network\.", r"\1/heads.network.", name)


def latest(folder: Path) -> tuple[Path, Checkpoint] | None:
    """The newest intact checkpoint of a folder, or None; warns of each corrupt one that it passes over."""
    for path in reversed(list_checkpoints(folder)):
        try:
            return path, read_checkpoint(path)
        except CorruptCheckpoint as error:
            warnings.warn(f"{error}; trying the one before", stacklevel=2)
    return None


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a folder, oldest first."""
    return sorted(
        folder.glob("step-*.safetensors"), key=lambda path: int(path.stem.partition("-")[2])
    )


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lives."""
    return folder / f"step-{step:08d}.safetensors"


def best(folder: Path) -> Path | None:
    """The checkpoint with the lowest evaluated bits per dimension (the later of equals), or None.

    One that was not evaluated, or not to a number, is nobody's best.
    """
    scored = [
        (bpd, -i, path)
        for i, path in enumerate(list_checkpoints(folder))
        if math.isfinite(bpd := describe(path).get("metrics", {}).get("bpd", math.nan))
    ]
    return min(scored)[2] if scored else None


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints and the best."""
    spared = {*list_checkpoints(folder)[-keep:], best(folder)}
    for path in list_checkpoints(folder):
        if path not in spared:
            path.unlink()


def describe(path: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, without its tensors and unverified; nothing where it cannot be read.

    Args:
        path: of the file.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(8)
            head += file.read(struct.unpack("<Q", head)[0])
        return _description(_metadata(head))
    except (ValueError, KeyError, TypeError, OSError, struct.error, OverflowError, MemoryError):
        return {}


def _description(metadata: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(metadata["description"])
    found.pop(NOT_FINITE, None)
    found["shape"] = tuple(found["shape"])
    found["metrics"] = {k: math.nan if v is None else v for k, v in found["metrics"].items()}
    return found


def _metadata(data: bytes | bytearray) -> dict[str, str]:
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data) - 8:
        raise ValueError("its header is cut off")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length])["__metadata__"]
    return metadata


def _digest_place(data: bytes | bytearray) -> int:
    (length,) = struct.unpack("<Q", data[:8])
    key = b'"sha256":"'
    place = data.find(key, 8, 8 + min(length, len(data))) + len(key)
    if place < len(key):
        raise ValueError("it has no checksum")
    return place


def as_plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors in float32, whatever precision they were stored in."""
    return {
        name: t.to(torch.float32) if t.is_floating_point() else t for name, t in tensors.items()
    }
