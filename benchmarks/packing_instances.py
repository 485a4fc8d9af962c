"""The instance generator of "Priority Matters" (arXiv 2511.08373): ReplicaSets on identical nodes.

Source: henrikdchristensen/scheduler-plugins, scripts of the KWOK test runner (`_resolve_config_for_seed`, base.yaml).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import product

from treadle.costmodels.kube_scheduler import simulate
from treadle.ir.cluster.cluster import Cluster, Node, Pod, Shape


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the benchmark's grid."""

    nodes: int
    pods_per_node: int
    priorities: int
    usage_percent: int

    def __str__(self) -> str:
        return f"{self.nodes}x{self.pods_per_node}p{self.priorities}u{self.usage_percent}"


CELLS = tuple(Cell(*values) for values in product((4, 8, 16, 32), (4, 8), (1, 2, 4), (90, 95, 100, 105)))


def generate(cell: Cell, seed: int) -> Cluster:
    """Return an instance with every pod pending: 1..4 replicas per ReplicaSet, 100..1000 m, 100..1000 MB."""
    source = random.Random(f"{cell}/{seed}")
    total = cell.nodes * cell.pods_per_node
    shapes: list[Shape] = []
    pods: list[Pod] = []
    while len(pods) < total:
        replicas = min(source.randint(1, 4), total - len(pods))
        name = f"rs-{len(shapes) + 1:02d}"
        requests = {"cpu": source.randint(100, 1000), "memory": source.randint(100_000_000, 1_000_000_000)}
        priority = source.randint(1, cell.priorities)
        pods += [Pod(f"{name}-{i}", len(shapes)) for i in range(replicas)]
        shapes.append(Shape(name, requests, priority=priority, workload=f"ReplicaSet/{name}"))
    capacity = {name: _capacity(cell, [shapes[pod.shape].requests[name] for pod in pods]) for name in ("cpu", "memory")}
    nodes = tuple(Node(f"node-{i + 1}", capacity) for i in range(cell.nodes))
    return Cluster(nodes, tuple(shapes), tuple(pods))


def _capacity(cell: Cell, amounts: list[int]) -> int:
    whole = -(-sum(amounts) * 100 // cell.usage_percent)
    return max(max(amounts), -(-whole // cell.nodes))


def scheduled(cell: Cell, seed: int) -> Cluster:
    """Return the instance after the (simulated) default scheduler has run."""
    cluster = generate(cell, seed)
    outcome = simulate(cluster, seed=seed)
    pods = tuple(replace(pod, node=node) for pod, node in zip(cluster.pods, outcome.nodes, strict=True))
    return replace(cluster, pods=pods)


def seeds_with_pending(cell: Cell, count: int, limit: int = 400) -> list[tuple[int, Cluster]]:
    """Return the first `count` instances in which something is left pending (all instances at 100 % and above)."""
    found: list[tuple[int, Cluster]] = []
    for seed in range(limit):
        cluster = scheduled(cell, seed)
        if cell.usage_percent >= 100 or any(pod.node < 0 for pod in cluster.pods):
            found.append((seed, cluster))
        if len(found) == count:
            break
    return found
