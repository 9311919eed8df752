"""A report as one HTML page that needs nothing else: no network, no second file. Importing this module needs the extra
`report`: import it where a page is written.

`templates/page.html` says what stands where; here is what stands there. jinja2 escapes every text, so that the name of
a run or what a file says is shown and never obeyed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from diffenc_ct.report.charts import Chart, Series, number
from diffenc_ct.report.extras import require
from diffenc_ct.report.findings import Findings
from diffenc_ct.report.metrics import curve
from diffenc_ct.report.rows import Row, difference
from diffenc_ct.training.config import Config
from diffenc_ct.training.evaluation import TERMS
from diffenc_ct.training.settings import leaves

jinja2: Any = require("jinja2", "report")

UNIT = "bits per dimension"
# What is drawn of a training: column of metrics.csv, title, what y is called, whether by ratios.
CURVES = (
    ("bpd", f"Bound ({UNIT})", "bits/dim", True),
    ("diffusion", f"Diffusion term ({UNIT})", "bits/dim", True),
    ("reconstruction", f"Reconstruction term ({UNIT})", "bits/dim", True),
    ("latent", f"Latent term ({UNIT})", "bits/dim", True),
    ("gradient_norm", "Norm of the gradient", "norm", True),
    ("learning_rate", "Learning rate", "rate", False),
    ("images_per_second", "Speed (images a second)", "images/s", False),
)


@dataclass(frozen=True)
class Comparison:
    """A run beside the first one.

    Attributes:
        name: of the run.
        rows: its bounds less the first run's, image by image.
        why_not: why there are none, else empty.
        scatter: the difference of every image.
    """

    name: str
    rows: tuple[Row, ...] = ()
    why_not: str = ""
    scatter: Chart | None = None


def render(found: Sequence[Findings]) -> str:
    """The page.

    Args:
        found: of each run, in the order in which they are shown.

    Raises:
        ValueError: for no run.
    """
    if not found:
        raise ValueError("a report is of at least one run; give some")
    loader = jinja2.PackageLoader("diffenc_ct.report")
    page = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    page.filters |= {"number": number, "fixed": fixed}
    text: str = page.get_template("page.html").render(
        runs=found,
        terms=TERMS,
        unit=UNIT,
        likelihoods=any(row.facts for each in found for row in each.rows),
        without=_without_model(found),
        comparisons=list(comparisons(found)),
        depth=_loss_by_depth(found),
        curves=[chart for chart in _curves(found) if not chart.empty],
        fits=[(each, list(_fits(each))) for each in found],
        settings=_settings([each.opened.config for each in found]),
    )
    return text


def fixed(value: float, digits: int = 4) -> str:
    """A number with so many digits after the point, as the tables of `diffenc evaluate` have it; a dash for NaN.

    Args:
        value: the number.
        digits: how many.

    Example:
        >>> fixed(1.78625), fixed(float("nan"))
        ('1.7862', '–')
    """
    return f"{value:.{digits}f}" if math.isfinite(value) else "–"


def _without_model(found: Sequence[Findings]) -> list[tuple[str, float]]:
    """Bits per dimension of all test examples without learning, once for runs of the same data."""
    words = {"uniform": "every level alike", "independent": "independent dimensions"}
    each = ((words[name], value) for run in found for name, value in run.baselines.items())
    return list(dict.fromkeys(each))


def comparisons(found: Sequence[Findings]) -> Iterator[Comparison]:
    """Every run but the first beside the first.

    Args:
        found: of each run.

    Returns:
        One comparison a run; of runs on other examples, or of other levels, with the reason why there is none.
    """
    first, *others = found
    for other in others:
        one, two = first.images, other.images
        levels = {each.opened.model.decoder.levels for each in (first, other)}
        if one.shape != two.shape or len(levels) > 1 or not bool((one == two).all()):
            yield Comparison(other.name, why_not="they were evaluated on other examples")
            continue
        rows = tuple(difference(row, base) for row, base in _pairs(_rows(other), _rows(first)))
        points = Series(
            "an image",
            first.evaluation.terms["total"].tolist(),
            rows[0].bits_per_dimension.tolist(),
            line=False,
        )
        title = f"{other.name} less {first.name}, image by image ({UNIT})"
        scatter = Chart(title, f"bound of {first.name}", "difference", [points])
        yield Comparison(other.name, rows, "", scatter)


def _rows(each: Findings) -> list[Row]:
    """What is compared: the bound at infinite depth, its terms, after them the other rows."""
    own, *others = each.rows
    named = {term: each.evaluation.terms[term] for term in TERMS[1:]}
    terms = [Row(f"its {term} term", values, "", {}) for term, values in named.items()]
    return [own, *terms, *others]


def _pairs(rows: list[Row], bases: list[Row]) -> list[tuple[Row, Row]]:
    """Rows of the same name; where two runs have no flow of the same heads, the last flow of each."""
    same = {base.name: base for base in bases}
    pairs = [(row, same[row.name]) for row in rows if row.name in same]
    flows = [[row for row in each if row.facts][-1:] for each in (rows, bases)]
    if all(flows) and not any(row.facts for row, _ in pairs):
        pairs.append((flows[0][0], flows[1][0]))
    return pairs


def _loss_by_depth(found: Sequence[Findings]) -> Chart:
    """The integrand of the diffusion loss over depth."""
    series = []
    for colour, each in enumerate(found):
        rows = each.evaluation.by_depth()
        t, loss, error = ([row[name] for row in rows] for name in ("t", "bpd", "error"))
        series.append(Series(each.name, t, loss, error, colour, dashed=colour % 2 == 1))
    title = f"Diffusion loss at each depth ({UNIT} per unit of t)"
    return Chart(title, "depth t (0 data, 1 noise)", "bits/dim per t", series, from_zero=True)


def _curves(found: Sequence[Findings]) -> Iterator[Chart]:
    """What metrics.csv says, all runs in one chart a column."""
    for column, title, label, log in CURVES:
        series = []
        for colour, each in enumerate(found):
            training = curve(each.metrics, column)
            series.append(_named(training, f"{each.name}, training", colour, dashed=False))
            if f"test_{column}" in each.metrics:
                error = "test_bpd_error" if column == "bpd" else None
                test = curve(each.metrics, f"test_{column}", error=error)
                series.append(_named(test, f"{each.name}, test", colour, dashed=True))
        yield Chart(title, "step", label, [each for each in series if each.shown], log)


def _named(each: Series, name: str, colour: int, *, dashed: bool) -> Series:
    return Series(name, each.x, each.y, each.error, colour, dashed=dashed)


def _fits(each: Findings) -> Iterator[Chart]:
    """eta* over depth, and the variance ratios of calibrated steps."""
    tight, steps = each.fitted.tightness, each.fitted.calibration
    levels = []
    if tight is not None:
        eta = tight.eta_squared.sqrt().tolist()
        levels.append(Series("infinite depth", tight.gamma.tolist(), eta))
    if steps is not None:
        gamma, eta = steps.gamma[1:].tolist(), steps.eta_squared.sqrt().tolist()
        levels.append(Series(f"{steps.depth} steps", gamma, eta, colour=1, dashed=True))
    depth = "γ = -log SNR"
    if levels:
        yield Chart("Noise level η* that makes the bound tightest", depth, "η*", levels)
    if steps is not None:
        errors = steps.ratio_error.tolist()
        ratio = Series(f"{steps.depth} steps", gamma, steps.ratio.tolist(), errors, colour=1)
        yield Chart("Variance ratio w* of each step", depth, "w*", [ratio])


def _settings(configs: Sequence[Config]) -> list[tuple[str, list[str], bool]]:
    """Of every setting its name, its value in each configuration, and whether they differ.

    Example:
        >>> _settings([Config(), Config()])[0]
        ('data.name', ['digits', 'digits'], False)
    """
    found = []
    for name in leaves(Config):
        values = [_shown(attrgetter(name)(config)) for config in configs]
        found.append((name, values, len(set(values)) > 1))
    return found


def _shown(value: Any) -> str:
    """A setting's value in words."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={item}" for name, item in value.items()) or "–"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    return "–" if value is None else str(value)
