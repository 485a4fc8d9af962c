"""A quick try at a schedule at one interval: whether a tile keeps the pace that its bounds allow."""

from __future__ import annotations

from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.network import network_of
from treadle.solvers.pipeline.attempts import quick_schedule
from treadle.solvers.pipeline.budget import QUESTIONS, Budget
from treadle.solvers.pipeline.points import warp_schedule
from treadle.solvers.pipeline.search import any_schedule, searched
from treadle.solvers.pipeline.solve import Options, cheapest

SHARE = 0.2
"""Share of the limit that is spent on all assignments to groups together."""


def schedule_at(warps: WarpLoop, ii: int, limits: Limits) -> WarpSchedule | None:
    """Return a schedule over warp groups at an interval; None when a short search finds none.

    The cheapest assignments to groups are tried first, then any. `limits` are as of a whole solve.
    """
    network = network_of(warps.loop)
    search = searched(warps, network, ii, Budget.of(limits), walkable=True)
    answer = cheapest(search, Options(limits))
    if answer is None or answer.point is None:
        answer = quick_schedule(search)
    if answer.point is None:
        answer = any_schedule(search, None, SHARE / QUESTIONS)
    return None if answer.point is None else warp_schedule(warps, network, ii, answer.point)
