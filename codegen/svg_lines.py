"""A line chart as SVG: one or more series over a common linear axis, with limits as dashed rules."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10

from treadle.codegen.svg import element, label, text

WIDTH, HEIGHT = 620.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 18.0, 16.0, 42.0


@dataclass(frozen=True, slots=True)
class Series:
    """Points of a line, its name, and the number of its colour; `steps` draws it as a staircase."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int = 0
    steps: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A limit drawn across the chart: at an x (`vertical`) or at a y."""

    name: str
    at: float
    vertical: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn: series, limits, and what the axes count."""

    title: str
    x_name: str
    y_name: str
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    x_from_zero: bool = True


@dataclass(frozen=True, slots=True)
class _Scale:
    x_low: float
    x_high: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - min(value / self.y_high, 1.04) * (HEIGHT - TOP - BOTTOM)


def lines_svg(chart: Chart, name: str) -> str:
    """Return the chart; `name` makes its ids unique on the page."""
    scale = _scale(chart)
    said = "; ".join(f"{one.name}: " + ", ".join(f"{x:.4g} -> {y:.4g}" for x, y in one.points) for one in chart.series)
    parts = [
        element("title", text(chart.title), id=f"{name}-title"),
        element("desc", text(said), id=f"{name}-desc"),
        *_grid(chart, scale),
        *(part for mark in chart.marks for part in _mark(mark, scale)),
        *(part for one in chart.series for part in _line(one, scale)),
    ]
    return element(
        "svg", *parts, class_="lines", view_box=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img",
        aria_labelledby=f"{name}-title {name}-desc", xmlns="http://www.w3.org/2000/svg",
    )  # fmt: skip


def _scale(chart: Chart) -> _Scale:
    xs = [x for one in chart.series for x, _ in one.points] + [mark.at for mark in chart.marks if mark.vertical]
    ys = [y for one in chart.series for _, y in one.points] + [mark.at for mark in chart.marks if not mark.vertical]
    low = 0.0 if chart.x_from_zero else min(xs)
    high = max(max(xs), low + 1e-12)
    return _Scale(low, high, max(max(ys, default=1.0), 1e-12) * 1.08)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers within a range, at most about so many."""
    raw = (high - low) / most
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _grid(chart: Chart, scale: _Scale) -> list[str]:
    parts: list[str] = []
    for value in ticks(scale.x_low, scale.x_high):
        x = scale.x(value)
        parts.append(element("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="rule"))
        parts.append(label(x, HEIGHT - BOTTOM + 16, f"{value:,.6g}", text_anchor="middle", class_="tick"))
    for value in ticks(0.0, scale.y_high):
        y = scale.y(value)
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="rule"))
        parts.append(label(LEFT - 8, y + 4, f"{value:,.6g}", text_anchor="end", class_="tick"))
    middle = (HEIGHT - BOTTOM + TOP) / 2
    parts.append(label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, chart.x_name, text_anchor="middle", class_="note"))
    turned = f"rotate(-90 14 {middle:g})"
    parts.append(label(14, middle, chart.y_name, text_anchor="middle", class_="note", transform=turned))
    return parts


def _mark(mark: Mark, scale: _Scale) -> list[str]:
    if mark.vertical:
        x = scale.x(mark.at)
        end = x > WIDTH / 2
        return [
            element("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="limit"),
            label(x - 5 if end else x + 5, TOP + 10, mark.name, text_anchor="end" if end else "start", class_="note"),
        ]
    y = scale.y(mark.at)
    return [
        element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="limit"),
        label(LEFT + 5, y - 4, mark.name, class_="note"),
    ]


def _line(one: Series, scale: _Scale) -> list[str]:
    points = list(one.points)
    if one.steps:
        points = [
            corner
            for index, (x, y) in enumerate(points)
            for corner in (((x, points[index - 1][1]), (x, y)) if index else ((x, y),))
        ]
    path = " ".join(f"{scale.x(x):.2f},{scale.y(y):.2f}" for x, y in points)
    dots = [
        element(
            "circle",
            element("title", text(f"{one.name}: {x:,.5g}, {y:,.5g}")),
            cx=scale.x(x), cy=scale.y(y), r=3, class_=f"s{one.colour}",
        )
        for x, y in one.points
    ]  # fmt: skip
    return [element("polyline", points=path, class_=f"line l{one.colour}"), *dots]
