"""How many pods must leave their nodes so that waiting ones can come in: a bound that needs no search.

Let T pods of a tier and above be placed, of which R run now. At least T - R waiting pods must be admitted. With k
departures a node admits at most f(k) of them: f is taken over all sets of k pods that may leave (exactly for k <= 2,
from the k largest per resource beyond), as if every node could choose among all waiting pods. The fewest departures D
with sum f_n(k_n) >= T - R, sum k_n = D, follow from a small dynamic program. Where departures go is ignored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels.eligibility import Eligibility
from treadle.costmodels.migration import loads, room
from treadle.ir.cluster.cluster import PENDING, Cluster

Vector = tuple[int, ...]
_EXACT_DEPARTURES = 2
_MOST_PAIRED = 16
_AT_ONCE = 256
"""Spaces looked at together."""


def disruption_points(
    cluster: Cluster, tier: int, frozen_tier: int | None, placed: int, departures: int | None = None
) -> int:
    """Return the least `disruption>=tier` (0 stays, 1 evicted, 2 moved) when `placed` pods of the tier and above stand.

    With D departures, T - R + D pods arrive, and those beyond the waiting ones are moves: the points are at least
    D + max(0, D - (pods of the tier and above that are left out)). A better `departures` may be given.
    """
    total = sum(cluster.priority(pod) >= tier for pod in range(len(cluster.pods)))
    if departures is None:
        departures = fewest_departures(cluster, tier, frozen_tier, placed)
    return departures + max(0, departures - (total - placed))


def restart_points(cluster: Cluster, placed: int, evicted: int, departures: int | None = None) -> int:
    """Return the least weighted moves when `placed` pods stand and `evicted` running ones are lost for good."""
    costs = sorted(pod.restart_cost for pod in cluster.pods if pod.node != PENDING and not pod.pinned)
    if departures is None:
        departures = fewest_departures(cluster, min(cluster.tiers), None, placed)
    return sum(costs[: max(0, departures - evicted)])


def fewest_departures(
    cluster: Cluster, tier: int, frozen_tier: int | None, placed: int, go_on: Callable[[], bool] | None = None
) -> int:
    """Return how many running pods of priority >= `tier` must leave their node for `placed` of them to stand.

    Pods of lower tiers are taken to be gone; pinned ones, and those of priority >= `frozen_tier`, cannot leave. When
    `go_on` says no, the answer is 0: true of every placement.
    """
    situation = Situation(cluster, tier, frozen_tier)
    need = placed - situation.running
    if need <= 0:
        return 0
    if not situation.waiting:
        return 0
    curves: list[list[int]] = []
    for node in range(len(cluster.nodes)):
        if go_on is not None and not go_on():
            return 0
        curves.append(situation.curve(node, need))
    return _fewest(curves, need)


def _fewest(curves: list[list[int]], need: int) -> int:
    """Return the least total of k_n with sum of curves[n][k_n] >= need."""
    most = sum(len(curve) - 1 for curve in curves)
    best = [0]
    for curve in curves:
        if len(curve) == 1 and curve[0] == 0:
            continue
        merged = [0] * min(most + 1, len(best) + len(curve) - 1)
        for left, admitted in enumerate(best):
            for k, more in enumerate(curve):
                if left + k < len(merged):
                    merged[left + k] = max(merged[left + k], min(need, admitted + more))
        best = merged[: _reach(merged, need)]
    return next((total for total, admitted in enumerate(best) if admitted >= need), 0)


def _reach(merged: list[int], need: int) -> int:
    """Return how much of the table matters: up to the first total that meets the need."""
    return next((total + 1 for total, admitted in enumerate(merged) if admitted >= need), len(merged))


class Situation:
    """Free room, pods that may leave, and waiting pods, in vectors over all resources."""

    def __init__(self, cluster: Cluster, tier: int, frozen_tier: int | None) -> None:
        shape_loads = loads(cluster)
        names = sorted({name for load in shape_loads for name in load})
        vectors = [tuple(load.get(name, 0) for name in names) for load in shape_loads]
        self.cluster = cluster
        self.width = len(names)
        self._known: dict[frozenset[int], NDArray[np.int64]] = {}
        self.free = [[room(cluster, node, name) for name in names] for node in range(len(cluster.nodes))]
        self.leaving: dict[int, list[Vector]] = defaultdict(list)
        self.waiting: list[tuple[int, Vector]] = []
        self.running = 0
        for index, pod in enumerate(cluster.pods):
            priority, vector = cluster.priority(index), vectors[pod.shape]
            if pod.node == PENDING:
                if priority >= tier:
                    self.waiting.append((pod.shape, vector))
                continue
            if priority < tier and not pod.pinned:
                continue
            self.free[pod.node] = [free - amount for free, amount in zip(self.free[pod.node], vector, strict=True)]
            self.running += priority >= tier
            if not pod.pinned and (frozen_tier is None or priority < frozen_tier):
                self.leaving[pod.node].append(vector)
        eligibility = Eligibility(cluster)
        self.admitted_by: list[set[int]] = [set() for _ in cluster.nodes]
        for shape in {shape for shape, _ in self.waiting}:
            for node in eligibility.open_to(shape).nonzero()[0].tolist():
                self.admitted_by[node].add(shape)

    def curve(self, node: int, need: int) -> list[int]:
        """Return f(0), f(1), ... of a node, up to the first k that meets the need or all that may leave."""
        pods = self._pods(frozenset(self.admitted_by[node]))
        curve: list[int] = []
        for k in range(len(self.leaving[node]) + 1):
            best = max(curve[-1] if curve else 0, _admits(np.array(self.spaces(node, k), dtype=np.int64), pods, need))
            curve.append(best)
            if best >= min(need, len(pods)):
                break
        return curve

    def _pods(self, admitted: frozenset[int]) -> NDArray[np.int64]:
        """Return (pods, resources) of the waiting pods of some shapes."""
        if admitted not in self._known:
            rows = [vector for shape, vector in self.waiting if shape in admitted]
            self._known[admitted] = np.array(rows, dtype=np.int64).reshape(len(rows), self.width)
        return self._known[admitted]

    def spaces(self, node: int, k: int) -> list[list[int]]:
        """Return the room of a node after k departures: for every set, or one optimistic room for many departures."""
        free, leaving = self.free[node], self.leaving[node]
        if k > _EXACT_DEPARTURES:
            largest = [sum(sorted((vector[r] for vector in leaving), reverse=True)[:k]) for r in range(len(free))]
            return [[f + more for f, more in zip(free, largest, strict=True)]]
        return [
            [f + sum(vector[r] for vector in chosen) for r, f in enumerate(free)] for chosen in combinations(leaving, k)
        ]


def _admits(spaces: NDArray[np.int64], pods: NDArray[np.int64], need: int) -> int:
    """Return a bound on how many of the pods fit together into one of the spaces; exact up to two."""
    best = 0
    for first in range(0, len(spaces), _AT_ONCE):
        some = spaces[first : first + _AT_ONCE]
        fitting = np.all(pods[None] <= some[:, None], axis=2)
        most = fitting.sum(axis=1)
        if need > 1:
            for r in range(pods.shape[1]):
                order = np.argsort(pods[:, r], kind="stable")
                inside = fitting[:, order]
                sums = np.cumsum(np.where(inside, pods[order, r], 0), axis=1)
                most = np.minimum(most, (inside & (sums <= some[:, r : r + 1])).sum(axis=1))
        for index in np.flatnonzero(most >= 2).tolist() if need > 1 else []:
            few = fitting[index].sum() <= _MOST_PAIRED
            if most[index] > best and few and not _pair_fits(pods[fitting[index]], some[index]):
                most[index] = 1
        best = max(best, min(1, int(most.max(initial=0))) if need <= 1 else int(most.max(initial=0)))
        if best >= need:
            break
    return best


def _pair_fits(pods: NDArray[np.int64], space: NDArray[np.int64]) -> bool:
    first, second = np.triu_indices(len(pods), 1)
    return bool((pods[first] + pods[second] <= space).all(axis=1).any())
