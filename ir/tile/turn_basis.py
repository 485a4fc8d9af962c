"""What a search over turns knows of a loop before any operation has a group: longest paths, what shares a unit.

Questions about one loop differ in the groups alone, so all else is put together once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from treadle.ir.tile.assignments import classes
from treadle.ir.tile.constraints import Arc, arcs, free_bytes
from treadle.ir.tile.orders import parts
from treadle.ir.tile.turn_paths import Matrix, Paths, raise_to
from treadle.ir.tile.warps import WarpLoop

NO_GROUP = -(10**6)
"""Stands for the group of moments that are about operations in flight."""
NO_PATH = -(10**9)
"""Stands for the longest path between operations that nothing ties to each other."""
DEEPEST = 42
"""Level of the search from which on decisions are no longer told apart: a bit of 64 for each."""
CLASS_BITS = 20
"""Bits above those of decisions, one for each class of operations that share a group; more classes share bits."""
EVERY_CLASS = ((1 << CLASS_BITS) - 1) << (DEEPEST + 1)
"""Stands for the groups of all classes."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a schedule is to keep within, at any interval of `low` to `high`."""

    low: int
    high: int
    most_registers: int
    most_cycles: int | None = None
    apart: tuple[tuple[int, int, int], ...] = ()
    """Operations by index, the second to start so many cycles after the first: for a search that need not refute."""
    slots: tuple[tuple[str, int], ...] = ()
    """Of operations that fill a unit, in one of their orders (`orders.Order`)."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two operations that share a unit, or may share a group that issues both, by index."""

    first: int
    second: int
    after: int
    before: int
    """The second starts at least `after` cycles behind the first, and `before` ahead of its next; 0 without a unit."""
    issued: tuple[int, int] | None
    """Issue cycles of both; None where one of them is not issued."""


@dataclass(frozen=True, slots=True)
class Basis:
    """A loop under one demand."""

    warps: WarpLoop
    demand: Demand
    index: dict[str, int]
    classes: tuple[tuple[str, ...], ...]
    """Operations that share a group, in every assignment."""
    home: dict[str, int]
    """Class of every issued operation."""
    roles: list[str]
    """Of the classes."""
    free: dict[str, int]
    """Bytes that rings and handoffs may use, by memory."""
    pairs: list[Pair]
    paths: Paths | int
    """Longest paths whatever the groups are; an empty set of decisions where they contradict each other."""
    crossings: list[tuple[int, int, int]]
    """Dependences that cost a delay where they cross: source, target and the least difference then."""

    @classmethod
    def of(cls, warps: WarpLoop, demand: Demand, *, movable: bool = False) -> Basis:
        """Return what is known; `movable` where parts may be moved by whole intervals against each other."""
        loop, every = warps.loop, classes(warps)
        role = {issue.operation: issue.role for issue in warps.issues}
        delays: dict[int, int] = {}
        for crossing in warps.crossings:
            delays[crossing.dependence] = max(delays.get(crossing.dependence, 0), crossing.delay_cycles)
        known = arcs(loop)
        weights = [arc.delay_cycles - _turned(arc, demand) for arc in known]
        return cls(
            warps,
            demand,
            loop.index,
            every,
            {name: number for number, names in enumerate(every) for name in names},
            [role[names[0]] for names in every],
            {capacity.memory: free_bytes(loop, capacity.memory) for capacity in loop.capacities},
            list(_pairs(warps, demand)),
            _closed(warps, demand, list(zip(known, weights, strict=True)), movable=movable),
            [
                (arc.source, arc.target, weight + delays[arc.reference["dependence"]])
                for arc, weight in zip(known, weights, strict=True)
                if delays.get(arc.reference.get("dependence", -1), 0)
            ],
        )

    def weight(self, arc: Arc) -> int:
        """Return the least difference that an arc asks for, at the end of the range that asks for less."""
        return arc.delay_cycles - _turned(arc, self.demand)


def _turned(arc: Arc, demand: Demand) -> int:
    return arc.distance * (demand.high if arc.distance >= 0 else demand.low)


def _pairs(warps: WarpLoop, demand: Demand) -> Iterator[Pair]:
    operations, single = warps.loop.operations, {unit.name for unit in warps.loop.units if unit.count == 1}
    slots, issue = dict(demand.slots), {one.operation: one.issue_cycles for one in warps.issues}
    for i, one in enumerate(operations):
        for j, other in enumerate(operations[:i]):
            after = before = 0
            if one.unit == other.unit and one.unit in single and one.occupancy_cycles and other.occupancy_cycles:
                after, before = other.occupancy_cycles, one.occupancy_cycles
            if one.name in slots and other.name in slots:
                after = (slots[one.name] - slots[other.name]) % demand.low
                before = demand.low - after
            cycles = issue.get(other.name, 0), issue.get(one.name, 0)
            if after or all(cycles):
                yield Pair(j, i, after, before, cycles if all(cycles) else None)


def _closed(warps: WarpLoop, demand: Demand, known: list[tuple[Arc, int]], *, movable: bool) -> Paths | int:
    """Return the longest paths of arcs with their weights, of stages, and of what else is demanded."""
    least = _spans(warps, demand, movable=movable)
    why = np.zeros_like(least)
    np.fill_diagonal(least, 0)
    for arc, weight in known:
        least[arc.source, arc.target] = max(least[arc.source, arc.target], weight)
    if demand.most_cycles is not None:
        latency = np.array([operation.latency_cycles for operation in warps.loop.operations], dtype=np.int64)
        raise_to(least, why, np.broadcast_to(latency[:, None] - demand.most_cycles, least.shape), 0)
    for first, second, cycles in demand.apart:
        least[first, second] = max(least[first, second], cycles)
        least[second, first] = max(least[second, first], -cycles)
    for middle in range(len(warps.loop.operations)):
        raise_to(least, why, least[:, middle, None] + least[None, middle, :], 0)
    return 0 if (np.diagonal(least) > 0).any() else Paths(least, why)


def _spans(warps: WarpLoop, demand: Demand, *, movable: bool) -> Matrix:
    """Return what stages say of starts; in a core, whose parts may be moved by whole intervals, only of each part.

    Parts are held so that an operation of each starts in the first interval, at its slot where it has one.
    """
    operations, high = warps.loop.operations, demand.high
    every = parts(warps.loop, arcs(warps.loop)) if movable else [list(range(len(operations)))]
    span = warps.limits.most_stages * high - 1
    least = np.full((len(operations), len(operations)), -span if len(every) == 1 else NO_PATH, dtype=np.int64)
    slots = dict(demand.slots)
    held = [min(part, key=lambda vertex: operations[vertex].name not in slots) for part in every]
    for part, one in zip(every, held, strict=True):
        least[np.ix_(part, part)] = -span
        if one != held[0]:
            ends = (operations[held[0]].name, operations[one].name)
            known = all(name in slots for name in ends)
            after = slots[ends[1]] - slots[ends[0]] if known else 0
            least[held[0], one] = after
            least[one, held[0]] = -after if known else 1 - high
    return least
