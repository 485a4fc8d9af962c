"""A shorter interval from how a schedule runs: what queues and barriers make of it, taken as orders and packed.

A warp program keeps the order of every group and leaves the rest to its units, first come first served. Where a
schedule is not the tightest, its program runs ahead of it; the orders it settles in are packed (`compaction`) and are a
schedule again. Nothing here proves anything.
"""

from __future__ import annotations

from collections.abc import Callable

from treadle.ir.tile.warps import WarpSchedule
from treadle.solvers.pipeline.closing import Found
from treadle.solvers.pipeline.compaction import in_orders
from treadle.solvers.pipeline.points import Point, warp_schedule
from treadle.solvers.pipeline.search import Search

Observe = Callable[[WarpSchedule], tuple[int, dict[str, int]] | None]
"""How a schedule runs: cycles from one iteration to the next, and starts in one of them; None where that is no pace."""
MOST_ROUNDS = 4
"""How often a schedule is run and packed."""


def as_observed(first: Search, found: Found, least: int, observe: Observe) -> Found:
    """Return the schedule that runs of the given one lead to, at an interval of `least` or more."""
    for _ in range(MOST_ROUNDS):
        made = warp_schedule(first.warps, first.network, found.ii, found.point)
        seen = observe(made) if found.ii > least else None
        if seen is None or seen[0] >= found.ii:
            break
        starts = tuple(seen[1][operation.name] for operation in first.warps.loop.operations)
        point = Point(starts, found.point.groups)
        packed = in_orders(first.warps, first.network, seen[0], point, least, found.ii)
        if packed is None:
            break
        found = Found(*packed)
    return found
