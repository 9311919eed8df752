"""The processes of a launch: one, or as many as torchrun starts, on one machine or several.

    torchrun --nproc-per-node 2 -m diffenc_ct.cli train --preset digits --folder runs/digits

Every process holds the whole model and takes its share of each batch. What a batch draws is drawn for the whole
batch on every process, so that results do not depend on how many there are, up to rounding. Tensors travel by nccl
between GPUs and by gloo between CPUs; a sum gives the same bits to every process, so that replicas of the model stay
equal bit for bit.
"""

import io
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
S = TypeVar("S")

TIMEOUT = 1800.0


class TrainingStopped(RuntimeError):
    """Training ended early: a loss that is not finite, a signal, a full disk. The message says what to do.

    Attributes:
        exit_code: of the process.
    """

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Processes:
    """This process among those of the launch. Every method must be called by all of them, in the same order.

    Attributes:
        rank: its number.
        size: how many there are.
        device: of this one.

    Raises:
        ConnectionError: by any method, where another process is gone or does not answer in time.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def answered(self) -> AbstractContextManager[None]:
        """A context in which the loss of another process is told as ConnectionError, for calls of torch's own."""
        return _answered(every=False) if self.size > 1 else nullcontext()

    def rows(self, count: int) -> slice:
        """This process's share of `count` rows.

        Raises:
            ValueError: where they cannot be shared equally.
        """
        if count % self.size:
            raise ValueError(f"{count} rows cannot be shared equally by {self.size} processes")
        share = count // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in place; one message a device and type."""
        if self.size == 1:
            return
        alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for tensor in tensors:
            alike.setdefault((tensor.device, tensor.dtype), []).append(tensor)
        for group in alike.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            with _answered():
                dist.all_reduce(flat)
            parts = torch.split(flat, [t.numel() for t in group])
            for tensor, part in zip(group, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def largest(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.size == 1:
            return value
        held = torch.tensor(value)
        with _answered():
            dist.all_reduce(held, op=dist.ReduceOp.MAX)
        return int(held)

    def on_first(self, action: Callable[..., T], *arguments: Any) -> T:
        """action(*arguments), called by the first process only; its result on all of them.

        Args:
            action: called with `arguments`.
            arguments: of it.

        Raises:
            TrainingStopped: where the action raised something, which is raised as it is on the first process.
        """
        if self.size == 1:
            return action(*arguments)
        outcome: list[Any] = [None, None]
        failure = None
        if self.first:
            try:
                outcome[0] = action(*arguments)
            except Exception as error:
                failure, outcome[1] = error, (str(error), getattr(error, "exit_code", 2))
        with _answered():
            dist.broadcast_object_list(outcome, src=0)
        if failure is not None:
            raise failure
        if outcome[1] is not None:
            raise TrainingStopped(outcome[1][0], exit_code=outcome[1][1])
        result: T = outcome[0]
        return result

    def spread(self, function: Callable[[S], T], items: Sequence[S]) -> list[T]:
        """[function(item) for item in items] on every process, each having computed its share of the items.

        Args:
            function: whose results may hold tensors; those of GPUs arrive on `device`.
            items: to be shared.
        """
        mine = [function(item) for item in items[self.rank :: self.size]]
        if self.size == 1:
            return mine
        packed = io.BytesIO()
        torch.save(mine, packed)
        sent: list[Any] = [None] * self.size
        with _answered():
            dist.all_gather_object(sent, packed.getvalue())
        here = {f"cuda:{i}": str(self.device) for i in range(torch.cuda.device_count())}
        # Not weights only: results are of any type, and come from this launch's own processes.
        shares = [torch.load(io.BytesIO(s), map_location=here, weights_only=False) for s in sent]
        return [shares[i % self.size][i // self.size] for i in range(len(items))]


ALONE = Processes()

# Called with the number of examples (or steps) that were done since the last call.
Progress = Callable[[int], object]


def silent(done: int) -> None:
    """No progress shown."""


@dataclass(frozen=True)
class Work:
    """How a long computation is divided and watched.

    Attributes:
        batch_size: examples at a time, at least 1; results do not depend on it, unless a solver's `batch_matters`.
        progress: called with the number of examples that were done, such as the `update` of a tqdm bar.
        processes: share the batches, and all return all results.

    Raises:
        ValueError: for a batch size below 1.
    """

    batch_size: int = 256
    progress: Progress = silent
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1")

    def share(self, count: int) -> int:
        """The batch size with which `count` examples keep every process busy."""
        return min(self.batch_size, -(-count // self.processes.size))


def launched_size() -> int:
    """How many processes torchrun (or another launcher with its environment variables) has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_rank() -> int:
    """Which of them this is."""
    return int(os.environ.get("RANK", "0"))


def own_device(device: str | torch.device) -> torch.device:
    """A device, in the place of "cuda" this process's own GPU of the machine.

    Args:
        device: that was asked for.

    Raises:
        ValueError: for a GPU by number among several processes, which would share it.
    """
    device = torch.device(device)
    if device.type != "cuda" or launched_size() == 1:
        return device
    own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if device.index not in (None, own.index):
        raise ValueError(
            f"device {device} with {launched_size()} processes: each takes a GPU of its own; give cuda"
        )
    return own


@contextmanager
def launched(
    device: str | torch.device = "cpu", *, timeout: float = TIMEOUT
) -> Iterator[Processes]:
    """The processes of this launch, connected while the context lasts; one alone where nothing launched several.

    A process group that exists already is used and left as it is.

    Args:
        device: of the processes.
        timeout: seconds that a process waits for the others before it takes them for lost.

    Raises:
        ValueError: for a timeout that is not positive, and as own_device.
        ConnectionError: where the others cannot be found.
    """
    device = own_device(device)
    if dist.is_initialized():
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
        return
    if launched_size() == 1:
        yield Processes(device=device)
        return
    if not timeout > 0:
        raise ValueError(f"timeout={timeout}; processes wait for a positive number of seconds")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with _answered():
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout))
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


# What torch's own calls say where a peer is gone; another error of theirs is not to be taken for it.
_LOST = re.compile("gloo|nccl|c10d", re.IGNORECASE)


@contextmanager
def _answered(*, every: bool = True) -> Iterator[None]:
    """Tell a RuntimeError, or those alone that speak of a lost process, as ConnectionError."""
    try:
        yield
    except RuntimeError as error:
        if not (every or isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        reason = textwrap.shorten(str(error), 120)
        raise ConnectionError(
            f"another process of this launch is gone or does not answer ({reason}); its own message says why. "
            "Start all again, to go on with training: with --resume"
        ) from error
