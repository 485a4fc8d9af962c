"""Iterative modulo scheduling over the groups of one assignment: for loops too large to ask the solver about times.

As `solvers.modulo.place` (Rau 1994), with issue of a group as one more unit of its own, part by part (a sub-tile has
its operations near each other), and then everything moved as late as its readers allow, so that values stay in
registers for less (Huff 1993). Nothing here proves anything, and registers are looked at afterwards.
"""

from __future__ import annotations

import heapq
from bisect import bisect, insort
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import islice

from treadle.ir.tile.assignments import WalkTooLong, assigned_arcs, assignments
from treadle.ir.tile.constraints import Arc
from treadle.ir.tile.cycles import longest_paths
from treadle.ir.tile.orders import parts
from treadle.ir.tile.warps import check_warps
from treadle.solvers.modulo.place import normalized
from treadle.solvers.pipeline.points import Point, value_at, warp_schedule
from treadle.solvers.pipeline.search import Search

MOST_ASSIGNMENTS = 2
"""Assignments that are tried."""
EFFORT = 6
"""Placements per operation before giving up."""
ROUNDS = 3
"""Times that everything is moved later."""
UNPLACED = -(10**15)


def placed_schedule(search: Search, most: dict[str, int]) -> Point | None:
    """Return a schedule of an assignment within levels: fewest registers, then the shortest; None if none is found."""
    decided = {name: value for name, value in most.items() if name not in ("registers", "length")}
    try:
        every = [needs.groups for needs in islice(assignments(search.warps, search.ii, decided), MOST_ASSIGNMENTS)]
    except WalkTooLong:
        return None
    found = [point for groups in every for point in _points(search, groups)]
    ranked = sorted(found, key=lambda point: [value_at(search.warps, search.network, search.ii, name, point)
                                              for name in ("registers", "length")])  # fmt: skip
    return ranked[0] if ranked else None


def _points(search: Search, groups: dict[str, int]) -> list[Point]:
    """Return the legal schedules of an assignment that placing it once, and moving everything later, give."""
    placement = _Placement.of(search, groups)
    if not placement.run():
        return []
    found = [Point(placement.turned(), groups)]
    for _ in range(ROUNDS):
        placement.move_later()
        found.append(Point(placement.turned(), groups))
    warps, network, ii = search.warps, search.network, search.ii
    return [point for point in found if not check_warps(warps, warp_schedule(warps, network, ii, point))]


@dataclass(slots=True)
class _Table:
    """What holds one unit, or the issue of one group, over the cycles modulo the interval; nothing wraps twice."""

    ii: int
    held: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])
    """(begin, end, operation) in order, cut at the end of the interval."""

    def add(self, vertex: int, start: int, length: int) -> None:
        """Book an operation."""
        for begin, end in self._pieces(start, length):
            insort(self.held, (begin, end, vertex))

    def remove(self, vertex: int) -> None:
        """Release an operation."""
        self.held = [piece for piece in self.held if piece[2] != vertex]

    def blockers(self, start: int, length: int) -> list[int]:
        """Return the operations that are in the way of one at `start`."""
        found: list[int] = []
        for begin, end in self._pieces(start, length):
            at = bisect(self.held, (begin, UNPLACED, UNPLACED))
            before = self.held[at - 1 : at] if at else []
            found += [piece[2] for piece in before if piece[1] > begin]
            while at < len(self.held) and self.held[at][0] < end:
                found.append(self.held[at][2])
                at += 1
        return found

    def clear_of(self, start: int, length: int, *, later: bool) -> int:
        """Return the nearest start, later or earlier, at which what is in the way now no longer is."""
        moves = [start]
        for piece in self.held:
            if later:
                moves.append(start + (piece[1] - start % self.ii) % self.ii)
            else:
                moves.append(start - (start % self.ii - (piece[0] - length)) % self.ii)
        moves.sort(reverse=not later)
        return next((move for move in moves if not self.blockers(move, length)), moves[-1])

    def _pieces(self, start: int, length: int) -> list[tuple[int, int]]:
        slot = start % self.ii
        if slot + length <= self.ii:
            return [(slot, slot + length)]
        return [(slot, self.ii), (0, slot + length - self.ii)]


