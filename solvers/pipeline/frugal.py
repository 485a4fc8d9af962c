"""A first schedule of a loop whose assignments are too many to go through: few groups and little traffic first.

Few groups that hand few bytes over keep most operations together, so few assignments keep within both, and each of them
is soon asked about by the search over turns (`ir.tile.turn_search`). Nothing here proves anything, and no limit is
spent: where nothing else has found a schedule, this is what a solve ends with, also when it was asked to end.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from treadle.ir.tile.assignments import WalkTooLong, assignments
from treadle.ir.tile.turn_basis import Basis, Demand
from treadle.ir.tile.turn_search import Effort, SearchTooLong
from treadle.ir.tile.turn_search import Search as TurnSearch
from treadle.ir.tile.turn_terms import Terms
from treadle.ir.tile.warps import WarpLoop, check_warps
from treadle.solvers.pipeline.points import Point, warp_schedule
from treadle.solvers.pipeline.search import Search

NODES = 6_000
"""Nodes at an interval."""
MOST_ASSIGNMENTS = 60
"""Assignments that are asked about at an interval."""
MOST_OF_A_STEP = 12
"""Of those, how many with the same limits of groups and traffic."""
WALK_NODES = 3_000
"""Partial assignments that are looked at for a step."""
FACTOR = 4
"""Between the bytes of steps."""


def frugal_schedule(search: Search) -> Point | None:
    """Return a schedule at the search's interval with little traffic, None where few nodes find none."""
    left = Effort(NODES)
    for groups in islice(_frugal(search.warps, search.ii), MOST_ASSIGNMENTS):
        point = _scheduled(search, groups, left)
        if point is not None or not left.left:
            return point
    return None


def _frugal(warps: WarpLoop, ii: int) -> Iterator[dict[str, int]]:
    """Yield assignments that no bound refutes, each once: by groups, then by traffic."""
    known: set[tuple[int, ...]] = set()
    for groups in range(len(warps.roles) + 1, warps.limits.most_groups + 1):
        for traffic in _ladder(warps):
            try:
                most = {"groups": groups, "traffic_bytes": traffic}
                found = list(islice(assignments(warps, ii, most, most_nodes=WALK_NODES), MOST_OF_A_STEP))
            except WalkTooLong:
                break
            for needs in found:
                key = tuple(needs.groups.values())
                if key not in known:
                    known.add(key)
                    yield needs.groups


def _ladder(warps: WarpLoop) -> Iterator[int]:
    """Yield no traffic, the least that anything takes, and multiples of it until everything may be handed over."""
    sizes = [crossing.bytes for crossing in warps.crossings if crossing.bytes and crossing.allowed]
    yield 0
    most = min(sizes, default=0)
    while 0 < most < sum(sizes):
        yield most
        most *= FACTOR
    if sizes:
        yield sum(sizes)


def _scheduled(search: Search, groups: dict[str, int], left: Effort) -> Point | None:
    """Return a schedule over groups, if few nodes find one: as many as there are pairs of operations to be ordered."""
    warps, ii = search.warps, search.ii
    terms = Terms(Basis.of(warps, Demand(ii, ii, warps.limits.registers_per_group)), groups)
    effort = Effort(min(left.left, len(warps.loop.operations) ** 2 // 2))
    left.left -= effort.left
    try:
        starts = TurnSearch(terms, effort, {}).run()
    except SearchTooLong:
        return None
    finally:
        left.left += effort.left
    if not isinstance(starts, tuple):
        return None
    point = Point(starts, groups)
    return None if check_warps(warps, warp_schedule(warps, search.network, ii, point)) else point
