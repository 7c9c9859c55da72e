"""Charts as inline SVG for the report pages: pure, data in, text out.

Colours come from the page's style sheet by class (``s0``, ``s1``, ...: the position of a series),
so that one drawing serves light, dark and printed pages; lines also differ by their dashes. Every
text is escaped here. Each function returns a whole ``<figure>`` with title, legend and drawing.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

# Size of a drawing in its own units, which are about pixels on a wide page.
WIDTH, HEIGHT = 460, 260
RIGHT, TOP, BOTTOM = 14, 30, 42
# Width of a digit at the style sheet's 12 units, generously.
DIGIT = 7.3
# Bars: room for names and figures, height of a bar and the gap between keypoints.
NAME_WIDTH, FIGURE_WIDTH, BAR, GAP, HEAD = 132, 46, 11, 9, 22
LONGEST_NAME = 18
# Above this many points a line is drawn without a mark at each.
MOST_MARKS = 60
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
BINS = 20
ABOUT_TICKS = 5
# A quantity whose largest value is this many times its smallest is better seen by its logarithm.
LOG_RATIO = 25
DASHES = ("", "7 4", "2 3", "9 3 2 3", "12 4", "4 2", "1 2")


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        label: What it counts, with its unit.
        low: Where it begins; None for the data's least value.
        high: Where it ends; None for the data's largest value.
        log: Equal steps for equal ratios; ignored where a value is not above 0.
        whole: Marks at whole numbers only.
    """

    label: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Series:
    """Named points; those that are not finite are left out, and the line joins the others."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]

    def finite(self) -> "Series":
        """Return the series without the points that are not finite."""
        points = [
            (float(x), float(y))
            for x, y in zip(self.xs, self.ys, strict=True)
            if math.isfinite(x) and math.isfinite(y)
        ]
        return Series(self.name, [x for x, _ in points], [y for _, y in points])


@dataclass(frozen=True)
class Chart:
    """Lines over a common horizontal axis.

    Attributes:
        title: What is shown.
        series: The lines, at most as many as `DASHES`.
        x: Horizontal axis.
        y: Vertical axis.
        note: A sentence below the title; may be empty.
        steps: Draw each value as a step to the right of its x, filled below (a histogram).
    """

    title: str
    series: Sequence[Series]
    x: Axis
    y: Axis
    note: str = ""
    steps: bool = False


@dataclass(frozen=True)
class Bars:
    """Named values, one for each row of a bar chart; None and NaN where there is none."""

    name: str
    values: Sequence[float | None]


def suits_log(values: Iterable[float]) -> bool:
    """Return whether values, all above 0, spread so widely that a log axis shows them better."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0 and max(finite) / min(finite) >= LOG_RATIO


def line_chart(chart: Chart) -> str:
    """Return a figure of lines; a chart without a point says so."""
    series = [one.finite() for one in chart.series]
    xs = [x for one in series for x in one.xs]
    ys = [y for one in series for y in one.ys]
    if not xs:
        return _figure(chart.title, chart.note, "", '<p class="none">Nothing was measured.</p>')
    x, y = _Scale.of(chart.x, xs), _Scale.of(chart.y, ys)
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    left = 10 + DIGIT * max(len(text) for _, text in y.marks(floor, TOP))

    def at(point: tuple[float, float]) -> str:
        return f"{x.place(point[0], left, right):.1f},{y.place(point[1], floor, TOP):.1f}"

    lines = [_line(number, one, at, chart.steps) for number, one in enumerate(series) if one.xs]
    drawing = _grid(x, y, left, (chart.x.label, chart.y.label)) + "".join(lines)
    legend = [(one.name, number) for number, one in enumerate(chart.series) if one.name]
    words = f"{chart.title}. {chart.note} {chart.y.label} by {chart.x.label}."
    return _figure(
        chart.title, chart.note, _legend(legend, filled=False), _svg(drawing, HEIGHT, words)
    )


def bar_chart(
    title: str, names: Sequence[str], bars: Sequence[Bars], *, axis: Axis, note: str = ""
) -> str:
    """Return a figure of horizontal bars: a row for each name, a bar for each of ``bars`` in it.

    Args:
        title: What is shown.
        names: Of the rows, such as keypoints.
        bars: The values; several stand below each other in each row.
        axis: Of the values; begins at 0 unless it says otherwise.
        note: A sentence below the title; may be empty.
    """
    values = [v for one in bars for v in one.values if v is not None and math.isfinite(v)]
    if not values:
        return _figure(title, note, "", '<p class="none">Nothing was measured.</p>')
    low = 0.0 if axis.low is None else axis.low
    scale = _Scale.of(Axis(axis.label, low, axis.high), [low, *values])
    row = BAR * len(bars) + GAP
    height = HEAD + row * len(names) + 4
    right = WIDTH - FIGURE_WIDTH
    parts = [
        f'<line class="grid" x1="{_n(place)}" x2="{_n(place)}" y1="{HEAD - 4}" y2="{height}"/>'
        f'<text class="tick" x="{_n(place)}" y="{HEAD - 9}" text-anchor="middle">{text}</text>'
        for place, text in scale.marks(NAME_WIDTH, right)
    ]
    for position, name in enumerate(names):
        top = HEAD + row * position
        middle = top + (row - GAP) / 2 + 4
        parts.append(
            f'<text class="name" x="{NAME_WIDTH - 8}" y="{_n(middle)}" text-anchor="end">'
            f"<title>{escape(name)}</title>{escape(_shortened(name))}</text>"
        )
        for number, one in enumerate(bars):
            bar = _bar(one.values[position], scale, number, top + BAR * number)
            parts.append(f"<g><title>{escape(name)}, {escape(one.name)}</title>{bar}</g>")
    legend = _legend([(one.name, number) for number, one in enumerate(bars)], filled=True)
    words = f"{title}. {note} {axis.label} for {len(names)} rows."
    return _figure(title, note, legend, _svg("".join(parts), height, words))


