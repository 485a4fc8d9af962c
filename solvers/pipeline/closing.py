"""Closes in on the least interval by the search over turns alone: a schedule from above, refuted ranges from below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from treadle.solvers.pipeline.compaction import compacted
from treadle.solvers.pipeline.points import Point
from treadle.solvers.pipeline.search import Search
from treadle.solvers.pipeline.turning import CLAIM_NODES, INTERVAL_NODES, Ranges, turned

FIRST_STEP = 64
"""The first interval that is tried is longer by this part; steps double."""
CLOSING_NODES = 2_500
"""Nodes of a question for a schedule at an interval between one without and one with."""


@dataclass(frozen=True, slots=True)
class Found:
    """A schedule and its interval."""

    ii: int
    point: Point


@dataclass(frozen=True, slots=True)
class Closed:
    """Ranges of intervals that are refuted, from the first one on without a gap, and the best schedule found."""

    ranges: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    found: Found | None = None
    nodes: int = 0
    """Of the whole claim, what was refuted before with it."""


def closed_in(search: Search, low: int, last: int, spent: int, tell: Callable[[str], None], claimed: int = 0) -> Closed:
    """Look for the shortest interval of `low` to `last` with a schedule, and refute those below it.

    `spent` are the nodes that refuted the interval before, `claimed` those of what else the claim repeats.
    """
    found = _first(search, low, last, tell)
    found = None if found is None else bisected(search, low, found, tell)
    ranges, end = Ranges(nodes=claimed + spent, latest=spent), last if found is None else found.ii - 1
    while low <= end and search.budget.nodes > 0 and ranges.nodes < CLAIM_NODES:
        low = ranges.extend(search, low, end)
        if low > end:
            break
        tell(f"interval {low}: by turns alone")
        before = search.budget.nodes
        answer = turned(replace(search, ii=low), {}, INTERVAL_NODES)
        if answer.point is not None:
            return Closed(ranges.passed, Found(low, answer.point), ranges.nodes)
        if not answer.refuted:
            break
        ranges.add(low, low, before - search.budget.nodes)
        low += 1
    return Closed(ranges.passed, found, ranges.nodes)


def _first(search: Search, low: int, last: int, tell: Callable[[str], None]) -> Found | None:
    step, at = max(1, low // FIRST_STEP), low
    while at < last:
        at = min(last, at + step)
        step *= 2
        found = _at(search, at, low, tell)
        if found is not None:
            return found
    return None


def bisected(search: Search, low: int, found: Found, tell: Callable[[str], None]) -> Found:
    """Return a schedule at an interval before which none was found, from `low` on."""
    while low < found.ii:
        middle = (low + found.ii) // 2
        closer = _at(search, middle, low, tell)
        if closer is None:
            low = middle + 1
        else:
            found = closer
    return found


def _at(search: Search, ii: int, low: int, tell: Callable[[str], None]) -> Found | None:
    """Return a schedule at an interval, packed as far as its orders let it be."""
    if search.budget.nodes <= 0:
        return None
    tell(f"interval {ii}: any schedule by turns")
    point = turned(replace(search, ii=ii), {}, CLOSING_NODES).point
    return None if point is None else Found(*compacted(search.warps, search.network, ii, point, low))
