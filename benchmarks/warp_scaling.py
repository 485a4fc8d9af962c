"""Claim: the joint schedule's solve time does not depend on the interval, and stays usable up to 300 operations.

Pipelines of equal tiles (load, product, maximum, exponential, sum), five operations each, on one tensor core, one
special-function unit and one ALU over at most four groups: first more tiles at fixed times, then the same tiles with
all times multiplied. Every schedule is checked. `--figure` draws both curves.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from benchmarks.curves import curve, side_by_side
from treadle.ir.diagnostics import TreadleError
from treadle.ir.tile.loop import Capacity, Dependence, Loop, Operation, Reader, Ring, Unit
from treadle.ir.tile.warp_claims import recheck_warps
from treadle.ir.tile.warps import Crossing, Issue, RegisterValue, WarpLimits, WarpLoop, check_warps
from treadle.solvers.backend import Limits
from treadle.solvers.pipeline.solve import Options, schedule

OPERATIONS = (10, 20, 40, 80, 160, 300)
FACTORS = (1, 10, 100, 1000)
FIXED_TILES = 4


def tiles(count: int, factor: int) -> WarpLoop:
    """Return a loop over `count` tiles of five operations, times multiplied by `factor`; the interval is 30 each."""
    operations: list[Operation] = []
    dependences: list[Dependence] = []
    issues: list[Issue] = []
    values: list[RegisterValue] = []
    rings: list[Ring] = []
    steps = (("load", "copy", 20, 60, 1), ("mma", "tensor", 30, 34, 1), ("top", "alu", 8, 10, 8),
             ("exp", "mufu", 16, 18, 2), ("sum", "alu", 8, 10, 8))  # fmt: skip
    for tile in range(count):
        names = [f"{step[0]}_{tile}" for step in steps]
        for name, (kind, unit, occupancy, latency, issue) in zip(names, steps, strict=True):
            operations.append(Operation(name, unit, occupancy * factor, latency * factor))
            issues.append(Issue(name, issue * factor, "load" if kind == "load" else ""))
        for first, second, step in zip(names, names[1:], steps, strict=False):
            dependences.append(Dependence(first, second, step[3] * factor))
        dependences.append(Dependence(names[4], names[4], 10 * factor, 1))
        values += [
            RegisterValue(names[at], names[at], 8, (Reader(names[at + 1], steps[at + 1][2] * factor),), 20 * factor)
            for at in (1, 2, 3)
        ]
        rings.append(Ring(names[0], "shared", 1024, names[0], (Reader(names[1], 34 * factor),), 4))
    loop = Loop(
        f"tiles_{count}_{factor}",
        tuple(Unit(unit, 1) for unit in ("copy", "tensor", "alu", "mufu")),
        tuple(operations),
        tuple(dependences),
        tuple(rings),
        (Capacity("shared", 4096 * count),),
    )
    crossings = tuple(
        Crossing(position, 4 * factor, 0 if d.source.startswith("load") else 512)
        for position, d in enumerate(loop.dependences)
        if d.source != d.target
    )
    limits = WarpLimits(5, 200, 512, fixed_registers=24, role_registers=24)
    return WarpLoop(loop, tuple(issues), crossings, tuple(values), limits)


def measured(count: int, factor: int, limits: Limits) -> dict[str, Any]:
    """Solve one size; return levels, seconds and what the checkers find."""
    warps = tiles(count, factor)
    begin = time.process_time()
    try:
        solution = schedule(warps, Options(limits))
    except TreadleError as error:
        return {
            "operations": 5 * count,
            "factor": factor,
            "refused": str(error),
            "seconds": time.process_time() - begin,
        }
    seconds = time.process_time() - begin
    review = recheck_warps(warps, solution.schedule, solution.certificate)
    return {
        "operations": 5 * count,
        "factor": factor,
        "interval": solution.schedule.schedule.ii_cycles,
        "proven": sum(level.bound == level.value for level in solution.certificate.levels),
        "levels": {level.name: [level.value, level.bound, level.proof.value] for level in solution.certificate.levels},
        "findings": len(check_warps(warps, solution.schedule)) + len(review.findings),
        "seconds": round(seconds, 3),
    }


def drawn(rows: Sequence[dict[str, Any]]) -> str:
    """Return both curves side by side as one SVG."""
    by_size = [(row["operations"], row["seconds"]) for row in rows if row["curve"] == "operations"]
    by_interval = [
        (row["interval"], row["seconds"]) for row in rows if row["curve"] == "interval" and "interval" in row
    ]
    return side_by_side(
        curve("solve time by operations", "operations", by_size),
        curve("solve time by interval", "cycles", by_interval),
    )


def main() -> int:
    """Run both curves; the exit status is 1 when a checker finds anything."""
    chosen = arguments(
        "Solve time of the joint problem by operations and by interval.",
        limit={"type": float, "default": 0.5, "help": "deterministic seconds per question (default 0.5)"},
        figure={"type": Path, "default": None, "help": "SVG file to draw"},
        most={"type": int, "default": OPERATIONS[-1], "help": "most operations"},
    )
    limits = Limits(deterministic_s=chosen.limit)
    sizes = [(count // 5, 1, "operations") for count in OPERATIONS if count <= chosen.most]
    sizes += [(FIXED_TILES, factor, "interval") for factor in FACTORS]
    rows: list[dict[str, Any]] = []
    for count, factor, name in sizes:
        rows.append({"curve": name, **measured(count, factor, limits)})
        print(rows[-1], file=sys.stderr)
    table(
        ("curve", "operations", "interval", "levels proven", "CPU s"),
        (
            (r["curve"], str(r["operations"]), str(r.get("interval")), str(r.get("proven")), f"{r['seconds']:.2f}")
            for r in rows
        ),
    )
    by_interval = [row["seconds"] for row in rows if row["curve"] == "interval"]
    figures = {
        "largest": max(row["operations"] for row in rows),
        "refused": sum("refused" in row for row in rows),
        "with_findings": sum(bool(row.get("findings")) for row in rows),
        "slowest_over_fastest_by_interval": round(max(by_interval) / min(by_interval), 2),
    }
    if chosen.figure is not None:
        chosen.figure.write_text(drawn(rows), encoding="utf-8")
    finish("warp_scaling", figures, rows, chosen.json)
    return 1 if figures["with_findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
