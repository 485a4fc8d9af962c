"""What a placement is worth: the levels of the lexicographic objective, most important first."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from treadle.ir.cluster.cluster import PENDING, Amounts, Cluster, usage
from treadle.ir.cluster.placement import Placement


class Order(Enum):
    """In which order priorities and disruptions count."""

    PLACE_FIRST = "place-first"
    """Place as many as possible of every tier, then disrupt as little as possible."""
    DISRUPTION_FIRST = "disruption-first"
    """Tier by tier: place, then disrupt as little as possible, before the next tier (arXiv 2511.08373)."""


class Tail(Enum):
    """What counts last."""

    NOTHING = "nothing"
    NODES = "nodes"
    """Fewest nodes in use."""
    COST = "cost"
    """Least total cost of the nodes in use."""
    STRANDED = "stranded"
    """Fewest GPUs that are free beside too little CPU or memory for any pod that wants one."""
    BALANCE = "balance"
    """Least load of the fullest node: its dominant share of CPU or memory, in thousandths."""


@dataclass(frozen=True, slots=True)
class Objective:
    """The objective of a packing."""

    order: Order = Order.PLACE_FIRST
    tail: Tail = Tail.NOTHING


@dataclass(frozen=True, slots=True)
class Measure:
    """One level: what it counts, over pods of which priority and above (None: all), and its value."""

    name: str
    unit: str
    value: int
    maximize: bool = False
    floor: int | None = None


def measure(cluster: Cluster, placement: Placement, objective: Objective) -> tuple[Measure, ...]:
    """Return the levels of the objective with the placement's values."""
    if objective.order is Order.PLACE_FIRST:
        levels = [_placed(cluster, placement, tier) for tier in cluster.tiers]
        levels += [_evicted(cluster, placement), _moved(cluster, placement)]
    else:
        levels = [
            level
            for tier in cluster.tiers
            for level in (_placed(cluster, placement, tier), _disruption(cluster, placement, tier))
        ]
    if objective.tail is not Tail.NOTHING:
        levels.append(_nodes(cluster, placement, objective.tail))
    return tuple(levels)


def _placed(cluster: Cluster, placement: Placement, tier: int) -> Measure:
    count = sum(node != PENDING and cluster.priority(pod) >= tier for pod, node in enumerate(placement.nodes))
    return Measure(f"placed>={tier}", "pods", count, maximize=True, floor=tier)


def _evicted(cluster: Cluster, placement: Placement) -> Measure:
    count = sum(
        pod.node != PENDING and node == PENDING for pod, node in zip(cluster.pods, placement.nodes, strict=True)
    )
    return Measure("evicted", "pods", count)


def _moved(cluster: Cluster, placement: Placement) -> Measure:
    cost = sum(
        pod.restart_cost
        for pod, node in zip(cluster.pods, placement.nodes, strict=True)
        if pod.node != PENDING and node not in (PENDING, pod.node)
    )
    return Measure("moved", "restarts", cost)


def _disruption(cluster: Cluster, placement: Placement, tier: int) -> Measure:
    cost = sum(
        1 + (node != PENDING) - 2 * (node == pod.node)
        for index, (pod, node) in enumerate(zip(cluster.pods, placement.nodes, strict=True))
        if pod.node != PENDING and cluster.priority(index) >= tier
    )
    return Measure(f"disruption>={tier}", "points", cost, floor=tier)


def rest_of(cluster: Cluster, nodes: tuple[int, ...]) -> list[Amounts]:
    """Return what is free of every node when pod `i` is on `nodes[i]`."""
    used = usage(cluster, nodes)
    return [
        {name: amount - there.get(name, 0) for name, amount in node.capacity.items()}
        for node, there in zip(cluster.nodes, used, strict=True)
    ]


def gpu_needs(cluster: Cluster) -> dict[str, Amounts]:
    """Return, for every GPU resource, the least CPU and memory that pods asking for it want (each by itself)."""
    found: dict[str, Amounts] = {}
    for shape in cluster.shapes:
        for name, amount in shape.requests.items():
            if amount and "gpu" in name.split("/")[-1]:
                least = found.setdefault(name, {})
                for other in ("cpu", "memory"):
                    asked = shape.requests.get(other, 0)
                    least[other] = min(least.get(other, asked), asked)
    return found


def stranded_gpus(cluster: Cluster, rest: list[Amounts]) -> int:
    """Return the GPUs that are free on nodes with too little CPU or memory left for any pod that wants one."""
    total = 0
    for name, least in gpu_needs(cluster).items():
        for free in rest:
            if any(free.get(other, 0) < amount for other, amount in least.items()):
                total += free.get(name, 0)
    return total


def fullest_share(cluster: Cluster, rest: list[Amounts]) -> int:
    """Return the largest share of CPU or memory that is taken on any node, in thousandths, rounded up."""
    return max(
        (
            -(-1000 * (amount - free.get(name, 0)) // amount)
            for node, free in zip(cluster.nodes, rest, strict=True)
            for name, amount in node.capacity.items()
            if name in ("cpu", "memory") and amount
        ),
        default=0,
    )


def _nodes(cluster: Cluster, placement: Placement, tail: Tail) -> Measure:
    if tail is Tail.STRANDED:
        return Measure("stranded", "GPUs", stranded_gpus(cluster, rest_of(cluster, placement.nodes)))
    if tail is Tail.BALANCE:
        return Measure("balance", "thousandths", fullest_share(cluster, rest_of(cluster, placement.nodes)))
    used = {node for node in placement.nodes if node != PENDING}
    if tail is Tail.NODES:
        return Measure("nodes", "nodes", len(used))
    return Measure("cost", "price", sum(cluster.nodes[node].cost for node in used))
