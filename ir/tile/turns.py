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

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from treadle.ir.tile.assignments import COUNTED, Needs, assignments
from treadle.ir.tile.orders import core, is_whole, orders, whole
from treadle.ir.tile.turn_basis import CLASS_BITS, DEEPEST, Basis, Demand
from treadle.ir.tile.turn_search import Effort, Search, SearchTooLong
from treadle.ir.tile.turn_terms import Terms
from treadle.ir.tile.warps import WarpLoop

PARTIAL_NODES = 20
"""Nodes after which an assignment of some operations is left to those of more."""
LONGEST_PAUSE = 64
"""Questions that are left out at most after one in vain."""
LESSENING = 2
"""Nodes of all questions about fewer classes, over those of the refutation."""
FEWER_NODES = 4
"""Nodes beyond those of a refutation that fewer classes may take."""
WHOLE_NODES = 2_000
WHOLE_FACTOR = 4
"""Nodes of an assignment of all operations before others are asked about, and how many times more it has after them."""

PAUSE_PART = 4
"""What a pause is divided by after one that was not in vain."""

MOST_SORTED = 300
"""Assignments of a walk that are drawn before the first of them is asked about."""

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
    memory: Memory | None = None,
) -> Found | None:
    """Return the first assignment to groups with starts at an interval, None where there is none in a whole range.

    Args:
        warps: the loop.
        low: first interval of the range.
        high: last interval of the range.
        most: levels, as `assignments` has them, that are kept within.
        effort: nodes that may be visited.
        apart: as in `Demand`; None is then no refutation.
        memory: what other questions about the same interval left; without, nothing is known of them.

    Raises:
        WalkTooLong: there are too many assignments.
        SearchTooLong: the effort does not do.
    """
    registers = most.get("registers", warps.limits.registers_per_group)
    demand = Demand(low, high, registers, most.get("length"), apart)
    memory = Memory() if memory is None else memory
    few = _Drawn(_cheapest_first(assignments(warps, high, most, from_ii=low)))
    for question in _questions(warps, demand, most.get("traffic_bytes"), effort, memory):
        found = _first(question, few.again() if question.ordered else _assignments(warps, question, most))
        if found is not None:
            return found
    return None


@dataclass(frozen=True, slots=True)
class Memory:
    """What questions about one interval leave to later ones: how often turns failed, and assignments without starts."""

    weights: tuple[Weights, Weights] = field(default_factory=lambda: ({}, {}))
    """Of the loop and of its core."""
    refuted: dict[tuple[tuple[str, int], ...], set[tuple[int, ...]]] = field(
        default_factory=dict[tuple[tuple[str, int], ...], set[tuple[int, ...]]]
    )
    """By order of the full unit: groups of all operations, up to names, without starts of any length and registers."""


@dataclass(frozen=True, slots=True)
class _Question:
    """A demand under one order of the full unit: what is known of the loop, and of its core where that is smaller."""

    whole: _Refuted
    core: _Refuted | None
    without: set[tuple[int, ...]]
    """Groups that are known to have no starts."""
    every: bool
    """Whether what is refuted here has no starts of any length and registers."""

    @property
    def quick(self) -> _Refuted:
        """What is asked first."""
        return self.core or self.whole

    @property
    def ordered(self) -> bool:
        """Whether it is about one of several orders."""
        return bool(self.whole.basis.demand.slots)

    def searched(self, groups: dict[str, int], nodes: int) -> tuple[int, ...] | None:
        """Return starts over groups, first of the core; None where there are none, raises SearchTooLong."""
        if self.core is not None and self.core.searched(groups, nodes) is None:
            return None
        return self.whole.searched(groups, nodes)


def _questions(
    warps: WarpLoop, demand: Demand, most_bytes: int | None, effort: Effort, memory: Memory
) -> Iterator[_Question]:
    """Yield one question for each order of the full unit at an interval, one alone for a range of intervals."""
    if demand.low < demand.high:
        yield _Question(_Refuted(Basis.of(warps, demand), effort), None, set(), every=False)
        return
    every, small = whole(warps, demand.low, most_bytes), core(warps, demand.low, most_bytes)
    smaller = demand.most_cycles is None and not demand.apart and not is_whole(warps, small)
    loose = demand.most_cycles is None and demand.most_registers >= warps.limits.registers_per_group
    for order in orders(warps, demand.low):
        one = replace(demand, slots=order.slots)
        yield _Question(
            _Refuted(Basis.of(every, one), effort, memory.weights[0]),
            _Refuted(Basis.of(small, one, movable=True), effort, memory.weights[1]) if smaller else None,
            memory.refuted.setdefault(order.slots, set()),
            every=loose and not demand.apart,
        )


