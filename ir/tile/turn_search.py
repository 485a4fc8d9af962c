"""The search over turns: it branches on them, keeps longest paths closed, and learns which decisions are to blame."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from treadle.ir.tile.turn_basis import DEEPEST
from treadle.ir.tile.turn_paths import Matrix, Paths
from treadle.ir.tile.turn_room import Room
from treadle.ir.tile.turn_terms import Terms

MOST_NODES = 30_000
"""Nodes of all searches of one claim: ten seconds."""
MOST_LEVELS = 400
"""Decisions one after the other that a search may take."""


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


class Search:
    """A search over one assignment to groups."""

    def __init__(
        self, terms: Terms, effort: Effort, weights: dict[tuple[int, int, int, int], float], like: Sequence[int] = ()
    ) -> None:
        """Start a search; `like` are starts of an assignment much like this one, whose turns are tried first."""
        self.terms, self.effort = terms, effort
        self.like = np.array(like, dtype=np.int64)
        self.liked: Matrix | None = None
        self.weight = np.array([weights.get(key, 1.0) for key in self.terms.keys])

    def weights(self) -> dict[tuple[int, int, int, int], float]:
        """Return how often turns failed, those of other searches with them."""
        return dict(zip(self.terms.keys, self.weight.tolist(), strict=True))

    def run(self) -> tuple[int, ...] | int:
        """Return starts, or the classes (bits) whose groups alone leave none."""
        if self.terms.room < 0:
            return self.terms.room_rests_on
        paths = self.terms.distances()
        if isinstance(paths, int):
            return paths
        self.effort.spend()
        if self.like.size:
            apart = self.like[None, :] - self.like[:, None]
            self.liked, highest = self._ends(apart, {})
            if self._holds(paths, apart, self.liked, highest):
                return tuple(self.like.tolist())
        return self._below(paths, 0)

    def _holds(self, paths: Paths, apart: Matrix, lowest: Matrix, highest: Matrix) -> bool:
        """Whether given differences of starts keep to longest paths, turns, rings, registers and handoffs."""
        if (apart < paths.least).any() or (lowest > highest).any():
            return False
        if (self._mattering(lowest, highest) & ~self.terms.apart).any():
            return False
        return self.terms.demand.low < self.terms.demand.high or self._announced_late(tuple(self.like.tolist())) is None

    def _below(self, paths: Paths, level: int) -> tuple[int, ...] | int:
        """Return starts, or the decisions (bits, by level) that together leave none.

        Where what refutes a child does not involve the decision taken here, it refutes all children.
        """
        self.effort.spend()
        if level > MOST_LEVELS:
            raise SearchTooLong
        closed = self._closed(paths)
        if isinstance(closed, int):
            return closed
        paths, lowest, highest = closed
        branch = self._branch(lowest, highest)
        liked = None if branch is None or self.liked is None else int(self.liked[branch])
        own = 1 << min(level, DEEPEST)
        if branch is None:
            starts = self._starts(paths.least)
            late = self._announced_late(starts) if self.terms.demand.low == self.terms.demand.high else None
            if late is None:
                return starts
            whose, ways = late
            conflict, children = whose, [paths.raised(*arc, own) for arc in ways]
        else:
            conflict = Room(self.terms, paths, lowest, highest).why(branch)
            turns = sorted(range(int(lowest[branch]), int(highest[branch]) + 1), key=lambda turn: turn != liked)
            children = [self._with(paths, branch, turn, own) for turn in turns]
        for child in children:
            found = child if isinstance(child, int) else self._below(child, level + 1)
            if isinstance(found, tuple) or not found & own:
                return found
            conflict |= found
        return conflict if level > DEEPEST else conflict & ~own

    def _announced_late(self, starts: tuple[int, ...]) -> tuple[int, list[tuple[int, int, int]]] | None:
        """Return, where a handoff is announced only after what its group issues then, the ways out of it.

        With them come the classes whose groups make it so. Each is a difference of starts: the result is there before
        that issue, or after it, or the target waits.
        """
        ii, issues = self.terms.demand.low, self.terms.warps.issues
        for crossing in self.terms.warps.crossings:
            ends = self.terms.warps.loop.dependences[crossing.dependence]
            home, other = self.terms.groups[ends.source], self.terms.groups[ends.target]
            if not crossing.announced or home == other or home < 0 or other < 0:
                continue
            source, target = self.terms.index[ends.source], self.terms.index[ends.target]
            done = starts[source] + ends.delay_cycles
            for issue in issues:
                at, cycles = self.terms.index[issue.operation], issue.issue_cycles
                behind = (done - starts[at]) % ii
                if self.terms.groups[issue.operation] != home or not 0 < behind < cycles:
                    continue
                begun = done - behind - starts[at]
                handed = begun + cycles + crossing.delay_cycles - ii * ends.distance
                if starts[target] < starts[at] + handed:
                    own = [self.terms.home[name] for name in (ends.source, ends.target, issue.operation)]
                    return self.terms.of_classes(*own), [
                        (source, at, ends.delay_cycles - begun),
                        (at, source, begun + cycles - ends.delay_cycles),
                        (at, target, handed),
                    ]
        return None

    def _starts(self, least: Matrix) -> tuple[int, ...]:
        """Return the starts that are the earliest after some operation, of the shortest iteration."""
        latency = np.array([operation.latency_cycles for operation in self.terms.warps.loop.operations], dtype=np.int64)
        starts = least - least.min(axis=1, keepdims=True)
        shortest = int(np.argmin((starts + latency).max(axis=1)))
        return tuple(int(start) for start in starts[shortest])

    def _with(self, paths: Paths, turn: int, value: int, why: int) -> Paths | int:
        low, high = self.terms.demand.low, self.terms.demand.high
        one, other = self.terms.ends[turn]
        first = value * (low if value >= 0 else high) + int(self.terms.after[turn])
        last = (value + 1) * (high if value >= -1 else low) - int(self.terms.before[turn])
        found = paths.raised(one, other, first, why)
        if not isinstance(found, int):
            found = found.raised(other, one, -last, why)
        if isinstance(found, int):
            self.weight[turn] += 1
            return found
        return found if self.terms.demand.low == self.terms.demand.high else found.decided(turn, value, why)

    def _ends(self, least: Matrix, given: dict[int, tuple[int, int]]) -> tuple[Matrix, Matrix]:
        """Return the first and last turn that each may have by longest paths."""
        terms, low, high = self.terms, self.terms.demand.low, self.terms.demand.high
        lift = least[terms.first, terms.second] + terms.before
        drop = -least[terms.second, terms.first] - terms.after
        lowest = -(-lift // (low if low == high else np.where(lift >= 0, high, low))) - 1
        highest = drop // (low if low == high else np.where(drop >= 0, low, high))
        for turn, (value, _) in given.items():
            lowest[turn], highest[turn] = max(lowest[turn], value), min(highest[turn], value)
        return lowest, highest

    def _closed(self, paths: Paths) -> tuple[Paths, Matrix, Matrix] | int:
        """Return longest paths that agree with all turns, and the first and last turn that each may have.

        Where there are none, the decisions that leave none.
        """
        while True:
            lowest, highest = self._ends(paths.least, paths.given)
            room = Room(self.terms, paths, lowest, highest)
            wrong = np.flatnonzero(lowest > highest)
            if wrong.size:
                self.weight[wrong] += 1
                return min((room.why(turn) for turn in wrong.tolist()), key=int.bit_count)
            closer = self._tightened(room)
            if closer is paths:
                full = room.overfull(self.weight)
                closer = room.narrowed(self.weight) if full is None else full
            if isinstance(closer, int):
                return closer
            if closer is paths:
                return paths, lowest, highest
            paths = closer

    def _tightened(self, room: Room) -> Paths | int:
        """Return paths that agree with the first and last value of every turn; the decisions that leave none."""
        terms, paths, low, high = self.terms, room.paths, self.terms.demand.low, self.terms.demand.high
        from_, to = paths.least[terms.first, terms.second], -paths.least[terms.second, terms.first]
        ends = room.highest + 1
        first = room.lowest * (low if low == high else np.where(room.lowest >= 0, low, high)) + terms.after
        last = ends * (low if low == high else np.where(ends >= 0, high, low)) - terms.before
        for turn in np.flatnonzero((first > from_) | (last < to)).tolist():
            one, other = terms.ends[turn]
            whose = terms.whose[turn]
            closer = paths.raised(one, other, int(first[turn]), room.why_low(turn) | whose)
            if not isinstance(closer, int):
                closer = closer.raised(other, one, -int(last[turn]), room.why_high(turn) | whose)
            if isinstance(closer, int):
                self.weight[turn] += 1
                return closer
            paths = closer
        return paths

    def _branch(self, lowest: Matrix, highest: Matrix) -> int | None:
        """Return the turn to decide next; None where whatever is open no longer matters."""
        width = highest - lowest
        open_ = self._mattering(lowest, highest) & (width > 0)
        if not open_.any():
            return None
        score = np.where(open_, self.weight / (width + 1.0), -1.0)
        return int(np.argmax(score))

    def _mattering(self, lowest: Matrix, highest: Matrix) -> Matrix:
        """Return the turns that matter: of operations that keep apart, and of what may not fit rings or registers."""
        matters = self.terms.apart.copy()
        there = self.terms.stays.there(highest, lowest)
        crowded = self.terms.warps.limits.reallocation and self.terms.stays.together(there) > self.terms.file
        full = (there > self.terms.stays.rooms) | crowded
        if full.any():
            terms = full[self.terms.stays.moments]
            matters[self.terms.stays.begins[terms]] = True
            matters[self.terms.stays.ends[terms].ravel()] = True
        used: dict[str, int] = defaultdict(int, self.terms.handed)
        for memory, size, readers in self.terms.rings:
            used[memory] += size * max(1, *(int(highest[turn]) + more for turn, more in readers))
        for memory, _, readers in self.terms.rings:
            if used[memory] > self.terms.free[memory]:
                matters[[turn for turn, _ in readers]] = True
        return matters
