"""The instance generator of "Priority Matters" (arXiv 2511.08373) packed within a window, by outcome.

`python -m benchmarks.pod_packing --seeds 10 --window 10 --partial ROWS.jsonl --json OUT`: about an hour and a half;
when stopped, the same command goes on after the last row. The default placement comes from the simulator in
`costmodels/kube_scheduler.py` (see `benchmarks.recorded_scheduler` for how far it agrees with recorded ones). Every
result is checked: placement, migration replay, values and bounds.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from benchmarks.packing_instances import CELLS, Cell, seeds_with_pending
from treadle.costmodels import migration
from treadle.costmodels.packing_claims import recheck
from treadle.ir.certificate import Status
from treadle.ir.cluster.cluster import PENDING, Cluster
from treadle.ir.cluster.objective import Objective, Order, measure
from treadle.ir.cluster.placement import Placement, check
from treadle.solvers.packing.migrate import order as order_steps
from treadle.solvers.packing.solve import Options, pack

PUBLISHED: dict[float, dict[str, float]] = {
    1.0: {"failure": 31.9, "better": 28.5, "better, proven": 23.2, "default, proven": 8.8, "nothing pending": 7.6},
    10.0: {"failure": 7.5, "better": 40.3, "better, proven": 35.1, "default, proven": 9.3, "nothing pending": 7.8},
    20.0: {"failure": 7.4, "better": 36.8, "better, proven": 38.4, "default, proven": 9.8, "nothing pending": 7.6},
}
"""Percent of instances per window, from the authors' tables (analysis/, tables/cp_sat)."""


def solve_one(job: tuple[Cell, int, Cluster, float, str, int]) -> dict[str, Any]:
    """Pack one instance and classify the outcome as the paper does."""
    cell, seed, cluster, window_s, order, workers = job
    objective = Objective(Order(order))
    started = time.perf_counter()
    packed = pack(cluster, Options(objective, window_s=window_s, workers=workers))
    seconds = time.perf_counter() - started
    steps = order_steps(cluster, packed.placement)
    findings = [
        *check(cluster, packed.placement),
        *migration.check(cluster, packed.placement, steps),
        *recheck(cluster, packed.placement, objective, packed.certificate).findings,
    ]
    pods = list(zip(cluster.pods, packed.placement.nodes, strict=True))
    levels = packed.certificate.levels
    return {
        **asdict(cell),
        "seed": seed,
        "outcome": _outcome(cluster, packed.placement, objective, packed.certificate.status, bool(findings)),
        "seconds": round(seconds, 3),
        "default_running": sum(node != PENDING for node in cluster.current),
        "running": sum(node != PENDING for _, node in pods),
        "placement_proven": all(x.bound == x.value for x in levels if x.name.startswith("placed")),
        "displaced": sum(pod.node not in (PENDING, node) for pod, node in pods),
        "evicted": sum(pod.node != PENDING and node == PENDING for pod, node in pods),
        "waves": len(steps.waves),
        "temporary_moves": steps.temporary_moves,
        "outages": len(steps.outages),
        "proofs": [level.proof.value for level in levels],
        "bounds": [[level.value, level.bound] for level in levels],
        "findings": [str(finding) for finding in findings],
    }


def _outcome(cluster: Cluster, placement: Placement, objective: Objective, status: Status, bad: bool) -> str:
    if bad:
        return "failure"
    if all(node != PENDING for node in cluster.current):
        return "nothing pending"
    proven = status is Status.OPTIMAL
    before = [_cost(m.value, m.maximize) for m in measure(cluster, Placement(cluster.current), objective)]
    after = [_cost(m.value, m.maximize) for m in measure(cluster, placement, objective)]
    if after < before:
        return "better, proven" if proven else "better"
    return "default, proven" if proven else "no better found"


def _cost(value: int, maximize: bool) -> int:
    return -value if maximize else value


def main() -> None:
    """Run the grid and print outcomes beside the published ones."""
    chosen = arguments(
        __doc__ or "",
        cells={"default": "", "help": "regular expression over names such as 32x8p1u95 (default: all 96)"},
        seeds={"type": int, "default": 2, "help": "instances per cell"},
        window={"type": float, "default": 1.0, "help": "seconds per instance"},
        order={"default": "disruption-first", "choices": [order.value for order in Order]},
        workers={"type": int, "default": 1, "help": "solver threads per instance"},
        processes={"type": int, "default": 1, "help": "instances at once"},
        partial={"type": Path, "help": "append every row to this file; rows that it has already are not run again"},
    )
    jobs = [
        (cell, seed, cluster, chosen.window, chosen.order, chosen.workers)
        for cell in CELLS
        if re.search(chosen.cells, str(cell))
        for seed, cluster in seeds_with_pending(cell, chosen.seeds)
    ]
    executor = ProcessPoolExecutor(chosen.processes) if chosen.processes > 1 else None
    rows = run_resumed(jobs, executor, chosen.partial) if chosen.partial else run(jobs, executor)
    figures = {"window_s": chosen.window, "order": chosen.order, "seeds": chosen.seeds, **summary(rows, chosen.window)}
    _print(rows, figures)
    finish("pod_packing", figures, rows, chosen.json)


