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

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from treadle.ir.tile.assignments import assignments, classes
from treadle.ir.tile.orders import core, is_whole, orders, whole
from treadle.ir.tile.turn_search import Effort, Search, SearchTooLong
from treadle.ir.tile.turn_terms import CLASS_BITS, DEEPEST, Demand, Terms
from treadle.ir.tile.warps import WarpLoop

PARTIAL_NODES = 20
"""Nodes after which an assignment of some operations is left to those of more."""
FREE_NODES = 40
"""Nodes for assignments of some operations before any of all."""
LEAF_NODES = 40
"""Nodes that take as long as the walk takes for an assignment of all operations."""

Weights = dict[tuple[int, int, int, int], float]
"""How often turns failed, by their keys in `turn_terms.Terms`."""


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
    registers = most.get("registers", warps.limits.registers_per_group)
    demand = Demand(low, high, registers, most.get("length"), apart)
    for question in _questions(warps, demand, most.get("traffic_bytes"), effort):
        found = _first(warps, question, most)
        if found is not None:
            return found
    return None


@dataclass(frozen=True, slots=True)
class _Question:
    """A demand under one order of the full unit: what is known of the loop, and of its core where that is smaller."""

    whole: _Refuted
    core: _Refuted | None


def _questions(warps: WarpLoop, demand: Demand, most_bytes: int | None, effort: Effort) -> Iterator[_Question]:
    """Yield one question for each order of the full unit at an interval, one alone for a range of intervals."""
    if demand.low < demand.high:
        yield _Question(_Refuted(warps, demand, effort, classes(warps)), None)
        return
    every, small = whole(warps, demand.low, most_bytes), core(warps, demand.low, most_bytes)
    smaller = demand.most_cycles is None and not demand.apart and not is_whole(warps, small)
    weights: tuple[Weights, Weights] = ({}, {})
    for order in orders(warps, demand.low):
        one = replace(demand, slots=order.slots)
        yield _Question(
            _Refuted(every, one, effort, classes(every), weights=weights[0]),
            _Refuted(small, one, effort, classes(small), movable=True, weights=weights[1]) if smaller else None,
        )


def _first(warps: WarpLoop, question: _Question, most: dict[str, int]) -> Found | None:
    """Return the first assignment with starts: of the core, then of the whole loop."""
    demand, quick = question.whole.demand, question.core or question.whole
    for needs in assignments(warps, demand.high, most, from_ii=demand.low, refutes=quick.early):
        if question.core is not None and question.core.searched(needs.groups) is None:
            continue
        found = question.whole.searched(needs.groups)
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
    movable: bool = False
    """Whether parts of the loop may be moved by whole intervals against each other."""
    known: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=list[tuple[tuple[int, ...], tuple[int, ...]]]
    )
    """Positions of classes, and groups of theirs up to names."""

    weights: Weights = field(default_factory=dict[tuple[int, int, int, int], float])
    """How often turns failed."""
    spent: list[int] = field(default_factory=lambda: [FREE_NODES, 0])
    """Nodes of questions about whole assignments and of those that refuted more, and of others that were in vain."""

    def early(self, groups: dict[str, int]) -> bool:
        """Whether few nodes refute the assignment of some operations, whatever the groups of all others are.

        Raises SearchTooLong where no node is left: the rest of the walk would be for nothing.
        """
        if self.effort.left <= 0:
            raise SearchTooLong
        own = self._own(groups)
        if self._covered(own):
            return True
        if len(own) == len(self.warps.issues):
            return False
        return self._refuted({**self._nowhere(), **own}, PARTIAL_NODES)

    def _own(self, groups: dict[str, int]) -> dict[str, int]:
        """Return the groups of the operations that are left in the loop."""
        return {issue.operation: groups[issue.operation] for issue in self.warps.issues if issue.operation in groups}

    def _refuted(self, groups: dict[str, int], nodes: int) -> bool:
        """Whether so many nodes refute an assignment of some operations; not asked where that was in vain too often."""
        own = Effort(min(nodes, self.effort.left, self.spent[0] - self.spent[1]))
        given, refuted = own.left, False
        if given <= 0:
            return False
        try:
            refuted = self._asked(groups, own) is None
        except SearchTooLong:
            pass
        finally:
            self.effort.left -= given - own.left
            self.spent[0 if refuted else 1] += given - own.left
        return refuted

    def _nowhere(self) -> dict[str, int]:
        """Return the assignment of no operation at all."""
        return {name: -number for number, names in enumerate(self.classes, start=1) for name in names}

    def searched(self, groups: dict[str, int]) -> tuple[int, ...] | None:
        """Return starts over groups, or None, with the classes that it rests on remembered; raises SearchTooLong.

        What took long to refute is asked about again with fewer classes in groups, so that it need not be asked about
        for each of their groups.
        """
        given, groups = self.effort.left, self._own(groups)
        found = self._asked(groups, self.effort)
        nodes = given - self.effort.left
        self.spent[0] += nodes + LEAF_NODES
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
        search = Search(Terms(self.warps, groups, self.demand, movable=self.movable), effort, self.weights)
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
