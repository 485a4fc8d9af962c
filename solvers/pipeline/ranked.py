"""Further schedules of a loop over warp groups: other assignments at the same interval, cheapest first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from treadle.ir.certificate import Certificate
from treadle.ir.tile.assignments import DECIDED, Needs, WalkTooLong, assignments
from treadle.ir.tile.warps import WarpLoop, traffic_bytes
from treadle.solvers.pipeline.solve import Options, Solution, schedule_groups

WIDER = (1.0, 1.5, 2.0, 4.0)
"""How much more traffic than the best schedule's is allowed for, step by step, until there are enough assignments."""
LEAST_STEP_BYTES = 256


def others(
    warps: WarpLoop, best: Solution, count: int, options: Options, tell: Callable[[str], None] | None = None
) -> list[Solution]:
    """Return up to `count` further schedules at the interval of the best one, each over another assignment to groups.

    They come in the order of the objective's levels that an assignment decides; assignments for which no schedule is
    found within the limits are passed over, so of these only the interval is certified.
    """
    tell = tell or (lambda _: None)
    ii = best.schedule.schedule.ii_cycles
    known = _canonical(warps, best.schedule.groups)
    found: list[Solution] = []
    for needs in _candidates(warps, ii, best, 4 * count + 4, options):
        if len(found) == count:
            break
        if _canonical(warps, needs.groups) == known:
            continue
        tell(f"interval {ii}: another assignment to {needs.levels['groups']} groups")
        made = schedule_groups(warps, ii, needs.groups, options)
        if made is not None:
            level = best.certificate["ii"]
            found.append(Solution(made, Certificate(best.certificate.problem, options.cost_model, (replace(level),))))
    return found


def _candidates(warps: WarpLoop, ii: int, best: Solution, wanted: int, options: Options) -> list[Needs]:
    traffic = traffic_bytes(warps, best.schedule.groups)
    found: list[Needs] = []
    for factor in WIDER:
        most = round(max(traffic * factor, traffic + LEAST_STEP_BYTES * (factor - 1)))
        try:
            found = list(assignments(warps, ii, {"traffic_bytes": most}))
        except WalkTooLong:
            break
        if len(found) >= wanted:
            break
    order = [name for name in options.objective if name in DECIDED]
    return sorted(found, key=lambda needs: [needs.levels[name] for name in order])


def _canonical(warps: WarpLoop, groups: dict[str, int]) -> tuple[int, ...]:
    """Return the assignment with groups numbered by first operation."""
    names: dict[int, int] = {}
    return tuple(names.setdefault(groups[issue.operation], len(names)) for issue in warps.issues)
