"""A first schedule that is the least in every level before the length, in a short iteration.

Where a full unit has no orders to go through, windows of all the stages there may be are what makes a search long. An
iteration of little more than what paths say leaves short ones; an assignment that needs the least of all levels has a
schedule in one of them or, mostly, nowhere. Nothing here proves anything: the levels' bounds are those of walks.
Loops that are too large to ask the solver about have their operations placed one by one instead (`placing`).
"""

from __future__ import annotations

from treadle.solvers.modulo import model as modulo
from treadle.solvers.pipeline.announcements import answered
from treadle.solvers.pipeline.bounds import length_bound
from treadle.solvers.pipeline.framed import add_iteration, assemble_case, framed_whole
from treadle.solvers.pipeline.model import fix_groups
from treadle.solvers.pipeline.placing import placed_schedule
from treadle.solvers.pipeline.points import Point, read
from treadle.solvers.pipeline.search import Search, state_levels
from treadle.solvers.pipeline.turning import too_large
from treadle.solvers.pipeline.walks import UNREACHED, survivors, walked_bound

LENGTHS = (1.25, 1.5)
"""Iterations that are tried, in parts of their bound."""
MOST_ASSIGNMENTS = 2
"""Assignments that are tried in each of them."""
SHARE = 0.1
"""Share of the limit for one question."""


def short_schedule(search: Search, objective: tuple[str, ...]) -> Point | None:
    """Return a schedule whose levels before the length are what walks say; None where none is found so."""
    fixed = _least_levels(search, objective)
    if too_large(search):
        return placed_schedule(search, fixed)
    every = survivors(search.warps, search.ii, fixed) if fixed else None
    if not every:
        return None
    low = length_bound(search.network, search.ii).value
    for factor in LENGTHS:
        for groups in every[:MOST_ASSIGNMENTS]:
            point = None if search.budget.over else _within(search, groups, fixed, int(low * factor))
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


def _within(search: Search, groups: dict[str, int], fixed: dict[str, int], most_cycles: int) -> Point | None:
    """Return a schedule of an assignment in an iteration of so many cycles, if the share of the limit finds one."""
    frame = framed_whole(search.warps, search.ii, fixed.get("traffic_bytes"), fixed.get("registers"), most_cycles)
    for case in frame.cases:
        joint = assemble_case(frame, case)
        fix_groups(joint, groups)
        state_levels(search, joint, fixed)
        add_iteration(joint, most_cycles)
        outcome = answered(joint, search.budget.share(SHARE), search.budget, modulo.TUNING)
        if outcome.solved:
            return read(joint, outcome)
    return None
