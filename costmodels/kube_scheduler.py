"""A simulator of the default kube-scheduler: one pod at a time, filters, scores, preemption on one node.

Follows kubernetes/kubernetes pkg/scheduler (default profile of v1.3x): NodeResourcesFit (LeastAllocated),
NodeResourcesBalancedAllocation, PodTopologySpread (hard constraints; scores of the system default ones),
InterPodAffinity and NodePorts (`kube_rules.py`), PrioritySort, preemption. Pods behind scheduling gates wait. Ties are
broken by a seeded generator, as the scheduler breaks them at random. Preferred affinity and image locality are not in a
`Cluster`: they score alike on every node.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels.eligibility import Eligibility
from treadle.costmodels.kube_rules import Rules, numbered
from treadle.ir.cluster.cluster import PENDING, Cluster, Shape
from treadle.ir.cluster.placement import domain_of

_SCORED = {"cpu": 100, "memory": 200 * 1000 * 1000}
"""Resources that are scored, with what a pod without a request counts for (pkg/scheduler/util/pod_resources.go)."""
_SYSTEM_SPREAD = (("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5))
"""Topology key and maxSkew of the system default constraints (podtopologyspread/plugin.go)."""
_SPREAD_WEIGHT = 2
_MAX_PREEMPTIONS_PER_POD = 8


@dataclass(frozen=True, slots=True)
class Simulation:
    """Where the simulated scheduler puts every pod, and how many running pods it removed on the way."""

    nodes: tuple[int, ...]
    preempted: int


def simulate(cluster: Cluster, arrival: tuple[int, ...] | None = None, *, seed: int = 0) -> Simulation:
    """Schedule the pending pods of a cluster as the default scheduler would.

    Args:
        cluster: pods that run stay unless they are preempted.
        arrival: pod indices in the order of creation; the order of the cluster by default.
        seed: breaks ties.
    """
    scheduler = _Scheduler(cluster, seed)
    queue = deque(arrival if arrival is not None else range(len(cluster.pods)))
    waiting = [pod for pod in queue if scheduler.nodes[pod] == PENDING and not cluster.pods[pod].gated]
    scheduler.run(waiting)
    return Simulation(tuple(scheduler.nodes), scheduler.preempted)


class _Scheduler:
    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self.preempted = 0
        names = sorted({*cluster.resources, *_SCORED})
        self.demands = [np.array([shape.requests.get(name, 0) for name in names]) for shape in cluster.shapes]
        self.capacity = np.array([[node.capacity.get(name, 0) for name in names] for node in cluster.nodes])
        self.used = np.zeros_like(self.capacity)
        self.scored = [names.index(name) for name in _SCORED]
        self.nonzero = np.zeros((len(cluster.nodes), len(_SCORED)), dtype=np.int64)
        self.nonzero_demands = [_nonzero(shape) for shape in cluster.shapes]
        self.pods_on: list[list[int]] = [[] for _ in cluster.nodes]
        self.nodes = [PENDING] * len(cluster.pods)
        self.eligible: dict[int, NDArray[np.bool_]] = {}
        self.eligibility = Eligibility(cluster)
        self.rules = Rules(cluster)
        self.domains = {key: numbered([domain_of(node, key) for node in cluster.nodes]) for key, _ in _SYSTEM_SPREAD}
        self.owned: dict[str, Counter[int]] = {}
        self.lowest = min(cluster.tiers, default=0)
        self.device_free = [[node.devices.slots] * node.devices.count if node.devices else [] for node in cluster.nodes]
        self.device_of: dict[int, tuple[int, ...]] = {}
        for index, pod in enumerate(cluster.pods):
            if pod.node != PENDING:
                self._bind(index, pod.node)

    def run(self, waiting: list[int]) -> None:
        """Schedule pods as they arrive; a preempted pod comes back at the end of the line."""
        line = deque(waiting)
        attempts: dict[int, int] = {}
        while line:
            pod = line.popleft()
            node = self._select(pod)
            if node == PENDING:
                attempts[pod] = attempts.get(pod, 0) + 1
                victims, node = self._preempt(pod) if attempts[pod] <= _MAX_PREEMPTIONS_PER_POD else ((), PENDING)
                for victim in victims:
                    self._unbind(victim)
                    line.append(victim)
                self.preempted += len(victims)
            if node != PENDING:
                self._bind(pod, node)

    def _select(self, pod: int) -> int:
        feasible = self._filter(pod)
        if not feasible.any():
            return PENDING
        scores = self._score(pod, feasible)
        best = np.flatnonzero(feasible & (scores == scores[feasible].max()))
        return int(best[self.random.randrange(len(best))])

    def _filter(self, pod: int) -> NDArray[np.bool_]:
        shape = self.cluster.pods[pod].shape
        if shape not in self.eligible:
            self.eligible[shape] = self.eligibility.open_to(shape)
        room = (self.used + self.demands[shape] <= self.capacity) | (self.demands[shape] == 0)
        feasible: NDArray[np.bool_] = self.eligible[shape] & room.all(axis=1)
        if not feasible.any():
            return feasible
        feasible &= self.rules.admit(shape)
        asked = self.cluster.shapes[shape]
        if asked.device:
            for node in np.flatnonzero(feasible):
                feasible[node] = len(self._device_choice(asked, int(node))) >= asked.device.count
        return feasible

    def _score(self, pod: int, feasible: NDArray[np.bool_]) -> NDArray[np.int64]:
        shape_index = self.cluster.pods[pod].shape
        capacity = np.maximum(self.capacity[:, self.scored], 1)
        asked = self.nonzero + self.nonzero_demands[shape_index]
        least = ((np.maximum(capacity - asked, 0) * 100) // capacity).sum(axis=1) // len(_SCORED)
        exact = self.used[:, self.scored] + self.demands[shape_index][self.scored]
        fraction = np.minimum(exact / capacity, 1.0)
        balanced = ((1 - np.abs(fraction[:, 0] - fraction[:, 1]) / 2) * 100).astype(np.int64)
        scores: NDArray[np.int64] = least + balanced + _SPREAD_WEIGHT * self._spread(shape_index, feasible)
        return scores

    def _spread(self, shape_index: int, feasible: NDArray[np.bool_]) -> NDArray[np.int64]:
        workload = self.cluster.shapes[shape_index].workload
        zero = np.zeros(len(self.cluster.nodes), dtype=np.int64)
        if not workload:
            return zero
        raw = zero.astype(float)
        counts = self.owned.get(workload, Counter[int]())
        for key, max_skew in _SYSTEM_SPREAD:
            domains, number = self.domains[key]
            known = len(np.unique(domains[feasible & (domains >= 0)])) if key != "kubernetes.io/hostname" else 0
            weight = math.log((int(feasible.sum()) if key == "kubernetes.io/hostname" else known) + 2)
            totals = np.zeros(number + 1)
            for node, count in counts.items():
                totals[domains[node]] += count
            raw += np.where(domains >= 0, totals[domains] * weight + (max_skew - 1), 0.0)
        score = np.round(raw).astype(np.int64)
        high, low = int(score[feasible].max()), int(score[feasible].min())
        if high == 0:
            return zero + 100
        normal: NDArray[np.int64] = 100 * (high + low - score) // high
        return normal

    def _preempt(self, pod: int) -> tuple[tuple[int, ...], int]:
        """Return (victims, node) of the best single node, or none (default_preemption.go: pickOneNodeForPreemption)."""
        shape_index, priority = self.cluster.pods[pod].shape, self.cluster.priority(pod)
        shape = self.cluster.shapes[shape_index]
        if shape_index not in self.eligible or priority <= self.lowest or not shape.preempts:
            return (), PENDING
        best: tuple[tuple[int, ...], tuple[int, ...], int] | None = None
        for node in np.flatnonzero(self.eligible[shape_index] & self.rules.admit(shape_index)):
            victims = self._victims(shape_index, priority, int(node))
            if not victims:
                continue
            priorities = [self.cluster.priority(victim) for victim in victims]
            rank = (max(priorities), sum(priority + 2**31 for priority in priorities), len(victims))
            if best is None or rank < best[0]:
                best = (rank, victims, int(node))
        return (best[1], best[2]) if best else ((), PENDING)

    def _victims(self, shape: int, priority: int, node: int) -> tuple[int, ...]:
        lower = [
            pod
            for pod in self.pods_on[node]
            if self.cluster.priority(pod) < priority and not self.cluster.pods[pod].pinned
        ]
        if not lower or self.cluster.shapes[shape].device:
            return ()
        room = self.capacity[node] - self.used[node] - self.demands[shape]
        room = room + sum(self.demands[self.cluster.pods[pod].shape] for pod in lower)
        if (room < 0).any():
            return ()
        victims: list[int] = []
        for pod in sorted(lower, key=lambda pod: -self.cluster.priority(pod)):
            demand = self.demands[self.cluster.pods[pod].shape]
            if (room >= demand).all():
                room = room - demand
            else:
                victims.append(pod)
        return tuple(victims)

    def _bind(self, pod: int, node: int) -> None:
        shape_index = self.cluster.pods[pod].shape
        shape = self.cluster.shapes[shape_index]
        self.nodes[pod] = node
        self.pods_on[node].append(pod)
        self.rules.count(shape_index, node, 1)
        self.used[node] += self.demands[shape_index]
        self.nonzero[node] += self.nonzero_demands[shape_index]
        if shape.workload:
            self.owned.setdefault(shape.workload, Counter())[node] += 1
        if shape.device:
            chosen = self._device_choice(shape, node)[: shape.device.count]
            self.device_of[pod] = chosen
            for device in chosen:
                self.device_free[node][device] -= shape.device.slots

    def _unbind(self, pod: int) -> None:
        node, shape_index = self.nodes[pod], self.cluster.pods[pod].shape
        shape = self.cluster.shapes[shape_index]
        self.nodes[pod] = PENDING
        self.pods_on[node].remove(pod)
        self.rules.count(shape_index, node, -1)
        self.used[node] -= self.demands[shape_index]
        self.nonzero[node] -= self.nonzero_demands[shape_index]
        if shape.workload:
            self.owned[shape.workload][node] -= 1
        for device in self.device_of.pop(pod, ()):
            self.device_free[node][device] += shape.device.slots if shape.device else 0

    def _device_choice(self, shape: Shape, node: int) -> tuple[int, ...]:
        """Return devices with room, the fullest first (what device plugins that share GPUs do by default)."""
        slots = shape.device.slots if shape.device else 0
        free = self.device_free[node]
        return tuple(sorted((d for d in range(len(free)) if free[d] >= slots), key=lambda d: (free[d], d)))


def _nonzero(shape: Shape) -> NDArray[np.int64]:
    return np.array([shape.requests.get(name, 0) or default for name, default in _SCORED.items()])
