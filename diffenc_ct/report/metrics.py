"""The curves of a training: RUN/metrics.csv read again, and thinned to what a chart can show."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from diffenc_ct.report.charts import Series

MOST = 200  # points of a curve


def read_metrics(path: Path) -> dict[str, list[float]]:
    """Columns by name, one number a row; NaN where a cell is empty, or holds no number.

    Rows without a step are left out: a crash may have cut one off.

    Args:
        path: of the file; there need not be one.

    Returns:
        Nothing where there is no file.
    """
    if not path.is_file():
        return {}
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if math.isfinite(_number(row.get("step")))]
        names = reader.fieldnames or []
    return {name: [_number(row.get(name)) for row in rows] for name in names}


def curve(columns: dict[str, list[float]], name: str, *, error: str | None = None) -> Series:
    """A column against the step, means of neighbouring rows where there are too many to be told apart.

    Args:
        columns: as read_metrics finds them.
        name: of the column.
        error: of the column with its standard errors, which are shown where no rows are joined.

    Example:
        >>> curve({"step": [1, 2, 3], "bpd": [4.0, math.nan, 2.0]}, "bpd").y
        [4.0, 2.0]
    """
    steps, values = columns.get("step", []), columns.get(name, [])
    errors = columns.get(error, []) if error is not None else []
    kept = [i for i, value in enumerate(values) if math.isfinite(value)]
    size = math.ceil(len(kept) / MOST) or 1
    groups = [kept[i : i + size] for i in range(0, len(kept), size)]
    x, y = ([_mean([column[i] for i in group]) for group in groups] for column in (steps, values))
    alone = size == 1 and len(errors) == len(values)
    return Series(name, x, y, [errors[i] for i in kept] if alone else None)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _number(text: object) -> float:
    """A cell's number."""
    try:
        return float(str(text))
    except ValueError:
        return math.nan
