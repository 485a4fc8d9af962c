"""Announcements of results to other groups, slots of handoffs: asked for only where a solution without breaks them.

A group announces a result in order with all else it issues (`Crossing.announced`), so not within the issue of another
operation. Leaving that out gives more solutions than there are schedules: what has none without has none with it, and
bounds hold. Few solutions break it, and stating it costs a slot for every result, so it is stated when one does. The
same goes for the slots that a handoff has beyond the fewest (`warps.handoff_slots`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from ortools.sat.python import cp_model

from treadle.ir.certificate import Status
from treadle.ir.tile.constraints import free_bytes
from treadle.ir.tile.schedule import Schedule, lifetime_cycles
from treadle.ir.tile.warps import crosses, handed_cycle, handoff_slots
from treadle.solvers.backend import Limits, Outcome, solve
from treadle.solvers.pipeline.budget import Budget
from treadle.solvers.pipeline.model import Joint
from treadle.solvers.pipeline.points import read

Tuning = Mapping[str, bool | int | float]


def answered(joint: Joint, limits: Limits, budget: Budget, tuning: Tuning) -> Outcome:
    """Solve a model, once more with what was left out where the solution breaks it; the best of all bounds holds."""
    left = [(_announced_in_time, add_announcements), (_handed_in_room, add_handoff_slots)]
    outcome, bounds = budget.charge(solve(joint.cp, limits, tuning=tuning)), list[float]()
    while outcome.solved:
        broken = [(kept, state) for kept, state in left if not kept(joint, outcome)]
        if not broken:
            break
        for rule in broken:
            rule[1](joint)
            left.remove(rule)
        bounds += [] if outcome.bound is None else [outcome.bound]
        outcome = budget.charge(solve(joint.cp, limits, tuning=tuning))
    if outcome.status is Status.INFEASIBLE or not bounds:
        return outcome
    return replace(outcome, bound=max([*bounds, *([] if outcome.bound is None else [outcome.bound])]))


def _announced_in_time(joint: Joint, outcome: Outcome) -> bool:
    """Whether no group is handed a result before it is announced."""
    warps, (made, groups) = joint.warps, _times(joint, outcome)
    return all(
        made.start_cycles[warps.loop.dependences[crossing.dependence].target]
        >= handed_cycle(warps, made, groups, crossing)
        for crossing in warps.crossings
        if crossing.announced and crosses(warps, groups, crossing)
    )


def _handed_in_room(joint: Joint, outcome: Outcome) -> bool:
    """Whether handoffs have room in as many slots as they need beside the rings, which are as shallow as can be."""
    warps, loop, (made, groups) = joint.warps, joint.warps.loop, _times(joint, outcome)
    memory = warps.limits.handoff_memory
    rings = sum(
        ring.slot_bytes * max(1, -(-lifetime_cycles(ring, made) // made.ii_cycles))
        for ring in loop.rings
        if ring.memory == memory
    )
    used = sum(handoff.slot_bytes * slots for handoff, slots in handoff_slots(warps, made, groups).items())
    return not used or rings + used <= free_bytes(loop, memory)


def _times(joint: Joint, outcome: Outcome) -> tuple[Schedule, dict[str, int]]:
    """Return starts as a schedule that lacks all else, and groups."""
    point = read(joint, outcome)
    starts = {operation.name: start for operation, start in zip(joint.warps.loop.operations, point.starts, strict=True)}
    return Schedule(joint.warps.loop.name, joint.base.ii, starts, 0, {}), point.groups


def add_handoff_slots(joint: Joint) -> None:
    """Give whatever is handed over the slots that its readers ask for, within the memory that rings leave."""
    warps, loop, ii = joint.warps, joint.warps.loop, joint.base.ii
    memory, free = warps.limits.handoff_memory, free_bytes(warps.loop, warps.limits.handoff_memory)
    used: list[cp_model.LinearExpr] = []
    for handoff in warps.handoffs:
        slots = joint.cp.new_int_var(0, max(0, free // handoff.slot_bytes), f"slots of {handoff.source}")
        for position, crossed in joint.crossed.items():
            ends = loop.dependences[warps.crossings[position].dependence]
            if ends.source == handoff.source:
                cycles = joint.start(ends.target) - joint.start(ends.source) + warps.limits.release_cycles
                room = ii * (slots - handoff.behind)
                joint.cp.add(room >= cycles - handoff.ready_cycles).only_enforce_if(crossed)
                joint.cp.add(slots >= handoff.least_slots).only_enforce_if(crossed)
        used.append(handoff.slot_bytes * slots)
    rings = [ring.slot_bytes * joint.base.depths.get(ring.name, 1) for ring in loop.rings if ring.memory == memory]
    joint.cp.add(sum(used) + sum(rings) <= free)


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
