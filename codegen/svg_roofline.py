"""A roofline as SVG: attainable FLOP/s over FLOP per byte, both logarithmic, with kernels as points.

Williams, Waterman, Patterson: Roofline (CACM 2009).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from treadle.codegen.svg import element, label, text

WIDTH, HEIGHT = 760.0, 400.0
LEFT, RIGHT, TOP, BOTTOM = 74.0, 20.0, 20.0, 46.0


@dataclass(frozen=True, slots=True)
class Point:
    """A kernel: `intensity` in FLOP per byte of least traffic, predicted `flops_per_s`."""

    name: str
    intensity: float
    flops_per_s: float
    phase: str = ""


@dataclass(frozen=True, slots=True)
class Roof:
    """A machine's limits: `peak_flops_per_s` and `bytes_per_s`, named for the legend."""

    name: str
    peak_flops_per_s: float
    bytes_per_s: float

    def attainable(self, intensity: float) -> float:
        """Return the FLOP/s that memory and arithmetic leave at an intensity."""
        return min(self.peak_flops_per_s, intensity * self.bytes_per_s)


@dataclass(frozen=True, slots=True)
class Axes:
    """Ranges in powers of ten."""

    x_low: int
    x_high: int
    y_low: int
    y_high: float

    def x(self, value: float) -> float:
        """Return the horizontal place of an intensity."""
        return LEFT + (log10(value) - self.x_low) * (WIDTH - LEFT - RIGHT) / (self.x_high - self.x_low)

    def y(self, value: float) -> float:
        """Return the vertical place of a rate."""
        return HEIGHT - BOTTOM - (log10(value) - self.y_low) * (HEIGHT - TOP - BOTTOM) / (self.y_high - self.y_low)


def roofline_svg(roof: Roof, points: Sequence[Point]) -> str:
    """Return the plot; points need a positive intensity and rate."""
    axes = _axes(roof, points)
    knee = roof.peak_flops_per_s / roof.bytes_per_s
    start, end = 10.0**axes.x_low, 10.0**axes.x_high
    start = max(start, 10.0**axes.y_low / roof.bytes_per_s)
    line = " ".join(f"{axes.x(i):.2f},{axes.y(roof.attainable(i)):.2f}" for i in (start, knee, end))
    parts = [
        element("title", text(f"Roofline of {roof.name}"), id="roofline-title"),
        element("desc", text(_description(roof, points)), id="roofline-desc"),
        _grid(axes),
        element("polyline", points=line, class_="roof"),
        label(axes.x(end) - 4, axes.y(roof.peak_flops_per_s) - 7, f"{roof.peak_flops_per_s / 1e12:,.0f} TFLOP/s",
              text_anchor="end", class_="tick"),
        label(axes.x(knee) - 8, axes.y(roof.peak_flops_per_s) + 4, f"{roof.bytes_per_s / 1e12:.2f} TB/s",
              text_anchor="end", class_="tick"),
        *_points(axes, points),
    ]  # fmt: skip
    return element(
        "svg", *parts, class_="roofline", view_box=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img",
        aria_labelledby="roofline-title roofline-desc", xmlns="http://www.w3.org/2000/svg",
    )  # fmt: skip


def _axes(roof: Roof, points: Sequence[Point]) -> Axes:
    knee = roof.peak_flops_per_s / roof.bytes_per_s
    intensities = [knee / 30, knee * 10, *(point.intensity for point in points)]
    rates = [roof.peak_flops_per_s * 1.5, roof.peak_flops_per_s / 50, *(point.flops_per_s for point in points)]
    high = log10(max(rates)) + 0.1
    return Axes(floor(log10(min(intensities))), ceil(log10(max(intensities))), floor(log10(min(rates))), high)


def _grid(axes: Axes) -> str:
    parts: list[str] = []
    for power in range(axes.x_low, axes.x_high + 1):
        x = axes.x(10.0**power)
        parts.append(element("line", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM, class_="rule"))
        parts.append(label(x, HEIGHT - BOTTOM + 16, f"{10.0**power:g}", text_anchor="middle", class_="tick"))
    for power in range(axes.y_low, floor(axes.y_high) + 1):
        y = axes.y(10.0**power)
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="rule"))
        parts.append(label(LEFT - 8, y + 4, f"{10.0 ** (power - 12):g}", text_anchor="end", class_="tick"))
    parts.append(label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "FLOP per byte", text_anchor="middle", class_="note"))
    turned = f"rotate(-90 16 {(HEIGHT - BOTTOM + TOP) / 2:g})"
    middle = (HEIGHT - BOTTOM + TOP) / 2
    parts.append(label(16, middle, "TFLOP/s", text_anchor="middle", class_="note", transform=turned))
    return "".join(parts)


def _points(axes: Axes, points: Sequence[Point]) -> list[str]:
    """Return dots with names; a name that would cover another one, or a dot, moves down."""
    drawn: list[str] = []
    taken = [(x - 5, x + 5, axes.y(point.flops_per_s) + 4) for point in points for x in [axes.x(point.intensity)]]
    for point in sorted(points, key=lambda p: (-p.flops_per_s, p.name)):
        x, y = axes.x(point.intensity), axes.y(point.flops_per_s)
        width = 6.0 * len(point.name)
        to_left = x + 10 + width > WIDTH - RIGHT
        begin = x - 10 - width if to_left else x + 10
        place = y + 4
        while any(abs(place - other) < 12 and begin < right and left < begin + width for left, right, other in taken):
            place += 12
        taken.append((begin, begin + width, place))
        said = f"{point.name}: {point.flops_per_s / 1e12:,.1f} TFLOP/s at {point.intensity:,.1f} FLOP per byte"
        anchor = "end" if to_left else "start"
        leader = [element("line", x1=x, y1=y, x2=x - 8 if to_left else x + 8, y2=place - 4, class_="leader")]
        drawn.append(
            element(
                "g",
                element("title", text(said)),
                *(leader if place > y + 4 else []),
                element("circle", cx=x, cy=y, r=5, class_=f"point {point.phase}".strip()),
                label(x - 10 if to_left else x + 10, place, point.name, text_anchor=anchor, class_="row"),
            )
        )
    return drawn


def _description(roof: Roof, points: Sequence[Point]) -> str:
    said = "; ".join(f"{p.name} {p.flops_per_s / 1e12:,.1f} TFLOP/s at {p.intensity:,.1f} FLOP/byte" for p in points)
    return f"Peak {roof.peak_flops_per_s / 1e12:,.0f} TFLOP/s, memory {roof.bytes_per_s / 1e12:.2f} TB/s. {said}"
