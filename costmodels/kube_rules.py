"""Rules between pods as the default kube-scheduler filters by them: inter-pod affinity, hard spread, host ports.

Follows pkg/scheduler/framework/plugins/{interpodaffinity,podtopologyspread,nodeports}. Pods are counted per shape and
node, and rules are looked at for all nodes at once.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from treadle.ir.cluster.cluster import Cluster, PodTerm, Spread
from treadle.ir.cluster.labels import selects
from treadle.ir.cluster.placement import counts_in_spread, domain_of, ports_conflict, term_selects

Flags = NDArray[np.bool_]
Domains = tuple[NDArray[np.int64], int]
"""The number of every node's domain (-1: none), and how many domains there are."""


class Rules:
    """Where the pods of a shape may go beside those that are counted."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.on: list[Counter[int]] = [Counter() for _ in cluster.shapes]
        """Pods of every shape by node."""
        self.avoiders = [(index, term) for index, shape in enumerate(cluster.shapes) for term in shape.anti_affinity]
        self.claimers = [index for index, shape in enumerate(cluster.shapes) if shape.ports]
        self._domains: dict[str, Domains] = {}
        self._selected: dict[tuple[str, int, int], list[int]] = {}
        self._taking_part: dict[tuple[int, int], Flags] = {}

    def count(self, shape: int, node: int, change: int) -> None:
        """Count pods of a shape that come to a node, or leave it."""
        self.on[shape][node] += change

    def admit(self, shape: int) -> Flags:
        """Return for every node whether the rules let a pod of the shape in."""
        described = self.cluster.shapes[shape]
        admitted = np.ones(len(self.cluster.nodes), dtype=bool)
        for number, term in enumerate(described.affinity):
            admitted &= self._near(shape, number, term)
        for number, term in enumerate(described.anti_affinity):
            admitted &= ~self._beside(self._matched("avoid", shape, number, term), term.topology_key)
        for avoider, term in self.avoiders:
            if self.on[avoider] and term_selects(term, described):
                admitted &= ~self._beside([avoider], term.topology_key)
        for number, spread in enumerate(described.spreads):
            admitted &= self._even(shape, number, spread)
        for other in self.claimers if described.ports else ():
            if ports_conflict(described, self.cluster.shapes[other]):
                admitted[[node for node, count in self.on[other].items() if count]] = False
        return admitted

    def _near(self, shape: int, number: int, term: PodTerm) -> Flags:
        """Domains that hold a matching pod; where none is anywhere, a pod that matches itself may be the first."""
        matched = self._matched("near", shape, number, term)
        if any(count for other in matched for count in self.on[other].values()):
            return self._beside(matched, term.topology_key)
        domains, _ = self._of(term.topology_key)
        alone: Flags = (domains >= 0) & term_selects(term, self.cluster.shapes[shape])
        return alone

    def _beside(self, shapes: list[int], key: str) -> Flags:
        """Return the nodes of domains that hold pods of the shapes."""
        domains, _ = self._of(key)
        held: Flags = (domains >= 0) & (self._totals(shapes, key)[domains] > 0)
        return held

    def _even(self, shape: int, number: int, spread: Spread) -> Flags:
        described = self.cluster.shapes[shape]
        domains, _ = self._of(spread.topology_key)
        part = self._part(shape, number, spread)
        known = np.unique(domains[part])
        counted = [
            index
            for index, other in enumerate(self.cluster.shapes)
            if self.on[index] and other.namespace == described.namespace and selects(spread.selector, other.labels)
        ]
        totals = self._totals(counted, spread.topology_key, part)
        least = int(totals[known].min()) if len(known) >= max(1, spread.min_domains) else 0
        itself = int(selects(spread.selector, described.labels))
        even: Flags = part & (totals[domains] + itself - least <= spread.max_skew)
        return even

    def _part(self, shape: int, number: int, spread: Spread) -> Flags:
        """Return the nodes that take part in a spread constraint."""
        if (shape, number) not in self._taking_part:
            described = self.cluster.shapes[shape]
            flags = [counts_in_spread(spread, described, node) for node in self.cluster.nodes]
            self._taking_part[shape, number] = np.array(flags, dtype=bool)
        return self._taking_part[shape, number]

    def _totals(self, shapes: list[int], key: str, part: Flags | None = None) -> NDArray[np.int64]:
        """Return pods of the shapes per domain; the last entry is for nodes without one."""
        domains, number = self._of(key)
        totals = np.zeros(number + 1, dtype=np.int64)
        for shape in shapes:
            for node, count in self.on[shape].items():
                if part is None or part[node]:
                    totals[domains[node]] += count
        return totals

    def _matched(self, use: str, shape: int, number: int, term: PodTerm) -> list[int]:
        if (use, shape, number) not in self._selected:
            found = [index for index, other in enumerate(self.cluster.shapes) if term_selects(term, other)]
            self._selected[use, shape, number] = found
        return self._selected[use, shape, number]

    def _of(self, key: str) -> Domains:
        if key not in self._domains:
            self._domains[key] = numbered([domain_of(node, key) for node in self.cluster.nodes])
        return self._domains[key]


def numbered(domains: list[str | None]) -> Domains:
    """Return the number of every node's domain (-1: none), and how many domains there are."""
    numbers: dict[str, int] = {}
    found = [-1 if domain is None else numbers.setdefault(domain, len(numbers)) for domain in domains]
    return np.array(found, dtype=np.int64), len(numbers)
