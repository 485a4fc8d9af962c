"""Short attempts at a first schedule over all starts: for loops whose full unit has too many orders to go through."""

from __future__ import annotations

from treadle.ir.certificate import Status
from treadle.solvers.backend import SolverReport
from treadle.solvers.modulo import model as modulo
from treadle.solvers.pipeline.announcements import answered
from treadle.solvers.pipeline.assemble import add_half_turn, assemble
from treadle.solvers.pipeline.points import Point, read
from treadle.solvers.pipeline.search import TUNING, Answer, Search
from treadle.solvers.pipeline.symmetry import half_turn

SHORT_HORIZONS = (1, 2)
"""Intervals beyond the longest path that are tried before all the stages there may be."""
VARIED_HORIZONS = (1, 2, 0)
QUICK = (0.002,)
THOROUGH = (0.01, 0.03)
"""Shares of the limit that one attempt gets, round by round."""
LAST_SHARE = 0.05
VARIED = (0.01, 0.02)
"""Shares of the limit of attempts that vary horizon and tuning as well."""


def quick_schedule(search: Search) -> Answer:
    """Ask for any schedule in few intervals, two equal sub-tiles half an interval apart, for a short while."""
    return _attempts(search, QUICK)


def thorough_schedule(search: Search) -> Answer:
    """Ask for any schedule in rounds of growing effort; only all stages, asked last, can refute.

    The time to a first schedule is heavy-tailed, so several small attempts beat one long one.
    """
    answer = _attempts(search, THOROUGH)
    if answer.point is not None:
        return answer
    joint = assemble(search.warps, search.network, search.ii, None)
    outcome = answered(joint, search.budget.share(LAST_SHARE), search.budget, TUNING)
    point = read(joint, outcome) if outcome.solved else None
    return Answer(point, None, None, outcome.status, outcome.report)


def varied_schedule(search: Search) -> Point | None:
    """Ask for any schedule in every way there is, each for a short while: what one way misses another finds at once."""
    halves = (False, True) if half_turn(search.warps) else (False,)
    ways = [
        (intervals, turned, half, tuning)
        for intervals in VARIED_HORIZONS
        for turned in (False, True)
        for half in halves
        for tuning in (modulo.TUNING, TUNING)
    ]
    for share in VARIED:
        for way in list(ways):
            if search.budget.over:
                return None
            intervals, turned, half, tuning = way
            joint = assemble(search.warps, search.network, search.ii, intervals, turned=turned)
            if half:
                add_half_turn(joint)
            outcome = answered(joint, search.budget.share(share), search.budget, tuning)
            if outcome.solved:
                return read(joint, outcome)
            if outcome.status is Status.INFEASIBLE:
                ways.remove(way)
    return None


def _attempts(search: Search, rounds: tuple[float, ...]) -> Answer:
    warps, budget = search.warps, search.budget
    halves = (True, False) if half_turn(warps) else (False,)
    open_ = [(intervals, turned, half) for half in halves for intervals in SHORT_HORIZONS for turned in (True, False)]
    report: SolverReport | None = None
    for share in rounds:
        for attempt in [] if budget.over else list(open_):
            joint = assemble(warps, search.network, search.ii, attempt[0], turned=attempt[1])
            if attempt[2]:
                add_half_turn(joint)
            outcome = answered(joint, budget.share(share), budget, TUNING)
            report = outcome.report
            if outcome.solved:
                return Answer(read(joint, outcome), None, None, Status.FEASIBLE, report)
            if outcome.status is Status.INFEASIBLE:
                open_.remove(attempt)
    return Answer(None, None, None, Status.UNKNOWN, report)
