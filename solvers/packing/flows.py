"""Clusters whose pods all ask for the same: every level at once by one least-cost flow, which is exact.

A node then is a number of equal slots. Running pods of a group stay, move or leave, waiting ones arrive or wait on; the
levels of the objective add up over pods, so they are prices in one number, the more important the larger by far.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
from ortools.graph.python import min_cost_flow

from treadle.ir.cluster.objective import Order, Tail
from treadle.solvers.backend import ModelRejected
from treadle.solvers.packing.problem import Cell, Counts, Group, Problem

_LARGEST = 2**52
"""Prices times vertices stay below what the flow solver's scaled whole numbers hold (2^63)."""

_ARCS = 2_000_000


def applies(problem: Problem, tail: Tail) -> bool:
    """Whether one flow is exact: one demand, no rules between pods, levels that add up over pods."""
    demands = {group.demand for group in problem.groups}
    if problem.ruled or tail is not Tail.NOTHING or len(demands) != 1 or not any(next(iter(demands))):
        return False
    vertices = 2 * len(problem.groups) + len(problem.capacity) + 1
    arcs = 2 * len(problem.groups) * len(problem.capacity)
    return arcs <= _ARCS and prod(_ranges(problem)) * vertices < _LARGEST


def least_cost(problem: Problem) -> Counts:
    """Return a placement that is best at every level of the objective.

    Raises:
        ModelRejected: the flow solver fails.
    """
    slots = _slots(problem)
    first_node, sink = 2 * len(problem.groups), 2 * len(problem.groups) + len(slots)
    arcs: list[tuple[int, int, int, int]] = [(first_node + n, sink, count, 0) for n, count in enumerate(slots)]
    cells: list[tuple[Cell, bool] | None] = [None] * len(arcs)
    supplies: dict[int, int] = {}
    for g, group in enumerate(problem.groups):
        supplies |= {2 * g: group.run_count, 2 * g + 1: group.count - group.run_count}
        for tail, node, most, price, stay in _ways(problem, g, group):
            arcs.append((2 * g + tail, sink if node is None else first_node + node, most, price))
            cells.append(None if node is None else ((g, node), stay))
    staying: Counter[Cell] = Counter()
    arriving: Counter[Cell] = Counter()
    for cell, amount in zip(cells, _solved(arcs, supplies, sink), strict=True):
        if cell is not None and amount:
            (staying if cell[1] else arriving)[cell[0]] += amount
    return Counts(dict(staying), dict(arriving))


def _slots(problem: Problem) -> list[int]:
    """How many pods a node holds."""
    demand = problem.groups[0].demand
    return [
        max(0, min(free // asked for free, asked in zip(row, demand, strict=True) if asked)) for row in problem.capacity
    ]


def _ranges(problem: Problem) -> list[int]:
    """One more than the most that each level can come to, most important first."""
    pods = sum(group.count for group in problem.groups) + 1
    restarts = sum(group.restart_cost * group.run_count for group in problem.groups) + 1
    if problem.order is Order.PLACE_FIRST:
        return [*([pods] * len(problem.tiers)), pods, restarts]
    return [pods, 2 * pods] * len(problem.tiers)


def _ways(problem: Problem, g: int, group: Group) -> Iterator[tuple[int, int | None, int, int, bool]]:
    """Yield where running (0) and waiting (1) pods go: node (None: nowhere), how many, price, whether they stay."""
    nowhere = _price(problem, group, placed=False, left=0, moved=0)
    yield 0, None, group.run_count, _price(problem, group, placed=False, left=1, moved=0), False
    yield 1, None, group.count - group.run_count, nowhere, False
    moving = _price(problem, group, placed=True, left=0, moved=1)
    for node, count in group.running.items():
        yield 0, node, count, 0, True
    for node in problem.fit[g]:
        if group.run_count:
            yield 0, node, group.run_count, moving, False
        if group.count > group.run_count:
            yield 1, node, group.count - group.run_count, 0, False


def _price(problem: Problem, group: Group, *, placed: bool, left: int, moved: int) -> int:
    """Return one pod's part of all levels as one number."""
    missing = [0 if placed or group.priority < tier else 1 for tier in problem.tiers]
    if problem.order is Order.PLACE_FIRST:
        values = [*missing, left, moved * group.restart_cost]
    else:
        points = [left + 2 * moved if group.priority >= tier else 0 for tier in problem.tiers]
        values = [value for pair in zip(missing, points, strict=True) for value in pair]
    price = 0
    for value, size in zip(values, _ranges(problem), strict=True):
        price = price * size + value
    return price


def _solved(arcs: list[tuple[int, int, int, int]], supplies: dict[int, int], sink: int) -> list[int]:
    solver: Any = min_cost_flow.SimpleMinCostFlow()
    tails, heads, most, prices = (np.array(part, dtype=np.int64) for part in zip(*arcs, strict=True))
    added = solver.add_arcs_with_capacity_and_unit_cost(tails, heads, most, prices)
    for vertex, amount in supplies.items():
        solver.set_node_supply(vertex, amount)
    solver.set_node_supply(sink, -sum(supplies.values()))
    status = solver.solve()
    if status != solver.OPTIMAL:
        raise ModelRejected(solver="least-cost flow", reason=str(status))
    return [int(amount) for amount in solver.flows(added)]
