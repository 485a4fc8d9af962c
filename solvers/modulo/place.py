"""Iterative modulo scheduling (Rau 1994): one operation at a time by height, ejecting what stands in the way."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

from treadle.solvers.modulo.network import Network, tails


@dataclass(slots=True)
class Reservation:
    """Use of one unit over the cycles modulo `ii`, as arcs on a circle."""

    ii: int
    count: int
    short: bool
    """Every operation takes one cycle, so that looking up a slot is enough."""
    slots: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    placed: dict[int, tuple[int, int]] = field(default_factory=dict[int, tuple[int, int]])

    def blockers(self, start: int, length: int) -> list[int] | None:
        """Return who must leave so that an operation fits at `start`: nobody (None), or those in the fullest cycle."""
        slot = start % self.ii
        if self.short:
            there = self.slots.get(slot, [])
            return there if len(there) >= self.count else None
        points = [slot] + [
            begin for begin, _ in self.placed.values() if (begin - slot) % self.ii < min(length, self.ii)
        ]
        for point in points:
            there = [v for v, (begin, size) in self.placed.items() for _ in range(self._layers(begin, size, point))]
            if len(there) + self._layers(slot, length, point) > self.count:
                return there
        return None

    def _layers(self, begin: int, size: int, point: int) -> int:
        whole, rest = divmod(size, self.ii)
        return whole + ((point - begin) % self.ii < rest)

    def add(self, vertex: int, start: int, length: int) -> None:
        """Book an operation."""
        slot = start % self.ii
        self.placed[vertex] = (slot, length)
        if self.short:
            self.slots.setdefault(slot, []).append(vertex)

    def remove(self, vertex: int) -> None:
        """Release an operation."""
        slot, _ = self.placed.pop(vertex)
        if self.short:
            self.slots[slot].remove(vertex)

    def first_fit(self, earliest: int, latest: int, length: int) -> int | None:
        """Return the first start in [earliest, latest] where the operation fits."""
        if self.short:
            return next((t for t in range(earliest, latest + 1) if self.blockers(t, length) is None), None)
        ends = {earliest, *(earliest + (begin + size - earliest) % self.ii for begin, size in self.placed.values())}
        return next((t for t in sorted(ends) if t <= latest and self.blockers(t, length) is None), None)


def reservations(network: Network, ii: int) -> list[Reservation]:
    """Return an empty reservation per limited unit."""
    return [
        Reservation(ii, count, all(network.occupancy[vertex] == 1 for vertex in users))
        for count, users in zip(network.counts, network.users, strict=True)
    ]


def place(network: Network, ii: int, seed: int = 0, effort: int = 6) -> list[int] | None:
    """Return start cycles of a schedule at `ii` that satisfies arcs and units (not memory), or None.

    Args:
        network: the loop.
        ii: initiation interval; must satisfy every recurrence.
        seed: 0 takes operations strictly by height; others blur the heights, for restarts.
        effort: placements allowed per operation before giving up.
    """
    search = _Search(network, ii, seed)
    for _ in range(effort * network.size + 10):
        if not search.waiting:
            return normalized(search.starts)
        search.step()
    return normalized(search.starts) if not search.waiting else None


def normalized(starts: list[int]) -> list[int]:
    """Shift starts so that the earliest is 0."""
    first = min(starts)
    return [start - first for start in starts]


_NONE = -(10**15)


class _Search:
    def __init__(self, network: Network, ii: int, seed: int) -> None:
        self.network = network
        self.ii = ii
        chance = random.Random(seed)
        self.rank = [-height * (1 + (0.3 * (chance.random() - 0.5) if seed else 0)) for height in tails(network, ii)]
        self.starts = [_NONE] * network.size
        self.last = [_NONE] * network.size
        self.units = reservations(network, ii)
        self.waiting = [(rank, vertex) for vertex, rank in enumerate(self.rank)]
        heapq.heapify(self.waiting)

    def step(self) -> None:
        _, vertex = heapq.heappop(self.waiting)
        start = self._choose(vertex)
        self._eject(vertex, start)
        self.starts[vertex] = self.last[vertex] = start
        unit = self.network.unit_of[vertex]
        if unit is not None:
            self.units[unit].add(vertex, start, self.network.occupancy[vertex])

    def _choose(self, vertex: int) -> int:
        earliest = 0
        for position in self.network.incoming[vertex]:
            arc = self.network.arcs[position]
            if arc.source != vertex and self.starts[arc.source] != _NONE:
                earliest = max(earliest, self.starts[arc.source] + arc.delay_cycles - self.ii * arc.distance)
        unit = self.network.unit_of[vertex]
        if unit is None:
            return earliest
        found = self.units[unit].first_fit(earliest, earliest + self.ii - 1, self.network.occupancy[vertex])
        return found if found is not None else max(earliest, self.last[vertex] + 1)

    def _eject(self, vertex: int, start: int) -> None:
        unit = self.network.unit_of[vertex]
        if unit is not None:
            while blockers := self.units[unit].blockers(start, self.network.occupancy[vertex]):
                self._free(max(blockers, key=lambda blocker: self.rank[blocker]))
        for position in self.network.outgoing[vertex]:
            arc = self.network.arcs[position]
            there = self.starts[arc.target]
            if arc.target != vertex and there != _NONE and there < start + arc.delay_cycles - self.ii * arc.distance:
                self._free(arc.target)

    def _free(self, vertex: int) -> None:
        unit = self.network.unit_of[vertex]
        if unit is not None:
            self.units[unit].remove(vertex)
        self.starts[vertex] = _NONE
        heapq.heappush(self.waiting, (self.rank[vertex], vertex))
