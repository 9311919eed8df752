"""The progress bar of commands."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from diffenc_ct.distributed import Progress, launched_rank


@contextmanager
def progress(description: str, total: int, unit: str = "example") -> Iterator[Progress]:
    """A bar on standard error while the context lasts, on the first process; what it gives is told of what was done.

    Args:
        description: what is done, one word.
        total: of how many.
        unit: of what.
    """
    hidden = None if launched_rank() == 0 else True
    with tqdm(
        desc=description, total=total, unit=unit, dynamic_ncols=True, file=sys.stderr, leave=False,
        disable=hidden,
    ) as bar:  # fmt: skip
        yield bar.update