def run(jobs: list[tuple[Cell, int, Cluster, float, str, int]], executor: Executor | None) -> list[dict[str, Any]]:
    """Solve all jobs, on an executor if one is given."""
    if executor is None:
        return [solve_one(job) for job in jobs]
    with executor:
        return list(executor.map(solve_one, jobs))


def run_resumed(
    jobs: list[tuple[Cell, int, Cluster, float, str, int]], executor: Executor | None, partial: Path
) -> list[dict[str, Any]]:
    """Solve the jobs that the file has no row for, and append theirs as they come; return all rows in order."""
    known: dict[tuple[str, int], dict[str, Any]] = {}
    if partial.exists():
        lines = [json.loads(line) for line in partial.read_text().splitlines() if line.endswith("}")]
        known = {(row["cell"], row["seed"]): row for row in lines}
    left = [job for job in jobs if (str(job[0]), job[1]) not in known]
    print(f"{len(known)} rows known, {len(left)} to run", file=sys.stderr, flush=True)
    with partial.open("a") as file:
        solved = map(solve_one, left) if executor is None else executor.map(solve_one, left)
        for job, row in zip(left, solved, strict=True):
            named = {"cell": str(job[0]), **row}
            known[named["cell"], row["seed"]] = named
            file.write(json.dumps(named) + "\n")
            file.flush()
    return [known[str(job[0]), job[1]] for job in jobs]


def summary(rows: list[dict[str, Any]], window_s: float) -> dict[str, Any]:
    """Return the shares of all outcomes and what else the issue asks for, in percent."""
    counts = Counter(row["outcome"] for row in rows)
    tight = [row for row in rows if row["usage_percent"] >= 100]
    large = [row for row in rows if row["nodes"] == 32 and row["pods_per_node"] == 8]
    share = {name: round(100 * count / len(rows), 1) for name, count in sorted(counts.items())}
    proven = counts["better, proven"] + counts["default, proven"]
    return {
        "instances": len(rows),
        "outcomes_percent": share,
        "published_percent": PUBLISHED.get(window_s, {}),
        "failures_percent": share.get("failure", 0.0),
        "improved_certified_or_nothing_percent": _percent(
            len(rows) - counts["failure"] - counts["no better found"], len(rows)
        ),
        "proven_percent": _percent(proven, len(rows)),
        "placement_proven_percent": _percent(sum(row["placement_proven"] for row in rows), len(rows)),
        "placement_proven_at_100_105_percent": _percent(sum(row["placement_proven"] for row in tight), len(tight)),
        "displaced_32x8_percent": _percent(sum(row["displaced"] for row in large), 256 * len(large)),
        "displaced_32x8_percent_by_usage": _displaced_by_usage(large),
        "displaced_32x8_proven_percent_by_usage": _displaced_by_usage(
            [row for row in large if "proven" in row["outcome"]]
        ),
        "disruption_points_32x8": sum(row["bounds"][-1][0] for row in large),
        "disruption_points_32x8_bound": sum(row["bounds"][-1][1] for row in large),
        "migrations_replayed_percent": _percent(sum(not row["findings"] for row in rows), len(rows)),
        "overran": sum(row["seconds"] > window_s for row in rows),
        "longest_s": max((row["seconds"] for row in rows), default=0.0),
    }


def _displaced_by_usage(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the share of pods displaced, in percent, by target usage."""
    usages = sorted({row["usage_percent"] for row in rows})
    chosen = {usage: [row for row in rows if row["usage_percent"] == usage] for usage in usages}
    return {
        str(usage): _percent(sum(row["displaced"] for row in group), 256 * len(group))
        for usage, group in chosen.items()
    }


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0.0


def _print(rows: list[dict[str, Any]], figures: dict[str, Any]) -> None:
    groups: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["usage_percent"], row["nodes"]), []).append(row)
    header = ("usage %, nodes", "n", "failed", "no better", "better", "proven", "placement proven", "displaced %", "s")
    lines: list[tuple[object, ...]] = []
    for (usage, nodes), group in sorted(groups.items()):
        outcomes = Counter(row["outcome"] for row in group)
        pods = sum(row["nodes"] * row["pods_per_node"] for row in group)
        proven = outcomes["better, proven"] + outcomes["default, proven"] + outcomes["nothing pending"]
        placement = sum(row["placement_proven"] for row in group)
        displaced = _percent(sum(row["displaced"] for row in group), pods)
        seconds = sum(row["seconds"] for row in group) / len(group)
        told = (outcomes["failure"], outcomes["no better found"], outcomes["better"], proven)
        lines.append((f"{usage}, {nodes}", len(group), *told, placement, displaced, seconds))
    table(header, lines)
    for name, value in figures.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
