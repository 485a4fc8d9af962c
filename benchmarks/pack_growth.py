"""Time and gap of the packer against the number of pods: the generator's instances with ten pods per node.

`python -m benchmarks.pack_growth --window 30 --json OUT`. Memory bounds the size: the chain search keeps one byte per
pod and node, a gigabyte for 10^5 pods on 10^4 nodes.
"""

from __future__ import annotations

import time
from typing import Any

from benchmarks.common import arguments, finish, table
from benchmarks.packing_instances import Cell, scheduled
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
        "findings": len(findings),
    }


def main() -> None:
    """Measure all sizes."""
    chosen = arguments(
        __doc__ or "",
        window={"type": float, "default": 30.0, "help": "seconds per instance"},
        nodes={"type": int, "nargs": "*", "default": [10, 32, 100, 500]},
        usage={"type": int, "nargs": "*", "default": [95, 100]},
    )
    rows = [measure_one(nodes, usage, chosen.window) for nodes in chosen.nodes for usage in chosen.usage]
    table(list(rows[0]), [list(row.values()) for row in rows])
    finish("pack_growth", {"window_s": chosen.window}, rows, chosen.json)


if __name__ == "__main__":
    main()
