"""Whether a loop has any schedule over given groups: a search over turns, short enough for a checker to repeat.

Two operations of one unit (or issued by one group) keep apart modulo the interval: s_j - s_i lies in
[n * ii + d_i, (n + 1) * ii - d_j] for one integer `n`, the *turns* between them. How many iterations of a value are
there at some moment, and how many slots a ring needs, are such integers as well. With all of them given, what is left
are differences of starts, which longest paths decide. So turns are what is branched on, and between branches all
longest paths are kept closed: the size of the interval never counts.

A range of intervals is refuted at once where every difference is taken at the end of the range that asks for less.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.ir.tile.assignments import assignments, classes
from treadle.ir.tile.constraints import arcs, free_bytes
from treadle.ir.tile.warps import FETCH_CYCLES, WarpLoop, handoff_bytes

Matrix = NDArray[np.int64]

MOST_NODES = 20_000
"""Nodes of all searches of one claim: some seconds."""


NO_GROUP = -(10**6)
"""Stands for the group of moments that are about operations in flight."""
PARTIAL_NODES = 20
"""Nodes after which an assignment of some operations is left to those of more."""


class SearchTooLong(Exception):
    """More nodes than one is willing to visit."""


@dataclass(slots=True)
class Effort:
    """Nodes that may still be visited."""

    left: int = MOST_NODES

    def spend(self) -> None:
        """Count one node; raises SearchTooLong when none is left."""
        if self.left <= 0:
            raise SearchTooLong
        self.left -= 1


@dataclass(frozen=True, slots=True)
class Found:
    """An assignment to groups, and starts over it that nothing considered here forbids."""

    groups: dict[str, int]
    starts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Demand:
    """What a schedule is to keep within, at any interval of `low` to `high`."""

    low: int
    high: int
    most_registers: int
    most_cycles: int | None = None
    apart: tuple[tuple[int, int, int], ...] = ()
    """Operations by index, the second to start so many cycles after the first: for a search that need not refute."""


@dataclass(slots=True)
class _Stays:
    """Registers when a stay begins: for every moment and stay of its group, turns since it began and until it ends."""

    groups: list[int] = field(default_factory=list[int])
    """Of the moments; below any group's number where operations in flight are counted."""
    rooms: list[int] = field(default_factory=list[int])
    """Of the moments: what may be there at most."""
    moments: list[int] = field(default_factory=list[int])
    registers: list[int] = field(default_factory=list[int])
    begins: list[int] = field(default_factory=list[int])
    ends: list[list[tuple[int, int]]] = field(default_factory=list[list[tuple[int, int]]])
    """Turns with the iterations that the reader is behind."""


@dataclass(slots=True)
class _Turns:
    """All turns: operations, and the window [n * ii + after, (n + 1) * ii - before] of their starts' difference."""

    first: list[int] = field(default_factory=list[int])
    second: list[int] = field(default_factory=list[int])
    after: list[int] = field(default_factory=list[int])
    before: list[int] = field(default_factory=list[int])
    known: dict[tuple[int, int, int, int], int] = field(default_factory=dict[tuple[int, int, int, int], int])

    def add(self, first: int, second: int, after: int, before: int) -> int:
        """Return the position of a turn, which is added when it is new."""
        key = (first, second, after, before)
        if key not in self.known:
            self.known[key] = len(self.first)
            for values, value in zip((self.first, self.second, self.after, self.before), key, strict=True):
                values.append(value)
        return self.known[key]


def first_found(
    warps: WarpLoop,
    low: int,
    high: int,
    most: dict[str, int],
    effort: Effort,
    apart: tuple[tuple[int, int, int], ...] = (),
) -> Found | None:
    """Return the first assignment to groups with starts at an interval, None where there is none in a whole range.

    Args:
        warps: the loop.
        low: first interval of the range.
        high: last interval of the range.
        most: levels, as `assignments` has them, that are kept within.
        effort: nodes that may be visited.
        apart: as in `Demand`; None is then no refutation.

    Raises:
        WalkTooLong: there are too many assignments.
        SearchTooLong: the effort does not do.
    """
    demand = Demand(low, high, most.get("registers", warps.limits.registers_per_group), most.get("length"), apart)
    refutes = partial(_refuted_early, warps, demand, effort, classes(warps))
    for needs in assignments(warps, high, most, from_ii=low, refutes=refutes):
        starts = schedule_within(warps, needs.groups, demand, effort)
        if starts is not None:
            return Found(needs.groups, starts)
    return None


