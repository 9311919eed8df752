"""What a user reads where something is refused.

While tests run, types are checked at every call, before the package's own refusals have their say; a user has no such
checks.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from jaxtyping import config


@contextmanager
def refused(error: type[Exception], match: str) -> Iterator[None]:
    """As pytest.raises, with types unchecked within.

    Args:
        error: what must be raised.
        match: a regular expression that its message must match.
    """
    before = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(error, match=match):
            yield
    finally:
        config.update("jaxtyping_disable", before)
