"""Announcements of results to other groups: asked for only where a solution without them breaks them.

A group announces a result in order with all else it issues (`Crossing.announced`), so not within the issue of another
operation. Leaving that out gives more solutions than there are schedules: what has none without has none with it, and
bounds hold. Few solutions break it, and stating it costs a slot for every result, so it is stated when one does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from ortools.sat.python import cp_model

from treadle.ir.certificate import Status
from treadle.ir.tile.schedule import Schedule
from treadle.ir.tile.warps import crosses, handed_cycle
from treadle.solvers.backend import Limits, Outcome, solve
from treadle.solvers.pipeline.budget import Budget
from treadle.solvers.pipeline.model import Joint
from treadle.solvers.pipeline.points import read

Tuning = Mapping[str, bool | int | float]


def answered(joint: Joint, limits: Limits, budget: Budget, tuning: Tuning) -> Outcome:
    """Solve a model, once more with announcements where the solution breaks them; the better of both bounds holds."""
    outcome = budget.charge(solve(joint.cp, limits, tuning=tuning))
    if not outcome.solved or _kept(joint, outcome):
        return outcome
    add_announcements(joint)
    again = budget.charge(solve(joint.cp, limits, tuning=tuning))
    bounds = [found.bound for found in (outcome, again) if found.bound is not None]
    if again.status is Status.INFEASIBLE or not bounds:
        return again
    return replace(again, bound=max(bounds))


def _kept(joint: Joint, outcome: Outcome) -> bool:
    """Whether no group is handed a result before it is announced."""
    warps, point = joint.warps, read(joint, outcome)
    starts = {operation.name: start for operation, start in zip(warps.loop.operations, point.starts, strict=True)}
    made = Schedule(warps.loop.name, joint.base.ii, starts, 0, {})
    return all(
        starts[warps.loop.dependences[crossing.dependence].target] >= handed_cycle(warps, made, point.groups, crossing)
        for crossing in warps.crossings
        if crossing.announced and crosses(warps, point.groups, crossing)
    )


def add_announcements(joint: Joint) -> None:
    """Let every result that may cross be announced at some moment outside of all issues, and wait for that."""
    loop = joint.warps.loop
    results: dict[tuple[str, int], list[int]] = defaultdict(list)
    for position in joint.crossed:
        crossing = joint.warps.crossings[position]
        if crossing.announced:
            ends = loop.dependences[crossing.dependence]
            results[ends.source, ends.delay_cycles].append(position)
    slots: dict[str, list[cp_model.IntVar]] = defaultdict(list)
    for (source, ready), positions in results.items():
        slots[source].append(_announced(joint, source, ready, positions))
    for group in range(joint.warps.limits.most_groups):
        _add_between_issues(joint, group, slots)


def _announced(joint: Joint, source: str, ready: int, positions: list[int]) -> cp_model.IntVar:
    """Add the moment at which a result is announced, and what waits for it; return its slot."""
    cp, ii, loop = joint.cp, joint.base.ii, joint.warps.loop
    longest = max((issue.issue_cycles for issue in joint.warps.issues), default=0)
    wait = cp.new_int_var(0, max(0, longest - 1), f"announcement of {source} waits")
    slot = cp.new_int_var(0, ii - 1, f"announcement of {source}")
    turn = cp.new_int_var(0, joint.stages + (ready + longest) // ii + 2, "")
    cp.add(joint.start(source) + ready + wait == ii * turn + slot)
    for position in positions:
        crossing = joint.warps.crossings[position]
        ends = loop.dependences[crossing.dependence]
        handed = joint.start(source) + ready + wait + crossing.delay_cycles - ii * ends.distance
        cp.add(joint.start(ends.target) >= handed).only_enforce_if(joint.crossed[position])
    return slot


def _add_between_issues(joint: Joint, group: int, slots: dict[str, list[cp_model.IntVar]]) -> None:
    """Let no announcement of a group lie within an issue, modulo the interval: it takes no time, but has its place."""
    ii, intervals = joint.base.ii, list[cp_model.IntervalVar]()
    for issue in joint.warps.issues:
        inside = joint.inside.get((issue.operation, group))
        if inside is None:
            continue
        taken = [(slot, 0) for slot in slots.get(issue.operation, ())]
        taken += [(joint.slot(issue.operation), issue.issue_cycles)] if issue.issue_cycles else []
        for slot, cycles in taken:
            for shift in (0, ii):
                interval = joint.cp.new_optional_fixed_size_interval_var(slot + shift, cycles, inside, "announced")
                intervals.append(interval)
    if intervals:
        joint.cp.add_no_overlap(intervals)
