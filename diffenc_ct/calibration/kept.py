"""What was fitted to a model and kept in a JSON file: read again, or refused in a line that names file and remedy."""

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from diffenc_ct.report.files import NOT_FINITE


def read_fit(path: str | Path, kind: type, name: str, remedy: str) -> dict[str, Any]:
    """The fields of a dataclass from its file, those that have defaults if they are missing.

    Args:
        path: of the file.
        kind: the dataclass.
        name: what a file of it is called.
        remedy: for the error.

    Raises:
        ValueError: where the file is truncated or something else, or holds numbers that were not finite.
    """
    try:
        plain = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no {name}: it is not JSON ({error}); {remedy}") from None
    known = {field.name: field.default for field in fields(kind)}
    needed = {field for field, default in known.items() if default is MISSING}
    if isinstance(plain, dict) and NOT_FINITE in plain:
        raise ValueError(f"{path}: {', '.join(plain[NOT_FINITE])} are not finite; {remedy}")
    if not isinstance(plain, dict) or not needed <= set(plain) <= set(known):
        raise ValueError(f"{path} is no {name}: its fields must be {', '.join(known)}; {remedy}")
    return {field: plain.get(field, default) for field, default in known.items()}
