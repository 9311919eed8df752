"""The folder of a run: one owner at a time, one configuration for life but for what may change.

A folder without a checkpoint is no run: what a start that failed left there is overwritten by the next.

RUN/config.json    the configuration
RUN/changes.json   see changes.py
RUN/metrics.csv    a row every training.log_every steps, and every evaluation
RUN/checkpoints/   see checkpoints.py
RUN/tensorboard/   see tensorboard.py
RUN/.lock          held by the process that trains (the first one of several)
"""

import csv
import fcntl
import io
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from diffenc_ct.report.files import write_atomically
from diffenc_ct.training.changes import Changes, differences, in_words, record, refused
from diffenc_ct.training.checkpoints import (
    EXPORTED,
    Checkpoint,
    describe,
    latest,
    list_checkpoints,
)
from diffenc_ct.training.config import Config, load_config
from diffenc_ct.training.data_record import DataRecord

COLUMNS = (
    "step", "bpd", "reconstruction", "diffusion", "latent", "regression", "gradient_norm", "learning_rate", "skipped",
    "images_per_second", "test_bpd", "test_bpd_error", "test_reconstruction", "test_diffusion", "test_latent",
)  # fmt: skip


class RunFolder:
    """A run's folder, locked while the context lasts.

    Args:
        path: of the folder.
        config: of the run.
        resume: whether it may hold one already.
        override: whether that one may have had another configuration, or other examples.
        data: that are trained on, if they are to be compared.

    Raises:
        ValueError: on entering, where the folder holds a run and resume is False, where its configuration or its data
            differ in what may not change, where it holds exported weights, or where another process trains in it.
        OSError: on entering, where it cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        config: Config,
        *,
        resume: bool,
        override: bool = False,
        data: DataRecord | None = None,
    ) -> None:
        self.path, self.config, self.resume = Path(path), config, resume
        self.override, self.data = override, data
        self.checkpoints = self.path / "checkpoints"
        self.metrics = self.path / "metrics.csv"

    def __enter__(self) -> "RunFolder":
        self.check()
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.path / ".lock", "a", encoding="utf-8")
        try:
            self._take()
        except BaseException:
            self._lock.close()  # nobody calls __exit__
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.close()

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process trains in {self.path}; wait for it, or choose another folder"
            ) from None
        self.check()  # again, now that nobody else can write
        for leftover in self.checkpoints.glob(".*.part"):
            leftover.unlink()

    def check(self) -> None:
        """Refuse a folder that this run may not use; touches nothing.

        Raises:
            ValueError: as entering it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; choose another folder for the run")
        if not list_checkpoints(self.checkpoints):
            if (self.path / EXPORTED).exists():
                raise ValueError(
                    f"{self.path} holds exported weights; train in another folder, to begin with these weights: "
                    f"--init-from {self.path}"
                )
            return
        if not (self.path / "config.json").exists():
            raise ValueError(
                f"{self.path} has checkpoints but no config.json; choose another folder"
            )
        if not self.resume:
            raise ValueError(
                f"{self.path} holds a run already; add --resume to go on with it, or choose another folder"
            )
        self._check_changes()  # first, for they may be why the data differ
        self._check_data()

    def _check_changes(self) -> None:
        changes = refused(self._changes(), self.config)
        if self._known_data().parts:
            changes.pop("data.name", None)  # they are the same, wherever they lie now
        if not changes or self.override:
            return
        longer = (
            " (with optimizer.decay = cosine the rate has fallen to zero at the last step: to train longer begin a "
            f"new run with --init-from {self.path}, or have the rate jump to a longer cosine by --override)"
        )
        raise ValueError(
            f"{self.path} holds a run of another configuration ({in_words(changes)}); resume it without these "
            "changes, add --override to make them, or choose another folder"
            f"{longer if 'training.steps' in changes else ''}"
        )

    def _check_data(self) -> None:
        if self.data is None:
            return
        known = self._known_data()
        unfit, unlike = known.unfit(self.data), known.unlike(self.data)
        if unfit or (unlike and not self.override):
            remedy = "" if unfit else ", add --override to go on with these"
            raise ValueError(
                f"data {self.config.data.name!r} are not those that {self.path} was trained on "
                f"({'; '.join([*unfit, *unlike])}); give it its own (--data){remedy}, or choose another folder"
            )

    def _known_data(self) -> DataRecord:
        """The run's, by its newest checkpoint that can be read."""
        newest = reversed(list_checkpoints(self.checkpoints))
        found = next(filter(None, map(describe, newest)), None)
        if found is None:
            return self.data or DataRecord((), None)
        return DataRecord(found["shape"], found["levels"], found.get("data", {}))

    def _changes(self) -> Changes:
        return differences(load_config(self.path / "config.json"), self.config)

    def go_back(self) -> tuple[Checkpoint | None, Changes]:
        """The newest intact checkpoint, or None, and what has changed since the run was there last.

        What is younger is out of the way afterwards: rows of steps that will be done again are dropped, and corrupt
        checkpoints, which would count as the newest when old ones are deleted, are renamed NAME.corrupt.
        """
        held = list_checkpoints(self.checkpoints)
        changes = self._changes() if held else {}
        unlike = self._known_data().unlike(self.data) if held and self.data else []
        if unlike:
            changes["data"] = ("the run's", "; ".join(unlike))
        found = latest(self.checkpoints)
        for path in held[held.index(found[0]) + 1 :] if found else held:
            path.rename(path.with_name(path.name + ".corrupt"))
        self._forget_after(found[1].step if found else 0)
        return (found[1] if found else None), changes

    def settle(self, step: int, changes: Changes) -> None:
        """Write what the run is from here on.

        Args:
            step: at which it goes on.
            changes: since it was there last.
        """
        if changes:
            print(f"changed from step {step} on: {in_words(changes)}", flush=True)
        record(self.path, step, changes)
        write_atomically(self.path / "config.json", self.config.to_json().encode())

    def log(self, row: dict[str, Any]) -> None:
        """Append a row to metrics.csv, with its header where the file is new."""
        fresh = not self.metrics.exists()
        with open(self.metrics, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            if fresh:
                writer.writeheader()
            writer.writerow(
                {name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()}
            )

    def _forget_after(self, step: int) -> None:
        """Drop rows of steps that will be done again, and a row cut off by a crash."""
        if not self.metrics.exists():
            return
        with open(self.metrics, newline="", encoding="utf-8") as file:
            kept = [r for r in csv.DictReader(file) if _whole(r) and int(r["step"]) <= step]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(kept)
        write_atomically(self.metrics, text.getvalue().encode())


def _whole(row: dict[Any, Any]) -> bool:
    return set(row) == set(COLUMNS) and None not in row.values() and row["step"].isdigit()


class StopSignals:
    """While the context lasts, SIGTERM and Ctrl-C set `received` instead of ending the process.

    A second Ctrl-C ends it at once. Outside the main thread signals are left alone.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> "StopSignals":
        self._previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
