"""A schedule at some interval where the search at the bound finds none: found longer, packed, then closed in on.

Nothing here proves anything: the interval that comes of it is feasible, and the bound stays what it was.
"""

from __future__ import annotations

from collections.abc import Callable

from treadle.solvers.pipeline.attempts import varied_schedule
from treadle.solvers.pipeline.closing import Found, bisected
from treadle.solvers.pipeline.compaction import compacted
from treadle.solvers.pipeline.frugal import frugal_schedule
from treadle.solvers.pipeline.search import Search, searched, whole_schedule
from treadle.solvers.pipeline.turning import turned

GROWTH = 1.3
"""Factor between intervals at which a first schedule is looked for."""
RUNG_SHARE = 0.12
"""Share of the limit for one of them; every one gets it, whatever was spent before, since there must be a schedule."""
RUNG_NODES = 1_000
"""Nodes of the search over turns that comes before."""
CLOSING_SHARE = 0.25
"""Share of the limit for shorter intervals than that of the first schedule."""
CLOSE_PART = 64
"""Intervals closer than this part of each other are as good."""
HELD_SHARE = 0.25
"""Share of the limit for the first interval of all, over the groups of a schedule that comes close to it."""


def any_interval(first: Search, low: int, last: int, tell: Callable[[str], None]) -> Found | None:
    """Return a schedule at the least interval of `low` to `last` that short attempts find; None if they find none."""
    bound, found = low, _first(first, low, last, tell)
    if found is None:
        return None
    found = bisected(first, low, found, tell)
    first.budget.slice(CLOSING_SHARE)
    while found.ii - low > max(1, low // CLOSE_PART) and not first.budget.over:
        middle = (low + found.ii) // 2
        tell(f"interval {middle}: below {found.ii}, which has a schedule")
        closer = _at(first, middle, low)
        if closer is None:
            low = middle
        else:
            found = closer
    first.budget.slice(None)
    return _held(first, bound, found, tell)


def _held(first: Search, bound: int, found: Found, tell: Callable[[str], None]) -> Found:
    """Look once more at the bound, over the groups of a schedule whose interval is close to it."""
    if not 0 < found.ii - bound <= max(1, bound // CLOSE_PART):
        return found
    tell(f"interval {bound}: over the groups of {found.ii}")
    first.budget.extend(HELD_SHARE)
    search = searched(first.warps, first.network, bound, first.budget, walkable=first.walkable)
    point = whole_schedule(search, found.point.groups, HELD_SHARE).point
    first.budget.slice(None)
    return found if point is None else Found(bound, point)


def _first(first: Search, low: int, last: int, tell: Callable[[str], None]) -> Found | None:
    """Look in longer and longer intervals: there is the more room, the longer they are."""
    ii = low
    while ii < last:
        ii = min(last, int(ii * GROWTH) + 1)
        tell(f"interval {ii}: any schedule")
        first.budget.extend(RUNG_SHARE)
        found = _at(first, ii, low)
        first.budget.slice(None)
        if found is not None:
            return found
    return None


def _at(first: Search, ii: int, low: int) -> Found | None:
    search = searched(first.warps, first.network, ii, first.budget, walkable=first.walkable)
    point = turned(search, {}, RUNG_NODES).point or frugal_schedule(search) or varied_schedule(search)
    return None if point is None else Found(*compacted(first.warps, first.network, ii, point, low))
