"""What a run may change when it is resumed, and the record of it.

Settings marked `free` may: the learning rate, clipping, what is done about numbers that are not finite, accumulation,
intervals, how long to train. The others make another run of it, unless that is asked for.
"""

import json
from operator import attrgetter
from pathlib import Path
from typing import Any

from diffenc_ct.report.files import as_json, write_atomically
from diffenc_ct.training.config import Config
from diffenc_ct.training.settings import is_free, leaves

CHANGES = "changes.json"  # in a run's folder

Changes = dict[str, tuple[Any, Any]]  # what a setting was and is, by its dotted name


def differences(old: Config, new: Config) -> Changes:
    """The settings in which two configurations differ.

    Args:
        old: of the run so far.
        new: of what it is to go on as.

    Example:
        >>> from diffenc_ct.training.config import replace
        >>> differences(Config(), replace(Config(), {"training.keep": 3}))
        {'training.keep': (2, 3)}
    """
    found = {}
    for name in leaves(Config):
        before, after = (attrgetter(name)(config) for config in (old, new))
        if before != after:
            found[name] = (before, after)
    return found


def refused(changes: Changes, new: Config) -> Changes:
    """Those of some changes that a run may not make.

    Args:
        changes: between two configurations.
        new: the second of them: where its learning rate decays, it depends on when it ends.
    """
    settings, decays = leaves(Config), new.optimizer.decay != "constant"
    return {
        name: change
        for name, change in changes.items()
        if not is_free(settings[name]) or (decays and name == "training.steps")
    }


def in_words(changes: Changes) -> str:
    """ "name: old -> new" of each."""
    return "; ".join(
        f"{name}: {before!r} -> {after!r}" for name, (before, after) in changes.items()
    )


def record(folder: Path, step: int, changes: Changes) -> None:
    """Add a line to RUN/changes.json: at which step what was changed. Nothing for no changes, or the same again.

    Args:
        folder: of the run.
        step: from which on they hold.
        changes: that were made.
    """
    if not changes:
        return
    path = folder / CHANGES
    entries = json.loads(path.read_text(encoding="utf-8"))["changes"] if path.exists() else []
    plain = {name: {"from": before, "to": after} for name, (before, after) in changes.items()}
    entry = json.loads(as_json({"step": step, "settings": plain}))
    if entry not in entries[-1:]:
        write_atomically(path, (as_json({"changes": [*entries, entry]}, indent=1) + "\n").encode())
