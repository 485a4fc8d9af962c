"""Why pods are left out of a placement, and how full everything is: by looking, without a solver."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from treadle.costmodels.migration import loads, room
from treadle.ir.cluster.cluster import PENDING, Cluster, may_arrive
from treadle.ir.cluster.placement import Placement


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Pods of one shape that have no node: how many nodes refuse one for which reason, and the nearest miss."""

    shape: str
    pods: int
    priority: int
    reasons: dict[str, int]
    nearest: str
    """The node that lacks least, and what it lacks; empty if no node is open to the shape."""


@dataclass(frozen=True, slots=True)
class Fullness:
    """Of a resource: what all nodes have, what is asked for and placed, and the fullest node's share in percent."""

    resource: str
    capacity: int
    asked: int
    placed: int
    fullest_percent: float


def fullness(cluster: Cluster, placement: Placement) -> tuple[Fullness, ...]:
    """Return how full every resource is, the scarcest (asked over capacity) first."""
    shape_loads = loads(cluster)
    found: list[Fullness] = []
    for name in sorted({name for load in shape_loads for name, amount in load.items() if amount}):
        there = [room(cluster, node, name) for node in range(len(cluster.nodes))]
        used = [0] * len(there)
        for pod, node in zip(cluster.pods, placement.nodes, strict=True):
            if node != PENDING:
                used[node] += shape_loads[pod.shape].get(name, 0)
        asked = sum(shape_loads[pod.shape].get(name, 0) for pod in cluster.pods)
        shares = [100 * u / t for u, t in zip(used, there, strict=True) if t]
        found.append(Fullness(name, sum(there), asked, sum(used), round(max(shares, default=0.0), 1)))
    return tuple(sorted(found, key=lambda one: -one.asked / max(1, one.capacity)))


def left_out(cluster: Cluster, placement: Placement) -> tuple[LeftOut, ...]:
    """Return why pods have no node, by shape, the highest priority first."""
    counts = Counter(pod.shape for pod, node in zip(cluster.pods, placement.nodes, strict=True) if node == PENDING)
    if not counts:
        return ()
    shape_loads = loads(cluster)
    names = sorted({name for load in shape_loads for name in load})
    free = [{name: room(cluster, node, name) for name in names} for node in range(len(cluster.nodes))]
    for pod, node in zip(cluster.pods, placement.nodes, strict=True):
        if node != PENDING:
            for name, amount in shape_loads[pod.shape].items():
                free[node][name] -= amount
    found = [_one(cluster, shape, count, shape_loads[shape], free) for shape, count in counts.items()]
    return tuple(sorted(found, key=lambda one: (-one.priority, one.shape)))


def _one(cluster: Cluster, shape: int, count: int, load: dict[str, int], free: list[dict[str, int]]) -> LeftOut:
    reasons: Counter[str] = Counter()
    nearest: tuple[float, str] | None = None
    for node, rest in zip(cluster.nodes, free, strict=True):
        if reason := may_arrive(cluster.shapes[shape], node):
            reasons[reason.split(":")[0]] += 1
            continue
        short = {name: amount - rest[name] for name, amount in load.items() if amount > rest[name]}
        for name in short:
            reasons[f"too little {name} left"] += 1
        if not short:
            reasons["a rule between pods, or devices"] += 1
        lack = sum(amount / max(1, node.capacity.get(name, 1)) for name, amount in short.items())
        told = f"{node.name} lacks " + ", ".join(f"{amount} {name}" for name, amount in sorted(short.items()))
        if short and (nearest is None or lack < nearest[0]):
            nearest = (lack, told)
    one = cluster.shapes[shape]
    return LeftOut(one.name, count, one.priority, dict(reasons.most_common()), nearest[1] if nearest else "")
