"""Two curves of time side by side, as one SVG with logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import log10

from treadle.codegen.svg import element, label

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM = 520.0, 260.0, 60.0, 30.0, 40.0


def curve(title: str, unit: str, points: Sequence[tuple[float, float]]) -> str:
    """Return a plot with both axes logarithmic, one decade of time from 10 ms on."""
    xs, ys = [log10(x) for x, _ in points], [log10(max(y, 0.01)) for _, y in points]
    low, high = min(xs), max(xs)
    top = max(1.0, max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - low) / (high - low) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y + 2) / (top + 2) * (HEIGHT - BOTTOM - 30)

    spots = [place(x, y) for x, y in zip(xs, ys, strict=True)]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in spots)
    parts = [label(WIDTH / 2, 18, title, text_anchor="middle")]
    parts += [label(x, HEIGHT - BOTTOM + 18, f"{value:,g}", text_anchor="middle")
              for (x, _), (value, _) in zip(spots, points, strict=True)]  # fmt: skip
    parts.append(label(WIDTH / 2, HEIGHT - 4, unit, text_anchor="middle"))
    for decade in range(-2, int(top) + 1):
        y = place(low, decade)[1]
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, stroke="#e2e0da"))
        parts.append(label(LEFT - 6, y + 4, f"{10.0**decade:g} s", text_anchor="end"))
    parts.append(element("path", d=path, fill="none", stroke="#3f6fa3", stroke_width=2))
    parts += [element("circle", cx=x, cy=y, r=3, fill="#3f6fa3") for x, y in spots]
    return "".join(parts)


def side_by_side(first: str, second: str) -> str:
    """Return two curves as one drawing."""
    style = "<style>svg{font:11px system-ui,sans-serif;background:#fff}text{fill:#1f2328}</style>"
    moved = element("g", second, transform=f"translate({WIDTH:g} 0)")
    return element(
        "svg", style, first, moved,
        view_box=f"0 0 {2 * WIDTH:g} {HEIGHT:g}", xmlns="http://www.w3.org/2000/svg",
    ) + "\n"  # fmt: skip
