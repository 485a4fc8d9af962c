"""A first schedule that is the least in every level before the length, in a short iteration.

Where a full unit has no orders to go through, windows of all the stages there may be are what makes a search long. An
iteration of little more than what paths say leaves short ones; an assignment that needs the least of all levels has a
schedule in one of them or, mostly, nowhere. Nothing here proves anything: the levels' bounds are those of walks.
Loops that are too large to ask the solver about have their operations placed one by one instead (`placing`).
"""

from __future__ import annotations

from treadle.solvers.pipeline.announcements import answered
from treadle.solvers.pipeline.bounds import length_bound
from treadle.solvers.pipeline.held import HELD, distinct
from treadle.solvers.pipeline.placing import placed_schedule
from treadle.solvers.pipeline.points import Point, read
from treadle.solvers.pipeline.search import Search
from treadle.solvers.pipeline.turning import too_large
from treadle.solvers.pipeline.unrolled import unrolled
from treadle.solvers.pipeline.walks import UNREACHED, survivors, walked_bound

LENGTHS = (1.25, 1.5)
"""Iterations that are tried, in parts of their bound."""
MOST_ASSIGNMENTS = 2
"""Assignments that are tried in each of them."""
SHARE = 0.05
"""Share of the limit for one question."""
ORDERED_SHARE = 0.02
"""Share of the limit for one question where a full unit has orders."""


def short_schedule(search: Search, objective: tuple[str, ...]) -> Point | None:
    """Return a schedule whose levels before the length are what walks say; None where none is found so."""
    fixed = _least_levels(search, objective)
    if too_large(search):
        return placed_schedule(search, fixed)
    every = survivors(search.warps, search.ii, fixed) if fixed else None
    if not every:
        return None
    return _shortest_first(search, every, fixed, SHARE)


def close_to_paths(search: Search, every: list[dict[str, int]], fixed: dict[str, int]) -> Point | None:
    """Return a schedule of one of few assignments in an iteration of little more than what paths say.

    It is of the whole loop, where a core says nothing of the copies that have to find room beside it, and its
    registers may be any.
    """
    return _shortest_first(search, every, fixed, ORDERED_SHARE)


def _shortest_first(search: Search, every: list[dict[str, int]], fixed: dict[str, int], share: float) -> Point | None:
    low = length_bound(search.network, search.ii).value
    for factor in LENGTHS:
        for held in distinct(search.warps, every)[:MOST_ASSIGNMENTS]:
            point = None if search.budget.over else _within(search, held.groups, fixed, int(low * factor), share)
            if point is not None:
                return point
    return None


def _least_levels(search: Search, objective: tuple[str, ...]) -> dict[str, int]:
    """Return what walks say of the levels between interval and length; nothing where one is too long."""
    fixed: dict[str, int] = {}
    for name in objective[1:] if search.walkable else ():
        if name == "length":
            break
        bound = walked_bound(search.warps, search.ii, name, fixed, UNREACHED)
        if bound is None or bound.value >= UNREACHED:
            return {}
        fixed[name] = bound.value
    return fixed


def _within(
    search: Search, groups: dict[str, int], fixed: dict[str, int], most_cycles: int, share: float
) -> Point | None:
    """Return a schedule of an assignment in an iteration of so many cycles, if the share of the limit finds one."""
    joint = unrolled(search.warps, search.ii, groups, {**fixed, "length": most_cycles})
    outcome = None if joint is None else answered(joint, search.budget.share(share), search.budget, HELD)
    return read(joint, outcome) if joint is not None and outcome is not None and outcome.solved else None