def histogram(
    title: str,
    groups: Sequence[tuple[str, Sequence[float]]],
    *,
    axis: Axis,
    counted: str = "",
    note: str = "",
) -> str:
    """Return a figure of how values spread over `BINS` bins of equal width.

    Args:
        title: What is shown.
        groups: Name and values of each group; values beyond the axis count to its last bins.
        axis: Of the values, with both ends given.
        counted: What the values belong to, such as ``poses``, to show how many there are; empty
            to show the share of each group, so that groups of different size compare.
        note: A sentence below the title; may be empty.
    """
    low, high = axis.low or 0.0, 1.0 if axis.high is None else axis.high
    edges = np.linspace(low, high, BINS + 1)
    series: list[Series] = []
    for name, values in groups:
        inside = np.clip([value for value in values if math.isfinite(value)], low, high)
        heights = np.histogram(inside, edges)[0].astype(float)
        if not counted:
            heights *= 100 / max(len(inside), 1)
        shown = len(edges) - 1 if len(inside) else 0
        label = f"{name} ({len(inside):,})"
        series.append(Series(label, edges[:shown].tolist(), heights[:shown].tolist()))
    upward = Axis(f"number of {counted}" if counted else "share, %", low=0)
    return line_chart(Chart(title, series, axis, upward, note, steps=True))


