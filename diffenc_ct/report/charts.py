"""Charts as SVG within a page: sharp at every size, and every point says its numbers under the pointer.

A chart is its data, and `svg` draws them. Colours are those of the page (classes c0 to c5, of Okabe and Ito's palette,
which colour-blind readers tell apart); series differ by their marks, too. A point is a circle whose <title> holds its
numbers; without scripts a browser shows it, and page.js shows it at once.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = 6
WIDTH, HEIGHT = 400, 240
_TOP, _BOTTOM, _RIGHT = 26, 36, 12
_LETTER = 6.4  # width of a digit of the axes, in the same units


@dataclass(frozen=True)
class Series:
    """Numbers of one kind.

    Attributes:
        name: for the legend.
        x: where they are.
        y: what they are; one that is not finite is a gap.
        error: standard errors, drawn as bars; None for none.
        colour: 0 to 5, further ones begin anew.
        line: whether neighbours are joined.
        dashed: whether the line is.

    Raises:
        ValueError: for sequences of different lengths.

    Example:
        >>> Series("test", [0.0, 1.0], [2.0, math.nan]).shown
        [0]
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] | None = None
    colour: int = 0
    line: bool = True
    dashed: bool = False

    def __post_init__(self) -> None:
        lengths = {len(self.x), len(self.y), len(self.x if self.error is None else self.error)}
        if len(lengths) > 1:
            raise ValueError(
                f"series {self.name!r}: {len(self.x)} places, {len(self.y)} numbers and errors of another number; give "
                "as many of each"
            )

    @property
    def shown(self) -> list[int]:
        """Which points can be drawn."""
        pairs = enumerate(zip(self.x, self.y, strict=True))
        return [i for i, pair in pairs if all(map(math.isfinite, pair))]

    def bar(self, i: int) -> float:
        """Standard error of point i, 0 where there is none."""
        error = 0.0 if self.error is None else self.error[i]
        return error if math.isfinite(error) else 0.0


