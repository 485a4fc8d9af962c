"""Offsets for the MiniMalloc instances: feasible at their capacity, height against the live peak, time."""

from __future__ import annotations

import time
from typing import Any

from benchmarks import common
from treadle.frontends.layout_buffers import read_buffers
from treadle.ir.certificate import Status
from treadle.ir.layout.buffers import check
from treadle.solvers.buffers.solve import solve_buffers


def main() -> None:
    """Place every CSV of the folder; the capacity is the number in the file's name, else --capacity."""
    chosen = common.arguments(
        __doc__ or "", "../shared/data/memory/minimalloc", capacity={"type": int, "default": 1_048_576}
    )
    rows: list[dict[str, Any]] = []
    for file in sorted(chosen.data.glob("*.csv")):
        problem = read_buffers(file, chosen.capacity)
        started = time.perf_counter()
        plan, certificate = solve_buffers(problem)
        seconds = time.perf_counter() - started
        level = certificate.levels[0]
        rows.append(
            {
                "instance": file.name.partition(".")[0],
                "buffers": len(problem.buffers),
                "height": level.value,
                "bound": level.bound,
                "gap": level.gap,
                "proven": level.status is Status.OPTIMAL,
                "findings": len(check(plan)),
                "seconds": round(seconds, 2),
            }
        )
    common.table(list(rows[0]), [list(row.values()) for row in rows])
    figures = {
        "feasible": sum(row["height"] <= chosen.capacity and not row["findings"] for row in rows),
        "proven": sum(row["proven"] for row in rows),
        "instances": len(rows),
        "seconds_max": max(row["seconds"] for row in rows),
    }
    common.finish("buffer_layout", figures, rows, chosen.json)


if __name__ == "__main__":
    main()