@dataclass(slots=True)
class _Placement:
    """Starts of an assignment while they are found."""

    ii: int
    latency: tuple[int, ...]
    rank: list[tuple[int, int, int]]
    parts: list[list[int]]
    tables: list[list[tuple[_Table, int]]]
    """Per operation: what it holds, and for how long."""
    incoming: list[list[Arc]]
    outgoing: list[list[Arc]]
    starts: list[int]
    last: list[int]
    waiting: list[tuple[tuple[int, int, int], int]]

    @classmethod
    def of(cls, search: Search, groups: dict[str, int]) -> _Placement:
        """Return the placement of nothing yet."""
        warps, network, ii = search.warps, search.network, search.ii
        every, size = tuple(assigned_arcs(warps, groups)), network.size
        incoming, outgoing = [[arc for arc in every if arc.target == v] for v in range(size)], [
            [arc for arc in every if arc.source == v] for v in range(size)
        ]  # fmt: skip
        heights = longest_paths(size, [(arc.target, arc.source, arc.delay_cycles - ii * arc.distance) for arc in every])
        found = parts(warps.loop, every)
        part_of = {vertex: position for position, part in enumerate(found) for vertex in part}
        tall = [0] * size if heights is None else heights[0]
        rank = [(part_of[vertex], -tall[vertex], vertex) for vertex in range(size)]
        waiting = [(rank[vertex], vertex) for vertex in range(size)]
        heapq.heapify(waiting)
        tables = _tables(search, groups)
        unplaced = [UNPLACED] * size
        return cls(ii, network.latency, rank, found, tables, incoming, outgoing, unplaced, unplaced[:], waiting)

    def run(self) -> bool:
        """Place every operation; False where that takes too long."""
        for _ in range(EFFORT * len(self.starts) + 10):
            if not self.waiting:
                return True
            self._step()
        return not self.waiting

    def _step(self) -> None:
        _, vertex = heapq.heappop(self.waiting)
        earliest = max([self.last[vertex] + 1 if self.last[vertex] != UNPLACED else 0, *self._after(vertex)])
        found = self._fit(vertex, max([0, *self._after(vertex)]), later=True)
        start = found if found is not None else earliest
        for table, length in self.tables[vertex]:
            while blockers := table.blockers(start, length):
                self._free(max(blockers, key=lambda blocker: self.rank[blocker]))
        self._put(vertex, start)
        for arc in self.outgoing[vertex]:
            there = self.starts[arc.target]
            if arc.target != vertex and there != UNPLACED and there < start + arc.delay_cycles - self.ii * arc.distance:
                self._free(arc.target)

    def _after(self, vertex: int) -> list[int]:
        return [
            self.starts[arc.source] + arc.delay_cycles - self.ii * arc.distance
            for arc in self.incoming[vertex]
            if arc.source != vertex and self.starts[arc.source] != UNPLACED
        ]

    def _fit(self, vertex: int, start: int, *, later: bool) -> int | None:
        """Return the nearest start at which all that an operation holds is free, within an interval."""
        at = start
        while abs(at - start) < self.ii:
            moves = [table.clear_of(at, length, later=later) for table, length in self.tables[vertex]]
            farthest = max([at, *moves]) if later else min([at, *moves])
            if farthest == at:
                clear = not any(table.blockers(at, length) for table, length in self.tables[vertex])
                return at if clear else None
            at = farthest
        return None

    def _put(self, vertex: int, start: int) -> None:
        self.starts[vertex] = self.last[vertex] = start
        for table, length in self.tables[vertex]:
            table.add(vertex, start, length)

    def _free(self, vertex: int) -> None:
        for table, _ in self.tables[vertex]:
            table.remove(vertex)
        self.starts[vertex] = UNPLACED
        heapq.heappush(self.waiting, (self.rank[vertex], vertex))

    def move_later(self) -> None:
        """Move operations, the last first, as late as what follows them allows; those that nothing follows stay."""
        for vertex in sorted(range(len(self.starts)), key=lambda vertex: -self.starts[vertex]):
            latest = [
                self.starts[arc.target] - arc.delay_cycles + self.ii * arc.distance
                for arc in self.outgoing[vertex]
                if arc.target != vertex
            ]
            if not latest or min(latest) <= self.starts[vertex]:
                continue
            for table, _ in self.tables[vertex]:
                table.remove(vertex)
            found = self._fit(vertex, min(latest), later=False)
            self._put(vertex, max(self.starts[vertex], self.starts[vertex] if found is None else found))

    def turned(self) -> tuple[int, ...]:
        """Return the starts with every part moved by whole intervals, for the shortest iteration there is so."""
        best: tuple[int, list[int]] | None = None
        for part in self.parts:
            zero = min(self.starts[vertex] for vertex in part)
            moved = list(self.starts)
            for other in self.parts:
                first = min(self.starts[vertex] for vertex in other)
                for vertex in other:
                    moved[vertex] = (first - zero) % self.ii + self.starts[vertex] - first
            length = max(start + latency for start, latency in zip(moved, self.latency, strict=True))
            if best is None or length < best[0]:
                best = length, moved
        return tuple(normalized(best[1] if best is not None else self.starts))


def _tables(search: Search, groups: dict[str, int]) -> list[list[tuple[_Table, int]]]:
    """Return what every operation holds: its unit (instances are handed out in turn), and the issue of its group."""
    warps, network, ii = search.warps, search.network, search.ii
    found: list[list[tuple[_Table, int]]] = [[] for _ in range(network.size)]
    for count, users in zip(network.counts, network.users, strict=True):
        instances = [_Table(ii) for _ in range(count)]
        for turn, vertex in enumerate(users):
            found[vertex].append((instances[turn % count], network.occupancy[vertex]))
    issued = defaultdict[int, _Table](lambda: _Table(ii))
    for issue in warps.issues:
        if issue.issue_cycles:
            found[warps.loop.index[issue.operation]].append((issued[groups[issue.operation]], issue.issue_cycles))
    return found
