"""What a proof log has to refute for a claim about a loop over warp groups, whose assignment to groups is given.

With the groups given, crossings have their delays, and what one group issues is one after the other: a problem of times
alone. Of registers it holds what is simple: every value for its least cycles, and pairs of values that do not fit
together kept apart. So it has more solutions than there are schedules, and refuting it says more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from treadle.ir.proof_log.problem import Problem, Term
from treadle.ir.tile.assignments import assignments
from treadle.ir.tile.constraints import arcs
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.refutation import Draft, draft
from treadle.ir.tile.register_peaks import Reach
from treadle.ir.tile.warps import WarpLoop


def questions(warps: WarpLoop, ii: int, decided: dict[str, int], level: str, bound: int) -> list[Problem]:
    """Return what has to be refuted for `level` to be at least `bound` at `ii`, given the levels decided before.

    One problem for each assignment to groups that counting leaves with a lesser value of the level (`assignments`);
    those that paths or values alone refute are left out.

    Raises:
        WalkTooLong: there are too many assignments.
    """
    limits = warps.limits
    most = {**decided, level: bound - 1}
    longest = limits.most_stages * ii - 1 + max(operation.latency_cycles for operation in warps.loop.operations)
    cycles, registers = most.get("length", longest), most.get("registers", limits.registers_per_group)
    problems = (
        shorter_over_groups(warps, needs.groups, ii, cycles, registers) for needs in assignments(warps, ii, most)
    )
    return [problem for problem in problems if problem is not None]


def shorter_over_groups(
    warps: WarpLoop, groups: dict[str, int], ii: int, most_cycles: int, most_registers: int
) -> Problem | None:
    """Return the problem of a schedule at interval `ii` over the given groups, no longer than `most_cycles`.

    `most_registers` are those of any group without a role, the fixed ones included. Returns None where paths alone
    leave no start to some operation, or values alone need more registers. Raises InvalidValue as `refutation.shorter`.
    """
    loop = crossed_loop(warps, groups)
    found = draft(loop, ii, most_cycles)
    if found is None:
        return None
    roles = {groups[issue.operation] for issue in warps.issues if issue.role}
    for group in sorted(set(groups.values())):
        _add_issue(found, warps, groups, group)
    stays = _stays(warps, loop, groups, ii)
    for group in sorted(set(groups.values()) - roles):
        if not _add_registers(found, warps, stays[group], most_registers - warps.limits.fixed_registers):
            return None
    return found.problem


def crossed_loop(warps: WarpLoop, groups: dict[str, int]) -> Loop:
    """Return the loop with the delays of crossings between groups added to its dependences."""
    dependences = list(warps.loop.dependences)
    for crossing in warps.crossings:
        ends = dependences[crossing.dependence]
        if groups[ends.source] != groups[ends.target]:
            delayed = replace(ends, delay_cycles=ends.delay_cycles + crossing.delay_cycles)
            dependences[crossing.dependence] = delayed
    return replace(warps.loop, dependences=tuple(dependences))


def _add_issue(found: Draft, warps: WarpLoop, groups: dict[str, int], group: int) -> None:
    """Let the group issue one operation at a time modulo the interval: every issue twice, at its slot and one later."""
    issued = [issue for issue in warps.issues if groups[issue.operation] == group and issue.issue_cycles]
    if len(issued) < 2:
        return
    slots = [found.slot(warps.loop.index[issue.operation]) for issue in issued]
    again = [Term(slot.variable, 1, slot.offset + found.ii) for slot in slots]
    cycles = [issue.issue_cycles for issue in issued]
    found.problem.cumulative([*slots, *again], [*cycles, *cycles], 1)


@dataclass(frozen=True, slots=True)
class Stay:
    """A stay of a value in registers, from the start of an operation until the ends: (operation, cycles after it)."""

    begin: str
    ends: tuple[tuple[str, int], ...]
    least_cycles: int
    registers: int


def _stays(warps: WarpLoop, loop: Loop, groups: dict[str, int], ii: int) -> dict[int, list[Stay]]:
    """Return the stays of values in every group's registers, with what longest paths make them at least."""
    reach = Reach(warps, list(arcs(loop)), ii)
    stays: dict[int, list[Stay]] = {group: [] for group in set(groups.values())}
    for value in warps.values:
        home, producer = groups[value.producer], value.producer
        ends = [(producer, 0)]
        least = 0
        for reader in value.readers:
            if groups[reader.operation] != home:
                ends.append((producer, value.handoff_cycles))
                held = reader.hold_cycles
                visit = Stay(reader.operation, ((reader.operation, held),), held, value.registers)
                stays[groups[reader.operation]].append(visit)
                least = max(least, value.handoff_cycles)
                continue
            after = reader.hold_cycles + ii * reader.distance
            ends.append((reader.operation, after))
            if (path := reach(producer, reader.operation)) is not None:
                least = max(least, path + after)
        stays[home].append(Stay(producer, tuple(dict.fromkeys(ends)), least, value.registers))
    return stays


def _add_registers(found: Draft, warps: WarpLoop, stays: list[Stay], room: int) -> bool:
    """Keep the stays of one group within `room` modulo the interval; False where whole intervals overfill it alone.

    Every stay counts for its least cycles; two that do not fit together keep apart for as long as they really last
    (those that may last no cycle at all are left out).
    """
    ii, index = found.ii, warps.loop.index
    partial = [stay for stay in stays if stay.least_cycles % ii]
    left = room - sum(stay.least_cycles // ii * stay.registers for stay in stays)
    if left < max((stay.registers for stay in partial), default=0):
        return False
    lasting = [stay for stay in stays if stay.least_cycles]
    for position, first in enumerate(lasting):
        for second in lasting[position + 1 :]:
            if first.registers + second.registers > room:
                _keep_apart(found, index, first, second)
    if sum(stay.registers for stay in partial) > left:
        slots = [found.slot(index[stay.begin]) for stay in partial]
        again = [Term(slot.variable, 1, slot.offset + ii) for slot in slots]
        cycles, registers = [stay.least_cycles % ii for stay in partial], [stay.registers for stay in partial]
        found.problem.cumulative([*slots, *again], [*cycles, *cycles], left, [*registers, *registers])
    return True


def _keep_apart(found: Draft, index: dict[str, int], first: Stay, second: Stay) -> None:
    """Some whole number of intervals moves the second stay between the ends of the first and its next beginning."""
    ii = found.ii
    begins = [found.windows[index[stay.begin]] for stay in (first, second)]
    earliest_ends = [
        max(found.windows[index[name]][0] + after for name, after in stay.ends) for stay in (first, second)
    ]
    least = -((begins[1][1] - earliest_ends[0]) // ii)
    most = (begins[0][1] + ii - earliest_ends[1]) // ii
    moved = found.problem.variable(least, max(least, most))
    if least > most:
        found.problem.at_most([moved], least - 1)
    for one, other, sign, limit in ((first, second, -1, 0), (second, first, 1, ii)):
        begin = found.starts[index[other.begin]]
        for name, after in one.ends:
            end = found.starts[index[name]]
            terms = [Term(moved.variable, sign * ii)]
            if end.variable == begin.variable:
                found.problem.at_most(terms, limit - after)
            else:
                found.problem.at_most([end, Term(begin.variable, -1), *terms], limit - after)
