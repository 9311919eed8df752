"""A call recorded as a CUDA graph, then launched as one.

The kernels of a small network take less time than a CPU needs to launch them one by one: a forward and a backward pass
are some thousand launches. A graph is launched by one call. It always reads and writes the same memory, so that inputs
are copied to where the recorded call found them, and results, gradients among them, lie where it left them.
"""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

# Runs before recording, in which libraries choose their algorithms and allocate what they keep.
_WARM_UP = 3


class Recorded(Generic[Result]):
    """call(*inputs), on a GPU, recorded at once.

    Args:
        call: without draws of its own but those of the GPU's own generator, nor a look at a tensor's value.
        inputs: of the shapes and types that all later ones have; None stays None.
        before: is called before each run: drops the gradients, say, so that they are written and not added to.
    """

    def __init__(
        self,
        call: Callable[..., Result],
        inputs: Sequence[Tensor | None],
        before: Callable[[], None],
    ) -> None:
        self._inputs = [None if v is None else v.clone() for v in inputs]
        beside: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UP):
                before()
                call(*self._inputs)
        torch.cuda.current_stream().wait_stream(beside)
        before()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = call(*self._inputs)

    def __call__(self, *inputs: Tensor | None) -> Result:
        """The recorded result, whose tensors the next call writes anew.

        Args:
            inputs: as those that were recorded.
        """
        for mine, given in zip(self._inputs, inputs, strict=True):
            if mine is not None and given is not None:
                mine.copy_(given)
        self._graph.replay()
        return self._result
