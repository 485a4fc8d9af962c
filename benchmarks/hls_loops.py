"""Claim: every loop of a folder of HLS modulo-scheduling instances gets its least initiation interval, proven.

Reads any folder of GraphML graphs with resource models (`NAME_RM.xml` or `NAMERM.xml` beside them). Every schedule is
checked for legality, every certificate re-derived without a solver, and loops with few slot choices (all those of at
most eight operations among them, unless their interval is long) are compared with exhaustive search.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from treadle.frontends.hls import find_loops, read_loop
from treadle.ir.certificate import Level, ProofKind, Status
from treadle.ir.diagnostics import TreadleError
from treadle.ir.tile.claims import recheck
from treadle.ir.tile.exhaustive import exhaustive
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.schedule import Schedule, check
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.solve import Options, schedule

MOST_STEPS = 200_000
"""Largest number of slot choices times operations that exhaustive search is asked to try."""


def measure(graphml: Path, resources: Path, limit_s: float) -> dict[str, Any]:
    """Schedule one loop and return its row."""
    begin = time.perf_counter()
    try:
        loop = read_loop(graphml, resources)
        solution = schedule(loop, Options(Limits(deterministic_s=limit_s)))
    except TreadleError as error:
        return {"loop": str(graphml), "error": error.render()}
    solved = time.perf_counter()
    findings = [
        *check(loop, solution.schedule),
        *recheck(loop, solution.schedule, solution.certificate).findings,
    ]
    checked = time.perf_counter()
    interval, length = solution.certificate["ii"], solution.certificate["length"]
    return {
        "loop": str(graphml),
        "operations": len(loop.operations),
        "dependences": len(loop.dependences),
        "seconds": round(solved - begin, 4),
        "check_seconds": round(checked - solved, 4),
        "findings": [str(finding) for finding in findings],
        "exhaustive": _confirmed(loop, solution.schedule),
        **_of_level("ii", interval),
        **_of_level("length", length),
    }


def _of_level(name: str, level: Level) -> dict[str, Any]:
    return {
        name: level.value,
        f"{name}_bound": level.bound,
        f"{name}_status": level.status.value,
        f"{name}_proof": level.proof.value,
        f"{name}_bound_without_search": _basis(level),
    }


def _basis(level: Level) -> float | None:
    if level.proof in (ProofKind.SOLVER, ProofKind.ENUMERATION):
        bound: float = level.evidence["basis"]["value"]
        return bound
    return level.bound


def _confirmed(loop: Loop, found: Schedule) -> bool | None:
    """Whether exhaustive search finds the same interval and length; None when the loop is too large for it."""
    limited = sum(loop.unit(op.unit).count is not None and op.occupancy_cycles > 0 for op in loop.operations)
    if len(loop.operations) * found.ii_cycles**limited > MOST_STEPS:
        return None
    best = exhaustive(loop, found.ii_cycles)
    if best is None:
        return False
    return (best.ii_cycles, best.length_cycles) == (found.ii_cycles, found.length_cycles)


def run(loops: Sequence[tuple[Path, Path]], limit_s: float, executor: Executor | None = None) -> list[dict[str, Any]]:
    """Return one row per loop, in order; with an executor the largest files are started first."""
    if executor is None:
        return [measure(graphml, resources, limit_s) for graphml, resources in loops]
    largest_first = sorted(range(len(loops)), key=lambda position: -loops[position][0].stat().st_size)
    futures = {position: executor.submit(measure, *loops[position], limit_s) for position in largest_first}
    return [futures[position].result() for position in range(len(loops))]


def summarize(rows: Sequence[dict[str, Any]], total_s: float) -> dict[str, Any]:
    """Return the figures of the claim."""
    read = [row for row in rows if "error" not in row]
    above = [row for row in read if row["ii"] > row["ii_bound_without_search"]]
    return {
        "loops": len(rows),
        "not_read": len(rows) - len(read),
        "interval_proven": sum(row["ii_status"] == Status.OPTIMAL.value for row in read),
        "interval_unproven": sum(row["ii_status"] != Status.OPTIMAL.value for row in read),
        "interval_above_bounds": len(above),
        "interval_proof_kinds": dict(Counter(row["ii_proof"] for row in read)),
        "length_proven": sum(row["length_status"] == Status.OPTIMAL.value for row in read),
        "length_proof_kinds": dict(
            Counter(row["length_proof"] for row in read if row["length_status"] == Status.OPTIMAL.value)
        ),
        "with_findings": sum(bool(row["findings"]) for row in read),
        "exhaustive_compared": sum(row["exhaustive"] is not None for row in read),
        "exhaustive_differs": sum(row["exhaustive"] is False for row in read),
        "solve_seconds_sum": round(sum(row["seconds"] for row in read), 2),
        "check_seconds_sum": round(sum(row["check_seconds"] for row in read), 2),
        "total_seconds": round(total_s, 2),
    }


def main() -> int:
    """Run the benchmark; the exit status is 1 when an interval is unproven or anything is found wrong."""
    chosen = arguments(
        "Modulo scheduling of HLS loops: proven least intervals and lengths.",
        "../shared/data/hls",
        jobs={"type": int, "default": 1, "help": "processes (default 1)"},
        limit={"type": float, "default": 10.0, "help": "deterministic seconds per question to the solver (default 10)"},
    )
    loops = find_loops(chosen.data)
    begin = time.perf_counter()
    if chosen.jobs > 1:
        with ProcessPoolExecutor(chosen.jobs) as executor:
            rows = run(loops, chosen.limit, executor)
    else:
        rows = run(loops, chosen.limit)
    figures = summarize(rows, time.perf_counter() - begin) | {
        "jobs": chosen.jobs,
        "limit_deterministic_s": chosen.limit,
    }
    for row in rows:
        row["loop"] = str(Path(row["loop"]).relative_to(chosen.data))
    _print(rows, figures)
    finish("hls_loops", figures, rows, chosen.json)
    bad = figures["interval_unproven"] + figures["with_findings"] + figures["exhaustive_differs"] + figures["not_read"]
    return 1 if bad or not rows else 0


def _print(rows: Sequence[dict[str, Any]], figures: dict[str, Any]) -> None:
    shown = [row for row in rows if "error" not in row]
    table(
        ("loop", "ops", "II", "bound", "kind", "length", "bound", "kind", "s"),
        (
            (
                row["loop"],
                row["operations"],
                row["ii"],
                row["ii_bound"],
                row["ii_proof"],
                row["length"],
                row["length_bound"],
                row["length_proof"],
                round(row["seconds"], 2),
            )
            for row in shown
        ),
    )
    for row in rows:
        if "error" in row:
            print(row["error"], file=sys.stderr)
    print()
    table(("figure", "value"), ((name, str(value)) for name, value in figures.items()))


if __name__ == "__main__":
    sys.exit(main())