@dataclass(frozen=True)
class Axis:
    """From numbers to places.

    Attributes:
        low: the number at `start`.
        high: that at `end`.
        start: place of the lowest.
        end: place of the highest.
        log: whether equal ratios are equal lengths.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """Of a number within the axis; the nearest end of one without."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        share = (value - low) / (high - low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round numbers within the axis, from about three to seven.

        Example:
            >>> Axis(0.0, 1.0, 0, 100).ticks, Axis(1.0, 1000.0, 0, 100, log=True).ticks
            ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [1.0, 10.0, 100.0, 1000.0])
        """
        if self.log:
            first, last = (math.log10(v) for v in (self.low, self.high))
            few = last - first < 2
            every = 1 if few else math.ceil((last - first) / 5)
            decades = range(math.floor(first), math.ceil(last) + 1, every)
            found = [float(m) * 10.0**k for k in decades for m in ((1, 2, 5) if few else (1,))]
        else:
            step = _round_step((self.high - self.low) / 5)
            whole = range(
                math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9) + 1
            )
            found = [float(f"{k * step:.12g}") for k in whole]
        slack = 1e-9 * (self.high - self.low)
        return [v for v in found if self.low - slack <= v <= self.high + slack]


@dataclass(frozen=True)
class Chart:
    """Series over one pair of axes.

    Attributes:
        title: what it shows, with the unit of y.
        x_label: of the horizontal axis, with its unit.
        y_label: what y is called where a point's numbers are said.
        series: at least one point in all, or nothing can be drawn.
        log: whether y is drawn by ratios, where all of it is positive.
        from_zero: whether y begins at 0.

    Example:
        >>> chart = Chart("Loss (bits)", "step", "loss", [Series("a", [1, 2], [0.5, 0.25])])
        >>> chart.svg.count("<circle")
        2
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log: bool = False
    from_zero: bool = False

    @property
    def empty(self) -> bool:
        """Whether there is nothing to be drawn."""
        return not any(each.shown for each in self.series)

    @property
    def description(self) -> str:
        """In a sentence, for readers who do not see it."""
        parts = [
            f"{each.name}: {len(each.shown)} points, {self.y_label} from {number(each.y[each.shown[0]])} to "
            f"{number(each.y[each.shown[-1]])}"
            for each in self.series
            if each.shown
        ]
        return f"{self.title}, against {self.x_label}. {'; '.join(parts)}."

    @property
    def rows(self) -> list[list[str]]:
        """Its numbers as a table: series, x, y, standard error."""
        return [
            [each.name, number(each.x[i]), number(each.y[i])]
            + [number(each.bar(i)) if each.error is not None else ""]
            for each in self.series
            for i in each.shown
        ]

    @property
    def svg(self) -> str:
        """The chart; its texts are escaped.

        Raises:
            ValueError: where there is nothing to be drawn.
        """
        if self.empty:
            raise ValueError(f"chart {self.title!r} has no finite number; leave it out")
        y = self._y_axis()
        left = 10 + _LETTER * max(len(number(v)) for v in y.ticks)
        low, high = _fitted([each.x[i] for each in self.series for i in each.shown])
        margin = 0.02 * (high - low)
        across = Axis(low - margin, high + margin, left, WIDTH - _RIGHT)
        return "".join(
            [
                f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.title)}">'
                f"<desc>{escape(self.description)}</desc>",
                *self._axes(across, y),
                *(part for each in self.series for part in self._drawn(each, across, y)),
                "</svg>",
            ]
        )

    def _y_axis(self) -> Axis:
        values, ends = [], []
        for each in self.series:
            for i in each.shown:
                values.append(each.y[i])
                ends += [each.y[i] - each.bar(i), each.y[i] + each.bar(i)]
        log = self.log and min(values) > 0 and max(values) > 10 * min(values)
        low, high = _fitted([v for v in ends if v > 0] if log else ends)
        if log:
            low = max(low, min(values) / 2)
        else:
            margin = 0.05 * (high - low)
            low, high = 0.0 if self.from_zero and low >= 0 else low - margin, high + margin
        return Axis(low, high, HEIGHT - _BOTTOM, _TOP, log)

    def _axes(self, x: Axis, y: Axis) -> Iterator[str]:
        """Lines of the grid with their numbers, and the label of x."""
        for value in y.ticks:
            place = f"{y.place(value):.1f}"
            yield f'<path class="grid" d="M{x.start:.1f} {place}H{x.end}"/>'
            yield f'<text x="{x.start - 5:.1f}" y="{place}" dy="4" text-anchor="end">{number(value)}</text>'
        for value in x.ticks:
            place = f"{x.place(value):.1f}"
            yield f'<path class="grid" d="M{place} {y.start}v4"/>'
            yield f'<text x="{place}" y="{y.start + 16}" text-anchor="middle">{number(value)}</text>'
        yield f'<text x="{x.end}" y="{HEIGHT - 4}" text-anchor="end">{escape(self.x_label)}</text>'
        yield f'<text x="{x.start - 5:.1f}" y="12">{escape(self.y_label)}</text>'

    def _drawn(self, each: Series, x: Axis, y: Axis) -> Iterator[str]:
        """Line, bars and points of a series."""
        at = {i: (f"{x.place(each.x[i]):.1f}", y.place(each.y[i])) for i in each.shown}
        yield f'<g class="series c{each.colour % COLOURS}">'
        if each.line:
            starts = [i for i in at if i - 1 not in at]
            steps = [f"{'M' if i in starts else 'L'}{a} {b:.1f}" for i, (a, b) in at.items()]
            yield f'<path class="line{" dashed" * each.dashed}" d="{"".join(steps)}"/>'
        for i, (a, b) in at.items():
            if each.bar(i):
                low = each.y[i] - each.bar(i)
                low = y.low if y.log and low <= 0 else low
                ends = f"{y.place(low):.1f}V{y.place(each.y[i] + each.bar(i)):.1f}"
                yield f'<path class="bar" d="M{a} {ends}"/>'
            said = f"{each.name}\n{self.x_label}: {number(each.x[i])}\n{self.y_label}: {number(each.y[i])}"
            said += f" ± {number(each.bar(i))}" if each.error is not None else ""
            yield f'<circle cx="{a}" cy="{b:.1f}" r="2.5"><title>{escape(said)}</title></circle>'
        yield "</g>"


def number(value: float) -> str:
    """A number as axes and tables have it: five digits, thousands apart; a dash for what is not finite.

    Args:
        value: the number.

    Example:
        >>> number(12000), number(1.78625), number(3e-5)
        ('12,000', '1.7862', '3e-05')
    """
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e9 else f"{value:.5g}"


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is no smaller."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least * (1 - 1e-9))


def _fitted(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis that holds all values, apart from each other even where there is one value only."""
    low, high = min(values), max(values)
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    around = abs(low) / 10 or 1.0
    return low - around, high + around