def _refuted_early(
    warps: WarpLoop, demand: Demand, effort: Effort, every: tuple[tuple[str, ...], ...], groups: dict[str, int]
) -> bool:
    """Whether few nodes refute the assignment of some operations, whatever the groups of all others are."""
    known = {name: groups.get(name, -number) for number, names in enumerate(every, start=1) for name in names}
    if min(known.values()) >= 0:
        return False
    own = Effort(min(PARTIAL_NODES, effort.left))
    given = own.left
    try:
        return schedule_within(warps, known, demand, own) is None
    except SearchTooLong:
        return False
    finally:
        effort.left -= given - own.left


def schedule_within(warps: WarpLoop, groups: dict[str, int], demand: Demand, effort: Effort) -> tuple[int, ...] | None:
    """Return starts that nothing considered here forbids; None where no schedule keeps within the demand.

    Units of several instances are left out, so starts need not be a schedule; that there are
    none says that there is no schedule.

    Args:
        warps: the loop; crossings between groups cost their delay.
        groups: of all issued operations; operations that share a negative number share some group, and nothing else is
            known of it.
        demand: interval (or a range, refuted at once), registers of any group, length of an iteration.
        effort: nodes that may be visited.

    Raises:
        SearchTooLong: the effort does not do.
    """
    return _Search(warps, groups, demand, effort).run()


@dataclass(frozen=True, slots=True)
class _Stay:
    """A stay in registers, from `lead_cycles` before an operation starts until the ends (operation, cycles, later)."""

    begin: int
    lead_cycles: int
    ends: tuple[tuple[int, int, int], ...]
    registers: int


@dataclass(frozen=True, slots=True)
class _Packed:
    """As `_Stays`, in arrays; ends are filled up with the last one."""

    groups: Matrix
    rooms: Matrix
    moments: Matrix
    registers: Matrix
    begins: Matrix
    ends: Matrix
    later: Matrix

    @classmethod
    def of(cls, stays: _Stays) -> _Packed:
        """Return the arrays."""
        width = max(map(len, stays.ends), default=1)
        filled = [[*ends, *[ends[-1]] * (width - len(ends))] for ends in stays.ends]
        pairs = np.array(filled, dtype=np.int64).reshape(len(filled), width, 2)
        lists = (stays.groups, stays.rooms, stays.moments, stays.registers, stays.begins)
        groups, rooms, moments, registers, begins = (np.array(values, dtype=np.int64) for values in lists)
        return cls(groups, rooms, moments, registers, begins, pairs[:, :, 0], pairs[:, :, 1])

    def there(self, begun: Matrix, over: Matrix) -> Matrix:
        """Return the registers at every moment, from turns since stays have begun and those until they are over."""
        if not self.groups.size:
            return self.groups
        counts = begun[self.begins] - (over[self.ends] - self.later).min(axis=1)
        taken = np.maximum(counts, 0) * self.registers
        return np.bincount(self.moments, weights=taken, minlength=self.groups.size).astype(np.int64)

    def together(self, there: Matrix) -> int:
        """Return the sum of the most registers of all groups."""
        return sum(int(there[self.groups == group].max()) for group in set(self.groups.tolist()) if group >= 0)


