"""Files of results: written atomically; JSON in which a number that is not finite is null, and said to be."""

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Shaped
from torch import Tensor

NOT_FINITE = "not_finite"


def as_json(values: Mapping[str, Any], *, indent: int | None = None) -> str:
    """The text of a JSON file.

    JSON has neither NaN nor infinity: null stands for them, and the field "not_finite" says what each of these was,
    by its dotted name.

    Args:
        values: plain ones, by name.
        indent: of the lines; one line without.

    Example:
        >>> as_json({"mean": 1.5, "errors": [0.25, math.nan]})
        '{"mean": 1.5, "errors": [0.25, null], "not_finite": {"errors.1": "nan"}}'
    """
    found = dict(_not_finite(values))
    plain = {**_finite(values), **({NOT_FINITE: found} if found else {})}
    return json.dumps(plain, indent=indent, allow_nan=False)


def as_csv(columns: Mapping[str, Shaped[Tensor, " images"]]) -> str:
    """The text of a CSV file with one row an image, by its number, and one column each; "nan" where there is no value.

    Args:
        columns: values of every image, by the column's name.

    Example:
        >>> import torch
        >>> as_csv({"total": torch.tensor([1.5, math.nan])})
        'image,total\\r\\n0,1.5\\r\\n1,nan\\r\\n'
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["image", *columns])
    values = [column.tolist() for column in columns.values()]
    writer.writerows([i, *row] for i, row in enumerate(zip(*values, strict=True)))
    return text.getvalue()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _not_finite(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names of the numbers that are not finite, and what they are."""
    items: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(value, Mapping):
        items = iter(value.items())
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    elif isinstance(value, float) and not math.isfinite(value):
        yield name, repr(float(value))
    for key, item in items:
        yield from _not_finite(item, f"{name}.{key}" if name else str(key))


def write_atomically(path: Path, data: bytes | bytearray) -> None:
    """Replace `path` by a file with these bytes: it appears under its name only when it is complete on disk.

    Args:
        path: of the file.
        data: all of it.

    Raises:
        OSError: and `path` is as it was.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
