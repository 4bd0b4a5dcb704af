"""Inline SVG: line charts over steps, stacked areas, and one bar of shares. Colours come from the page's style."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.reporting.markup import Html, element, join
from orchestrator.reporting.run_record import Point

_WIDTH, _HEIGHT = 400, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 14, 10, 40
_MOST_POINTS = 400
_MOST_DOTS = 80
_NUM_COLOURS = 6
_NARROWEST = 1e-12
"""Share of its values that an axis spans at least: nearer ones are the same, but for rounding."""
_LEAST = 1e-100


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A vertical axis and the figure it is drawn on."""

    low: float
    high: float
    is_log: bool = False

    def y(self, value: float) -> float:
        """Height of ``value`` on the drawing, from the top; values outside stick to the edge."""
        low, high, value = (math.log10(v) if self.is_log else v for v in (self.low, self.high, self.clamp(value)))
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)

    def clamp(self, value: float) -> float:
        """``value`` moved into the axis."""
        return min(max(value, self.low), self.high)

    def ticks(self) -> list[float]:
        """Round values to label, lowest first."""
        if self.is_log:
            first, last = round(math.log10(self.low)), round(math.log10(self.high))
            return [10.0**k for k in range(first, last + 1, 1 + (last - first) // 5)]
        step = _nice((self.high - self.low) / 4)
        first = math.ceil(self.low / step - 1e-9)
        return [k * step for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What to draw in one figure."""

    title: str
    series: Mapping[str, Sequence[Point]]
    """Points by label, steps ascending."""
    bounds: Mapping[str, float] = field(default_factory=dict)
    """Dashed horizontal lines by label."""
    y_range: tuple[float, float] | None = None
    """None fits the data."""
    prefer_log: bool = False
    """Logarithmic where every value is above 0."""
    unit: str = ""
    """Of the vertical axis."""
    note: str = ""


def line_chart(chart: Chart) -> Html:
    """A figure with one line per series; nothing when no series has a point."""
    series = {label: list(points) for label, points in chart.series.items() if points}
    if not series:
        return Html("")
    axis = _axis(chart, [value for points in series.values() for _, value in points] + list(chart.bounds.values()))
    first, last = _steps(series)
    drawn = [_grid(axis, first, last), _axis_labels(chart.unit)]
    for label, value in chart.bounds.items():
        y = f"{axis.y(value):.1f}"
        line = {"class": "bound", "x1": _LEFT, "x2": _WIDTH - _RIGHT, "y1": y, "y2": y}
        drawn.append(element("line", line, element("title", None, f"{label}: {number(value)}")))
    for index, (label, points) in enumerate(series.items()):
        drawn.append(_line(index, label, points, axis, first, last))
    legend = [
        _legend(index, f"{label} {number(points[-1][1])}") for index, (label, points) in enumerate(series.items())
    ]
    legend += [_legend(None, f"{label} {number(value)}") for label, value in chart.bounds.items()]
    return _figure(chart.title, drawn, legend, chart.note)


def stacked_chart(chart: Chart) -> Html:
    """A figure of areas on top of each other; a series counts 0 at a step where it has no point."""
    series = {label: dict(points) for label, points in chart.series.items() if points}
    if not series:
        return Html("")
    steps = sorted({step for values in series.values() for step in values})
    steps = steps[:: 1 + len(steps) // _MOST_POINTS]
    base = [0.0] * len(steps)
    high = max(sum(v.get(s, 0.0) for v in series.values()) for s in steps)
    axis = Axis(low=0.0, high=high if high > _LEAST else 1.0)
    drawn = [_grid(axis, steps[0], steps[-1]), _axis_labels(chart.unit)]
    for index, (label, values) in enumerate(series.items()):
        top = [low + values.get(step, 0.0) for low, step in zip(base, steps, strict=True)]
        edge = [*zip(steps, top, strict=True), *reversed(list(zip(steps, base, strict=True)))]
        area = {"class": f"area c{index % _NUM_COLOURS}", "d": _path(edge, axis, steps[0], steps[-1]) + "Z"}
        drawn.append(element("path", area, element("title", None, label)))
        base = top
    legend = [_legend(index, label) for index, label in enumerate(series)]
    return _figure(chart.title, drawn, legend, chart.note)


def share_bar(parts: Mapping[str, float], *, unit: str) -> Html:
    """One horizontal bar cut in proportion to ``parts``, with their amounts and shares below."""
    total = sum(parts.values())
    if total <= 0.0:
        return Html("")
    pieces, legend = [], []
    for index, (label, amount) in enumerate(parts.items()):
        text = f"{label} {number(amount)} {unit}, {amount / total:.0%}"
        style = {
            "class": f"piece c{index % _NUM_COLOURS}",
            "style": f"width:{100 * amount / total:.3f}%",
            "title": text,
        }
        pieces.append(element("span", style))
        legend.append(_legend(index, text))
    return join([element("div", {"class": "bar"}, *pieces), element("p", {"class": "legend"}, *legend)])


def number(value: float) -> str:
    """A figure as people write it: some three significant digits."""
    size = abs(value)
    if size != 0.0 and not 1e-3 <= size < 1e6:
        return f"{value:.1e}"
    return f"{value:.{3 if size < 10 else 1 if size < 1000 else 0}f}"


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most some hundred points: of each bucket its lowest and highest, so that no spike is lost."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    size = math.ceil(2 * len(points) / _MOST_POINTS)
    kept: set[Point] = {points[0], points[-1]}
    for start in range(0, len(points), size):
        bucket = points[start : start + size]
        kept |= {min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])}
    return sorted(kept)


def _axis(chart: Chart, values: Sequence[float]) -> Axis:
    if chart.prefer_log and min(values) > _LEAST:
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        return Axis(low=10.0**low, high=10.0 ** max(high, low + 1), is_log=True)
    low, high = chart.y_range or (min(values), max(values))
    if high - low <= max(_LEAST, _NARROWEST * max(abs(low), abs(high))):
        low, high = min(low, 0.0), max(high, 0.0)
        high = high if high - low > _LEAST else low + 1.0
    margin = 0.0 if chart.y_range else (high - low) * 0.05
    return Axis(low=low - margin, high=high + margin)


def _line(index: int, label: str, points: Sequence[Point], axis: Axis, first: int, last: int) -> Html:
    shown = thinned(points)
    colour = f"c{index % _NUM_COLOURS}"
    drawn = [element("path", {"class": f"line {colour}", "d": _path(shown, axis, first, last)})]
    if len(shown) <= _MOST_DOTS:
        for step, value in shown:
            dot = {
                "class": f"dot {colour}",
                "cx": f"{_x(step, first, last):.1f}",
                "cy": f"{axis.y(value):.1f}",
                "r": 2.5,
            }
            drawn.append(element("circle", dot, element("title", None, f"{label}, step {step}: {number(value)}")))
    return join(drawn)


def _path(points: Sequence[Point], axis: Axis, first: int, last: int) -> str:
    return "M" + "L".join(f"{_x(step, first, last):.1f},{axis.y(value):.1f}" for step, value in points)


def _grid(axis: Axis, first: int, last: int) -> Html:
    drawn = []
    for value in axis.ticks():
        y = f"{axis.y(value):.1f}"
        drawn.append(element("line", {"class": "grid", "x1": _LEFT, "x2": _WIDTH - _RIGHT, "y1": y, "y2": y}))
        label = {"class": "tick", "x": _LEFT - 6, "y": y, "dy": "0.32em", "text-anchor": "end"}
        drawn.append(element("text", label, f"{value:.0e}" if axis.is_log else f"{value:g}"))
    spacing = max(1, int(_nice((last - first) / 6))) if last > first else 1
    for step in range(-(-first // spacing) * spacing, last + 1, spacing):
        label = {"class": "tick", "x": f"{_x(step, first, last):.1f}", "y": _HEIGHT - 22, "text-anchor": "middle"}
        drawn.append(element("text", label, str(step)))
    return join(drawn)


def _axis_labels(unit: str) -> Html:
    across = {"class": "axis", "x": (_LEFT + _WIDTH - _RIGHT) / 2, "y": _HEIGHT - 5, "text-anchor": "middle"}
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    up = {"class": "axis", "transform": f"translate(13 {middle}) rotate(-90)", "text-anchor": "middle"}
    return join([element("text", across, "step"), *([element("text", up, unit)] if unit else [])])


def _x(step: int, first: int, last: int) -> float:
    span = _WIDTH - _LEFT - _RIGHT
    return _LEFT + (span * (step - first) / (last - first) if last > first else span / 2)


def _steps(series: Mapping[str, Sequence[Point]]) -> tuple[int, int]:
    steps = [step for points in series.values() for step, _ in points]
    return min(steps), max(steps)


def _nice(width: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is not below ``width``."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(k * power for k in (1, 2, 5, 10) if k * power >= width * (1 - 1e-9))


def _legend(index: int | None, text: str) -> Html:
    mark = "mark bound" if index is None else f"mark c{index % _NUM_COLOURS}"
    return element("span", {"class": "entry"}, element("i", {"class": mark}), text)


def _figure(title: str, drawn: Sequence[Html], legend: Sequence[Html], note: str) -> Html:
    drawing = {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "role": "img", "aria-label": title}
    parts = [
        element("figcaption", None, title),
        element("p", {"class": "legend"}, *legend),
        element("svg", drawing, *drawn),
    ]
    if note:
        parts.append(element("p", {"class": "note"}, note))
    return element("figure", None, *parts)
