"""Time and gap of the packer against the number of pods: the generator's instances with ten pods per node.

`python -m benchmarks.pack_growth --window 30 --json OUT`. The largest instance needs a longer window, and joins the
rows of an earlier run: `python -m benchmarks.pack_growth --nodes 10000 --usage 95 --window 200 --add OUT --json OUT`.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from benchmarks.packing_instances import Cell, scheduled
from treadle.codegen.svg import element, label
from treadle.costmodels import migration
from treadle.ir.cluster.cluster import PENDING
from treadle.ir.cluster.placement import check
from treadle.solvers.packing.migrate import order
from treadle.solvers.packing.solve import Options, pack

_PODS_PER_NODE = 10


def measure_one(nodes: int, usage_percent: int, window_s: float) -> dict[str, Any]:
    """Pack one instance; the gap is that of the placed pods."""
    cluster = scheduled(Cell(nodes, _PODS_PER_NODE, 1, usage_percent), 1)
    started = time.perf_counter()
    packed = pack(cluster, Options(window_s=window_s))
    seconds = time.perf_counter() - started
    steps = order(cluster, packed.placement)
    placed, _, moved = packed.certificate.levels
    findings = [*check(cluster, packed.placement), *migration.check(cluster, packed.placement, steps)]
    return {
        "pods": len(cluster.pods),
        "nodes": nodes,
        "usage_percent": usage_percent,
        "default_running": sum(node != PENDING for node in cluster.current),
        "placed": int(placed.value),
        "bound": placed.bound,
        "gap_percent": round(100 * (placed.gap or 0.0), 3),
        "moved": int(moved.value),
        "moved_bound": moved.bound,
        "waves": len(steps.waves),
        "seconds": round(seconds, 2),
        "window_s": window_s,
        "findings": len(findings),
    }


def main() -> None:
    """Measure all sizes."""
    chosen = arguments(
        __doc__ or "",
        window={"type": float, "default": 30.0, "help": "seconds per instance"},
        nodes={"type": int, "nargs": "*", "default": [10, 32, 100, 500, 1000]},
        draw={"type": Path, "help": "draw the rows of this JSON instead of measuring"},
        svg={"type": Path, "default": Path("docs/figures/pack_growth.svg"), "help": "where to draw"},
        usage={"type": int, "nargs": "*", "default": [95, 100]},
        add={"type": Path, "help": "keep the rows of this JSON that are not measured again"},
    )
    if chosen.draw:
        chosen.svg.write_text(plot(json.loads(chosen.draw.read_text())["rows"]))
        return
    rows = [measure_one(nodes, usage, chosen.window) for nodes in chosen.nodes for usage in chosen.usage]
    rows = joined(json.loads(chosen.add.read_text()) if chosen.add else {}, rows)
    table(list(rows[0]), [list(row.values()) for row in rows])
    finish("pack_growth", {"windows_s": sorted({row["window_s"] for row in rows})}, rows, chosen.json)


def joined(earlier: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of an earlier run that are not measured again, and the new ones, by size."""
    again = {(row["pods"], row["usage_percent"]) for row in rows}
    window_s = earlier.get("figures", {}).get("window_s")
    kept = [
        {**row, "window_s": row.get("window_s", window_s)}
        for row in earlier.get("rows", [])
        if (row["pods"], row["usage_percent"]) not in again
    ]
    return sorted([*kept, *rows], key=lambda row: (row["pods"], row["usage_percent"]))


def plot(rows: list[dict[str, Any]]) -> str:
    """Return time (left) and gap (right) against pods as SVG, a line per usage."""
    times = _chart(rows, "seconds", "seconds to the plan", 0)
    gaps = _chart(rows, "gap_percent", "gap of placed pods, %", 420)
    return element(
        "svg", times, gaps, xmlns="http://www.w3.org/2000/svg", width=840, height=312, font_family="sans-serif",
        font_size=12,
    )  # fmt: skip


def _chart(rows: list[dict[str, Any]], field: str, title: str, left: float) -> str:
    """One chart: pods on a logarithmic axis from 10^2 to 10^5, the field from zero."""
    top = max([1.0, *(float(row[field]) for row in rows)])

    def at(row: dict[str, Any]) -> tuple[float, float]:
        return left + 50 + 110 * (math.log10(row["pods"]) - 2), 260 - 210 * float(row[field]) / top

    parts = [label(left + 50, 24, title), label(left + 8, 54, f"{top:.3g}"), label(left + 30, 264, "0")]
    parts.append(element("path", d=f"M{left + 50} 40 V260 H{left + 390}", fill="none", stroke="#444"))
    parts += [label(left + 42 + 110 * n, 280, f"10^{n + 2}") for n in range(4)]
    for number, usage in enumerate(sorted({row["usage_percent"] for row in rows})):
        ink = ("#4c78a8", "#e15759", "#59a14f")[number % 3]
        points = [at(row) for row in rows if row["usage_percent"] == usage]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(element("polyline", points=line, fill="none", stroke=ink, stroke_width=1.8))
        parts += [element("circle", cx=x, cy=y, r=3, fill=ink) for x, y in points]
        parts.append(label(left + 50 + 110 * number, 302, f"{usage} % usage", fill=ink))
    return "".join(parts)


if __name__ == "__main__":
    main()
