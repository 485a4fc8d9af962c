"""A cluster in the solver's terms: groups of identical pods, integer demands, counts per node."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from treadle.costmodels.eligibility import Eligibility
from treadle.costmodels.migration import loads, room
from treadle.ir.cluster.cluster import PENDING, Cluster
from treadle.ir.cluster.objective import Order

Cell = tuple[int, int]
"""(group, node)"""


@dataclass(frozen=True, slots=True)
class Group:
    """Pods that no rule tells apart. `members` are pod indices; `running` counts those now on each node."""

    shape: int
    gang: str
    restart_cost: int
    priority: int
    demand: tuple[int, ...]
    members: tuple[int, ...]
    running: dict[int, int]

    @property
    def count(self) -> int:
        """Number of pods."""
        return len(self.members)

    @property
    def run_count(self) -> int:
        """Number of pods that run now."""
        return sum(self.running.values())


class Fit:
    """How many pods of a group may arrive on which nodes; computed when asked for, kept where there is room for it."""

    def __init__(self, cluster: Cluster, groups: Sequence[Group], capacity: Sequence[Sequence[int]]) -> None:
        self.eligibility = Eligibility(cluster)
        self.groups = groups
        self.most = len(cluster.pods)
        self.capacity = np.array(capacity, dtype=np.int64).reshape(len(cluster.nodes), -1)
        self._known: dict[int, dict[int, int]] = {}
        self.keep = len(groups) * len(cluster.nodes) <= _KEPT_CELLS

    def __getitem__(self, g: int) -> dict[int, int]:
        """Return how many pods of group `g` may arrive, by node."""
        if g in self._known:
            return self._known[g]
        group = self.groups[g]
        demand = np.array(group.demand, dtype=np.int64)
        asked = np.flatnonzero(demand)
        free = np.maximum(self.capacity[:, asked], 0) // demand[asked]
        room = free.min(axis=1, initial=self.most)
        nodes = np.flatnonzero(self.eligibility.open_to(group.shape) & (room > 0))
        found = dict(zip(nodes.tolist(), room[nodes].tolist(), strict=True))
        if self.keep:
            self._known[g] = found
        return found

    def __iter__(self) -> Iterator[dict[int, int]]:
        return (self[g] for g in range(len(self.groups)))

    def cells(self, most: int) -> int:
        """Return the number of (group, node) cells; the product of their numbers where that is over `most` by far."""
        product = len(self.groups) * len(self.capacity)
        return sum(map(len, self)) if product <= max(_KEPT_CELLS, most) else product


_KEPT_CELLS = 2_000_000


@dataclass(frozen=True, slots=True)
class Problem:
    """Groups, what is free on every node once pinned pods are there, and where pods of a group may arrive."""

    cluster: Cluster
    order: Order
    resources: tuple[str, ...]
    capacity: tuple[tuple[int, ...], ...]
    """(nodes, resources)"""
    groups: tuple[Group, ...]
    fit: Fit
    """Per group: how many of its pods may arrive on a node, for nodes where any may."""
    pinned_placed: dict[int, int] = field(default_factory=dict[int, int])
    """Pinned pods that stand, by priority."""

    @property
    def ruled(self) -> bool:
        """Whether rules between pods bind: chains do not know them, the model does."""
        rules = any(s.affinity or s.anti_affinity or s.spreads or s.device for s in self.cluster.shapes)
        return rules or bool(self.cluster.gangs or self.cluster.budgets)

    @property
    def tiers(self) -> tuple[int, ...]:
        """Priorities, highest first."""
        return self.cluster.tiers


@dataclass(slots=True)
class Counts:
    """A placement in counts: pods that stay and pods that arrive, per cell; zero cells are absent."""

    stays: dict[Cell, int]
    arrives: dict[Cell, int]

    def copy(self) -> Counts:
        """Return an independent copy."""
        return Counts(dict(self.stays), dict(self.arrives))


def build(cluster: Cluster, order: Order) -> Problem:
    """Group the pods and compute where each group may arrive."""
    shape_loads = loads(cluster)
    resources = tuple(sorted({name for load in shape_loads for name, amount in load.items() if amount}))
    free = [[room(cluster, node, name) for name in resources] for node in range(len(cluster.nodes))]
    members: dict[tuple[int, str, int], list[int]] = defaultdict(list)
    pinned: Counter[int] = Counter()
    demands = [tuple(load.get(name, 0) for name in resources) for load in shape_loads]
    for index, pod in enumerate(cluster.pods):
        if pod.pinned and pod.node != PENDING:
            pinned[cluster.priority(index)] += 1
            for position, amount in enumerate(demands[pod.shape]):
                free[pod.node][position] -= amount
        else:
            members[pod.shape, pod.gang, pod.restart_cost].append(index)
    groups = tuple(
        Group(shape, gang, cost, cluster.shapes[shape].priority, demands[shape], tuple(pods), _running(cluster, pods))
        for (shape, gang, cost), pods in members.items()
    )
    capacity = tuple(tuple(row) for row in free)
    return Problem(cluster, order, resources, capacity, groups, Fit(cluster, groups, capacity), dict(pinned))


def current(problem: Problem) -> Counts:
    """Return the placement as it is now."""
    stays = {(g, n): count for g, group in enumerate(problem.groups) for n, count in group.running.items()}
    return Counts(stays, {})


def counts_of(problem: Problem, nodes: tuple[int, ...]) -> Counts:
    """Return a placement of single pods in counts."""
    stays: Counter[Cell] = Counter()
    arrives: Counter[Cell] = Counter()
    for g, group in enumerate(problem.groups):
        for pod in group.members:
            if nodes[pod] != PENDING:
                (stays if nodes[pod] == problem.cluster.pods[pod].node else arrives)[g, nodes[pod]] += 1
    return Counts(dict(stays), dict(arrives))


def assign(problem: Problem, counts: Counts) -> tuple[int, ...]:
    """Return the node of every pod for a placement in counts.

    Pods that run keep their node as far as the counts allow; of the rest, running pods go before waiting ones in the
    order `place-first` (a replica is then moved, not lost), after them in `disruption-first` (as that order counts).
    """
    nodes = [pod.node if pod.pinned else PENDING for pod in problem.cluster.pods]
    wanted_of: list[Counter[int]] = [Counter() for _ in problem.groups]
    for cells in (counts.stays, counts.arrives):
        for (g, n), count in cells.items():
            wanted_of[g][n] += count
    for g, group in enumerate(problem.groups):
        wanted = {n: count for n, count in wanted_of[g].items() if count}
        running = [pod for pod in group.members if problem.cluster.pods[pod].node != PENDING]
        waiting = [pod for pod in group.members if problem.cluster.pods[pod].node == PENDING]
        movers: list[int] = []
        for pod in running:
            node = problem.cluster.pods[pod].node
            if wanted.get(node, 0):
                nodes[pod] = node
                wanted[node] -= 1
            else:
                movers.append(pod)
        queue = movers + waiting if problem.order is Order.PLACE_FIRST else waiting + movers
        targets = [node for node in sorted(wanted) for _ in range(wanted[node])]
        for pod, node in zip(queue, targets, strict=False):
            nodes[pod] = node
    return tuple(nodes)


def _running(cluster: Cluster, pods: list[int]) -> dict[int, int]:
    found = Counter(cluster.pods[pod].node for pod in pods)
    del found[PENDING]
    return dict(sorted(found.items()))
