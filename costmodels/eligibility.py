"""Which nodes admit which shapes, for all nodes at once: `may_arrive` asked once per kind of rules and kind of node.

Nodes that agree in taints, devices and the labels that some rule mentions are one kind; shapes that agree in selector,
affinity, tolerations and device request are one kind. Sizes are compared in arrays.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from treadle.ir.cluster.cluster import Cluster, Node, Shape, may_arrive

Flags = NDArray[np.bool_]


class Eligibility:
    """Rows of `may_arrive` over the nodes of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.resources = cluster.resources
        self.capacity = np.array(
            [[node.capacity.get(name, 0) for name in self.resources] for node in cluster.nodes], dtype=np.int64
        ).reshape(len(cluster.nodes), len(self.resources))
        keys, by_name = _mentioned(cluster.shapes)
        self.kind_of_node = np.zeros(len(cluster.nodes), dtype=np.int64)
        self.examples: list[Node] = []
        kinds: dict[Hashable, int] = {}
        for index, node in enumerate(cluster.nodes):
            kind = kinds.setdefault(_node_kind(node, keys, by_name), len(kinds))
            self.kind_of_node[index] = kind
            if kind == len(self.examples):
                self.examples.append(node)
        self.rows: list[Flags] = []
        self._rule_numbers: dict[Hashable, int] = {}
        self._shape_rules: dict[int, int] = {}

    def rule(self, shape: int) -> int:
        """Return the number of the shape's kind of rules; `rows` has the nodes it admits, size aside."""
        if shape not in self._shape_rules:
            described = self.cluster.shapes[shape]
            key = (described.selector, described.any_of, described.tolerations, described.device)
            if key not in self._rule_numbers:
                self._rule_numbers[key] = len(self.rows)
                self.rows.append(self._row(described))
            self._shape_rules[shape] = self._rule_numbers[key]
        return self._shape_rules[shape]

    def open_to(self, shape: int) -> Flags:
        """Return for every node whether pods of the shape may arrive, as `may_arrive` says."""
        requests = self.cluster.shapes[shape].requests
        demand = np.array([requests.get(name, 0) for name in self.resources], dtype=np.int64)
        flags: Flags = self.rows[self.rule(shape)] & (self.capacity >= demand).all(axis=1)
        return flags

    def _row(self, shape: Shape) -> Flags:
        bare = Shape(
            shape.name, {}, selector=shape.selector, any_of=shape.any_of, tolerations=shape.tolerations,
            device=shape.device,
        )  # fmt: skip
        admitted = np.array([not may_arrive(bare, node) for node in self.examples], dtype=bool)
        row: Flags = admitted[self.kind_of_node] if len(admitted) else np.zeros(0, dtype=bool)
        return row


def _mentioned(shapes: tuple[Shape, ...]) -> tuple[frozenset[str], bool]:
    """Return the label keys that rules of some shape mention, and whether one asks for nodes by name."""
    keys: set[str] = set()
    by_name = False
    for shape in shapes:
        keys.update(requirement.key for requirement in shape.selector)
        for term in shape.any_of:
            keys.update(requirement.key for requirement in term.labels)
            by_name |= bool(term.fields)
    return frozenset(keys), by_name


def _node_kind(node: Node, keys: frozenset[str], by_name: bool) -> Hashable:
    labels = tuple(sorted((key, value) for key, value in node.labels.items() if key in keys))
    devices = node.devices and (node.devices.count, node.devices.slots, tuple(sorted(node.devices.starts)))
    return labels, node.taints, node.unschedulable, devices, node.name if by_name else ""