@dataclass(slots=True)
class _Drawn:
    """Assignments that are drawn from a walk once, for all orders of a full unit."""

    more: Iterator[Needs]
    found: list[Needs] = field(default_factory=list[Needs])

    def again(self) -> Iterator[Needs]:
        """Yield all of them, from the first one on."""
        at = 0
        while True:
            if at == len(self.found):
                drawn = next(self.more, None)
                if drawn is None:
                    return
                self.found.append(drawn)
            yield self.found[at]
            at += 1


def _cheapest_first(walk: Iterator[Needs]) -> Iterator[Needs]:
    """Yield what a walk yields, those of less traffic, fewer barriers and groups first among the first ones.

    So the first with starts is the least in all three, and what comes before it need not be asked about again.
    """
    first = list(islice(walk, MOST_SORTED))
    yield from sorted(first, key=lambda needs: [needs.levels[name] for name in COUNTED])
    yield from walk


def _assignments(warps: WarpLoop, question: _Question, most: dict[str, int]) -> Iterator[Needs]:
    """Yield the assignments that neither a walk nor few nodes refute on its way."""
    demand = question.whole.basis.demand
    early = question.quick.early
    return assignments(warps, demand.high, most, from_ii=demand.low, refutes=early, large_first=True)


def _first(question: _Question, given: Iterable[Needs]) -> Found | None:
    """Return the first assignment with starts: of the core, then of the whole loop."""
    if question.ordered and question.quick.nowhere():
        return None
    left: Iterable[dict[str, int]] = (needs.groups for needs in given)
    nodes = WHOLE_NODES
    while True:
        later: list[dict[str, int]] = []
        for groups in left:
            pattern = _pattern(list(groups.values()))
            if pattern in question.without:
                continue
            try:
                found = question.searched(groups, nodes)
            except SearchTooLong:
                question.quick.effort.spend()
                later.append(groups)
                continue
            if found is not None:
                return Found(groups, found)
            if question.every:
                question.without.add(pattern)
        if not later:
            return None
        left, nodes = later, nodes * WHOLE_FACTOR


@dataclass(slots=True)
class _Pause:
    """How many questions of a kind are left out: twice as many after each in vain, fewer after others."""

    length: int = 0
    left: int = 0

    def over(self) -> bool:
        """Whether to ask; one that is left out is counted."""
        self.left -= 1
        return self.left < 0

    def after(self, found: bool) -> bool:
        """Return what came of a question, by which the next pause goes."""
        self.length = self.length // PAUSE_PART if found else min(LONGEST_PAUSE, 2 * self.length + 1)
        self.left = self.length
        return found


