"""A run as a picture: how fast every problem's kernels are beside the others, and predicted against measured times."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

Row = dict[str, Any]

WIDTH, LEFT, BAR, GAP = 1000, 270, 15, 12
LONGEST = WIDTH - LEFT - 275
SQUARE = 420
"""Side of the picture of predictions."""
COLOURS = {"gluon": "#1a4e8a", "triton": "#5b9bd5", "": "#b8c0cc"}
INK, PALE = "#1a202c", "#718096"


@dataclass(frozen=True, slots=True)
class _Bar:
    name: str
    kind: str
    time_us: float
    predicted_us: float | None = None


def plot(rows: Sequence[Row], environment: Mapping[str, Any]) -> str:
    """Return an SVG: speeds of each problem relative to its fastest, then predicted against measured times."""
    measured = [row for row in rows if row["state"] == "measured"]
    parts, y = _head(environment), 72
    for problem in dict.fromkeys(row["problem"] for row in measured):
        own = [row for row in measured if row["problem"] == problem]
        block, y = _block(problem, own, y)
        parts += block
    if measured:
        square, y = _square(measured, y + 24)
        parts += square
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 16}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _head(environment: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{key} {environment[key]}" for key in ("torch", "triton", "date") if environment.get(key))
    parts = [
        _text(12, 24, f"{environment.get('gpu', 'no GPU')}: speed beside the others (longer is faster)", size=15),
        _text(12, 44, f"driver {environment.get('driver_version', '?')}, {versions}", colour=PALE),
    ]
    x = LEFT
    for name, kind in (("treadle, Gluon", "gluon"), ("treadle, Triton", "triton"), ("others", "")):
        parts += [_rect(x, 52, 10, 10, COLOURS[kind]), _text(x + 15, 61, name, colour=PALE)]
        x += 130
    return [*parts, _line(x, 50, x, 64, INK), _text(x + 6, 61, "predicted", colour=PALE)]


def _bars(rows: Sequence[Row]) -> list[_Bar]:
    """The fastest kernel of each language, then each contender by its fastest time of the run."""
    bars: list[_Bar] = []
    for kind in ("gluon", "triton"):
        own = [row for row in rows if row.get("language", "triton") == kind]
        if own:
            best = min(own, key=lambda row: row["times_us"]["treadle"])
            bars.append(_Bar(f"treadle, {kind}", kind, best["times_us"]["treadle"], best["predicted_us"]))
    others: dict[str, float] = {}
    for row in rows:
        for name, time_us in row["times_us"].items():
            if name != "treadle":
                others[name] = min(time_us, others.get(name, math.inf))
    return [*bars, *(_Bar(name.replace("_", " "), "", time_us) for name, time_us in others.items())]


def _block(problem: str, rows: Sequence[Row], y: int) -> tuple[list[str], int]:
    bars = _bars(rows)
    fastest = min(bar.time_us for bar in bars)
    parts = [_text(LEFT - 12, y + BAR - 3, problem, anchor="end")]
    for bar in bars:
        length = LONGEST * fastest / bar.time_us
        rate = _rate(rows[0], bar.time_us)
        parts.append(_rect(LEFT, y, length, BAR - 3, COLOURS[bar.kind]))
        if bar.predicted_us:
            x = LEFT + min(LONGEST * 1.08, LONGEST * fastest / bar.predicted_us)
            parts.append(_line(x, y - 1, x, y + BAR - 2, INK))
        parts.append(_text(LEFT + LONGEST * 1.09, y + BAR - 4, f"{bar.name}  {bar.time_us:,.0f} us{rate}"))
        y += BAR
    return parts, y + GAP


def _rate(row: Row, time_us: float) -> str:
    if row["flops"]:
        return f"  {row['flops'] / time_us / 1e6:,.0f} TFLOP/s"
    return f"  {row['bytes'] / time_us / 1e3:,.0f} GB/s"


def _square(rows: Sequence[Row], y: int) -> tuple[list[str], int]:
    """Predicted over measured time of every kernel, both on a logarithmic scale, with a band of 15 %."""
    pairs = [(row["times_us"]["treadle"], row["predicted_us"], row) for row in rows]
    least = min(min(pair[:2]) for pair in pairs) / 1.5
    most = max(max(pair[:2]) for pair in pairs) * 1.5
    span = math.log(most / least)

    def at(value: float) -> float:
        return SQUARE * math.log(min(most, max(least, value)) / least) / span

    left, bottom = LEFT, y + SQUARE
    parts = [_rect(left, y, SQUARE, SQUARE, "#f7f9fc")]
    for factor, colour in ((1.0, PALE), (1.15, "#cbd5e0"), (1 / 1.15, "#cbd5e0")):
        x, x2 = (least, most / factor) if factor > 1 else (least / factor, most)
        parts.append(_line(left + at(x), bottom - at(x * factor), left + at(x2), bottom - at(x2 * factor), colour))
    for power in range(math.ceil(math.log10(least)), math.floor(math.log10(most)) + 1):
        tick = f"{10.0**power:,g} us"
        parts.append(_text(left + at(10.0**power), bottom + 16, tick, anchor="middle", colour=PALE))
        parts.append(_text(left - 6, bottom - at(10.0**power) + 4, tick, anchor="end", colour=PALE))
    for time_us, predicted_us, row in pairs:
        colour = COLOURS[row.get("language", "triton")]
        name = escape(f"{row['case']}: {time_us:.0f} us, predicted {predicted_us:.0f} us")
        parts.append(
            f'<circle cx="{left + at(time_us):.1f}" cy="{bottom - at(predicted_us):.1f}" r="3.5" fill="{colour}">'
            f"<title>{name}</title></circle>"
        )
    parts.append(_text(left + SQUARE / 2, bottom + 34, "measured (lines: equal, and 15 % off)", anchor="middle"))
    parts.append(_text(left - 70, y + 12, "predicted", anchor="end"))
    return parts, bottom + 40


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = INK, size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{escape(text)}</text>'
    )


def _rect(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{height}" fill="{colour}"/>'


def _line(x: float, y: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="1.5"/>'
