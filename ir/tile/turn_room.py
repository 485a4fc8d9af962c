"""Memory and registers in a search over turns: what is there at least, and which turns that leaves.

At every moment a stay has begun some turns ago and is over some turns ago; what lies between is there. From the first
and last value of all turns follow the registers there at least. Whatever they leave of a group's room limits how much
longer every stay may be: where one more iteration of it would not fit, its begin is not later and its ends are not
earlier than that allows.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from treadle.ir.tile.turn_basis import EVERY_CLASS, NO_GROUP
from treadle.ir.tile.turn_paths import Matrix, Paths
from treadle.ir.tile.turn_terms import Terms

NO_TERM = -1


@dataclass(frozen=True, slots=True)
class Room:
    """Longest paths, and the first and last value that they leave to every turn."""

    terms: Terms
    paths: Paths
    lowest: Matrix
    highest: Matrix

    def why_low(self, turn: int) -> int:
        """Return the decisions behind the first value that a turn may have."""
        return int(self.paths.why[self.terms.ends[turn]]) | self.paths.given.get(turn, (0, 0))[1]

    def why_high(self, turn: int) -> int:
        """Return the decisions behind the last value that it may have."""
        one, other = self.terms.ends[turn]
        return int(self.paths.why[other, one]) | self.paths.given.get(turn, (0, 0))[1]

    def why(self, turn: int) -> int:
        """Return the decisions behind both, and the classes behind the turn itself."""
        return self.why_low(turn) | self.why_high(turn) | self.terms.whose[turn]

    def overfull(self, weight: Matrix) -> int | None:
        """Return the decisions after which rings exceed a memory, or values the registers, with as few turns as there
        may be; None where all fit. What is too long adds to its weight.
        """
        used: dict[str, int] = defaultdict(int, self.terms.handed)
        why: dict[str, int] = defaultdict(int, dict.fromkeys(self.terms.handed, self.terms.handed_rests_on))
        for memory, size, readers in self.terms.rings:
            depth, turn = max((int(self.lowest[turn]) + more, turn) for turn, more in readers)
            used[memory] += size * max(1, depth)
            why[memory] |= self.why_low(turn) if depth > 1 else 0
        for memory, size in used.items():
            if size > self.terms.free[memory]:
                return why[memory]
        there = self.terms.stays.there(self.lowest, self.highest)
        full = there > self.terms.stays.rooms
        if full.any():
            weight[self.terms.stays.begins[full[self.terms.stays.moments]]] += 1
            return min((self._crowded(at) for at in np.flatnonzero(full).tolist()), key=int.bit_count)
        if self.terms.warps.limits.reallocation and self.terms.stays.together(there) > self.terms.file:
            return self._file_full(there)
        return None

    def narrowed(self, weight: Matrix) -> Paths | int:
        """Return the paths with all turns narrowed to what fits beside all that is there at least.

        The same paths where nothing is narrowed; the decisions that leave a turn no value where there is none.
        """
        stays, paths = self.terms.stays, self.paths
        if not stays.groups.size:
            return paths
        over = (self.highest[stays.ends] - stays.later).min(axis=1)
        count = np.maximum(self.lowest[stays.begins] - over, 0)
        taken = np.bincount(stays.moments, weights=count * stays.registers, minlength=stays.groups.size)
        slack = (stays.rooms - taken.astype(np.int64))[stays.moments]
        most = count + slack // np.maximum(stays.registers, 1)
        last, first = most + over, (self.lowest[stays.begins] - most)[:, None] + stays.later
        begins_late = self.highest[stays.begins] > last
        ends_early = self.lowest[stays.ends] < first
        for term in np.flatnonzero((begins_late | ends_early.any(axis=1)) & (stays.registers > 0)).tolist():
            late = int(last[term]) if begins_late[term] else None
            found = self._fitted(paths, term, int(most[term]), late, weight)
            if isinstance(found, int):
                return found
            paths = found
        return paths

    def _fitted(self, paths: Paths, term: int, most: int, last: int | None, weight: Matrix) -> Paths | int:
        """Return the paths with the turns of a stay such that at most so many iterations of it are there.

        `last` is what its begin must not exceed, where it may.
        """
        stays, demand = self.terms.stays, self.terms.demand
        why = self._without(int(stays.moments[term]), term, (most + 1) * int(stays.registers[term]))
        begin = int(stays.begins[term])
        if last is not None:
            end = int(np.argmin(self.highest[stays.ends[term]] - stays.later[term]))
            one, other = self.terms.ends[begin]
            ends = (last + 1) * (demand.high if last >= -1 else demand.low) - int(self.terms.before[begin])
            because = why | self.why_high(int(stays.ends[term, end])) | stays.whose[term][end]
            found = paths.raised(other, one, -ends, because)
            if isinstance(found, int):
                weight[begin] += 1
                return found
            paths = found
        for at, end in enumerate(stays.ends[term].tolist()):
            first = int(self.lowest[begin]) - most + int(stays.later[term, at])
            if first > self.lowest[end]:
                begun = first * (demand.low if first >= 0 else demand.high) + int(self.terms.after[end])
                one, other = self.terms.ends[end]
                found = paths.raised(one, other, begun, why | self.why_low(begin) | stays.whose[term][at])
                if isinstance(found, int):
                    weight[end] += 1
                    return found
                paths = found
        return paths

    def _crowded(self, moment: int) -> int:
        """Return the decisions after which there are too many registers at a moment."""
        return self._without(moment, NO_TERM, 0)

    def _without(self, moment: int, own: int, more: int) -> int:
        """Return the decisions after which there is no room at a moment for so many registers besides other stays.

        Stays not needed for it are left out, the latest decided first.
        """
        terms = [(decisions, taken) for term, decisions, taken in self._there(moment) if term != own]
        spare = sum(taken for _, taken in terms) + more - int(self.terms.stays.rooms[moment]) - 1
        why = 0 if self.terms.stays.groups[moment] == NO_GROUP else self.terms.room_rests_on
        for decisions, taken in sorted(terms, reverse=True):
            if decisions and taken <= spare:
                spare -= taken
            else:
                why |= decisions
        return why

    def _there(self, moment: int) -> list[tuple[int, int, int]]:
        """Return every stay that is there at a moment: the decisions that make it so, and its registers."""
        stays, found = self.terms.stays, list[tuple[int, int, int]]()
        for term in np.flatnonzero(stays.moments == moment).tolist():
            over = self.highest[stays.ends[term]] - stays.later[term]
            last = int(np.argmin(over))
            count = int(self.lowest[stays.begins[term]]) - int(over[last])
            if count > 0:
                why = self.why_low(int(stays.begins[term])) | self.why_high(int(stays.ends[term, last]))
                found.append((term, why | stays.whose[term][last], count * int(stays.registers[term])))
        return found

    def _file_full(self, there: Matrix) -> int:
        """Return the decisions after which all groups together exceed the file."""
        why = EVERY_CLASS
        for group in {one for one in self.terms.stays.groups.tolist() if one >= 0}:
            inside = np.where(self.terms.stays.groups == group, there, -1)
            for _, decisions, _ in self._there(int(np.argmax(inside))):
                why |= decisions
        return why