@dataclass(frozen=True)
class _Scale:
    """Where values lie on an axis, and the values that are marked on it."""

    low: float
    high: float
    log: bool
    ticks: Sequence[float]

    @staticmethod
    def of(axis: Axis, values: Sequence[float]) -> "_Scale":
        low = min(values) if axis.low is None else axis.low
        high = max(values) if axis.high is None else axis.high
        if axis.log and low > 0:
            low, high = (low, high) if high > low else (low / 2, low * 2)
            return _Scale(low, high, True, _log_ticks(low, high))
        if high <= low:
            half = max(abs(low), 1e-9) * 0.5 if low else 0.0
            low = low if axis.low is not None else (low + high) / 2 - half
            high = low + (2 * half or 1.0)
        ticks = _ticks(low, high, axis.whole)
        step = ticks[1] - ticks[0] if len(ticks) > 1 else high - low
        # Ends that follow from the data are moved out to the next mark.
        low = low if axis.low is not None or axis.whole else math.floor(low / step + 1e-9) * step
        high = high if axis.high is not None or axis.whole else math.ceil(high / step - 1e-9) * step
        return _Scale(low, high, False, _ticks(low, high, axis.whole))

    def place(self, value: float, start: float, end: float) -> float:
        """Return the position of a value between those of the axis's two ends."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            share = (math.log(value) - low) / (high - low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return start + min(max(share, 0.0), 1.0) * (end - start)

    def marks(self, start: float, end: float) -> list[tuple[float, str]]:
        """Return position and text of each mark."""
        if self.log:
            plain = all(1e-3 <= tick < 1e5 for tick in self.ticks)
            texts = [f"{tick:g}" if plain else _power(tick) for tick in self.ticks]
        else:
            step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else self.ticks[0] or 1.0
            decimals = max(0, -math.floor(math.log10(abs(step)) + 1e-9))
            # A step such as 0.25 needs one more.
            decimals += not math.isclose(round(step, decimals), step, rel_tol=1e-6)
            small = decimals > 4
            texts = [_power(t, decimals) if small else f"{t:,.{decimals}f}" for t in self.ticks]
        places = [self.place(tick, start, end) for tick in self.ticks]
        return list(zip(places, texts, strict=True))


def _ticks(low: float, high: float, whole: bool) -> list[float]:
    """Return round values between two, about `ABOUT_TICKS`: 1, 2, 2.5 or 5 times a power of ten."""
    rough = (high - low) / ABOUT_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * (1 - 1e-9))
    step = max(1.0, float(math.ceil(step))) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)] or [low, high]


def _log_ticks(low: float, high: float) -> list[float]:
    factors = (1, 2, 5) if high / low < 60 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [f * 10.0**power for power in powers for f in factors]
    ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
    return ticks if len(ticks) > 1 else [low, high]


def _power(value: float, decimals: int | None = None) -> str:
    """Return a number as text, with a power of ten where zeros would fill the axis.

    Args:
        value: The number.
        decimals: Of the number without a power, so that neighbours on the axis differ; None for
            two digits.
    """
    if value == 0:
        return "0"
    digits, _, power = f"{value:.1e}".partition("e")
    if decimals is not None:
        digits, _, power = f"{value:.{max(0, decimals + int(power))}e}".partition("e")
    digits = digits.removesuffix(".0")
    power = str(int(power)).translate(RAISED)
    return f"10{power}" if digits == "1" else f"{digits}×10{power}"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _svg(drawing: str, height: float, words: str) -> str:
    label = escape(" ".join(words.split()))
    return (
        f'<svg viewBox="0 0 {WIDTH} {_n(height)}" role="img" aria-label="{label}">{drawing}</svg>'
    )


def _figure(title: str, note: str, legend: str, drawing: str) -> str:
    note = f"<small>{escape(note)}</small>" if note else ""
    head = f"<figcaption><b>{escape(title)}</b>{note}{legend}</figcaption>"
    return f'<figure class="chart">{head}{drawing}</figure>'


def _legend(entries: Sequence[tuple[str, int]], *, filled: bool) -> str:
    if not entries or (filled and len(entries) == 1):
        return ""
    items = []
    for name, number in entries:
        mark = (
            f'<rect class="fill s{number}" y="2" width="12" height="8"/>'
            if filled
            else f'<line class="line s{number}" x2="22" y1="6" y2="6"{_dash(number)}/>'
        )
        width = 12 if filled else 22
        key = f'<svg class="key" width="{width}" height="12" aria-hidden="true">{mark}</svg>'
        items.append(f"<li>{key}{escape(name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'


def _dash(number: int) -> str:
    dashes = DASHES[number % len(DASHES)]
    return f' stroke-dasharray="{dashes}"' if dashes else ""


def _grid(x: _Scale, y: _Scale, left: float, labels: tuple[str, str]) -> str:
    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [
        f'<line class="grid" x1="{_n(left)}" x2="{right}" y1="{_n(at)}" y2="{_n(at)}"/>'
        f'<text class="tick" x="{_n(left - 6)}" y="{_n(at + 4)}" text-anchor="end">{text}</text>'
        for at, text in y.marks(floor, TOP)
    ]
    parts += [
        f'<line class="axis" x1="{_n(at)}" x2="{_n(at)}" y1="{floor}" y2="{floor + 4}"/>'
        f'<text class="tick" x="{_n(at)}" y="{floor + 17}" text-anchor="middle">{text}</text>'
        for at, text in x.marks(left, right)
    ]
    across, up = labels
    parts.append(
        f'<line class="axis" x1="{_n(left)}" x2="{right}" y1="{floor}" y2="{floor}"/>'
        f'<text class="label" x="{right}" y="{HEIGHT - 8}" text-anchor="end">'
        f"{escape(across)}</text>"
        f'<text class="label" x="0" y="12">{escape(up)}</text>'
    )
    return "".join(parts)


def _line(
    number: int, series: Series, at: Callable[[tuple[float, float]], str], steps: bool
) -> str:
    points = list(zip(series.xs, series.ys, strict=True))
    if steps:
        return _steps(number, points, at)
    path = " ".join(at(point) for point in points)
    name = f"<title>{escape(series.name)}</title>" if series.name else ""
    line = f'<polyline class="line s{number}" points="{path}"{_dash(number)}>{name}</polyline>'
    if len(points) > MOST_MARKS:
        return line
    marks = []
    for point in points:
        x, y = at(point).split(",")
        says = f"{series.name + ', ' if series.name else ''}{point[0]:g}: {point[1]:.4g}"
        marks.append(
            f'<circle class="fill s{number}" cx="{x}" cy="{y}" r="2.6">'
            f"<title>{escape(says)}</title></circle>"
        )
    return line + "".join(marks)


def _steps(
    number: int, points: Sequence[tuple[float, float]], at: Callable[[tuple[float, float]], str]
) -> str:
    width = points[1][0] - points[0][0] if len(points) > 1 else 1.0
    corners = [(points[0][0], 0.0)]
    for x, y in points:
        corners += [(x, y), (x + width, y)]
    corners.append((points[-1][0] + width, 0.0))
    path = " ".join(at(corner) for corner in corners)
    return (
        f'<polygon class="area s{number}" points="{path}"/>'
        f'<polyline class="line s{number}" points="{path}"{_dash(number)}/>'
    )


def _bar(value: float | None, scale: _Scale, number: int, top: float) -> str:
    if value is None or not math.isfinite(value):
        return f'<text class="figure" x="{NAME_WIDTH + 4}" y="{_n(top + BAR - 2)}">—</text>'
    end = scale.place(value, NAME_WIDTH, WIDTH - FIGURE_WIDTH)
    return (
        f'<rect class="fill s{number}" x="{NAME_WIDTH}" y="{_n(top)}" height="{BAR - 1}"'
        f' width="{_n(max(end - NAME_WIDTH, 0.8))}"/>'
        f'<text class="figure" x="{_n(end + 5)}" y="{_n(top + BAR - 2)}">{value:.3f}</text>'
    )
