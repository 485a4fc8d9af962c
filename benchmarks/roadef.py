"""ROADEF/EURO 2012 machine reassignment, instances a1_1 to a1_5.

`python -m benchmarks.roadef --window 60 --json OUT`. The reference's figures are those of a one-hour Gurobi run
(mdeboute/challenge_ROADEF_Google, resultsA.txt).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from treadle.frontends.roadef import load_roadef
from treadle.ir.cluster.reassignment import check, cost
from treadle.solvers.reassignment.solve import Options, reassign

GUROBI_HOUR = {"a1_1": 44_306_501, "a1_2": 777_531_842, "a1_3": 583_005_719, "a1_4": 262_086_758, "a1_5": 727_578_311}

_HARD = ("a1_2", "a1_4")


def solve_one(name: str, folder: Path, window_s: float, seed: int) -> dict[str, Any]:
    """Solve one instance and check it."""
    instance = load_roadef(folder / f"model_{name}.txt", folder / f"assignment_{name}.txt")
    started = time.perf_counter()
    found = reassign(instance, Options(window_s=window_s, seed=seed))
    seconds = time.perf_counter() - started
    level = found.certificate.levels[0]
    return {
        "instance": name,
        "initial": cost(instance, instance.initial),
        "cost": cost(instance, found.assignment),
        "bound": level.bound,
        "gap_percent": round(100 * (level.gap or 0.0), 4),
        "gurobi_hour": GUROBI_HOUR[name],
        "seconds": round(seconds, 1),
        "findings": len(check(instance, found.assignment)),
    }


def main() -> None:
    """Solve the chosen instances."""
    chosen = arguments(
        __doc__ or "",
        data="../shared/data/packing/roadef2012",
        instances={"nargs": "*", "default": list(GUROBI_HOUR)},
        window={"type": float, "default": 60.0, "help": "seconds per instance"},
        hard={"type": float, "default": 0.0, "help": "seconds for a1_2 and a1_4 (default: the window)"},
        seed={"type": int, "default": 0},
    )
    windows = {name: chosen.hard if name in _HARD and chosen.hard else chosen.window for name in chosen.instances}
    rows = [solve_one(name, chosen.data, windows[name], chosen.seed) for name in chosen.instances]
    table(list(rows[0]), [list(row.values()) for row in rows])
    finish(
        "roadef",
        {"window_s": chosen.window, "hard_window_s": chosen.hard or chosen.window, "seed": chosen.seed},
        rows,
        chosen.json,
    )


if __name__ == "__main__":
    main()
