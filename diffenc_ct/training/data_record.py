"""Which data a run has seen: shape, levels, and of each part how many examples and a digest of them.

Kept in every checkpoint, so that a run is not resumed on other data, and an evaluation on other examples says so.
"""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor

from diffenc_ct.data import Dataset

MOST = 2**28  # bytes that are digested: of more every so many blocks
BLOCK = 2**20

Parts = dict[str, dict[str, Any]]
NAMES = {"train": "training examples", "test": "test examples"}


@dataclass(frozen=True)
class DataRecord:
    """What is remembered of data.

    Attributes:
        shape: of an example.
        levels: of integers, None for reals.
        parts: of train and test {"examples": how many, "sha256": of them}, with labels also {"classes": how many,
            "labels": their SHA-256} and, where classes have names, {"names": these}; nothing where it is not known.
    """

    shape: tuple[int, ...]
    levels: int | None
    parts: Parts = field(default_factory=dict)

    @classmethod
    def of(cls, data: Dataset) -> "DataRecord":
        """Of a data set: of crops it is the images that count.

        Args:
            data: is looked at as a whole, or where it is large in every so many blocks.
        """
        images = () if data.source is None else data.source.images
        train = list(images) or _blocks(data.train)
        count = len(data.train if data.source is None else data.source)
        parts: Parts = {
            "train": {"examples": count, "sha256": _digest(train, data.levels)},
            "test": {
                "examples": len(data.test),
                "sha256": _digest(_blocks(data.test), data.levels),
            },
        }
        if data.labels is not None:
            for split, part in parts.items():
                labels = _digest([data.labels.of(split)], 2**31)
                part |= {"classes": data.labels.classes, "labels": labels}
                part |= {"names": list(data.labels.names)} if data.labels.names else {}
        return cls(data.shape, data.levels, parts)

    def unfit(self, other: "DataRecord") -> list[str]:
        """In which ways a model of these data cannot take others."""
        found = []
        for name in ("shape", "levels"):
            before, after = getattr(self, name), getattr(other, name)
            if before != after:
                found.append(f"{name} {before} -> {after}")
        return found + self.other_classes(other)

    def other_classes(self, other: "DataRecord") -> list[str]:
        """In which way others are of other classes: of another number, or where both have names of others."""
        if not self.parts:
            return []
        mine, theirs = (record.parts.get("train", {}) for record in (self, other))
        if mine.get("classes") != theirs.get("classes"):
            return [f"classes {mine.get('classes', 'none')} -> {theirs.get('classes', 'none')}"]
        before, after = (part.get("names", []) for part in (mine, theirs))
        if before and after and before != after:
            return [f"classes {', '.join(before)} -> {', '.join(after)}"]
        return []

    def unlike(self, other: "DataRecord") -> list[str]:
        """Which parts of others are not these, in words; nothing where either is not known."""
        found = []
        for name in self.parts.keys() & other.parts.keys():
            before, after = self.parts[name], other.parts[name]
            if before["examples"] != after["examples"]:
                found.append(f"{before['examples']:,} -> {after['examples']:,} {NAMES[name]}")
            elif before["sha256"] != after["sha256"]:
                found.append(
                    f"other {NAMES[name]} (SHA-256 {before['sha256'][:8]}... -> {after['sha256'][:8]}...)"
                )
            elif before.get("labels") != after.get("labels"):
                found.append(f"other labels of {NAMES[name]}")
        return sorted(found)


def _blocks(values: Shaped[Tensor, "examples *data"]) -> list[Tensor]:
    """Successive examples, about a MiB of them each."""
    size = max(1, BLOCK // (values[0].numel() * values.element_size()))
    return [values[start : start + size] for start in range(0, len(values), size)]


def _digest(blocks: list[Tensor], levels: int | None) -> str:
    """SHA-256 of shapes and values, whatever type holds them."""
    kind = torch.float64 if levels is None else torch.uint8 if levels <= 256 else torch.int64
    every = math.ceil(sum(block.numel() for block in blocks) * kind.itemsize / MOST)
    chosen = blocks[:: max(1, every)]
    digest = hashlib.sha256()
    for block in [*chosen, blocks[-1]]:
        digest.update(str(tuple(block.shape)).encode())
        digest.update(block.to(kind).contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