@dataclass(frozen=True, slots=True)
class _Refuted:
    """What is known of assignments to groups: which classes together, in groups like those, have no schedule."""

    basis: Basis
    effort: Effort
    weights: Weights = field(default_factory=dict[tuple[int, int, int, int], float])
    """How often turns failed."""
    known: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=list[tuple[tuple[int, ...], tuple[int, ...]]]
    )
    """Positions of classes, and groups of theirs up to names."""

    partial: _Pause = field(default_factory=_Pause)
    fewer: _Pause = field(default_factory=_Pause)
    """When to ask about assignments of some operations, and about fewer classes of what is refuted."""
    like: list[int] = field(default_factory=list[int])
    """Starts of the assignment of some operations that was found last: often those of one more keep to them."""

    def early(self, groups: dict[str, int]) -> bool:
        """Whether few nodes refute the assignment of some operations, whatever the groups of all others are.

        Raises SearchTooLong where no node is left: the rest of the walk would be for nothing.
        """
        if self.effort.left <= 0:
            raise SearchTooLong
        own = self._own(groups)
        if self._covered(own):
            return True
        if len(own) == len(self.basis.home):
            return False
        begun = self.effort.left
        if not (self.partial.over() and self.partial.after(self._refuted({**self._nowhere(), **own}, PARTIAL_NODES))):
            return False
        self._lessen(own, begun - self.effort.left)
        return True

    def nowhere(self) -> bool:
        """Whether few nodes refute all assignments at once."""
        return self._refuted(self._nowhere(), PARTIAL_NODES)

    def _own(self, groups: dict[str, int]) -> dict[str, int]:
        """Return the groups of the operations that are left in the loop, and so of all that must share one with them.

        Where few bytes are handed over, more must stay together than in the walk.
        """
        found: dict[str, int] = {}
        for names in self.basis.classes:
            home = next((groups[name] for name in names if name in groups), None)
            if home is not None:
                found |= dict.fromkeys(names, home)
        return found

    def _refuted(self, groups: dict[str, int], nodes: int) -> bool:
        """Whether so many nodes refute an assignment."""
        try:
            return self._within(groups, nodes) is None
        except SearchTooLong:
            return False

    def _within(self, groups: dict[str, int], nodes: int) -> tuple[int, ...] | None:
        """Return starts over groups, None where there are none; raises SearchTooLong where so many nodes do not do."""
        own = replace(self.effort, left=min(nodes, self.effort.left))
        given = own.left
        try:
            return self._asked(groups, own)
        finally:
            self.effort.left -= given - own.left

    def _nowhere(self) -> dict[str, int]:
        """Return the assignment of no operation at all."""
        return {name: -number for number, names in enumerate(self.basis.classes, start=1) for name in names}

    def searched(self, groups: dict[str, int], nodes: int) -> tuple[int, ...] | None:
        """Return starts over groups, or None, with the classes that it rests on remembered.

        What took long to refute is asked about again with fewer classes in groups, so that it need not be asked about
        for each of their groups. Raises SearchTooLong where so many nodes do not do, or where none is left at all.
        """
        groups = self._own(groups)
        if self._covered(groups):
            return None
        given = self.effort.left
        found = self._within(groups, nodes)
        taken = given - self.effort.left
        alone = found is not None or bool(self.basis.demand.slots)
        if not alone and (taken <= PARTIAL_NODES or not self._refuted(self._nowhere(), taken)):
            self._lessen(groups, taken)
        return found

    def _lessen(self, groups: dict[str, int], nodes: int) -> None:
        """Look for fewer classes whose groups refute the assignment refuted last: one less each, small ones first."""
        nowhere = self._nowhere()
        cycles = {issue.operation: issue.issue_cycles for issue in self.basis.warps.issues}
        if not self.fewer.over():
            return
        which, end = list(self.known[-1][0]), self.effort.left - LESSENING * nodes
        classes = len(which)
        for at in sorted(which, key=lambda at: sum(cycles[name] for name in self.basis.classes[at])):
            if at not in which or self.effort.left <= end:
                continue
            placed = {name: groups[name] for other in which if other != at for name in self.basis.classes[other]}
            if self._refuted({**nowhere, **placed}, nodes + FEWER_NODES):
                fewer = self.known.pop()
                self.known[-1] = fewer
                which = list(fewer[0])
        self.fewer.after(2 * len(which) <= classes)

    def _asked(self, groups: dict[str, int], effort: Effort) -> tuple[int, ...] | None:
        search = Search(Terms(self.basis, groups), effort, self.weights, self.like)
        try:
            found = search.run()
        finally:
            self.weights.update(search.weights())
        if isinstance(found, tuple):
            self.like[:] = found
            return found
        homes = [groups[names[0]] for names in self.basis.classes]
        bits = found >> (DEEPEST + 1)
        which = tuple(at for at, home in enumerate(homes) if home >= 0 and bits >> (at % CLASS_BITS) & 1)
        self.known.append((which, _pattern([homes[at] for at in which])))
        return None

    def _covered(self, groups: dict[str, int]) -> bool:
        homes = [groups.get(names[0], -1) for names in self.basis.classes]
        for which, pattern in self.known:
            own = [homes[at] for at in which]
            if min(own, default=0) >= 0 and _pattern(own) == pattern:
                return True
        return False


def _pattern(homes: list[int]) -> tuple[int, ...]:
    """Return groups, named by their first appearance."""
    return tuple(homes.index(home) for home in homes)
