"""Schedules and refutations by the search over turns (`ir.tile.turns`), which a checker repeats without a solver."""

from __future__ import annotations

from dataclasses import dataclass, field

from treadle.ir.certificate import ProofKind
from treadle.ir.tile.assignments import WalkTooLong
from treadle.ir.tile.turn_search import MOST_NODES, Effort, SearchTooLong
from treadle.ir.tile.turns import Memory, first_found
from treadle.ir.tile.warps import check_warps
from treadle.solvers.interruption import requested
from treadle.solvers.modulo.bounds import Bound
from treadle.solvers.pipeline.points import Point, value_at, warp_schedule
from treadle.solvers.pipeline.search import Search
from treadle.solvers.pipeline.symmetry import half_turn

INTERVAL_NODES = 12_000
"""Nodes of a question about an interval."""
CHEAPEST_NODES = 2_000
"""Nodes of the question for a schedule with the least traffic there may be, which keeps most operations together."""
LEVEL_NODES = 3_000
"""Nodes of a question about a level."""
HALF_TURN_NODES = 400
"""Nodes of a question with equal sub-tiles half an interval apart."""
RANGE_NODES = 2_500
"""Nodes of a question about a range of intervals, where nothing is known of the intervals before."""
RANGE_FACTOR = 2
"""Nodes of a question about a range over those that refuted what is before it: often hardly more are needed."""
FIRST_PART = 8
"""The first range is this part of the interval it begins with."""
WIDENING = 2
"""A range is wider by this part of the one before that was refuted."""
NARROWING = 3
"""What a range that is not refuted is divided by."""
CLAIM_NODES = 15_000
"""Nodes of all ranges that are refuted, before the last one: a checker repeats them, with twice as many at most."""
SMALL_SIZE = 24
"""Operations up to which levels are asked for by turns in one way, whether a full unit has several orders or not."""
FULL_SIZE = 48
"""Operations up to which a question has all its nodes."""
LARGEST = 72
"""Operations beyond which nothing is asked: closing all paths once takes as long as a question to the solver."""
MOST_STEPS = 256
"""Ranges that are asked about."""


@dataclass(slots=True)
class Stoppable(Effort):
    """Effort that ends early when the user asks for an end."""

    def spend(self) -> None:
        """Count one node."""
        if requested():
            raise SearchTooLong
        Effort.spend(self)


@dataclass(frozen=True, slots=True)
class Turned:
    """What came of a question: a schedule, that there is none, or neither."""

    point: Point | None = None
    refuted: bool = False


def ordered(search: Search) -> bool:
    """Whether a full unit has several orders, each of them a question of its own."""
    return any(len(case.order.slots) > 2 for case in search.frame.cases)


def too_large(search: Search) -> bool:
    """Whether the loop has more operations than the search over turns is for."""
    return len(search.warps.loop.operations) > LARGEST


def turned(search: Search, most: dict[str, int], nodes: int) -> Turned:
    """Look for a schedule at the search's interval whose levels keep within `most`.

    Questions about levels know what those before them left. One about the interval alone does not: a checker that
    repeats all of them in one claim has no more nodes than they took.

    Of two equal sub-tiles one may run half an interval after the other, which is tried first where no order of a full
    unit says when they run.
    """
    if too_large(search):
        return Turned()
    pairs = {} if ordered(search) else half_turn(search.warps)
    if pairs:
        index = search.warps.loop.index
        apart = tuple((index[name], index[other], search.ii // 2) for name, other in pairs.items())
        answer = _asked(search, most, min(nodes, HALF_TURN_NODES), apart)
        if answer.point is not None:
            return answer
    return _asked(search, most, nodes, ())


def _asked(search: Search, most: dict[str, int], nodes: int, apart: tuple[tuple[int, int, int], ...]) -> Turned:
    warps, network, ii = search.warps, search.network, search.ii
    effort = _effort(search, nodes)
    begun = effort.left
    try:
        kept = most and not apart
        memory = search.memories.setdefault(ii, Memory()) if kept else Memory()
        found = first_found(warps, ii, ii, most, effort, apart, memory)
    except (WalkTooLong, SearchTooLong):
        return Turned()
    finally:
        search.budget.nodes -= begun - effort.left
    if found is None:
        return Turned(refuted=not apart)
    point = Point(found.starts, found.groups)
    legal = not check_warps(warps, warp_schedule(warps, network, ii, point))
    within = legal and all(value_at(warps, network, ii, name, point) <= value for name, value in most.items())
    return Turned(point if within else None)


def refuted_range(search: Search, low: int, high: int, nodes: int) -> bool:
    """Whether no interval from `low` to `high` has a schedule, all of them refuted at once."""
    if too_large(search):
        return False
    effort = _effort(search, nodes)
    begun = effort.left
    try:
        return first_found(search.warps, low, high, {}, effort) is None
    except (WalkTooLong, SearchTooLong):
        return False
    finally:
        search.budget.nodes -= begun - effort.left


def _effort(search: Search, nodes: int) -> Effort:
    """Return the nodes of a question, the fewer the larger the loop: paths are closed over all pairs, often."""
    size = len(search.warps.loop.operations)
    return Stoppable(min(int(nodes * min(1.0, (FULL_SIZE / size) ** 3)), MOST_NODES, search.budget.nodes))


@dataclass(slots=True)
class Ranges:
    """Ranges of intervals, each refuted at once, without a gap; nodes that refute them, which a checker visits too."""

    passed: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    nodes: int = 0
    width: int = 0
    """Of the range to ask about next; 0 before the first."""
    latest: int = 0
    """Nodes of the latest refutation."""
    patience: int = 0
    """Ranges to be refuted before a wider one is asked about: twice as many after each that was not refuted."""

    def extend(self, search: Search, low: int, last: int) -> int:
        """Refute ranges from `low` upwards, the wider the better; return the first interval that is left."""
        self.width = max(1, self.width or low // FIRST_PART)
        waited = 0
        for _ in range(MOST_STEPS):
            if low > last or search.budget.nodes <= 0 or self.nodes >= CLAIM_NODES:
                break
            high, before = min(last, low + self.width - 1), search.budget.nodes
            if refuted_range(search, low, high, max(RANGE_NODES, RANGE_FACTOR * self.latest)):
                self.add(low, high, before - search.budget.nodes)
                low, waited = high + 1, waited + 1
                if waited > self.patience:
                    self.width, waited = self.width + max(1, self.width // WIDENING), 0
            elif self.width == 1:
                break
            else:
                self.width, waited = max(1, (high - low + 1) // NARROWING), 0
                self.patience = 2 * self.patience + 1
        return low

    def add(self, low: int, high: int, nodes: int) -> None:
        """Add a range that is refuted."""
        self.passed.append((low, high))
        self.nodes += nodes
        self.latest = nodes


def refuted_below(ii: int, most: dict[str, int], value: int) -> Bound:
    """Return the bound that a search over turns leaves."""
    evidence = {"interval": ii, "most": dict(most), "refuted": value - 1, "turns": True}
    return Bound(value, ProofKind.ENUMERATION, evidence)
