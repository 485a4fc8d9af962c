"""What a search over turns is about: pairs of operations with their turns, stays in registers, rings, longest paths.

Whatever holds only because of the groups that operations are in says so: by bits, one for each class of operations that
share a group. A refutation that does not rest on the group of some class holds for every group of it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from treadle.ir.tile.constraints import arcs
from treadle.ir.tile.turn_basis import CLASS_BITS, DEEPEST, EVERY_CLASS, NO_GROUP, Basis
from treadle.ir.tile.turn_paths import Matrix, Paths
from treadle.ir.tile.warps import FETCH_CYCLES, handed_over, handoff_bytes


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
    whose: list[list[int]] = field(default_factory=list[list[int]])
    """Of the ends: classes (bits) whose groups make the stay end so, and be there at all."""


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


@dataclass(frozen=True, slots=True)
class _Stay:
    """A stay in registers, from `lead_cycles` before an operation starts until the ends (operation, cycles, later)."""

    begin: int
    lead_cycles: int
    ends: tuple[tuple[int, int, int], ...]
    registers: int
    home: int
    """Class whose group it is in; -1 where that does not matter."""
    whose: tuple[int, ...]
    """Of the ends, classes whose groups make it end so."""


@dataclass(frozen=True, slots=True)
class Packed:
    """As `_Stays`, in arrays; ends are filled up with the last one."""

    groups: Matrix
    rooms: Matrix
    moments: Matrix
    registers: Matrix
    begins: Matrix
    ends: Matrix
    later: Matrix
    whose: list[list[int]]

    @classmethod
    def of(cls, stays: _Stays) -> Packed:
        """Return the arrays."""
        width = max(map(len, stays.ends), default=1)
        filled = [[*ends, *[ends[-1]] * (width - len(ends))] for ends in stays.ends]
        pairs = np.array(filled, dtype=np.int64).reshape(len(filled), width, 2)
        lists = (stays.groups, stays.rooms, stays.moments, stays.registers, stays.begins)
        groups, rooms, moments, registers, begins = (np.array(values, dtype=np.int64) for values in lists)
        whose = [[*ends, *[ends[-1]] * (width - len(ends))] for ends in stays.whose]
        return cls(groups, rooms, moments, registers, begins, pairs[:, :, 0], pairs[:, :, 1], whose)

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


class Terms:
    """All that an assignment of operations to groups states; those that share a negative number share some group."""

    def __init__(self, basis: Basis, groups: dict[str, int]) -> None:
        self.basis, self.warps, self.groups, self.demand = basis, basis.warps, groups, basis.demand
        self.index, self.home, self.roles, self.free = basis.index, basis.home, basis.roles, basis.free
        self.names = list(self.index)
        warps = basis.warps
        self._count_rooms()
        self.handed, self.handed_rests_on = dict.fromkeys(handoff_bytes(warps, groups), 0), 0
        for handoff in handed_over(warps, groups):
            placed = [self.home[name] for name in handoff.targets if groups.get(name, -1) >= 0]
            self.handed_rests_on |= self.of_classes(self.home[handoff.source], *placed)
        turns = _Turns()
        apart = dict(self._keep_apart(turns))
        self.rings = self._rings(turns)
        self.stays = Packed.of(self._moments(turns))
        self.keys = tuple(turns.known)
        self.ends = list(zip(turns.first, turns.second, strict=True))
        self.first, self.second = np.array(turns.first, dtype=np.int64), np.array(turns.second, dtype=np.int64)
        self.after, self.before = np.array(turns.after, dtype=np.int64), np.array(turns.before, dtype=np.int64)
        self.apart = np.zeros(len(turns.first), dtype=bool)
        self.apart[list(apart)] = True
        self.whose = [apart.get(turn, 0) for turn in range(len(turns.first))]

    def _count_rooms(self) -> None:
        """Registers for values in a group and in all of them; without reallocation all groups have equally many."""
        limits = self.warps.limits
        placed = {group for group in self.groups.values() if group >= 0}
        roles = {self.groups[issue.operation] for issue in self.warps.issues if issue.role}
        per_group = min(limits.registers_per_group, self.demand.most_registers)
        shared = limits.registers_of_file // max(1, len(placed))
        self.room_rests_on = 0
        if not limits.reallocation and shared < per_group:
            per_group, self.room_rests_on = shared, EVERY_CLASS
        self.room = per_group - limits.fixed_registers
        free = len(placed - roles)
        self.file = (
            limits.registers_of_file - len(self.warps.roles) * limits.role_registers - free * limits.fixed_registers
        )

    def of_classes(self, *numbers: int) -> int:
        """Return the bits of classes, none where they are one class, or of different roles: that holds always."""
        roles = {self.roles[number] for number in numbers}
        if len(set(numbers)) == 1 or min(numbers) < 0 or (len(roles) > 1 and len(numbers) == 2):
            return 0
        found = 0
        for number in numbers:
            found |= 1 << (DEEPEST + 1 + number % CLASS_BITS)
        return found

    def _keep_apart(self, turns: _Turns) -> list[tuple[int, int]]:
        """Add a turn for every two operations that share a unit of one instance, or the issue of one group.

        Return the turns, and the classes whose groups make them necessary.
        """
        found: list[tuple[int, int]] = []
        for pair in self.basis.pairs:
            after, before, whose = pair.after, pair.before, 0
            if pair.issued and self.groups[self.names[pair.first]] == self.groups[self.names[pair.second]]:
                if pair.issued[0] > after or pair.issued[1] > before:
                    whose = self.of_classes(self.home[self.names[pair.first]], self.home[self.names[pair.second]])
                after, before = max(after, pair.issued[0]), max(before, pair.issued[1])
            if after:
                found.append((turns.add(pair.first, pair.second, after, before), whose))
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
        return found + self._handoffs(turns)

    def _handoffs(self, turns: _Turns) -> list[tuple[str, int, list[tuple[int, int]]]]:
        """Return what is handed over as rings; slots that it has in any case are among those of `handed`."""
        memory = self.warps.limits.handoff_memory
        found: list[tuple[str, int, list[tuple[int, int]]]] = []
        for handoff in handed_over(self.warps, self.groups):
            home, source = self.groups[handoff.source], self.index[handoff.source]
            held = self.warps.limits.release_cycles - handoff.ready_cycles
            away = [name for name in dict.fromkeys(handoff.targets) if 0 <= self.groups.get(name, -1) != home]
            more = handoff.behind + 2 - handoff.least_slots
            readers = [(turns.add(source, self.index[name], 1 - held, held), more) for name in away]
            self.handed[memory] += handoff.bytes - handoff.slot_bytes
            found.append((memory, handoff.slot_bytes, readers))
        return found

    def _moments(self, turns: _Turns) -> _Stays:
        """Return, for each begin of a stay in the registers of a group, what says which stays are there."""
        roles = {self.groups[issue.operation] for issue in self.warps.issues if issue.role}
        stays: dict[int, list[_Stay]] = defaultdict(list)
        for value in self.warps.values:
            home, producer = self.groups[value.producer], self.index[value.producer]
            own = self.home[value.producer]
            ends = {(producer, 0, 0): 0}
            for reader in value.readers:
                group, at = self.groups[reader.operation], self.index[reader.operation]
                other = self.home[reader.operation]
                whose = self.of_classes(own, other)
                if group == home:
                    ends.setdefault((at, reader.hold_cycles, reader.distance), whose)
                elif group >= 0 and home >= 0:
                    ends.setdefault((producer, value.handoff_cycles, 0), whose)
                    fetched = ((at, reader.hold_cycles, 0),)
                    stays[group].append(_Stay(at, FETCH_CYCLES, fetched, value.registers, other, (whose,)))
            stays[home].append(_Stay(producer, 0, tuple(ends), value.registers, own, tuple(ends.values())))
        found = _Stays()
        for group, inside in sorted(stays.items()):
            if group not in roles:
                self._add_moments(turns, found, group, inside, self.room)
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
                    own = self.home[name] if limit.per_group else -1
                    flying[home].append(_Stay(at, 0, ((at, latency, 0),), share, own, (0,)))
            for inside in flying.values():
                self._add_moments(turns, found, NO_GROUP, inside, limit.most)

    def _add_moments(self, turns: _Turns, found: _Stays, group: int, inside: list[_Stay], room: int) -> None:
        """Add what is there whenever one of the stays begins."""
        moments = dict.fromkeys((stay.begin, stay.lead_cycles, stay.home) for stay in inside)
        for at, lead, home in moments:
            for stay in inside:
                ahead = lead - stay.lead_cycles
                found.moments.append(len(found.groups))
                found.registers.append(stay.registers)
                found.begins.append(turns.add(stay.begin, at, ahead, 1 - ahead))
                ends = [(turns.add(end, at, lead + held, 1 - lead - held), later) for end, held, later in stay.ends]
                found.ends.append(ends)
                found.whose.append([whose | self.of_classes(stay.home, home) for whose in stay.whose])
            found.groups.append(group)
            found.rooms.append(room)

    def distances(self) -> Paths | int:
        """Return the least of s_j - s_i for all pairs; what it rests on where paths alone contradict each other."""
        paths, handed = self.basis.paths, handoff_bytes(self.warps, self.groups)
        raised = [*self._crossed(), *self._handed(handed)] if any(handed.values()) else self._crossed()
        for source, target, weight, rests_on in raised:
            if isinstance(paths, int):
                break
            paths = paths.raised(source, target, weight, rests_on)
        return paths

    def _crossed(self) -> list[tuple[int, int, int, int]]:
        """Return the differences that crossings between groups ask for, with the classes that make them cross."""
        found: list[tuple[int, int, int, int]] = []
        for source, target, weight in self.basis.crossings:
            ends = self.names[source], self.names[target]
            homes = self.groups[ends[0]], self.groups[ends[1]]
            if homes[0] != homes[1] and min(homes) >= 0:
                found.append((source, target, weight, self.of_classes(*(self.home[name] for name in ends))))
        return found

    def _handed(self, handed: dict[str, int]) -> list[tuple[int, int, int, int]]:
        """Return those of rings beside what is handed over."""
        return [
            (arc.source, arc.target, self.basis.weight(arc), self.handed_rests_on)
            for arc in arcs(self.warps.loop, handed)
            if "ring" in arc.reference
        ]
