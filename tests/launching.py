"""Training processes that tests start, kill, and talk to: real ones, forked from a server that has nothing but imports.

run_killed    a training process that dies at a chosen moment
unchecked     a function's result, computed without the checks of shapes and types that the tests' own process makes
Group         processes of one launch, connected by gloo, that call functions for the test
"""

import multiprocessing
import os
import pickle
import resource
import signal
import sys
import time
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.connection import wait

import torch
import torch._dynamo  # noqa: F401  what an optimiser imports when it is made: once for all processes
import torch.distributed as dist

from diffenc_ct.training.loop import TrainingStopped, train

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["__main__", __name__])
PATIENCE = 120  # seconds until a test takes a process for hung


@dataclass(frozen=True)
class Kill:
    """When a process dies. kind: "after" so many seconds, by SIGKILL from outside; at the start of the "operation" of
    that number on the run's files, by SIGKILL; in the middle of a "write" beyond so many bytes of a file, by the
    kernel."""

    kind: str
    place: float


def run_killed(config, run, kill=None):
    """Train in a process of its own, resuming what is there; its exit code, negative for a signal."""
    process = CONTEXT.Process(target=_train, args=(config, run, kill))
    process.start()
    process.join(kill.place if kill is not None and kill.kind == "after" else PATIENCE)
    if process.is_alive():
        process.kill()
    process.join()
    return process.exitcode


def _train(config, run, kill):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if kill is not None and kill.kind == "operation":
        left = [int(kill.place)]

        def count(event, arguments):
            if event in ("open", "os.rename", "os.remove", "os.mkdir") and str(run) in str(
                arguments[0]
            ):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
    elif kill is not None and kill.kind == "write":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(kill.place), resource.RLIM_INFINITY))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    train(config, run, resume=True)


def unchecked(function, *arguments):
    """function(*arguments) in a process of its own: torch.compile, for one, cannot trace the checks."""
    mine, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_answer, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    good, answer = pickle.loads(mine.recv_bytes())
    process.join()
    if not good:
        raise RuntimeError(answer)
    return answer


def _answer(pipe, function, arguments):
    torch.set_num_threads(1)
    try:
        answer = (True, function(*arguments))
    except Exception:
        answer = (False, traceback.format_exc())
    pipe.send_bytes(
        pickle.dumps(answer)
    )  # tensors by value: those that are shared end with their process


class Group:
    """Processes 0, 1, ... of one launch, which answer calls until the context is left."""

    def __init__(self, size, folder):
        self.size, self.meeting = size, folder / f"meeting-{time.monotonic_ns()}"

    def __enter__(self):
        self.pipes, self.members = [], []
        for rank in range(self.size):
            mine, theirs = CONTEXT.Pipe()
            member = CONTEXT.Process(
                target=_serve, args=(rank, self.size, self.meeting, theirs), daemon=True
            )
            member.start()
            theirs.close()
            self.pipes.append(mine)
            self.members.append(member)
        return self

    def __exit__(self, *error):
        for pipe in self.pipes:
            pipe.close()
        for member in self.members:
            member.join(10)
            member.kill()
            member.join()

    def send(self, function, *arguments):
        """Have every process begin function(*arguments)."""
        for pipe in self.pipes:
            pipe.send((function, arguments))

    def receive(self, rank):
        """What one process's function returned; RuntimeError with its traceback where it raised."""
        if not wait([self.pipes[rank]], PATIENCE):
            raise TimeoutError(f"process {rank} does not answer")
        good, answer = pickle.loads(self.pipes[rank].recv_bytes())
        if not good:
            raise RuntimeError(answer)
        return answer

    def call(self, function, *arguments):
        """function(*arguments) on every process: the results."""
        self.send(function, *arguments)
        return [self.receive(rank) for rank in range(self.size)]


def _serve(rank, size, meeting, pipe):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        _answer(pipe, function, arguments)


def train_here(config, run, resume=False):
    """A run's summary, or the message and exit code of what stopped it."""
    try:
        summary = train(config, run, resume=resume)
    except TrainingStopped as stopped:
        return str(stopped), stopped.exit_code
    return summary.metrics
