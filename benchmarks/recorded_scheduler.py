"""The simulated default scheduler and the packer against recorded placements of a real kube-scheduler.

`python -m benchmarks.recorded_scheduler --data FILE.json --json OUT`. Agreement: pods that run per priority, simulated
(over several tie-breaking seeds) against recorded; and what the packer makes of the recorded placement.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from treadle.costmodels.kube_scheduler import simulate
from treadle.ir.cluster.cluster import PENDING, Cluster, Node, Pod, Shape
from treadle.ir.cluster.objective import Objective, Order
from treadle.solvers.packing.solve import Options, pack

_TIE_SEEDS = 20


def load(path: Path) -> list[tuple[str, Cluster]]:
    """Return the recorded instances as clusters with the recorded placement."""
    found: list[tuple[str, Cluster]] = []
    for record in json.loads(path.read_text())["instances"]:
        capacity = {"cpu": record["cap_cpu_m"], "memory": record["cap_mem_bytes"]}
        nodes = tuple(Node(f"node-{i + 1}", capacity) for i in range(record["n_nodes"]))
        shapes: list[Shape] = []
        pods: list[Pod] = []
        for name, priority, cpu, memory, at in record["rs"]:
            workload = f"ReplicaSet/{name}"
            pods += [
                Pod(f"{name}-{i}", len(shapes), PENDING if node is None else node - 1) for i, node in enumerate(at)
            ]
            shapes.append(Shape(name, {"cpu": cpu, "memory": memory}, priority=priority, workload=workload))
        found.append((f"{record['config']}/{record['seed']}", Cluster(nodes, tuple(shapes), tuple(pods))))
    return found


def running(cluster: Cluster, nodes: tuple[int, ...]) -> dict[int, int]:
    """Return how many pods run, per priority."""
    return dict(sorted(Counter(cluster.priority(p) for p, node in enumerate(nodes) if node != PENDING).items()))


def compare(name: str, cluster: Cluster) -> dict[str, Any]:
    """Return recorded, simulated and packed counts of one instance."""
    empty = replace(cluster, pods=tuple(replace(pod, node=PENDING) for pod in cluster.pods))
    recorded = running(cluster, cluster.current)
    simulated = [running(empty, simulate(empty, seed=seed).nodes) for seed in range(_TIE_SEEDS)]
    packed = pack(cluster, Options(Objective(Order.DISRUPTION_FIRST), deterministic_s=5.0))
    return {
        "instance": name,
        "recorded": sum(recorded.values()),
        "simulated_min": min(sum(s.values()) for s in simulated),
        "simulated_max": max(sum(s.values()) for s in simulated),
        "same_per_priority_percent": round(100 * sum(s == recorded for s in simulated) / _TIE_SEEDS, 1),
        "packed": sum(running(cluster, packed.placement.nodes).values()),
        "packed_per_priority": running(cluster, packed.placement.nodes),
        "recorded_per_priority": recorded,
        "status": packed.certificate.status.value,
    }


def main() -> None:
    """Compare all recorded instances."""
    chosen = arguments(__doc__ or "", data="../shared/data/packing/recorded_scheduler/instances.json")
    rows = [compare(name, cluster) for name, cluster in load(chosen.data)]
    table(list(rows[0]), [list(row.values()) for row in rows])
    figures = {
        "instances": len(rows),
        "recorded_within_simulated_range": sum(r["simulated_min"] <= r["recorded"] <= r["simulated_max"] for r in rows),
    }
    print(figures)
    finish("recorded_scheduler", figures, rows, chosen.json)


if __name__ == "__main__":
    main()
