"""Whether a loop has any schedule over given groups: a search over turns, short enough for a checker to repeat.

Two operations of one unit (or issued by one group) keep apart modulo the interval: s_j - s_i lies in
[n * ii + d_i, (n + 1) * ii - d_j] for one integer `n`, the *turns* between them. How many iterations of a value are
there at some moment, and how many slots a ring needs, are such integers as well. With all of them given, what is left
are differences of starts, which longest paths decide. So turns are what is branched on, and between branches all
longest paths are kept closed: the size of the interval never counts. Of a dead end the search knows which decisions led
to it, and goes back to the last of those; of a refuted assignment it knows which classes' groups matter, and no other
assignment that puts those in the same way is asked about.

A range of intervals is refuted at once where every difference is taken at the end of the range that asks for less.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from treadle.ir.tile.assignments import assignments, classes
from treadle.ir.tile.turn_search import Effort, Search, SearchTooLong
from treadle.ir.tile.turn_terms import CLASS_BITS, DEEPEST, Demand, Terms
from treadle.ir.tile.warps import WarpLoop

PARTIAL_NODES = 20
"""Nodes after which an assignment of some operations is left to those of more."""


@dataclass(frozen=True, slots=True)
class Found:
    """An assignment to groups, and starts over it that nothing considered here forbids."""

    groups: dict[str, int]
    starts: tuple[int, ...]


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
    refuted = _Refuted(warps, demand, effort, classes(warps))
    for needs in assignments(warps, high, most, from_ii=low, refutes=refuted.early):
        found = refuted.searched(needs.groups)
        if found is not None:
            return Found(needs.groups, found)
    return None


@dataclass(frozen=True, slots=True)
class _Refuted:
    """What is known of assignments to groups: which classes together, in groups like those, have no schedule."""

    warps: WarpLoop
    demand: Demand
    effort: Effort
    classes: tuple[tuple[str, ...], ...]
    known: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=list[tuple[tuple[int, ...], tuple[int, ...]]]
    )
    """Positions of classes, and groups of theirs up to names."""

    weights: dict[tuple[int, int, int, int], float] = field(default_factory=dict[tuple[int, int, int, int], float])
    """How often turns failed."""

    def early(self, groups: dict[str, int]) -> bool:
        """Whether few nodes refute the assignment of some operations, whatever the groups of all others are.

        Raises SearchTooLong where no node is left: the rest of the walk would be for nothing.
        """
        if self.effort.left <= 0:
            raise SearchTooLong
        if self._covered(groups):
            return True
        if len(groups) == len(self.warps.issues):
            return False
        return self._refuted({**self._nowhere(), **groups}, PARTIAL_NODES)

    def _refuted(self, groups: dict[str, int], nodes: int) -> bool:
        """Whether so many nodes refute an assignment of some operations."""
        own = Effort(min(nodes, self.effort.left))
        given = own.left
        try:
            return self._asked(groups, own) is None
        except SearchTooLong:
            return False
        finally:
            self.effort.left -= given - own.left

    def _nowhere(self) -> dict[str, int]:
        """Return the assignment of no operation at all."""
        return {name: -number for number, names in enumerate(self.classes, start=1) for name in names}

    def searched(self, groups: dict[str, int]) -> tuple[int, ...] | None:
        """Return starts over groups, or None, with the classes that it rests on remembered; raises SearchTooLong.

        What took long to refute is asked about again with fewer classes in groups, so that it need not be asked about
        for each of their groups.
        """
        given = self.effort.left
        found = self._asked(groups, self.effort)
        nodes = given - self.effort.left
        if found is None and nodes > PARTIAL_NODES:
            self._lessen(groups, nodes)
        return found

    def _lessen(self, groups: dict[str, int], nodes: int) -> None:
        """Look for fewer classes whose groups refute the assignment refuted last: none at all, then one less each."""
        nowhere = self._nowhere()
        if self._refuted(nowhere, nodes):
            return
        which = list(self.known[-1][0])
        for at in tuple(which):
            left = [other for other in which if other != at]
            placed = {name: groups[name] for other in left for name in self.classes[other]}
            if self._refuted({**nowhere, **placed}, nodes):
                which = list(self.known[-1][0])

    def _asked(self, groups: dict[str, int], effort: Effort) -> tuple[int, ...] | None:
        search = Search(Terms(self.warps, groups, self.demand), effort, self.weights)
        try:
            found = search.run()
        finally:
            self.weights.update(search.weights())
        if isinstance(found, tuple):
            return found
        homes = [groups[names[0]] for names in self.classes]
        bits = found >> (DEEPEST + 1)
        which = tuple(at for at, home in enumerate(homes) if home >= 0 and bits >> (at % CLASS_BITS) & 1)
        self.known.append((which, _pattern([homes[at] for at in which])))
        return None

    def _covered(self, groups: dict[str, int]) -> bool:
        homes = [groups.get(names[0], -1) for names in self.classes]
        for which, pattern in self.known:
            own = [homes[at] for at in which]
            if min(own, default=0) >= 0 and _pattern(own) == pattern:
                return True
        return False


def _pattern(homes: list[int]) -> tuple[int, ...]:
    """Return groups, named by their first appearance."""
    return tuple(homes.index(home) for home in homes)
