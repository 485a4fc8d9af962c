"""Least-cost flows through OR-tools' network simplex family, with the potentials that prove them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ortools.graph.python import min_cost_flow

from treadle.solvers.backend import ModelRejected

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Flow:
    """Flow on every arc, and a potential of every node.

    On arcs with room left, cost + potential[tail] - potential[head] >= 0; on arcs in use it is not positive.
    """

    flows: Integers
    potentials: Integers


def least_cost_flow(
    tails: Integers, heads: Integers, capacities: Integers, costs: Integers, supplies: Integers
) -> Flow:
    """Return a least-cost flow that uses up all supplies; raises ModelRejected when there is none."""
    solver: Any = min_cost_flow.SimpleMinCostFlow()
    arcs = solver.add_arcs_with_capacity_and_unit_cost(tails, heads, capacities, costs)
    solver.set_nodes_supplies(np.arange(len(supplies)), supplies)
    status = solver.solve()
    if status != solver.OPTIMAL:
        raise ModelRejected(solver="least-cost flow", reason=str(status))
    flows = np.asarray(solver.flows(arcs), dtype=np.int64)
    return Flow(flows, _potentials(tails, heads, capacities, costs, flows, len(supplies)))


def _potentials(
    tails: Integers, heads: Integers, capacities: Integers, costs: Integers, flows: Integers, nodes: int
) -> Integers:
    """Return shortest distances over arcs with room and used arcs backwards: Bellman-Ford, a whole pass at a time."""
    free, used = flows < capacities, flows > 0
    start = np.concatenate([tails[free], heads[used]])
    end = np.concatenate([heads[free], tails[used]])
    length = np.concatenate([costs[free], -costs[used]])
    distance = np.zeros(nodes, dtype=np.int64)
    for _ in range(nodes):
        reached = distance[start] + length
        shorter = distance.copy()
        np.minimum.at(shorter, end, reached)
        if np.array_equal(shorter, distance):
            return distance
        distance = shorter
    raise ModelRejected(solver="least-cost flow", reason="the flow has a cycle of negative cost")