class _Search:
    def __init__(self, warps: WarpLoop, groups: dict[str, int], demand: Demand, effort: Effort) -> None:
        self.warps, self.groups, self.demand, self.effort = warps, groups, demand, effort
        self.index = warps.loop.index
        limits = warps.limits
        placed = {group for group in groups.values() if group >= 0}
        count = max(1, len(placed))
        roles = {groups[issue.operation] for issue in warps.issues if issue.role}
        per_group = min(limits.registers_per_group, demand.most_registers)
        if not limits.reallocation:
            per_group = min(per_group, limits.registers_of_file // count)
        self.room = per_group - limits.fixed_registers
        free = len(placed - roles)
        self.handed = handoff_bytes(warps, groups)
        self.file = limits.registers_of_file - len(roles) * limits.role_registers - free * limits.fixed_registers
        turns = _Turns()
        apart = self._keep_apart(turns)
        self.rings = self._rings(turns)
        self.stays = _Packed.of(self._moments(turns))
        self.first, self.second = np.array(turns.first, dtype=np.int64), np.array(turns.second, dtype=np.int64)
        self.after, self.before = np.array(turns.after, dtype=np.int64), np.array(turns.before, dtype=np.int64)
        self.apart = np.zeros(len(turns.first), dtype=bool)
        self.apart[apart] = True
        self.weight = np.ones(len(turns.first))

    # --- what is stated ---------------------------------------------------------------------------------------------

    def _keep_apart(self, turns: _Turns) -> list[int]:
        """Add a turn for every two operations that share a unit of one instance, or the issue of one group."""
        operations, single = self.warps.loop.operations, {u.name for u in self.warps.loop.units if u.count == 1}
        issue = {one.operation: one.issue_cycles for one in self.warps.issues}
        found: list[int] = []
        for i, one in enumerate(operations):
            for j, other in enumerate(operations[:i]):
                after = before = 0
                if one.unit == other.unit and one.unit in single and one.occupancy_cycles and other.occupancy_cycles:
                    after, before = other.occupancy_cycles, one.occupancy_cycles
                cycles = (issue.get(other.name, 0), issue.get(one.name, 0))
                if all(cycles) and self.groups[one.name] == self.groups[other.name]:
                    after, before = max(after, cycles[0]), max(before, cycles[1])
                if after:
                    found.append(turns.add(j, i, after, before))
        return found

    def _rings(self, turns: _Turns) -> list[tuple[str, int, list[tuple[int, int]]]]:
        """Return, per ring, its memory, bytes of a slot, and turns that say how many slots it needs."""
        found: list[tuple[str, int, list[tuple[int, int]]]] = []
        for ring in self.warps.loop.rings:
            producer = self.index[ring.producer]
            readers = [
                (turns.add(producer, self.index[r.operation], 1 - r.hold_cycles, r.hold_cycles), r.distance + 1)
                for r in ring.readers
            ]
            if readers and ring.slot_bytes:
                found.append((ring.memory, ring.slot_bytes, readers))
        return found

    def _moments(self, turns: _Turns) -> _Stays:
        """Return, for each begin of a stay in the registers of a group, what says which stays are there."""
        roles = {self.groups[issue.operation] for issue in self.warps.issues if issue.role}
        stays: dict[int, list[_Stay]] = defaultdict(list)
        for value in self.warps.values:
            home, producer = self.groups[value.producer], self.index[value.producer]
            ends = [(producer, 0, 0)]
            for reader in value.readers:
                group, at = self.groups[reader.operation], self.index[reader.operation]
                if group == home:
                    ends.append((at, reader.hold_cycles, reader.distance))
                elif group >= 0 and home >= 0:
                    ends.append((producer, value.handoff_cycles, 0))
                    stays[group].append(_Stay(at, FETCH_CYCLES, ((at, reader.hold_cycles, 0),), value.registers))
            stays[home].append(_Stay(producer, 0, tuple(dict.fromkeys(ends)), value.registers))
        found = _Stays()
        for group, inside in sorted(stays.items()):
            if group not in roles:
                _add_moments(turns, found, group, inside, self.room)
        self._add_flights(turns, found)
        return found

    def _add_flights(self, turns: _Turns, found: _Stays) -> None:
        """Count operations in flight as registers are counted: from their start until their result is there."""
        for limit in self.warps.limits.flights:
            flying: dict[int, list[_Stay]] = defaultdict(list)
            for name, share in limit.operations:
                if name in self.groups:
                    at, latency = self.index[name], self.warps.loop.operation(name).latency_cycles
                    home = self.groups[name] if limit.per_group else 0
                    flying[home].append(_Stay(at, 0, ((at, latency, 0),), share))
            for inside in flying.values():
                _add_moments(turns, found, NO_GROUP, inside, limit.most)

    def _distances(self) -> Matrix | None:
        """Return the least of s_j - s_i for all pairs; None where paths alone contradict each other."""
        low, high = self.demand.low, self.demand.high
        operations = self.warps.loop.operations
        span = self.warps.limits.most_stages * high - 1
        least = np.full((len(operations), len(operations)), -span, dtype=np.int64)
        np.fill_diagonal(least, 0)
        extra: dict[int, int] = {}
        for crossing in self.warps.crossings:
            ends = self.warps.loop.dependences[crossing.dependence]
            source, target = self.groups[ends.source], self.groups[ends.target]
            if source != target and source >= 0 and target >= 0:
                extra[crossing.dependence] = max(extra.get(crossing.dependence, 0), crossing.delay_cycles)
        for arc in arcs(self.warps.loop, self.handed):
            delay = arc.delay_cycles + extra.get(arc.reference.get("dependence", -1), 0)
            wait = arc.distance * (high if arc.distance >= 0 else low)
            least[arc.source, arc.target] = max(least[arc.source, arc.target], delay - wait)
        if self.demand.most_cycles is not None:
            latency = np.array([operation.latency_cycles for operation in operations], dtype=np.int64)
            np.maximum(least, latency[:, None] - self.demand.most_cycles, out=least)
        for first, second, cycles in self.demand.apart:
            least[first, second] = max(least[first, second], cycles)
            least[second, first] = max(least[second, first], -cycles)
        for middle in range(len(operations)):
            np.maximum(least, least[:, middle, None] + least[None, middle, :], out=least)
        return None if np.diagonal(least).any() else least

    # --- the search -------------------------------------------------------------------------------------------------

    def run(self) -> tuple[int, ...] | None:
        """Return starts, or None."""
        if self.room < 0:
            return None
        least = self._distances()
        left = [] if least is None else [least]
        while left:
            least = left.pop()
            self.effort.spend()
            found = self._closed(least)
            if found is None:
                continue
            least, lowest, highest = found
            branch = self._branch(lowest, highest)
            if branch is None:
                starts = self._starts(least)
                late = self._announced_late(starts) if self.demand.low == self.demand.high else None
                if late is None:
                    return starts
                left += [child for arc in late if (child := _raised(least, *arc)) is not None]
                continue
            for turn in range(int(highest[branch]), int(lowest[branch]) - 1, -1):
                child = self._with(least, branch, turn)
                if child is not None:
                    left.append(child)
        return None

    def _announced_late(self, starts: tuple[int, ...]) -> list[tuple[int, int, int]] | None:
        """Return, where a handoff is announced only after what its group issues then, the ways out of it.

        Each is a difference of starts: the result is there before that issue, or after it, or the target waits.
        """
        ii, issues = self.demand.low, self.warps.issues
        for crossing in self.warps.crossings:
            ends = self.warps.loop.dependences[crossing.dependence]
            home, other = self.groups[ends.source], self.groups[ends.target]
            if not crossing.announced or home == other or home < 0 or other < 0:
                continue
            source, target = self.index[ends.source], self.index[ends.target]
            done = starts[source] + ends.delay_cycles
            for issue in issues:
                at, cycles = self.index[issue.operation], issue.issue_cycles
                behind = (done - starts[at]) % ii
                if self.groups[issue.operation] != home or not 0 < behind < cycles:
                    continue
                begun = done - behind - starts[at]
                handed = begun + cycles + crossing.delay_cycles - ii * ends.distance
                if starts[target] < starts[at] + handed:
                    return [
                        (at, target, handed),
                        (at, source, begun + cycles - ends.delay_cycles),
                        (source, at, ends.delay_cycles - begun),
                    ]
        return None

    def _starts(self, least: Matrix) -> tuple[int, ...]:
        """Return the starts that are the earliest after some operation, of the shortest iteration."""
        latency = np.array([operation.latency_cycles for operation in self.warps.loop.operations], dtype=np.int64)
        starts = least - least.min(axis=1, keepdims=True)
        shortest = int(np.argmin((starts + latency).max(axis=1)))
        return tuple(int(start) for start in starts[shortest])

    def _with(self, least: Matrix, turn: int, value: int) -> Matrix | None:
        low, high = self._window(np.array([value]), np.array([turn]))
        first, second = int(self.first[turn]), int(self.second[turn])
        found = _raised(_raised(least, first, second, int(low[0])), second, first, -int(high[0]))
        if found is None:
            self.weight[turn] += 1
        return found

    def _window(self, values: Matrix, turns: Any) -> tuple[Matrix, Matrix]:
        """Return the least and the greatest difference that turns allow at some interval of the range."""
        low, high = self.demand.low, self.demand.high
        last = values + 1
        return (
            values * np.where(values >= 0, low, high) + self.after[turns],
            last * np.where(last >= 0, high, low) - self.before[turns],
        )

    def _closed(self, least: Matrix) -> tuple[Matrix, Matrix, Matrix] | None:
        """Return longest paths that agree with all turns, and the first and last turn that each may have."""
        low, high = self.demand.low, self.demand.high
        every = slice(None)
        while True:
            from_, to = least[self.first, self.second], -least[self.second, self.first]
            lift, drop = from_ + self.before, to - self.after
            lowest = -(-lift // np.where(lift >= 0, high, low)) - 1
            highest = drop // np.where(drop >= 0, low, high)
            wrong = np.flatnonzero(lowest > highest)
            if wrong.size:
                self.weight[wrong] += 1
                return None
            first, _ = self._window(lowest, every)
            _, last = self._window(highest, every)
            tighter = np.flatnonzero((first > from_) | (last < to))
            if not tighter.size:
                return (least, lowest, highest) if self._fits(lowest, highest) else None
            for turn in tighter.tolist():
                one, other = int(self.first[turn]), int(self.second[turn])
                closer = _raised(_raised(least, one, other, int(first[turn])), other, one, -int(last[turn]))
                if closer is None:
                    self.weight[turn] += 1
                    return None
                least = closer

    def _fits(self, lowest: Matrix, highest: Matrix) -> bool:
        """Whether rings fit their memories, and values the registers, with as few turns as there may be."""
        used: dict[str, int] = defaultdict(int, self.handed)
        for memory, size, readers in self.rings:
            used[memory] += size * max(1, *(int(lowest[turn]) + more for turn, more in readers))
        if any(size > free_bytes(self.warps.loop, memory) for memory, size in used.items()):
            return False
        there = self.stays.there(lowest, highest)
        full = there > self.stays.rooms
        if full.any():
            self.weight[self.stays.begins[full[self.stays.moments]]] += 1
            return False
        return not self.warps.limits.reallocation or self.stays.together(there) <= self.file

    def _branch(self, lowest: Matrix, highest: Matrix) -> int | None:
        """Return the turn to decide next; None where whatever is open no longer matters."""
        width = highest - lowest
        matters = self.apart.copy()
        there = self.stays.there(highest, lowest)
        crowded = self.warps.limits.reallocation and self.stays.together(there) > self.file
        full = (there > self.stays.rooms) | crowded
        if full.any():
            terms = full[self.stays.moments]
            matters[self.stays.begins[terms]] = True
            matters[self.stays.ends[terms].ravel()] = True
        used: dict[str, int] = defaultdict(int, self.handed)
        for memory, size, readers in self.rings:
            used[memory] += size * max(1, *(int(highest[turn]) + more for turn, more in readers))
        for memory, _, readers in self.rings:
            if used[memory] > free_bytes(self.warps.loop, memory):
                matters[[turn for turn, _ in readers]] = True
        open_ = matters & (width > 0)
        if not open_.any():
            return None
        score = np.where(open_, self.weight / (width + 1.0), -1.0)
        return int(np.argmax(score))


def _add_moments(turns: _Turns, found: _Stays, group: int, inside: list[_Stay], room: int) -> None:
    """Add what is there whenever one of the stays begins."""
    for at, lead in dict.fromkeys((stay.begin, stay.lead_cycles) for stay in inside):
        for stay in inside:
            ahead = lead - stay.lead_cycles
            found.moments.append(len(found.groups))
            found.registers.append(stay.registers)
            found.begins.append(turns.add(stay.begin, at, ahead, 1 - ahead))
            found.ends.append(
                [(turns.add(end, at, lead + held, 1 - lead - held), later) for end, held, later in stay.ends]
            )
        found.groups.append(group)
        found.rooms.append(room)


def _raised(least: Matrix | None, source: int, target: int, weight: int) -> Matrix | None:
    """Return longest paths with one more difference, closed again; None where it contradicts them."""
    if least is None or least[target, source] + weight > 0:
        return None
    if weight <= least[source, target]:
        return least
    found: Matrix = np.maximum(least, least[:, source, None] + weight + least[None, target, :])
    return found
